//! What lists show: each row that belongs there, once, with all that it says, in the order of the list. Pure
//! functions over facts, as those of `invariants`. Never by a service's own view of a row: that is what is judged.

use chassis::{DeadLetter, Due};
use contract::Service;
use notifications_worker::rows::MailRow;
use orders::rules::Saga;
use payments::rules::{Outcome, Payment};
use query::rows::OrderRow;
use serde_json::{Value, json};

use crate::facts::Facts;
use crate::invariants::found;
use crate::visitor::{By, List, Listed};

type Bad = Vec<(String, String)>;

/// Every list shows each row that belongs there, once, as it is, and in its order.
pub fn lists_are_whole(facts: &Facts) -> Bad {
    let mut bad = Vec::new();
    for Listed { list, items, refused } in &facts.told.lists {
        let name = format!("{} of {}", list.path, list.service.name());
        bad.extend(refused.iter().map(|text| found("", format!("{name}: {text}"))));
        let mut wanted = entries(facts, list);
        // Closed letters may have been swept since.
        let sweeps = facts.workload.retention.is_some() && list.path.ends_with("state=closed");
        for item in items {
            match wanted.iter().position(|entry| says(item, entry)) {
                Some(at) => drop(wanted.swap_remove(at)),
                None if sweeps => {}
                None => bad.push(found("", format!("{name} shows {item}, and that is no row"))),
            }
        }
        bad.extend(wanted.iter().map(|row| found("", format!("{name} does not show {row}"))));
        let (field, falls) = match list.by {
            By::Nothing => continue,
            By::Rising(field) => (field, false),
            By::Falling(field) => (field, true),
        };
        let values: Vec<&str> =
            items.iter().map(|item| item[field].as_str().unwrap_or("")).collect();
        if !values.is_sorted_by(|one, next| if falls { one >= next } else { one <= next }) {
            bad.push(found("", format!("{name} is not {:?}: {values:?}", list.by)));
        }
    }
    for (order, revisions) in &facts.told.notified {
        let promised = facts.promised(order);
        if !revisions.iter().copied().eq(1..=1 + promised as u64) {
            let text = format!("notified as {revisions:?}, and {promised} more were promised");
            bad.push(found(order, text));
        }
    }
    bad
}

/// Whether an entry says all that.
fn says(item: &Value, entry: &Value) -> bool {
    entry.as_object().is_some_and(|entry| entry.iter().all(|(name, value)| item[name] == *value))
}

/// What a list is to show.
fn entries(facts: &Facts, list: &List) -> Vec<Value> {
    let (path, filter) = list.path.split_once('?').unwrap_or((list.path, ""));
    let rows: Vec<Value> = match (list.service, path) {
        (service, "/parked") => {
            let waiting = facts.waiting.iter().filter(|(it, _)| *it == service);
            waiting.map(|(_, key)| json!({ "key": key })).collect()
        }
        (service, "/dead-letters") => {
            let letters = facts.letters.get(&service).into_iter().flatten();
            // Open ones, or closed ones: no entry says that word.
            return letters
                .filter(|it| it.state.is_open() == filter.is_empty())
                .map(letter)
                .collect();
        }
        (Service::Catalog, _) => facts.products.values().map(|it| json!(it)).collect(),
        (Service::Orders, "/stubs") => {
            facts.sagas.values().filter(|saga| saga.placed.is_none()).map(stub).collect()
        }
        (Service::Orders, _) => facts.sagas.values().filter_map(order).collect(),
        (Service::Inventory, "/stock") => facts.stock.values().map(|it| json!(it)).collect(),
        (Service::Inventory, "/adjustments") => {
            facts.adjustments.iter().map(|it| json!(it)).collect()
        }
        (Service::Inventory, _) => facts.reservations.values().map(|it| json!(it)).collect(),
        (Service::Payments, _) => facts.payments.values().map(payment).collect(),
        (Service::Query, "/products") => {
            facts.shown_products.values().map(|it| json!(it.says)).collect()
        }
        (Service::Query, _) => facts.shown.values().filter_map(shown).collect(),
        (Service::NotificationsWorker, _) => {
            let mail = |(id, row): (&String, &MailRow)| {
                let mut mail = json!(row);
                mail["messageId"] = json!(id);
                mail
            };
            facts.mail_rows.iter().map(mail).collect()
        }
        (Service::NotificationsApi, _) => Vec::new(),
    };
    let Some((field, value)) = filter.split_once('=') else { return rows };
    rows.into_iter().filter(|row| row[field] == value).collect()
}

/// A letter without what may be large, and without a stranger's texts, which are cut.
fn letter(letter: &DeadLetter) -> Value {
    let mut entry = json!(letter);
    if let Value::Object(entry) = &mut entry {
        entry.retain(|name, _| {
            !["headers", "payload", "edited", "key", "eventType"].contains(&name.as_str())
        });
    }
    entry
}

fn stub(saga: &Saga) -> Value {
    json!({
        "orderId": saga.order_id,
        "since": Due::at(saga.created_at),
        "stock": saga.stock,
        "payment": saga.payment,
    })
}

fn order(saga: &Saga) -> Option<Value> {
    let placed = saga.placed.as_ref()?;
    Some(json!({
        "orderId": saga.order_id,
        "status": saga.status(),
        "stock": saga.stock,
        "payment": saga.payment,
        "cancel": saga.cancel,
        "reason": saga.reason,
        "lines": placed.lines,
        "paymentMode": placed.mode,
        "cartId": placed.cart_id,
        "amount": placed.amount,
        "currency": placed.currency,
        "createdAt": Due::at(saga.created_at),
        "deadline": saga.deadline.map(Due::at),
        "version": saga.version,
    }))
}

fn payment(payment: &Payment) -> Value {
    let (status, reason) = match &payment.outcome {
        None => (None, None),
        Some(Outcome::Success) => (Some("success"), None),
        Some(Outcome::Failure(reason)) => (Some("failure"), Some(reason)),
    };
    let order = payment.order.as_ref();
    json!({
        "orderId": payment.order_id,
        "state": payment.state,
        "status": status,
        "reason": reason,
        "amount": order.and_then(|order| order.amount),
        "paymentMode": order.map(|order| order.mode),
        "terminal": payment.terminal,
        "refused": payment.refused,
        "openItem": payment.is_open_item(),
        "createdAt": Due::at(payment.created_at),
    })
}

fn shown(row: &OrderRow) -> Option<Value> {
    let placed = row.order.placed.as_ref()?;
    Some(json!({
        "orderId": row.order_id,
        "status": row.order.status(),
        "createdAt": Due::at(placed.at),
        "cartId": placed.says.cart_id,
        "lines": placed.says.lines,
        "amount": placed.says.amount,
        "currency": placed.says.currency,
        "paymentMode": placed.says.payment_mode,
        "stock": row.order.stock,
        "payment": row.order.payment,
        "terminal": row.order.terminal,
    }))
}
