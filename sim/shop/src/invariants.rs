//! What must always hold, as pure functions over the facts of a world at rest. Each has a name that
//! failures and snapshots carry; none knows how the world was run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use chassis::{DeadLetter, LetterState};
use contract::{CATALOG, Event, PaymentMode, Row, Service, Stream, reason};
use jsonschema::Validator;
use orders::rules::Terminal;
use payments::simulated::{Account, Settled};
use sim_engine::Violation;

use crate::facts::{Facts, Said};
use crate::poison::Kind;
use crate::workload::{Order, is_nobodys};
use crate::{agreement, causes, leaving, letters, lists, next, pace, sagas, told};

/// A name, and a check that says what is wrong.
type Invariant = (&'static str, fn(&Facts) -> Vec<(String, String)>);

/// All invariants, in the order in which they are judged.
pub const ALL: [Invariant; 48] = [
    ("http.accepted_is_kept", accepted_is_kept),
    ("http.cancel_is_kept", agreement::cancel_is_kept),
    ("http.followed_to_the_end", agreement::followed_to_the_end),
    ("http.changes_are_kept", told::changes_are_kept),
    ("http.books_are_told", told::books_are_told),
    ("http.lists_are_whole", lists::lists_are_whole),
    ("http.strays_find_nothing", told::strays_find_nothing),
    ("saga.ends", ends),
    ("saga.ends_once", ends_once),
    ("saga.one_end_everywhere", one_end_everywhere),
    ("saga.deadline", sagas::deadline),
    ("saga.knows_what_was_said", sagas::knows_what_was_said),
    ("saga.cancelled_for_its_reason", sagas::cancelled_for_its_reason),
    ("stock.books", stock_books),
    ("stock.adjusted_as_asked", agreement::adjusted_as_asked),
    ("stock.rejected_did_not_fit", rejected_did_not_fit),
    ("money.priced_as_offered", agreement::priced_as_offered),
    ("money.charged_as_agreed", agreement::charged_as_agreed),
    ("money.at_most_one_charge", at_most_one_charge),
    ("money.outcome_is_told", agreement::outcome_is_told),
    ("money.cancelled_holds_nothing", cancelled_holds_nothing),
    ("money.confirmed_is_captured", confirmed_is_captured),
    ("outside.no_storm", pace::no_storm),
    ("mail.one_for_each_end", mails),
    ("events.as_contracted", as_contracted),
    ("events.said_once", agreement::said_once),
    ("events.versions_rise", agreement::versions_rise),
    ("events.say_their_cause", causes::say_their_cause),
    ("events.published", agreement::published),
    ("events.duplicates_have_a_cause", agreement::duplicates_have_a_cause),
    ("events.each_handled", each_handled),
    ("events.remembered", pace::remembered),
    ("read_model.shows_what_was_said", agreement::read_model),
    ("read_model.one_product_everywhere", agreement::one_product_everywhere),
    ("dead_letters.have_a_cause", letters::have_a_cause),
    ("dead_letters.poison_is_settled", letters::poison_is_settled),
    ("dead_letters.settled_as_told", letters::settled_as_told),
    ("dead_letters.nobody_waits", letters::nobody_waits),
    ("dead_letters.ends_never_wait", letters::ends_never_wait),
    ("dead_letters.tried_when_asked", letters::tried_when_asked),
    ("dead_letters.drained_in_order", letters::drained_in_order),
    ("dead_letters.nothing_overtakes", letters::nothing_overtakes),
    ("dead_letters.void_at_the_end", letters::void_at_the_end),
    ("relay.sends_under_its_lease", leaving::sends_under_its_lease),
    ("relay.no_storm", leaving::no_storm),
    ("relay.shards_are_held", leaving::shards_are_held),
    ("offsets.behind_their_effects", leaving::offsets_follow),
    ("leaving.lets_go_at_once", leaving::lets_go_at_once),
];

/// Every violation of every invariant.
pub fn judge(facts: &Facts) -> Vec<Violation> {
    ALL.iter()
        .flat_map(|(name, check)| {
            check(facts).into_iter().map(|(about, text)| Violation::new(name, &about, text))
        })
        .collect()
}

pub(crate) fn found(about: &str, text: impl Into<String>) -> (String, String) {
    (about.to_owned(), text.into())
}

/// An order that was answered 201 exists, and each key made one order: another one under the same key
/// is refused.
fn accepted_is_kept(facts: &Facts) -> Vec<(String, String)> {
    let mut bad = Vec::new();
    let mut seen = BTreeSet::new();
    for answered in &facts.answered {
        let reuses = |order: &Order| order.name == answered.name && order.reuses_key;
        if facts.workload.orders.iter().any(reuses) && answered.reused != Some(422) {
            let text = format!("another order under its key was answered {:?}", answered.reused);
            bad.push(found(&answered.name, text));
        }
        if answered.cancel_reused.is_some_and(|status| status != 422) {
            let text =
                format!("another cancel under its key was answered {:?}", answered.cancel_reused);
            bad.push(found(&answered.name, text));
        }
        if answered.resend_reused.is_some_and(|status| status != 422) {
            let text =
                format!("another resend under its key was answered {:?}", answered.resend_reused);
            bad.push(found(&answered.name, text));
        }
        if answered.repeated == Some(false) {
            bad.push(found(&answered.name, "placed again with its key, and answered otherwise"));
        }
        match (&answered.order_id, answered.status) {
            (Some(id), _) => {
                seen.insert(id.as_str());
                if facts.sagas.get(id).is_none_or(|saga| saga.placed.is_none()) {
                    bad.push(found(id, format!("{} was accepted and is not there", answered.name)));
                }
            }
            (None, None) => bad.push(found("", format!("{} was never answered", answered.name))),
            (None, Some(status)) => {
                bad.push(found("", format!("{} was answered {status}", answered.name)));
            }
        }
    }
    bad.extend(facts.told.astray.iter().map(|text| found("", format!("a header: {text}"))));
    bad.extend(told::walk_ins_are_kept(facts));
    for (id, saga) in &facts.sagas {
        if !seen.contains(id.as_str()) && !is_nobodys(id) && !told::is_walk_ins(saga) {
            bad.push(found(id, "an order that no customer was told of"));
        }
    }
    bad
}

/// Every order is final once faults have stopped.
fn ends(facts: &Facts) -> Vec<(String, String)> {
    let open = facts.sagas.iter().filter(|(_, saga)| saga.terminal == Terminal::None);
    open.filter(|(id, _)| !is_nobodys(id))
        .map(|(id, saga)| {
            let text = format!("not final: stock {:?}, payment {:?}", saga.stock, saga.payment);
            found(id, text)
        })
        .collect()
}

/// The orders' ends as they were published, distinct.
fn published_ends(facts: &Facts) -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut ends: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    for said in &facts.said {
        let (order, end) = match &said.event {
            Event::OrderConfirmed(e) => (&e.order_id, "confirmed"),
            Event::OrderCancelled(e) => (&e.order_id, "cancelled"),
            Event::ProductUpserted(_)
            | Event::OrderCreated(_)
            | Event::StockReserved(_)
            | Event::StockFailed(_)
            | Event::PaymentProcessed(_)
            | Event::NotificationJob(_) => continue,
        };
        ends.entry(order.to_string()).or_default().insert(end);
    }
    ends
}

