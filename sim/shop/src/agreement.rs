//! What must hold between a service's rows, what was published, what other services made of it, and
//! what customers were told. Pure functions over facts, as those of `invariants`.

use std::collections::{BTreeMap, BTreeSet};

use chassis::Due;
use chrono::{DateTime, Utc};
use contract::{
    Event, OrderCreated, PaymentMode, PaymentStatus, Profile, Service, Stream, TEXT_CHARS_MAX,
    reason, written,
};
use inventory::rules::State;
use orders::rules::{Placed, Terminal};
use serde_json::json;

use crate::facts::{Facts, Said};
use crate::invariants::found;
use crate::keeper::WriteOffTold;
use crate::nodes::declined;
use crate::poison::{Kind, Planted};
use crate::workload::{QUARRELLED, is_nobodys, nobodys};

type Bad = Vec<(String, String)>;

/// A cancel that was answered 202 is why the order was cancelled, one that was answered 200 is not: it was
/// already; and one that was answered 409 is none.
pub fn cancel_is_kept(facts: &Facts) -> Bad {
    let mut bad = Vec::new();
    for answered in &facts.answered {
        let Some(id) = &answered.order_id else { continue };
        let wished = facts
            .workload
            .orders
            .iter()
            .any(|order| order.name == answered.name && order.cancel_after_ms.is_some());
        let saga = facts.sagas.get(id);
        let end = saga.map(|saga| saga.terminal);
        let by_wish =
            saga.and_then(|saga| saga.reason.as_deref()) == Some(reason::CUSTOMER_REQUEST);
        let holds = match (wished, answered.cancel) {
            (false, _) => true,
            (true, Some(202)) => end == Some(Terminal::Cancelled) && by_wish,
            (true, Some(200)) => end == Some(Terminal::Cancelled) && !by_wish,
            (true, Some(409)) => end == Some(Terminal::Confirmed),
            (true, _) => false,
        };
        if !holds {
            bad.push(found(id, format!("a cancel was answered {:?}: {end:?}", answered.cancel)));
        }
    }
    bad
}

/// Whoever followed orders saw each of them as it is in the end, and saw changes in their order.
pub fn followed_to_the_end(facts: &Facts) -> Bad {
    let mut bad = Vec::new();
    if facts.told.ahead.is_some_and(|status| ![422, 503].contains(&status)) {
        let text = format!("a cursor ahead of every change was answered {:?}", facts.told.ahead);
        bad.push(found("", text));
    }
    for followed in &facts.followed {
        let who = followed.order_id.as_str();
        bad.extend(followed.disorder.iter().map(|text| found(who, format!("an event {text}"))));
        let of_it = facts.shown.iter().filter(|(id, _)| who.is_empty() || *id == who);
        for (id, row) in of_it {
            let seen = followed.last.get(id);
            let is = (row.changed, row.order.status().name().to_owned());
            if seen != Some(&is) {
                bad.push(found(id, format!("last seen {seen:?}, is {is:?}")));
            }
        }
    }
    bad
}

