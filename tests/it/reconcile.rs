//! Reconciling live services: books that balance, and books that somebody wrote in with a pen. One row
//! is changed behind the services' back at a time, and must be found under its name.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use futures_util::future::join_all;
use payments::simulated::Steering;
use rusqlite::Connection;
use serde_json::json;
use shakedown::client::Client;
use shakedown::config::Config;
use shakedown::http_shell::Shell;
use shakedown::local_mode::LocalMode;
use shakedown::reconcile::{Invariant, Report, Verdict, audit};
use shakedown::running::Running;

const WAIT: Duration = Duration::from_secs(60);

/// Two confirmed orders, one declined.
async fn trade(client: &Client) -> Vec<String> {
    let body = json!({ "name": "Tea", "categoryId": "drinks", "price": 250 });
    let answer = client.write(Method::PUT, "/catalog/products/tea", "p", &body).await.unwrap();
    assert!(answer.status.is_success(), "{answer:?}");
    let body = json!({ "delta": 100 });
    let answer = client.write(Method::POST, "/inventory/stock/tea/adjust", "s", &body).await;
    answer.unwrap().expect(StatusCode::OK).unwrap();
    let place = |number: usize, qty: u32| async move {
        let body = json!({ "lines": [{ "productId": "tea", "qty": qty }] });
        loop {
            let answer = client.write(Method::POST, "/orders", &format!("o{number}"), &body).await;
            let answer = answer.unwrap();
            // Until the price has come to Orders.
            if answer.status != StatusCode::UNPROCESSABLE_ENTITY {
                let order = answer.expect(StatusCode::CREATED).unwrap();
                return order["orderId"].as_str().unwrap().to_owned();
            }
        }
    };
    join_all([place(1, 1), place(2, 2), place(3, 9)]).await
}

/// Changes rows of a service's database, audits, and puts them back.
async fn tampered(client: &Client, file: &Path, table: &str, key: &str, change: &str) -> Report {
    let database = Connection::open(file).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    let same = format!("WHERE key = '{key}'");
    database
        .execute_batch(&format!(
            "CREATE TEMP TABLE kept AS SELECT * FROM \"{table}\" {same};
             {change} {same};"
        ))
        .unwrap();
    let report = audit(client, Duration::ZERO, false).await.unwrap();
    database
        .execute_batch(&format!(
            "BEGIN; DELETE FROM \"{table}\" {same}; INSERT INTO \"{table}\" SELECT * FROM kept; COMMIT;"
        ))
        .unwrap();
    report
}

/// An open dead letter of an order, as the chassis keeps one.
fn plant_letter(file: &Path, order: &str) -> Connection {
    let database = Connection::open(file).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    let (id, at) = ("orders.events:0:7", "2026-01-02T03:04:05.000Z");
    let body = json!({
        "id": id, "state": "dead", "from": "orders.events", "partition": 0, "offset": 7,
        "producedAt": at, "key": order, "headers": [], "payload": "{}", "eventId": null,
        "eventType": null, "correlationId": null, "inboxId": id, "code": "malformed", "error": "no",
        "attempts": 1, "firstFailedAt": at, "lastFailedAt": at,
    });
    let columns: Vec<&str> = chassis::DEAD_LETTERS.index.to_vec();
    let sql = format!(
        "INSERT INTO chassis_dead_letters (key, version, body, \"{}\") VALUES (?1, 1, ?2, ?3)",
        columns[0]
    );
    database.execute(&sql, [id, &body.to_string(), at]).unwrap();
    database
}