/// One of OrderConfirmed and OrderCancelled, never both, and only with what it takes.
fn ends_once(facts: &Facts) -> Vec<(String, String)> {
    let mut bad = Vec::new();
    for (id, ends) in published_ends(facts) {
        if ends.len() > 1 {
            bad.push(found(&id, "published as confirmed and as cancelled"));
        }
    }
    for (id, saga) in &facts.sagas {
        use orders::rules::{Payment, Stock};
        if saga.placed.is_none() && saga.terminal != Terminal::None {
            bad.push(found(id, "never placed here, and final"));
        }
        let paid = matches!(saga.payment, Payment::Ok | Payment::NotRequired);
        if saga.terminal == Terminal::Confirmed && !(saga.stock == Stock::Reserved && paid) {
            let text = format!("confirmed with stock {:?}, payment {:?}", saga.stock, saga.payment);
            bad.push(found(id, text));
        }
    }
    bad
}

/// The same end in Orders, on the log, in Inventory, in Payments and in the read model.
fn one_end_everywhere(facts: &Facts) -> Vec<(String, String)> {
    let published = published_ends(facts);
    let mut bad = Vec::new();
    for (id, saga) in &facts.sagas {
        let end = match saga.terminal {
            Terminal::None => continue,
            Terminal::Confirmed => "confirmed",
            Terminal::Cancelled => "cancelled",
        };
        if published.get(id).is_none_or(|ends| !ends.contains(end)) {
            bad.push(found(id, format!("{end} in Orders, not published so")));
        }
        let shown = facts.shown.get(id).map(|row| row.order.status().name());
        if shown != Some(end) {
            bad.push(found(id, format!("{end} in Orders, {shown:?} in Query")));
        }
        let stock = facts.reservations.get(id).map(|row| row.reservation.state.name());
        let stock_ends: &[&str] = match end {
            "confirmed" => &["committed"],
            _ => &["released", "failed", "tombstone"],
        };
        if stock.is_none_or(|state| !stock_ends.contains(&state)) {
            bad.push(found(id, format!("{end} in Orders, reservation {stock:?} in Inventory")));
        }
        // As written, Payments hears of no end.
        let paid = facts.payments.get(id).and_then(|payment| payment.terminal);
        let same = match paid {
            Some(payments::rules::Terminal::Confirmed) => end == "confirmed",
            Some(payments::rules::Terminal::Cancelled) => end == "cancelled",
            None => facts.workload.as_written,
        };
        if !same {
            bad.push(found(id, format!("{end} in Orders, {paid:?} in Payments")));
        }
    }
    bad.extend(sagas::end_of_the_quarrel(facts));
    bad
}