/// Each adjustment of stock that was asked for was made, and was made once; the books say why.
pub fn adjusted_as_asked(facts: &Facts) -> Bad {
    let mut asked: BTreeMap<(String, Option<String>), i64> = BTreeMap::new();
    let set_up = facts.workload.products.iter().filter_map(|it| Some((it.id.clone(), it.stock?)));
    let set_up = set_up.map(|(product, pieces)| ((product, None), pieces));
    let imports = facts.workload.imports.iter().flat_map(|import| {
        import.lines().map(|(product, delta)| ((product, Some(import.name.clone())), delta))
    });
    let done = |it: &&WriteOffTold| it.answer.as_ref().is_some_and(|(status, _)| *status == 200);
    let write_offs = facts.told.write_offs.iter().filter(done).map(|it| &it.write_off);
    let write_offs = write_offs.map(|it| ((it.product.clone(), Some(it.name.clone())), -it.pieces));
    for (why, delta) in set_up.chain(imports).chain(write_offs) {
        *asked.entry(why).or_default() += delta;
    }
    let mut bad = Vec::new();
    for (import, status) in &facts.told.imports_reused {
        if *status != Some(422) {
            let text = format!("more lines under the key of {import} were answered {status:?}");
            bad.push(found("", text));
        }
    }
    for (import, answer) in &facts.told.imports {
        let lines = answer.as_ref().and_then(|(_, body)| body["lines"].as_array());
        let refused = lines.map(|lines| {
            let refused = lines.iter().zip(0..).filter(|(line, _)| line["status"] != 200);
            refused.map(|(_, at)| at).collect::<Vec<u32>>()
        });
        if refused.as_deref() != Some(import.spoilt.as_slice()) {
            bad.push(found("", format!("{import:?} was refused in lines {refused:?}")));
        }
    }
    for why @ (product, reason) in asked.keys().chain(facts.adjusted_for.keys()) {
        let (wanted, made) = (asked.get(why), facts.adjusted_for.get(why));
        if wanted != made {
            bad.push(found(product, format!("asked for {wanted:?} ({reason:?}), made {made:?}")));
        }
    }
    bad
}

/// An order has the lines that its customer asked for, each at a price that was asked for it, and
/// the amount that follows and that the customer was told.
pub fn priced_as_offered(facts: &Facts) -> Bad {
    let mut bad = Vec::new();
    if facts.workload.profile() == Profile::Catalog {
        return bad;
    }
    let mut offered: BTreeSet<(&str, i64)> = facts
        .workload
        .products
        .iter()
        .map(|product| (product.id.as_str(), product.price))
        .collect();
    let prices = facts.workload.prices.iter().filter(|it| !it.creates);
    offered.extend(prices.filter_map(|it| Some((it.product.as_str(), it.price?))));
    let lists = facts.workload.price_lists.iter().flat_map(|list| &list.lines);
    offered.extend(lists.map(|(product, price)| (product.as_str(), *price)));
    for answered in &facts.answered {
        let Some(id) = &answered.order_id else { continue };
        let placed = facts.sagas.get(id).and_then(|saga| saga.placed.as_ref());
        let asked = facts.workload.orders.iter().find(|order| order.name == answered.name);
        let (Some(placed), Some(asked)) = (placed, asked) else { continue };
        let lines: Vec<(String, u32)> =
            placed.lines.iter().map(|line| (line.product_id.to_string(), line.qty)).collect();
        let cart = placed.cart_id.as_ref().map(ToString::to_string);
        if lines != asked.lines || placed.mode != asked.mode || cart != asked.cart() {
            bad.push(found(id, format!("asked for {asked:?}, placed {placed:?}")));
        }
        let mut sum = 0;
        for line in &placed.lines {
            let price = line.unit_price.unwrap_or(-1);
            if !offered.contains(&(line.product_id.as_str(), price)) {
                bad.push(found(id, format!("{} never cost {price}", line.product_id)));
            }
            sum += price * i64::from(line.qty);
        }
        if placed.amount != Some(sum) || answered.amount != Some(sum) {
            let (placed, told) = (placed.amount, answered.amount);
            bad.push(found(id, format!("lines of {sum}, placed {placed:?}, told {told:?}")));
        }
    }
    bad
}

