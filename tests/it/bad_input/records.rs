//! Records and jobs that are not as they should be. After each: a good event behind it in the same
//! partition is applied, an order placed meanwhile ends, and the dead letter holds the very bytes.

use std::collections::{BTreeMap, BTreeSet};

use contract::{CATALOG, Profile, Service, Stream};
use model::virtual_time::VirtualTime;
use serde_json::Value;

use super::poison::{EVENTS, Fate, Poison, good, table};
use super::shop::{CASES_A_SHOP, Shop};

/// The whole table: the common poison, and the contract's own examples of what is refused.
pub fn cases() -> Vec<Poison> {
    let mut cases = table("bad");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/events/invalid");
    let entries = std::fs::read_dir(folder).expect("the examples are there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    for (n, path) in files.iter().enumerate() {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).expect("text");
        cases.push(example(n, &name, &text));
    }
    cases
}

/// An example under ids of its own, where they are not what is wrong with it.
fn example(n: usize, name: &str, text: &str) -> Poison {
    let [code, kind, what] = name.split('.').collect::<Vec<_>>()[..] else {
        panic!("{name}: not <code>.<event>.<what>")
    };
    let (kind, stream) = EVENTS.into_iter().find(|(event, _)| *event == kind).expect("an event");
    let mut event: Value = serde_json::from_str(text).expect("JSON");
    let about = format!("example-{n}");
    let is_example = |value: &Value| value.as_str().is_some_and(|id| id.starts_with("evt-"));
    if is_example(&event["eventId"]) && !what.contains("event_id") {
        event["eventId"] = format!("e-{about}").into();
    }
    for id in ["orderId", "productId"] {
        let value = event.get_mut("payload").and_then(|payload| payload.get_mut(id));
        let value = value.filter(|v| v.as_str().is_some_and(|id| !id.is_empty()));
        if let Some(value) = value.filter(|_| !what.contains("order_id")) {
            *value = about.as_str().into();
        }
    }
    let code = match code {
        "bad_envelope" => "bad_envelope",
        "bad_payload" => "bad_payload",
        "unsupported_version" => "unsupported_version",
        code => panic!("{name}: unknown code {code}"),
    };
    let reader = (code != "bad_envelope").then_some(kind);
    Poison {
        name: format!("{kind}: {} (example)", what.replace('_', " ")),
        stream,
        key: about.clone(),
        payload: event.to_string().into_bytes(),
        fate: Fate::Dead(code, reader),
        about,
    }
}

/// Who reads a stream, or who consumes this type.
pub fn readers(stream: Stream, kind: Option<&str>) -> BTreeSet<Service> {
    let rows = CATALOG.iter().filter(|row| row.stream == stream);
    let rows = rows.filter(|row| kind.is_none_or(|kind| kind == row.event));
    rows.flat_map(|row| row.consumers_in(Profile::Default)).collect()
}

/// The type whose good event proves that a stream flows on: it starts nothing else.
fn behind(stream: Stream) -> &'static str {
    match stream {
        Stream::CatalogEvents => "ProductUpserted",
        Stream::OrdersEvents => "OrderCancelled",
        Stream::InventoryEvents => "StockReserved",
        Stream::PaymentsEvents => "PaymentProcessed",
        Stream::NotificationsJobs => "NotificationJob",
    }
}

#[test]
fn every_record_ends_as_the_table_says() {
    for (n, cases) in cases().chunks(CASES_A_SHOP).enumerate() {
        let (runtime, cases) = (VirtualTime::default(), cases.to_vec());
        runtime.clone().run(async move {
            let mut shop = Shop::open(runtime).await;
            for (m, case) in cases.iter().enumerate() {
                try_one(&mut shop, n * CASES_A_SHOP + m, case).await;
            }
        });
    }
}