/// on_hand = available + reserved + committed; reserved and committed are Σ lines; nothing negative.
fn stock_books(facts: &Facts) -> Vec<(String, String)> {
    use inventory::rules::State;
    let mut reserved: BTreeMap<&str, i64> = BTreeMap::new();
    let mut committed: BTreeMap<&str, i64> = BTreeMap::new();
    // What strangers ordered, and ended or not.
    let mut held_by_strangers: BTreeMap<&str, i64> = BTreeMap::new();
    let mut sold: BTreeMap<&str, i64> = BTreeMap::new();
    for (id, row) in &facts.reservations {
        let Some(lines) = &row.reservation.lines else { continue };
        let (book, of_strangers) = match row.reservation.state {
            State::Reserved => (&mut reserved, &mut held_by_strangers),
            State::Committed => (&mut committed, &mut sold),
            State::Pending | State::Failed | State::Released | State::Tombstone => continue,
        };
        for (product, qty) in lines {
            *book.entry(product.as_str()).or_default() += qty;
            if is_nobodys(id) {
                *of_strangers.entry(product.as_str()).or_default() += qty;
            }
        }
    }
    for saga in facts.sagas.values().filter(|saga| saga.terminal == Terminal::Confirmed) {
        for line in saga.placed.iter().flat_map(|placed| &placed.lines) {
            *sold.entry(line.product_id.as_str()).or_default() += i64::from(line.qty);
        }
    }
    let mut bad = Vec::new();
    for (id, row) in &facts.stock {
        let books = row.stock;
        let sum = books.available() + books.reserved() + books.committed();
        let of = |book: &BTreeMap<&str, i64>| book.get(id.as_str()).copied().unwrap_or(0);
        let wanted = [
            ("on_hand is not available + reserved + committed", books.on_hand() == sum),
            ("reserved is not Σ reservations", books.reserved() == of(&reserved)),
            ("committed is not Σ committed reservations", books.committed() == of(&committed)),
            ("committed is not Σ lines of confirmed orders", books.committed() == of(&sold)),
            ("something stays reserved at rest", books.reserved() == of(&held_by_strangers)),
            ("something is negative", books.available() >= 0 && books.committed() >= 0),
            (
                "on_hand is not Σ adjustments",
                books.on_hand() == facts.adjusted.get(id).copied().unwrap_or(0),
            ),
        ];
        bad.extend(
            wanted
                .into_iter()
                .filter(|(_, holds)| !holds)
                .map(|(text, _)| found(id, format!("{text}: {books:?}"))),
        );
    }
    bad
}

/// Pieces of each product that were ever held for somebody.
pub(crate) fn ever_held(facts: &Facts) -> BTreeMap<&str, i64> {
    use inventory::rules::State;
    let mut held: BTreeMap<&str, i64> = BTreeMap::new();
    for row in facts.reservations.values() {
        let was_held = match row.reservation.state {
            State::Reserved | State::Committed | State::Released => true,
            State::Pending | State::Failed | State::Tombstone => false,
        };
        for (product, qty) in row.reservation.lines.iter().flatten().filter(|_| was_held) {
            *held.entry(product.as_str()).or_default() += qty;
        }
    }
    held
}