/// Nothing is charged in mode `none`, in mode `after_stock` nothing without stock, and nothing for an
/// order that was known to be cancelled before its money was asked for.
pub fn charged_as_agreed(facts: &Facts) -> Bad {
    let mut bad = Vec::new();
    for (id, saga) in &facts.sagas {
        let charges = facts.ledger.accounts.get(&saga.order_id).map_or(0, |it| it.charges);
        let mode = saga.placed.as_ref().map(|placed| placed.mode);
        let stock = facts.reservations.get(id).map(|row| row.reservation.state);
        let agreed = match (mode, stock) {
            (Some(PaymentMode::Parallel), _) => true,
            // As written, an order that was placed elsewhere is paid as any other.
            (None, _) if facts.workload.as_written && is_nobodys(id) => true,
            (Some(PaymentMode::AfterStock), Some(State::Committed | State::Released)) => true,
            (Some(PaymentMode::AfterStock | PaymentMode::None) | None, _) => charges == 0,
        };
        if charges > 0 && facts.given_up.contains(id) {
            bad.push(found(id, "charged after it was known to be cancelled"));
        }
        if !agreed {
            bad.push(found(id, format!("{mode:?} with stock {stock:?}, charged {charges} times")));
        }
    }
    bad
}

/// Once the gateway has held an order's money, or declined to, that was told (saga-rules, the catalog:
/// PaymentProcessed is the payment's outcome), also where the order had ended by then.
pub fn outcome_is_told(facts: &Facts) -> Bad {
    use payments::rules::{Answer, Operation, Outcome};
    let wordy = facts.workload.wordy_gateway;
    let told_for = |why: &str| written(&declined(wordy, why), TEXT_CHARS_MAX, reason::DECLINED);
    let mut bad = Vec::new();
    for settled in facts.ledger.settled.values() {
        let outcome = match (settled.operation, &settled.answer) {
            (Operation::Authorise | Operation::Charge, Answer::Approved) => Outcome::Success,
            (Operation::Authorise | Operation::Charge, Answer::Declined(why)) => {
                Outcome::Failure(told_for(why))
            }
            (Operation::Capture | Operation::Void, _) | (_, Answer::Unknown) => continue,
        };
        let id = settled.order.as_str();
        let told = facts.payments.get(id).and_then(|payment| payment.outcome.as_ref());
        if told != Some(&outcome) {
            bad.push(found(id, format!("the gateway said {outcome:?}, told was {told:?}")));
        }
    }
    let was_declined = |id: &str, why: &str| {
        facts.ledger.settled.values().any(|settled| {
            let of_it = settled.order.as_str() == id;
            of_it && matches!(&settled.answer, Answer::Declined(said) if told_for(said) == why)
        })
    };
    for (id, payment) in facts.payments.iter().filter(|(id, _)| !is_nobodys(id)) {
        if let Some(Outcome::Failure(why)) = &payment.outcome
            && !was_declined(id, why)
        {
            bad.push(found(id, format!("told {why:?}, which the gateway never said")));
        }
    }
    // What has no amount cannot be paid (saga-rules 5).
    let unpriced = Some(Outcome::Failure(reason::PRICE_UNAVAILABLE.to_owned()));
    let default = facts.workload.profile() == Profile::Default;
    for (id, payment) in facts.payments.iter().filter(|(id, _)| default && is_nobodys(id)) {
        let known = payment.order.is_some();
        // Of what had ended before nobody asks what it costs.
        if payment.outcome.is_none() && payment.terminal.is_some() {
            continue;
        }
        if payment.outcome.as_ref() != unpriced.as_ref().filter(|_| known) {
            bad.push(found(id, format!("without an amount, and told {:?}", payment.outcome)));
        }
    }
    bad
}

/// What an event answers: it is answered once for each key.
fn question(said: &Said) -> (&str, &'static str, u64) {
    let key = said.key.as_str();
    match &said.event {
        Event::ProductUpserted(e) => (key, "product", e.product_version.unwrap_or(0)),
        Event::OrderCreated(_) => (key, "order", 0),
        Event::StockReserved(_) | Event::StockFailed(_) => (key, "stock", 0),
        Event::PaymentProcessed(_) => (key, "payment", 0),
        Event::OrderConfirmed(_) | Event::OrderCancelled(_) => (key, "end", 0),
        Event::NotificationJob(e) => (key, "notification", u64::from(e.revision.unwrap_or(1))),
    }
}

