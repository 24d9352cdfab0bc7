//! Worlds in words: an order's way for snapshots, and failures as stories that end with what to do.

use std::collections::{BTreeMap, BTreeSet};

use contract::{Event, PaymentStatus};
use orders::rules::Terminal;
use sim_engine::Run;

use crate::facts::Facts;
use crate::workload::WriteOff;

/// A line or two for each order, by its name: what was decided, never when.
pub fn lines(facts: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    for answered in &facts.answered {
        let Some(id) = &answered.order_id else {
            lines.push(format!("order {:<4} answered {:?}", answered.name, answered.status));
            continue;
        };
        let Some(saga) = facts.sagas.get(id) else { continue };
        let mut way = Vec::new();
        for said in facts.said.iter().filter(|said| said.key == *id) {
            let step = match &said.event {
                Event::OrderCreated(_) => (0, "OrderCreated".to_owned()),
                Event::StockReserved(_) => (1, "StockReserved".to_owned()),
                Event::StockFailed(e) => {
                    (1, format!("StockFailed({})", e.reason.as_deref().unwrap_or("")))
                }
                Event::PaymentProcessed(e) => match e.status {
                    PaymentStatus::Success => (2, "PaymentProcessed(success)".to_owned()),
                    PaymentStatus::Failure => (2, "PaymentProcessed(failure)".to_owned()),
                },
                Event::OrderConfirmed(_) => (3, "OrderConfirmed".to_owned()),
                Event::OrderCancelled(e) => {
                    (3, format!("OrderCancelled({})", e.reason.as_deref().unwrap_or("")))
                }
                Event::ProductUpserted(_) | Event::NotificationJob(_) => continue,
            };
            if !way.contains(&step) {
                way.push(step);
            }
        }
        way.sort();
        let way: Vec<&str> = way.iter().map(|(_, step)| step.as_str()).collect();
        lines.push(format!("order {:<4} {}", answered.name, way.join(" → ")));
        let account = facts.ledger.accounts.get(&saga.order_id).cloned().unwrap_or_default();
        let stock = facts.reservations.get(id).map_or("none", |r| r.reservation.state.name());
        let end = match saga.terminal {
            Terminal::None => "open",
            Terminal::Confirmed => "confirmed",
            Terminal::Cancelled => "cancelled",
        };
        let own = format!("{id}.");
        let mail = facts.mails.keys().filter(|m| m.starts_with(&own)).count();
        let refused = facts.refused.iter().filter(|m| m.starts_with(&own)).count();
        let refused =
            if refused > 0 { format!(" · undeliverable {refused}") } else { String::new() };
        lines.push(format!(
            "           {end} · charged {} · captured {} · voided {} · stock {stock} · mails {mail}{refused}",
            account.charges, account.captures, account.voids
        ));
    }
    lines.extend(told(facts));
    lines.extend(letters(facts));
    lines
}

/// What those were told who changed products only as they had seen them, or wrote pieces off; and who
/// looked at lists.
fn told(facts: &Facts) -> Vec<String> {
    let status = |answer: &Option<(u16, serde_json::Value)>| answer.as_ref().map_or(0, |it| it.0);
    let mut products: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
    for told in facts.told.changes.iter().filter(|told| told.change.looks) {
        products.entry(&told.change.product).or_default().push(status(&told.answer));
    }
    let mut lines = Vec::new();
    for (product, mut answers) in products {
        answers.sort_unstable();
        lines.push(format!("product    {product} changed as it was seen: {answers:?}"));
    }
    let mut write_offs: Vec<String> = Vec::new();
    for told in &facts.told.write_offs {
        let WriteOff { name, product, pieces, .. } = &told.write_off;
        write_offs
            .push(format!("write-off  {name} {pieces} of {product}: {}", status(&told.answer)));
    }
    write_offs.sort();
    lines.extend(write_offs);
    match facts.told.lists.len() {
        0 => {}
        lists => lines.push(format!("lists      {lists} looked at")),
    }
    lines
}

/// What died in each service and how it was settled. What only waited is schedule, not outcome.
fn letters(facts: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    for (service, letters) in &facts.letters {
        let died = letters.iter().filter(|letter| letter.has_died());
        let ends: BTreeSet<String> =
            died.map(|letter| format!("{} {}", letter.code, letter.state.name())).collect();
        if !ends.is_empty() {
            let ends: Vec<String> = ends.into_iter().collect();
            lines.push(format!("letters    {}: {}", service.name(), ends.join(" · ")));
        }
    }
    lines
}

/// A failed world as a story, which ends with how to see its seed again.
pub fn failure(run: &Run, place: &str, only: Option<&str>) -> String {
    sim_engine::failure(run, place, &format!("cargo sim replay {}", run.seed), only)
}