/// Whoever was rejected for want of stock did not fit beside all that was ever held for others, when no
/// more pieces were there than in the end; and a product is unknown only where it was never adjusted.
fn rejected_did_not_fit(facts: &Facts) -> Vec<(String, String)> {
    use inventory::rules::State;
    let held = ever_held(facts);
    let fits = |product: &str, qty: i64| {
        let stock = facts.adjusted.get(product).copied().unwrap_or(0);
        held.get(product).copied().unwrap_or(0) + qty <= stock
    };
    let mut bad = Vec::new();
    for (id, row) in &facts.reservations {
        let Some(lines) = &row.reservation.lines else { continue };
        if row.reservation.state == State::Failed
            && lines.iter().all(|(product, qty)| fits(product.as_str(), *qty))
        {
            bad.push(found(id, "rejected, though it fits beside all that was ever held"));
        }
        let unknown = lines.keys().any(|product| !facts.stock.contains_key(product.as_str()));
        let reason = if unknown { reason::UNKNOWN_PRODUCT } else { reason::INSUFFICIENT_STOCK };
        if row.reservation.state == State::Failed
            && row.reservation.reason.as_deref() != Some(reason)
        {
            bad.push(found(id, format!("rejected for {:?}, not {reason}", row.reservation.reason)));
        }
    }
    bad
}

/// The gateway held or took money at most once for an order.
fn at_most_one_charge(facts: &Facts) -> Vec<(String, String)> {
    let twice = facts.ledger.accounts.iter().filter(|(_, account)| account.charges > 1);
    twice
        .map(|(id, a)| {
            let text = format!("charged {} times ({} in all)", a.charges, a.authorised);
            found(id.as_str(), text)
        })
        .collect()
}

/// Orders whose held money the gateway refused to take, or to give back.
fn stuck(facts: &Facts) -> BTreeSet<&str> {
    use payments::rules::{Answer, Operation};
    let refused = |it: &&Settled| {
        matches!(it.operation, Operation::Capture | Operation::Void)
            && matches!(it.answer, Answer::Declined(_))
    };
    facts.ledger.settled.values().filter(refused).map(|it| it.order.as_str()).collect()
}

/// A cancelled order holds nothing and keeps nothing, unless the gateway refused to give it back: then that
/// is an open item.
fn cancelled_holds_nothing(facts: &Facts) -> Vec<(String, String)> {
    let stuck = stuck(facts);
    let mut bad = Vec::new();
    for (id, saga) in &facts.sagas {
        let account = facts.ledger.accounts.get(&saga.order_id);
        let Some(account) = account.filter(|_| saga.terminal == Terminal::Cancelled) else {
            continue;
        };
        let given_back = !account.is_open() && account.voided == account.authorised;
        if account.captures > 0 || !given_back && !stuck.contains(id.as_str()) {
            let text = format!(
                "cancelled ({}), but the customer's money is {}",
                saga.reason.as_deref().unwrap_or("no reason"),
                if account.captures > 0 { "taken" } else { "held" }
            );
            bad.push(found(id, text));
        }
    }
    bad
}

/// Captured = Σ amounts of confirmed orders with payment, by the gateway's books and by Payments'; and
/// nothing is left to be asked of the gateway. What it refused is an open item, and nothing else is.
fn confirmed_is_captured(facts: &Facts) -> Vec<(String, String)> {
    let stuck = stuck(facts);
    let mut bad = Vec::new();
    for (id, saga) in &facts.sagas {
        let Some(placed) = &saga.placed else { continue };
        if saga.terminal != Terminal::Confirmed || placed.mode == PaymentMode::None {
            continue;
        }
        let account = facts.ledger.accounts.get(&saga.order_id);
        let captured = account.map_or(0, |account| account.captured);
        let due = placed.amount.unwrap_or(0);
        let whole = |account: &Account| account.captures == 1 && account.held() == 0;
        let taken = due == 0 || account.is_some_and(whole);
        if (captured != due || !taken) && !stuck.contains(id.as_str()) {
            bad.push(found(id, format!("confirmed over {due}, captured {captured}")));
        }
    }
    for (id, payment) in &facts.payments {
        // What a stranger confirmed cannot be paid: it has no amount.
        let unpaid = is_nobodys(id)
            && payment.order.is_some()
            && payment.terminal == Some(payments::rules::Terminal::Confirmed);
        if payment.is_open_item() != (unpaid || stuck.contains(id.as_str())) {
            let refused = stuck.contains(id.as_str());
            bad.push(found(id, format!("refused by the gateway: {refused}, and is {payment:?}")));
        }
    }
    for (id, payment) in &facts.payments {
        if let Some(operation) = payment.wanted() {
            bad.push(found(id, format!("nobody calls the gateway to {}", operation.name())));
        }
    }
    bad
}