/// Each fact is published under one id, however often, and by no other event.
pub fn said_once(facts: &Facts) -> Bad {
    let mut ids: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for said in facts.said.iter().chain(&facts.jobs) {
        let unversioned =
            matches!(&said.event, Event::ProductUpserted(e) if e.product_version.is_none());
        if !unversioned {
            ids.entry(question(said)).or_default().insert(&said.event_id);
        }
    }
    ids.into_iter()
        .filter(|(_, ids)| ids.len() > 1)
        .map(|((key, what, _), ids)| found(key, format!("{what} was said under {} ids", ids.len())))
        .collect()
}

/// The versions of a product are first published in their order, each later than the one before; repeats
/// may come late.
pub fn versions_rise(facts: &Facts) -> Bad {
    let mut last: BTreeMap<&str, (u64, BTreeSet<u64>)> = BTreeMap::new();
    let mut times: BTreeMap<&str, BTreeMap<u64, DateTime<Utc>>> = BTreeMap::new();
    let mut bad = Vec::new();
    for said in &facts.said {
        let Event::ProductUpserted(event) = &said.event else { continue };
        let Some(version) = event.product_version else { continue };
        times.entry(&said.key).or_default().insert(version, event.updated_at);
        let (highest, seen) = last.entry(&said.key).or_default();
        if seen.insert(version) && version < *highest {
            let text = format!("{}: version {version} behind {highest}", said.place);
            bad.push(found(&said.key, text));
        }
        *highest = version.max(*highest);
    }
    for (product, times) in times {
        if !times.values().is_sorted_by(|one, next| one < next) {
            bad.push(found(
                product,
                format!("its versions are not one after the other: {times:?}"),
            ));
        }
    }
    bad
}

/// What each service's rows say was published, and nothing else was.
pub fn published(facts: &Facts) -> Bad {
    let as_written = facts.workload.profile() == Profile::Catalog;
    let mut wanted: BTreeSet<(String, String)> = BTreeSet::new();
    let mut want = |key: &str, what: String| {
        wanted.insert((key.to_owned(), what));
    };
    for (id, saga) in &facts.sagas {
        if let Some(placed) = &saga.placed {
            let Placed { lines, amount, currency, cart_id, mode } = placed;
            let mode = if as_written { PaymentMode::Parallel } else { *mode };
            let text = format!("created {lines:?} {amount:?} {currency:?} {cart_id:?} {mode:?}");
            want(id, text);
        }
        match saga.terminal {
            Terminal::None => {}
            Terminal::Confirmed => want(id, "confirmed".to_owned()),
            Terminal::Cancelled => {
                let reason = saga.reason.as_ref().filter(|_| !as_written);
                want(id, format!("cancelled {reason:?}"));
            }
        }
    }
    for (id, row) in &facts.reservations {
        match row.reservation.state {
            State::Reserved | State::Committed | State::Released => want(id, "reserved".to_owned()),
            State::Failed => want(id, format!("failed {:?}", row.reservation.reason)),
            State::Pending if row.reservation.is_open_item() => {
                want(id, format!("failed {:?}", row.reservation.reason));
            }
            State::Pending | State::Tombstone => {}
        }
    }
    for (id, payment) in &facts.payments {
        match &payment.outcome {
            Some(payments::rules::Outcome::Success) => want(id, "paid".to_owned()),
            Some(payments::rules::Outcome::Failure(why)) => want(id, format!("unpaid {why}")),
            None => {}
        }
    }
    for (id, product) in &facts.products {
        (1..=product.product_version).for_each(|version| want(id, format!("version {version}")));
    }
    let said: BTreeSet<(String, String)> = facts
        .said
        .iter()
        .filter(|said| !(as_written && said.stream == Stream::CatalogEvents))
        .map(|said| (said.key.clone(), words(&said.event)))
        .collect();
    if as_written {
        wanted.retain(|(_, what)| !what.starts_with("version"));
    }
    let unsaid = wanted.difference(&said).map(|(key, what)| found(key, format!("{what}: unsaid")));
    let ghosts = said
        .difference(&wanted)
        .map(|(key, what)| found(key, format!("{what}: published, and in nobody's rows")));
    unsaid.chain(ghosts).collect()
}

