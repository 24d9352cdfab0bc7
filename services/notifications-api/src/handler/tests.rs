use super::*;
use chassis::Context;
use contract::{FinalStatus, OrderCancelled, OrderConfirmed};
use envelope::parse_time;
use ports::{Row, Rows};

fn now() -> DateTime<Utc> {
    parse_time("2026-01-02T03:04:05Z").unwrap()
}

fn order() -> OrderId {
    OrderId::parse("o|1").unwrap()
}

fn handler(profile: Profile) -> NotificationsApi {
    NotificationsApi { contract: Contract::default(), streams: Streams::prefixed("t."), profile }
}

fn input(fact: OrderFact) -> Input<Fact> {
    let context = Context { cause: EventId::parse("cause").ok(), ..Context::default() };
    let fact = Fact { order_id: order(), fact };
    Input { id: None, fingerprint: String::new(), context, fact }
}

fn ended() -> Input<Fact> {
    input(OrderFact::Ended(NotificationType::Confirmed))
}

/// Locks as the chassis does: absent rows, tables in order, keys asked when the earlier are loaded.
fn lock(api: &NotificationsApi, batch: &[Input<Fact>]) -> Touched {
    let mut rows = Touched::new();
    for table in ALL {
        let keys = api.keys(table, batch, &rows).unwrap();
        rows.add(table, keys.into_iter().map(|key| (key, Row::default())).collect::<Rows>());
    }
    rows
}

fn decide_all(
    api: &NotificationsApi,
    batch: &[Input<Fact>],
) -> (Touched, Vec<Result<Decided, Reason>>) {
    let mut rows = lock(api, batch);
    let decided = batch.iter().map(|input| api.decide(input, &mut rows, now())).collect();
    (rows, decided)
}

#[test]
fn an_end_becomes_one_job() {
    let api = handler(Profile::Default);
    let (rows, decided) = decide_all(&api, &[ended(), ended()]);
    let [Ok(first), Ok(again)] = decided.as_slice() else { panic!("{decided:?}") };
    assert!(again.emits.is_empty(), "a duplicate tells nothing");
    let [emit] = first.emits.as_slice() else { panic!("{first:?}") };
    assert_eq!((emit.channel, &*emit.to), (Channel::Queue, "t.notifications.jobs"));
    assert_eq!(*emit.key, *emit.envelope.event_id.as_str());
    assert_eq!(emit.envelope.causation_id, EventId::parse("cause").ok());
    assert_eq!(emit.envelope.correlation_id.as_str(), "o|1");
    let payload = r#"{"orderId":"o|1","type":"confirmed","channel":"email","revision":1}"#;
    assert_eq!(emit.envelope.payload.get(), payload);
    let row = rows.get::<NotificationRow>("o|1|confirmed|email|1").unwrap();
    assert_eq!((row.requested_at, row.job_id.key()), (now(), emit.key.clone()));
}

#[test]
fn in_profile_catalog_a_job_says_only_what_the_table_says() {
    let (_, decided) = decide_all(&handler(Profile::Catalog), &[ended()]);
    let emit = &decided[0].as_ref().unwrap().emits[0];
    assert_eq!(emit.envelope.causation_id, None);
    let payload = r#"{"orderId":"o|1","type":"confirmed","channel":"email"}"#;
    assert_eq!(emit.envelope.payload.get(), payload);
}

#[test]
fn the_other_end_is_a_contradiction() {
    let other = input(OrderFact::Ended(NotificationType::Cancelled));
    for batch in [[ended(), other.clone()], [other, ended()]] {
        let (_, decided) = decide_all(&handler(Profile::Default), &batch);
        assert_eq!(decided[0].as_ref().unwrap().emits.len(), 1);
        assert_eq!(decided[1].as_ref().unwrap_err().code, "contradiction");
    }
}

#[test]
fn resends_are_further_revisions_also_within_one_batch() {
    let api = handler(Profile::Default);
    let resend = || input(OrderFact::Resend);
    let batch = [resend(), ended(), resend(), resend()];
    let (rows, decided) = decide_all(&api, &batch);
    let replies: Vec<_> = decided.into_iter().map(|d| d.unwrap().reply).collect();
    let early = replies[0].as_ref().unwrap();
    assert_eq!((early.status, early.kept), (409, false), "nothing to tell again yet");
    assert_eq!(replies[1], None);
    for (reply, revision) in [(&replies[2], 2), (&replies[3], 3)] {
        let reply = reply.as_ref().unwrap();
        assert_eq!((reply.status, reply.kept), (202, true));
        assert_eq!(reply.body["revision"], revision);
    }
    assert_eq!(rows.get::<OrderRow>("o|1").unwrap().told.revision, 3);
}

#[test]
fn a_resend_right_behind_its_end_is_the_second_revision() {
    let (rows, decided) =
        decide_all(&handler(Profile::Default), &[ended(), input(OrderFact::Resend)]);
    assert_eq!(decided[1].as_ref().unwrap().reply.as_ref().unwrap().body["revision"], 2);
    assert_eq!(rows.get::<OrderRow>("o|1").unwrap().told.revision, 2);
}

#[test]
fn a_resend_goes_on_behind_what_is_stored() {
    let api = handler(Profile::Default);
    let mut rows = Touched::new();
    let told = Told { kind: NotificationType::Cancelled, revision: 7 };
    let body = serde_json::to_string(&OrderRow { order_id: order(), told }).unwrap();
    let stored = Row { version: 4, index: Vec::new(), body };
    let batch = [input(OrderFact::Resend)];
    assert_eq!(api.keys(ALL[1], &batch, &rows), None, "the order is not loaded yet");
    rows.add(ALL[0], Rows::from_iter([(order().key(), stored)]));
    let keys = api.keys(ALL[1], &batch, &rows).unwrap();
    assert_eq!(keys, BTreeSet::from([Key::from("o|1|cancelled|email|8")]));
}

#[test]
fn job_ids_are_derived_and_distinct() {
    let told = Told { kind: NotificationType::Confirmed, revision: 1 };
    let other = Told { kind: NotificationType::Cancelled, ..told };
    let later = Told { revision: 2, ..told };
    assert_eq!(job_id(&order(), told), job_id(&order(), told));
    let ids = BTreeSet::from([told, other, later].map(|told| job_id(&order(), told)));
    assert_eq!(ids.len(), 3);
}

#[test]
fn only_ends_of_orders_are_read() {
    let api = handler(Profile::Default);
    let envelope = |event: &Event| {
        let correlation_id = CorrelationId::parse("o").unwrap();
        let event_id = EventId::parse("e").unwrap();
        event.seal(Seal { event_id, occurred_at: now(), correlation_id, causation_id: None })
    };
    let (order_id, final_status) = (order(), FinalStatus::Confirmed);
    let confirmed = Event::OrderConfirmed(OrderConfirmed { order_id, final_status });
    let (order_id, final_status, reason) = (order(), FinalStatus::Cancelled, None);
    let cancelled = Event::OrderCancelled(OrderCancelled { order_id, final_status, reason });
    for (event, kind) in
        [(confirmed, NotificationType::Confirmed), (cancelled, NotificationType::Cancelled)]
    {
        match api.read(&envelope(&event)) {
            Ok(Read::Fact(fact)) => assert_eq!(fact.fact, OrderFact::Ended(kind)),
            other => panic!("{other:?}"),
        }
    }
    let reserved = Event::StockReserved(contract::StockReserved { order_id: order() });
    assert!(matches!(api.read(&envelope(&reserved)), Ok(Read::Skip("not_consumed"))));
}
