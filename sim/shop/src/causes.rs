//! What events say of where they come from. Pure functions over facts, as those of `invariants`.

use std::collections::BTreeMap;

use contract::{Event, PaymentMode, Profile, Service, reason};

use crate::facts::{Facts, Said};
use crate::invariants::found;

/// From what an event may follow; empty: from no event, but from a request or the time.
fn triggers(said: &Said) -> &'static [&'static str] {
    match &said.event {
        Event::ProductUpserted(_) | Event::OrderCreated(_) => &[],
        Event::StockReserved(_) | Event::StockFailed(_) => &["OrderCreated"],
        // In mode after_stock the later one of both.
        Event::PaymentProcessed(_) => &["OrderCreated", "StockReserved"],
        Event::OrderConfirmed(_) => &["StockReserved", "PaymentProcessed"],
        Event::OrderCancelled(e) => match e.reason.as_deref() {
            Some(reason::CUSTOMER_REQUEST | reason::DEADLINE) => &[],
            _ => &["StockFailed", "PaymentProcessed"],
        },
        Event::NotificationJob(_) => &["OrderConfirmed", "OrderCancelled"],
    }
}

fn is_resend(event: &Event) -> bool {
    matches!(event, Event::NotificationJob(job) if job.revision.is_some_and(|it| it > 1))
}

/// Why its trace or its cause is not the one that it should be, where facts tell which that is.
fn wrong_origin(facts: &Facts, created: &BTreeMap<&str, &Said>, said: &Said) -> Option<String> {
    let created = created.get(said.key.as_str())?;
    match &said.event {
        // What only time brings about is in the trace of what it ends.
        Event::OrderCancelled(e) if e.reason.as_deref() == Some(reason::DEADLINE) => {
            (said.trace != created.trace).then(|| "is not in the trace of its order".to_owned())
        }
        // The later one of both.
        Event::PaymentProcessed(_) => {
            let placed = facts.sagas.get(&said.key)?.placed.as_ref()?;
            let of_order = said.json["causationId"].as_str() == Some(created.event_id.as_str());
            if placed.mode != PaymentMode::AfterStock || !of_order {
                return None;
            }
            let is_reserved =
                |it: &&Said| it.key == said.key && matches!(it.event, Event::StockReserved(_));
            let reserved = facts.said.iter().find(is_reserved)?;
            let seen = facts.inbox.get(&Service::Payments)?;
            let waited = seen.get(&reserved.event_id)? > seen.get(&created.event_id)?;
            waited.then(|| format!("does not say that it waited for {}", reserved.place))
        }
        _ => None,
    }
}

/// When it occurred, as it says itself.
fn at(said: &Said) -> &str {
    said.json["occurredAt"].as_str().unwrap_or("")
}

/// An event's causationId is the eventId of what it followed from (saga-rules 9): an event of the same
/// key, or a request's, or a stranger's copy.
pub fn say_their_cause(facts: &Facts) -> Vec<(String, String)> {
    if facts.workload.profile() == Profile::Catalog {
        return Vec::new();
    }
    let by_id: BTreeMap<&str, &Said> =
        facts.said.iter().map(|said| (said.event_id.as_str(), said)).collect();
    let created: BTreeMap<&str, &Said> = facts
        .said
        .iter()
        .filter(|said| matches!(said.event, Event::OrderCreated(_)))
        .map(|said| (said.key.as_str(), said))
        .collect();
    let planted = |id: &str| facts.planted.iter().any(|it| it.event_id.as_deref() == Some(id));
    let mut bad = Vec::new();
    for said in facts.said.iter().chain(&facts.jobs) {
        let cause = said.json["causationId"].as_str();
        let trigger = cause.and_then(|cause| by_id.get(cause));
        let wanted = triggers(said);
        let follows = match (trigger, wanted) {
            (None, []) => true,
            // What is sent once more follows from a request.
            (None, _) if is_resend(&said.event) => true,
            (None, _) => cause.is_some_and(planted),
            (Some(trigger), wanted) => {
                trigger.key == said.key && wanted.contains(&trigger.event.kind())
            }
        };
        if let Some(trigger) = trigger.filter(|trigger| at(trigger) > at(said)) {
            let text = format!("{} occurred before {}", said.place, trigger.place);
            bad.push(found(&said.key, text));
        }
        if let Some(trigger) = trigger.filter(|trigger| trigger.trace != said.trace) {
            let text = format!("{} is not in the trace of {}", said.place, trigger.place);
            bad.push(found(&said.key, text));
        }
        if let Some(wrong) = wrong_origin(facts, &created, said) {
            bad.push(found(&said.key, format!("{} {wrong}", said.place)));
        }
        if !follows {
            let (kind, trigger) = (said.event.kind(), trigger.map(|it| it.event.kind()));
            let text = format!("{kind} {} says it follows from {cause:?}, {trigger:?}", said.place);
            bad.push(found(&said.key, text));
        }
    }
    bad
}