fn words(event: &Event) -> String {
    match event {
        Event::ProductUpserted(e) => format!("version {}", e.product_version.unwrap_or(0)),
        Event::OrderCreated(e) => {
            let mode = e.payment_mode.unwrap_or(PaymentMode::Parallel);
            let OrderCreated { lines, amount, currency, cart_id, .. } = e;
            format!("created {lines:?} {amount:?} {currency:?} {cart_id:?} {mode:?}")
        }
        Event::StockReserved(_) => "reserved".to_owned(),
        Event::StockFailed(e) => format!("failed {:?}", e.reason),
        Event::PaymentProcessed(e) => match e.status {
            PaymentStatus::Success => "paid".to_owned(),
            PaymentStatus::Failure => format!("unpaid {}", e.reason.as_deref().unwrap_or("")),
        },
        Event::OrderConfirmed(_) => "confirmed".to_owned(),
        Event::OrderCancelled(e) => format!("cancelled {:?}", e.reason.as_ref()),
        Event::NotificationJob(_) => "notification".to_owned(),
    }
}

/// Without a fault on any of its nodes, a service publishes each event once.
pub fn duplicates_have_a_cause(facts: &Facts) -> Bad {
    let mut seen = BTreeSet::new();
    let mut bad = Vec::new();
    for said in &facts.said {
        let producer = match said.stream {
            Stream::CatalogEvents => Service::Catalog,
            Stream::OrdersEvents => Service::Orders,
            Stream::InventoryEvents => Service::Inventory,
            Stream::PaymentsEvents => Service::Payments,
            Stream::NotificationsJobs => Service::NotificationsApi,
        };
        if !seen.insert(said.event_id.as_str()) && !facts.faulty.contains(&producer) {
            let text =
                format!("{} is a repeat, and nothing befell {}", said.place, producer.name());
            bad.push(found(&said.key, text));
        }
    }
    bad
}