/// One distinct Message-ID for each final order and one for each resend that was promised, with a text that
/// says how the order ended, or an `undeliverable` mail where the mail server refuses it; and no more
/// copies than sends in doubt explain.
fn mails(facts: &Facts) -> Vec<(String, String)> {
    use notifications_worker::rules::State;
    let mut bad = Vec::new();
    let mut expected = BTreeSet::new();
    for (id, saga) in &facts.sagas {
        let (end, other) = match saga.terminal {
            Terminal::None => continue,
            Terminal::Confirmed => ("confirmed", "cancelled"),
            Terminal::Cancelled => ("cancelled", "confirmed"),
        };
        let revisions = 1 + facts.promised(id);
        for revision in 1..=revisions {
            let message_id = format!("{id}.{end}.{revision}@shakedown.invalid");
            let row = facts.mail_rows.get(&message_id);
            let undeliverable = row.is_some_and(|row| row.sending.state == State::Undeliverable);
            let refused = facts.refused.contains(&message_id);
            if undeliverable != refused {
                let text = format!("{message_id}: refused {refused}, {row:?}");
                bad.push(found(id, text));
            }
            let text = facts.mail_texts.get(&message_id);
            let tells = |text: &String| text.contains(id) && text.contains(end);
            if text.is_some_and(|text| !tells(text) || text.contains(other)) {
                bad.push(found(id, format!("{end}, and its mail says {text:?}")));
            }
            match facts.mails.get(&message_id) {
                _ if refused => {}
                None => bad.push(found(id, format!("{end}, and mail {revision} does not say so"))),
                Some(copies) => {
                    let unsure = row.map_or(0, |row| row.sending.unknown);
                    if *copies > 1 + unsure + facts.mail_doubts {
                        bad.push(found(id, format!("{copies} copies, {unsure} sends in doubt")));
                    }
                }
            }
            expected.insert(message_id);
        }
    }
    if let Some(first) = letters::first_end(facts) {
        let end = if first == Kind::Confirmed { "confirmed" } else { "cancelled" };
        let known = facts.mail_rows.keys().filter(|id| is_nobodys(id));
        expected.extend(known.filter(|id| id.contains(end)).cloned());
    }
    for answered in &facts.answered {
        let mut orders = facts.workload.orders.iter();
        let order = orders.find(|order| order.name == answered.name && answered.order_id.is_some());
        let wished = order.map_or(0, |order| order.resends() as usize);
        // As written, no mail can be sent again.
        let right = if facts.workload.as_written { 409 } else { 202 };
        if answered.resends != vec![Some(right); wished] {
            let text = format!("{wished} resends were answered {:?}", answered.resends);
            bad.push(found(&answered.name, text));
        }
    }
    for message_id in &facts.altered {
        bad.push(found("", format!("copies of {message_id} differ")));
    }
    for message_id in facts.mails.keys().filter(|id| !expected.contains(*id)) {
        bad.push(found("", format!("a mail about nothing: {message_id}")));
    }
    bad
}

