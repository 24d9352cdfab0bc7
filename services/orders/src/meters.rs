//! What Orders measures: how many sagas are open and for how long, how they end. Never decides.

use std::collections::BTreeMap;

use chassis::page::List;
use chassis::{Meter, Sample, document};
use chrono::{DateTime, TimeDelta, Utc};
use contract::reason;
use ports::{Op, Reply};

use crate::rows::{DEADLINE, SAGAS, STUB_SINCE};
use crate::rules::{Payment, Saga, Stock, Terminal};

/// Most open sagas, and most stubs, that are looked at.
const LOOKED_AT_MAX: usize = 1000;

/// Open sagas by what they wait for.
pub static SAGA_ACTIVE: Meter = Meter::gauge(
    "saga_active",
    "Open orders by what they wait for; of the 1000 whose deadline is next.",
    &["state"],
);
/// How long the oldest of them is open.
pub static SAGA_OLDEST_AGE: Meter = Meter::gauge(
    "saga_oldest_age_seconds",
    "Age of the oldest open order; 0 where there is none.",
    &[],
);
/// Facts without an order.
pub static SAGA_STUBS: Meter =
    Meter::gauge("saga_stubs", "Orders that were never placed here, by facts about them.", &[]);
/// Ends.
pub static SAGA_TERMINAL: Meter = Meter::counter(
    "saga_terminal_total",
    "Orders that ended, by how and why; reason other where it is none of the catalog's.",
    &["outcome", "reason"],
);
/// Facts that came after the question was answered.
pub static SAGA_LATE_FACT: Meter = Meter::counter(
    "saga_late_fact_total",
    "Facts that came when their question was answered or the order had ended.",
    &[],
);
/// From the order to its end.
pub static SAGA_DURATION: Meter =
    Meter::seconds("saga_duration_seconds", "From an order to its end.", &[]);

/// Prices that say they were changed in the future.
pub static PRICE_FROM_THE_FUTURE: Meter = Meter::counter(
    "price_from_the_future_total",
    "Prices taken over whose updatedAt was over five minutes ahead of the store's clock.",
    &[],
);

/// All of them.
pub static ALL: [&Meter; 7] = [
    &SAGA_ACTIVE,
    &SAGA_OLDEST_AGE,
    &SAGA_STUBS,
    &SAGA_TERMINAL,
    &SAGA_LATE_FACT,
    &SAGA_DURATION,
    &PRICE_FROM_THE_FUTURE,
];

/// What a fact changed.
pub(crate) fn changed(before: &Saga, after: &Saga, now: DateTime<Utc>) -> Vec<Sample> {
    let facts = |saga: &Saga| saga.late.stock.saturating_add(saga.late.payment);
    let late = facts(after).saturating_sub(facts(before));
    let mut samples = Vec::new();
    if late > 0 {
        samples.push(Sample::new(&SAGA_LATE_FACT, f64::from(late)));
    }
    let outcome = match after.terminal {
        Terminal::Confirmed => "confirmed",
        Terminal::Cancelled => "cancelled",
        Terminal::None => return samples,
    };
    if before.terminal == Terminal::None {
        let why = known(after.reason.as_deref());
        samples.push(Sample::labelled(&SAGA_TERMINAL, [outcome, why], 1.0));
        samples.push(Sample::new(&SAGA_DURATION, seconds(now - after.created_at)));
    }
    samples
}

/// A reason of the catalog; what a foreign service said is `other`, since it may be anything.
fn known(reason: Option<&str>) -> &'static str {
    match reason {
        None => "none",
        Some(text) => reason::ALL.into_iter().find(|known| *known == text).unwrap_or("other"),
    }
}

/// What the gauges need.
pub(crate) fn reads() -> Vec<Op> {
    let first = |column| {
        let range = List::all(column).first(LOOKED_AT_MAX);
        Op::List { table: &SAGAS, range }
    };
    vec![first(DEADLINE), first(STUB_SINCE)]
}

/// Gauges by what [`reads`] read.
pub(crate) fn gauges(read: Vec<Reply>, now: DateTime<Utc>) -> Vec<Sample> {
    let mut read = read.into_iter();
    let (Some(Reply::Listed(open)), Some(Reply::Listed(stubs))) = (read.next(), read.next()) else {
        return Vec::new();
    };
    let mut states: BTreeMap<&'static str, usize> =
        WAITS.into_iter().map(|state| (state, 0)).collect();
    let mut oldest: Option<DateTime<Utc>> = None;
    for saga in open.iter().filter_map(|(_, row)| document::<Saga>(row)) {
        *states.entry(waits_for(&saga)).or_default() += 1;
        oldest = oldest.into_iter().chain([saga.created_at]).min();
    }
    let age_s = oldest.map_or(0.0, |at| seconds(now - at));
    let active = states
        .into_iter()
        .map(|(state, count)| Sample::labelled(&SAGA_ACTIVE, [state], count as f64));
    let whole =
        [Sample::new(&SAGA_OLDEST_AGE, age_s), Sample::new(&SAGA_STUBS, stubs.len() as f64)];
    active.chain(whole).collect()
}

/// What open sagas can wait for: all shown, also those that are 0.
const WAITS: [&str; 4] = ["stock_and_payment", "stock", "payment", "nothing"];

fn waits_for(saga: &Saga) -> &'static str {
    let stock = match saga.stock {
        Stock::Pending => true,
        Stock::Reserved | Stock::Failed => false,
    };
    let payment = match saga.payment {
        Payment::Pending => true,
        Payment::Ok | Payment::Failed | Payment::NotRequired => false,
    };
    match (stock, payment) {
        (true, true) => "stock_and_payment",
        (true, false) => "stock",
        (false, true) => "payment",
        (false, false) => "nothing",
    }
}

/// Never negative: clocks may differ.
fn seconds(span: TimeDelta) -> f64 {
    span.to_std().unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_reason_is_no_label() {
        assert_eq!(known(Some(reason::DECLINED)), "declined");
        assert_eq!(known(Some("card 4711 stolen")), "other");
        assert_eq!(known(None), "none");
    }
}