/// The read model has each order with all that was said of it, and nothing else.
pub fn read_model(facts: &Facts) -> Bad {
    use query::rules::{Payment, Stock};
    let mut bad = Vec::new();
    let mut first: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for said in &facts.said {
        let (at, (key, facet, _)) = (said.json["occurredAt"].as_str(), question(said));
        let first = first.entry((key, facet)).or_insert(at.unwrap_or(""));
        *first = at.unwrap_or("").min(first);
    }
    for said in &facts.said {
        if said.stream == Stream::CatalogEvents {
            continue;
        }
        let Some(order) = facts.shown.get(&said.key).map(|row| &row.order) else {
            bad.push(found(&said.key, "an order that Query does not show"));
            continue;
        };
        let stock = order.stock.as_ref().map(|facet| &facet.says);
        let payment = order.payment.as_ref().map(|facet| &facet.says);
        let terminal = order.terminal.as_ref().map(|facet| &facet.says);
        let shows = match &said.event {
            Event::OrderCreated(e) => order.placed.as_ref().is_some_and(|facet| {
                let placed = &facet.says;
                let same = |(shown, line): (&query::rules::Line, &contract::Line)| {
                    (&shown.product_id, shown.qty, shown.unit_price)
                        == (&line.product_id, line.qty, line.unit_price)
                };
                placed.cart_id == e.cart_id
                    && placed.amount == e.amount
                    && placed.currency == e.currency
                    && placed.payment_mode == e.payment_mode.unwrap_or(PaymentMode::Parallel)
                    && placed.lines.len() == e.lines.len()
                    && placed.lines.iter().zip(&e.lines).all(same)
            }),
            Event::StockReserved(_) => stock == Some(&Stock::Reserved),
            Event::StockFailed(e) => stock == Some(&Stock::Failed { reason: e.reason.clone() }),
            Event::PaymentProcessed(e) => match e.status {
                PaymentStatus::Success => payment == Some(&Payment::Succeeded),
                PaymentStatus::Failure => {
                    payment == Some(&Payment::Failed { reason: e.reason.clone() })
                }
            },
            Event::OrderConfirmed(_) => terminal == Some(&query::rules::Terminal::Confirmed),
            Event::OrderCancelled(e) => {
                let reason = e.reason.clone();
                terminal == Some(&query::rules::Terminal::Cancelled { reason })
            }
            Event::ProductUpserted(_) | Event::NotificationJob(_) => true,
        };
        if !shows {
            bad.push(found(&said.key, format!("{} is not what Query shows", said.place)));
        }
        let at = match &said.event {
            Event::OrderCreated(_) => order.placed.as_ref().map(|facet| facet.at),
            Event::StockReserved(_) | Event::StockFailed(_) => {
                order.stock.as_ref().map(|facet| facet.at)
            }
            Event::PaymentProcessed(_) => order.payment.as_ref().map(|facet| facet.at),
            Event::OrderConfirmed(_) | Event::OrderCancelled(_) => {
                order.terminal.as_ref().map(|facet| facet.at)
            }
            Event::ProductUpserted(_) | Event::NotificationJob(_) => continue,
        };
        let (key, facet, _) = question(said);
        let (shown, said_at) = (at.map(Due::at), first[&(key, facet)]);
        if shown.as_deref() != Some(said_at) {
            bad.push(found(key, format!("{facet} of {said_at} is shown as of {shown:?}")));
        }
    }
    let ends: BTreeSet<Kind> =
        facts.planted.iter().map(|it| it.kind).filter(|kind| kind.is_end()).collect();
    for (id, row) in &facts.shown {
        let quarrel = *id == nobodys(QUARRELLED) && !ends.is_empty();
        let status = row.order.status().name();
        if !quarrel {
            if !facts.sagas.contains_key(id) {
                bad.push(found(id, "an order that only Query knows"));
            }
        } else if (status == "conflict") != (ends.len() > 1) {
            bad.push(found(id, format!("{ends:?} were said of it, and it is shown as {status}")));
        }
    }
    bad
}

/// Replicas of a product are as the catalog has it; of one without versions, as what was said last by its own
/// times (saga-rules 11).
pub fn one_product_everywhere(facts: &Facts) -> Bad {
    let mut bad = Vec::new();
    let versioned = facts.workload.profile() == Profile::Default;
    for (id, product) in &facts.products {
        let price = product.content.price;
        let shown = facts.shown_products.get(id).map(|shown| &shown.says);
        let same = shown.is_some_and(|shown| {
            shown.price == price
                && shown.name == product.content.name
                && shown.category_id == product.content.category_id
                && (!versioned || shown.product_version == Some(product.product_version))
        });
        if !same {
            bad.push(found(id, format!("{product:?} in Catalog, {shown:?} in Query")));
        }
        let known = facts.prices.get(id);
        if versioned && known.is_none_or(|known| known.price != price) {
            bad.push(found(id, format!("{price:?} in Catalog, {known:?} in Orders")));
        }
    }
    let strange = facts.planted.iter().filter(|it| it.kind == Kind::Unversioned);
    let rank = |it: &&Planted| (it.payload["updatedAt"].to_string(), it.event_id.clone());
    if let Some(last) = strange.max_by_key(rank) {
        let (id, price) =
            (last.payload["productId"].as_str().unwrap_or(""), &last.payload["price"]);
        let shown = facts.shown_products.get(id).map(|shown| shown.says.price);
        let known = facts.prices.get(id).map(|known| known.price).filter(|_| versioned);
        if [shown, known.or(shown)].iter().any(|it| json!(it) != *price) {
            let text = format!("last {price}, {shown:?} in Query, {known:?} in Orders");
            bad.push(found(id, text));
        }
    }
    bad
}
