//! What must hold of the orders' rows: their deadlines, what they know, and why they were cancelled. Pure
//! functions over facts, as those of `invariants`.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::{Event, PaymentStatus, Service, reason};
use orders::rules::{Payment, Stock, Terminal};

use crate::facts::{Facts, Said};
use crate::invariants::found;
use crate::letters;
use crate::poison::Kind;
use crate::workload::{QUARRELLED, nobodys};

type Bad = Vec<(String, String)>;

/// Longest from a deadline, or from the end of the faults, to the end of an order: a session (6 s),
/// a timer's lost claim (30 s), and the way.
const ENDS_WITHIN: Duration = Duration::from_secs(45);

/// A deadline is counted from its order. No order is cancelled for it before it, and none is open long
/// after it.
pub fn deadline(facts: &Facts) -> Bad {
    let mut bad = Vec::new();
    let wait = Duration::from_millis(facts.workload.deadline_ms);
    for (id, saga) in facts.sagas.iter().filter(|(_, saga)| saga.placed.is_some()) {
        let due = saga.deadline.map(|deadline| (deadline - saga.created_at).num_milliseconds());
        if due != i64::try_from(facts.workload.deadline_ms).ok() {
            bad.push(found(id, format!("its deadline is {due:?} ms behind the order")));
        }
    }
    for id in &facts.timed {
        bad.push(found(id, "it has ended, and its deadline is still waited for"));
    }
    for answered in &facts.answered {
        let Some(id) = &answered.order_id else { continue };
        let Some(ended) = facts.ends.final_at.get(id) else { continue };
        let due = answered.asked_at + wait;
        let by_deadline = facts.sagas.get(id).and_then(|saga| saga.reason.as_deref());
        if by_deadline == Some(reason::DEADLINE) && *ended < due {
            bad.push(found(id, format!("cancelled {:?} ahead of its deadline", due - *ended)));
        }
        let latest = due.max(facts.ends.healed_at) + ENDS_WITHIN;
        if *ended > latest {
            bad.push(found(id, format!("open {:?} behind its deadline", *ended - due)));
        }
    }
    bad
}

/// What was said to Orders of each order, as far as it was handled there.
fn answers(facts: &Facts) -> BTreeMap<&str, Vec<&Said>> {
    let inbox = facts.inbox.get(&Service::Orders);
    let mut answers: BTreeMap<&str, Vec<&Said>> = BTreeMap::new();
    for said in &facts.said {
        let is_answer = match &said.event {
            Event::StockReserved(_) | Event::StockFailed(_) | Event::PaymentProcessed(_) => true,
            Event::ProductUpserted(_)
            | Event::OrderCreated(_)
            | Event::OrderConfirmed(_)
            | Event::OrderCancelled(_)
            | Event::NotificationJob(_) => false,
        };
        if is_answer && inbox.is_some_and(|ids| ids.contains_key(&said.event_id)) {
            answers.entry(&said.key).or_default().push(said);
        }
    }
    answers
}

/// What Inventory and Payments said stands in the order's row, also where it came late (saga-rules 1), and
/// is late once at most.
pub fn knows_what_was_said(facts: &Facts) -> Bad {
    let answers = answers(facts);
    let mut bad = Vec::new();
    for (id, saga) in &facts.sagas {
        for said in answers.get(id.as_str()).into_iter().flatten() {
            let known = match &said.event {
                Event::StockReserved(_) => saga.stock == Stock::Reserved,
                Event::StockFailed(_) => saga.stock == Stock::Failed,
                Event::PaymentProcessed(e) => {
                    let payment = match e.status {
                        PaymentStatus::Success => Payment::Ok,
                        PaymentStatus::Failure => Payment::Failed,
                    };
                    saga.payment == payment
                }
                Event::ProductUpserted(_)
                | Event::OrderCreated(_)
                | Event::OrderConfirmed(_)
                | Event::OrderCancelled(_)
                | Event::NotificationJob(_) => true,
            };
            if !known {
                let (stock, payment) = (saga.stock, saga.payment);
                let text = format!("{} was said: stock {stock:?}, payment {payment:?}", said.place);
                bad.push(found(id, text));
            }
        }
        if saga.late.stock > 1 || saga.late.payment > 1 {
            bad.push(found(id, format!("late more than once: {:?}", saga.late)));
        }
    }
    bad
}

/// An order is cancelled for what happened to it: its customer's wish, its deadline, or why its stock or
/// its payment failed, as Inventory or Payments put it.
pub fn cancelled_for_its_reason(facts: &Facts) -> Bad {
    let answers = answers(facts);
    let wished = |id: &str| {
        let mut orders = facts.answered.iter().filter(|it| it.order_id.as_deref() == Some(id));
        orders.any(|it| it.cancel.is_some())
    };
    let wordy = facts.workload.wordy_gateway;
    let mut bad = Vec::new();
    for (id, saga) in facts.sagas.iter().filter(|(_, it)| it.terminal == Terminal::Cancelled) {
        let reason = saga.reason.as_deref().unwrap_or("");
        let why = |said: &&Said| match &said.event {
            Event::StockFailed(e) => e.reason.as_deref().unwrap_or(reason::STOCK_FAILED) == reason,
            // Orders takes the beginning of a long one.
            Event::PaymentProcessed(e) if e.status == PaymentStatus::Failure => {
                let said = e.reason.as_deref().unwrap_or(reason::PAYMENT_FAILED);
                said == reason || !reason.is_empty() && said.starts_with(reason) && wordy
            }
            Event::PaymentProcessed(_)
            | Event::StockReserved(_)
            | Event::ProductUpserted(_)
            | Event::OrderCreated(_)
            | Event::OrderConfirmed(_)
            | Event::OrderCancelled(_)
            | Event::NotificationJob(_) => false,
        };
        let caused = match reason {
            reason::CUSTOMER_REQUEST => wished(id),
            reason::DEADLINE => true,
            _ => answers.get(id.as_str()).is_some_and(|said| said.iter().any(why)),
        };
        if !caused {
            bad.push(found(id, format!("cancelled for {reason:?}, which nobody said")));
        }
    }
    bad
}

/// Inventory takes whatever was said first of how an order ended, also where its lines come behind that.
pub fn end_of_the_quarrel(facts: &Facts) -> Option<(String, String)> {
    use inventory::rules::State;
    let id = nobodys(QUARRELLED);
    let end = letters::first_end(facts)?;
    let reservation = &facts.reservations.get(&id)?.reservation;
    let same = match reservation.state {
        State::Committed => end == Kind::Confirmed,
        State::Released | State::Tombstone => end == Kind::Cancelled,
        // Nothing was held when it ended: what comes then is taken.
        State::Pending | State::Failed => end == Kind::Confirmed || reservation.reason.is_some(),
        State::Reserved => false,
    };
    let died = facts.letters[&Service::Inventory]
        .iter()
        .any(|letter| letter.key == id && letter.code == "crash_loop");
    let state = reservation.state.name();
    (!same && !died)
        .then(|| found(&id, format!("{end:?} was said first, and its stock is {state}")))
}