/// Every record and job fits its schema, stands under its key, and repeats of an id say the same; the first
/// occurrences of a key are in order.
fn as_contracted(facts: &Facts) -> Vec<(String, String)> {
    let mut bad: Vec<(String, String)> =
        facts.unreadable.iter().map(|place| found("", format!("{place} is unreadable"))).collect();
    let mut contents: BTreeMap<&str, &Said> = BTreeMap::new();
    let mut created = BTreeSet::new();
    for said in facts.said.iter().chain(&facts.jobs) {
        let kind = said.event.kind();
        let version = said.json["eventVersion"].as_u64().unwrap_or(0);
        let Some(schema) = SCHEMAS.get(&(kind, version)) else {
            bad.push(found(&said.key, format!("{} has version {version}", said.place)));
            continue;
        };
        if let Err(error) = schema.validate(&said.json) {
            bad.push(found(&said.key, format!("{} does not fit its schema: {error}", said.place)));
        }
        let correlation = said.json["correlationId"].as_str().unwrap_or("");
        // saga-rules 9: what is said of an order has its id, what is said of a product its request's.
        if said.trace.is_none() || said.media_type.as_deref() != Some("application/json") {
            let text = format!("{}: trace {:?}, {:?}", said.place, said.trace, said.media_type);
            bad.push(found(&said.key, text));
        }
        let of_product = said.stream == Stream::CatalogEvents;
        let correlates = (correlation == said.key) != of_product;
        if !correlates {
            let text = format!("{} correlates by {correlation:?}", said.place);
            bad.push(found(&said.key, text));
        }
        if said.key != *said.event.key() || said.stream != said.event.stream() {
            bad.push(found(&said.key, format!("{} stands at the wrong place", said.place)));
        }
        let first = contents.entry(&said.event_id).or_insert(said);
        if first.fingerprint != said.fingerprint {
            let text = format!("{} and {} share an id and differ", first.place, said.place);
            bad.push(found(&said.key, text));
        }
        match &said.event {
            Event::OrderCreated(_) => {
                created.insert(said.key.as_str());
            }
            Event::OrderConfirmed(_) | Event::OrderCancelled(_) => {
                if !created.contains(said.key.as_str()) {
                    bad.push(found(&said.key, format!("{} is ahead of OrderCreated", said.place)));
                }
            }
            Event::ProductUpserted(_)
            | Event::StockReserved(_)
            | Event::StockFailed(_)
            | Event::PaymentProcessed(_)
            | Event::NotificationJob(_) => {}
        }
    }
    bad
}

/// The closed schemas by type and version, the next release's too; compiled once for all worlds of a
/// process: they never change.
static SCHEMAS: LazyLock<BTreeMap<(&'static str, u64), Validator>> = LazyLock::new(|| {
    let compiled = |text: &str| {
        let schema = serde_json::from_str(text).expect("schemas are JSON");
        jsonschema::validator_for(&schema).expect("schemas are schemas")
    };
    let shipped = |row: &Row| {
        let text = contract::schema(row.event, row.version).expect("every event has a schema");
        ((row.event, u64::from(row.version)), compiled(text))
    };
    let mut schemas: BTreeMap<_, _> = CATALOG.iter().map(shipped).collect();
    schemas.insert(("OrderCreated", 2), compiled(next::SCHEMA));
    schemas
});

/// Everything committed was published, and every event has gone through each consumer's inbox.
fn each_handled(facts: &Facts) -> Vec<(String, String)> {
    let mut bad = Vec::new();
    for (service, rows) in facts.outbox.iter().filter(|(_, rows)| **rows > 0) {
        bad.push(found("", format!("{rows} rows in the outbox of {}", service.name())));
    }
    // Where nothing befell it, a service takes its marks back.
    let idle = |service: &Service| !facts.faulty.contains(service);
    for (service, marks) in facts.marks.iter().filter(|(it, marks)| **marks > 0 && idle(it)) {
        bad.push(found("", format!("{marks} marks of jobs left in {}", service.name())));
    }
    if facts.queued > 0 {
        bad.push(found("", format!("{} jobs left in queues", facts.queued)));
    }
    for said in &facts.said {
        let kind = said.event.kind();
        let row = CATALOG.iter().find(|row| row.event == kind);
        let row = row.unwrap_or_else(|| panic!("{kind} is not in the catalog"));
        for consumer in row.consumers_in(facts.workload.profile()) {
            // Products are guarded by their versions and keep no inbox row.
            let guarded = matches!(said.event, Event::ProductUpserted(_));
            if !guarded && !handled(facts, consumer, said) {
                let text = format!("{kind} {} has no effect in {}", said.place, consumer.name());
                bad.push(found(&said.key, text));
            }
        }
    }
    bad
}

fn handled(facts: &Facts, consumer: Service, said: &Said) -> bool {
    // What the end of an order made void has no effect any more.
    let void = |letter: &DeadLetter| {
        letter.state == LetterState::Superseded && letter.event_id.as_ref() == Some(&said.event_id)
    };
    facts.inbox.get(&consumer).is_some_and(|ids| ids.contains_key(&said.event_id))
        || facts.letters.get(&consumer).is_some_and(|letters| letters.iter().any(void))
}
