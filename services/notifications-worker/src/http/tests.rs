use axum::body::Body;
use axum::http::Request;
use chassis::Document;
use chrono::DateTime;
use contract::{NotificationChannel, NotificationType};
use futures_util::FutureExt;
use model::store::{Settings, StoreServer};
use model::virtual_time::VirtualTime;
use ports::{Op, Row, Rows, Runtime};
use tower::ServiceExt;

use super::*;
use crate::rows::ALL;
use crate::rules::{Sending, Wanted};

/// The outcome of what never waits.
fn now<F: Future>(future: F) -> F::Output {
    future.now_or_never().expect("it does not wait")
}

fn get_json(store: &Arc<dyn Store>, uri: &str) -> (u16, Value) {
    let request = Request::get(uri).body(Body::empty()).unwrap();
    let response = now(router(store.clone()).oneshot(request)).unwrap();
    let status = response.status().as_u16();
    let body = now(axum::body::to_bytes(response.into_body(), 1 << 20)).unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

/// Eleven revisions for order `a`, the second undeliverable, and one for order `a!` beside it.
fn mails() -> Arc<dyn Store> {
    let runtime: Arc<dyn Runtime> = Arc::new(VirtualTime::default());
    let server = StoreServer::new(Settings::default(), runtime.clone());
    let store: Arc<dyn Store> = Arc::new(server.client("worker", runtime));
    now(store.prepare(&ALL)).unwrap();
    let revisions = (1..=11).map(|revision| ("a", revision));
    for (order, revision) in revisions.chain([("a!", 1)]) {
        let (kind, channel) = (NotificationType::Confirmed, NotificationChannel::Email);
        let order_id = OrderId::parse(order).unwrap();
        let wanted = Wanted { order_id, kind, channel, revision };
        let mut sending = Sending::wanted(DateTime::UNIX_EPOCH);
        if revision == 2 {
            let (state, reason) = (State::Undeliverable, Some("gone".to_owned()));
            sending = Sending { state, reason, due: None, ..sending };
        }
        let row = MailRow { wanted, sending, trace: None };
        let body = serde_json::to_string(&row).unwrap();
        let key = row.wanted.key().into();
        let rows = Rows::from_iter([(key, Row { version: 0, index: row.index(), body })]);
        now(store.transact(vec![Op::Put { table: MailRow::TABLE, rows }])).unwrap();
    }
    store
}

fn revisions(page: &Value) -> Vec<u64> {
    page["items"].as_array().unwrap().iter().map(|i| i["revision"].as_u64().unwrap()).collect()
}

#[test]
fn an_orders_mails_are_listed_by_revision_and_no_others() {
    let store = mails();
    let (status, first) = get_json(&store, "/mails/a?limit=10");
    assert_eq!((status, revisions(&first)), (200, (1..=10).collect()));
    let cursor = first["next"].as_str().unwrap();
    let (_, second) = get_json(&store, &format!("/mails/a?limit=10&cursor={cursor}"));
    assert_eq!((revisions(&second), &second["next"]), (vec![11], &Value::Null));
    let (_, other) = get_json(&store, "/mails/a!");
    assert_eq!(other["items"][0]["messageId"], "a%21.confirmed.1@shakedown.invalid");
    assert_eq!(get_json(&store, "/mails/b").1["items"], json!([]));
    let foreign = get_json(&store, &format!("/mails/a!?cursor={cursor}"));
    assert_eq!(foreign.0, 422);
}

#[test]
fn undeliverable_mails_are_visible() {
    let store = mails();
    let (_, page) = get_json(&store, "/mails?state=undeliverable");
    assert_eq!(revisions(&page), [2]);
    assert_eq!(page["items"][0]["reason"], "gone");
    assert_eq!(get_json(&store, "/mails").1["items"].as_array().unwrap().len(), 12);
}

#[test]
fn strange_parameters_are_refused() {
    let store = mails();
    for uri in [
        "/mails?limit=0",
        "/mails?limit=201",
        "/mails?state=odd",
        "/mails?order=a",
        "/mails?cursor=0a",
        "/mails?cursor=7",
        "/mails/a?state=sent",
        "/mails/a%20b",
    ] {
        assert_eq!(get_json(&store, uri).0, 422, "{uri}");
    }
}