fn found(report: &Report) -> BTreeSet<Invariant> {
    report.wrong().map(|(invariant, _)| invariant).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_tampered_with_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let steering = Steering { limit: Some(1000), ..Steering::default() };
    let local = LocalMode::start(folder.path(), &Config::defaults(), steering).await.unwrap();
    let shell = Shell::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let running = Running::start(shell, local.shop, Duration::from_secs(5)).await.unwrap();
    let client = Client::new(running.address);
    let orders = trade(&client).await;
    let balanced = audit(&client, WAIT, false).await.unwrap();
    assert_eq!(balanced.verdict(), Verdict::Balanced, "{}", balanced.table());
    assert_eq!((balanced.totals.confirmed, balanced.totals.cancelled), (2, 1));
    assert_eq!((balanced.totals.sold, balanced.totals.captured), (3, 750));
    assert!(Invariant::ALL.iter().all(|invariant| balanced.rows[invariant].checked > 0));

    let confirmed = orders[0].as_str();
    let stock = |set: &str| format!("UPDATE stock SET body = json_set(body, {set})");
    let payment = |set: &str| format!("UPDATE payments SET body = json_set(body, {set})");
    for (service, table, key, change, invariant) in [
        ("inventory", "stock", "tea", stock("'$.available', 98"), Invariant::StockAddsUp),
        (
            "inventory",
            "stock",
            "tea",
            stock("'$.available', 98, '$.onHand', 101"),
            Invariant::StockAdjusted,
        ),
        (
            "inventory",
            "stock",
            "tea",
            stock("'$.available', 96, '$.reserved', 1"),
            Invariant::StockReserved,
        ),
        (
            "inventory",
            "stock",
            "tea",
            stock("'$.available', 98, '$.committed', 2"),
            Invariant::StockCommitted,
        ),
        ("inventory", "stock", "tea", "DELETE FROM stock".to_owned(), Invariant::StockAddsUp),
        (
            "inventory",
            "reservations",
            confirmed,
            "DELETE FROM reservations".to_owned(),
            Invariant::EndsOnce,
        ),
        (
            "payments",
            "payments",
            confirmed,
            payment("'$.state', 'voided'"),
            Invariant::MoneyFollowsOrders,
        ),
        (
            "payments",
            "payments",
            confirmed,
            payment("'$.order.amount', 251"),
            Invariant::GatewayAgrees,
        ),
        (
            "payments",
            "payments",
            confirmed,
            "DELETE FROM payments".to_owned(),
            Invariant::GatewayAgrees,
        ),
        (
            "query",
            "orders",
            confirmed,
            "UPDATE orders SET body = json_set(body, '$.terminal.state', 'cancelled')".to_owned(),
            Invariant::EndsOnce,
        ),
        (
            "notifications-worker",
            "mails",
            &format!("{confirmed}|confirmed|email|1"),
            "DELETE FROM mails".to_owned(),
            Invariant::MailSent,
        ),
        ("orders", "sagas", confirmed, "DELETE FROM sagas".to_owned(), Invariant::NothingStrange),
    ] {
        let file = folder.path().join(format!("{service}.db"));
        let report = tampered(&client, &file, table, key, &change).await;
        assert!(found(&report).contains(&invariant), "{change}\n{}", report.table());
    }

    let mails = folder.path().join("mails");
    let mail = mails.join(format!("{confirmed}.confirmed.1.1.eml"));
    let hidden = mails.join("hidden");
    std::fs::rename(&mail, &hidden).unwrap();
    let report = audit(&client, Duration::ZERO, false).await.unwrap();
    assert_eq!(found(&report), BTreeSet::from([Invariant::MailSent]), "{}", report.table());
    std::fs::rename(&hidden, &mail).unwrap();
    let strange = mails.join("nobody.confirmed.1.1.eml");
    std::fs::write(&strange, "Message-ID: <x>").unwrap();
    let report = audit(&client, Duration::ZERO, false).await.unwrap();
    assert_eq!(found(&report), BTreeSet::from([Invariant::NothingStrange]), "{}", report.table());
    std::fs::remove_file(&strange).unwrap();

    // What an order misses may be in a dead letter of it: then an operator comes first.
    let payments = folder.path().join("payments.db");
    let letter = plant_letter(&payments, confirmed);
    let captured = payment("'$.state', 'authorised'");
    let report = tampered(&client, &payments, "payments", confirmed, &captured).await;
    assert_eq!(report.verdict(), Verdict::CannotTell, "{}", report.table());
    assert!(report.table().contains("1 open dead letters at payments"), "{}", report.table());
    letter.execute("DELETE FROM chassis_dead_letters", []).unwrap();

    let again = audit(&client, Duration::ZERO, false).await.unwrap();
    assert_eq!(again.verdict(), Verdict::Balanced, "all was put back: {}", again.table());
    assert!(running.stop().await.unwrap());
}