async fn try_one(shop: &mut Shop, n: usize, case: &Poison) {
    let name = &case.name;
    let before = shop.dead();
    let partition = shop.send(case.stream, &case.key, case.payload.clone()).await;
    let next = match &partition {
        Some(partition) => Shop::key_in(partition, &format!("behind-{n}")),
        None => format!("behind-{n}"),
    };
    let kind = behind(case.stream);
    let event = good(kind, &next, &format!("e-{next}"));
    shop.send(case.stream, &next, event.to_string().into_bytes()).await;
    shop.order().await;
    shop.quiet(name).await;

    let mut dead = shop.dead();
    dead.retain(|at, _| !before.contains_key(at));
    let found: BTreeMap<Service, &str> =
        dead.iter().map(|((service, _), letter)| (*service, letter.code.as_str())).collect();
    let wanted: BTreeMap<Service, &str> = match case.fate {
        Fate::Dead(code, kind) => {
            readers(case.stream, kind).into_iter().map(|service| (service, code)).collect()
        }
        Fate::Skipped | Fate::Applied => BTreeMap::new(),
    };
    assert_eq!(found, wanted, "{name}: dead letters");
    for letter in dead.values() {
        assert_eq!(letter.payload.bytes(), case.payload, "{name}: not the bytes that were sent");
        assert_eq!(
            (letter.from.as_str(), letter.key.as_str()),
            (case.stream.name(), case.key.as_str())
        );
        assert!(!letter.error.is_empty() && !letter.error.contains(char::is_control), "{name}");
        assert_eq!(letter.partition, partition.as_ref().map(|p| p.index), "{name}");
    }

    let known: BTreeSet<Service> = shop.known_to(&case.about).into_iter().collect();
    match case.fate {
        Fate::Dead(..) | Fate::Skipped => {
            assert_eq!(known, BTreeSet::new(), "{name}: half an effect");
        }
        Fate::Applied => {
            let kind = name.split(':').next();
            let missing: Vec<Service> =
                readers(case.stream, kind).difference(&known).copied().collect();
            assert_eq!(missing, [], "{name}: no effect");
        }
    }
    let known: BTreeSet<Service> = shop.known_to(&next).into_iter().collect();
    let stuck: Vec<Service> =
        readers(case.stream, Some(kind)).difference(&known).copied().collect();
    assert_eq!(stuck, [], "{name}: what came behind it is not applied");
}

#[test]
fn an_id_that_was_used_for_another_content_is_dead_and_a_duplicate_is_nothing() {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let shop = Shop::open(runtime).await;
        for (kind, stream) in EVENTS.into_iter().filter(|(kind, _)| *kind != "ProductUpserted") {
            let about = format!("twice-{kind}");
            let first = good(kind, &about, &format!("e-{about}")).to_string();
            shop.send(stream, &about, first.clone().into_bytes()).await;
            shop.quiet(kind).await;
            let (before, books) = (shop.dead(), shop.books());
            shop.send(stream, &about, first.into_bytes()).await;
            shop.quiet(kind).await;
            let mut after = shop.books();
            let records = ("records".to_owned(), stream.name().to_owned());
            if let Some(count) = after.get_mut(&records) {
                *count -= 1;
            }
            assert_eq!((shop.dead(), after), (before.clone(), books), "{kind}: a duplicate");

            let other = format!("other-{kind}");
            let reused = good(kind, &other, &format!("e-{about}")).to_string();
            shop.send(stream, &other, reused.into_bytes()).await;
            shop.quiet(kind).await;
            let dead = shop.dead();
            let new = dead.iter().filter(|(at, _)| !before.contains_key(at));
            let new: BTreeMap<Service, &str> =
                new.map(|((service, _), letter)| (*service, letter.code.as_str())).collect();
            let wanted = readers(stream, Some(kind)).into_iter().map(|s| (s, "event_id_reused"));
            assert_eq!(new, wanted.collect(), "{kind}");
            assert_eq!(shop.known_to(&other), [], "{kind}: half an effect");
        }
    });
}
