use serde_json::json;

use super::*;

const AT: &str = "2026-01-02T03:04:05.000Z";

fn now() -> DateTime<Utc> {
    time(&json!("2026-01-02T03:04:17.000Z")).unwrap()
}

fn nothing() -> Facts {
    let absent = || Part::Absent;
    Facts {
        order: absent(),
        view: absent(),
        reservation: absent(),
        payment: absent(),
        account: absent(),
        notifications: absent(),
        mails: absent(),
        dead_letters: absent(),
        backlog: absent(),
    }
}

fn open(stock: &str, payment: &str) -> Part {
    Part::Known(json!({
        "status": "pending", "stock": stock, "payment": payment, "cancel": "none",
        "createdAt": AT, "deadline": "2026-01-02T03:19:05.000Z", "amount": 500, "currency": "EUR",
        "lines": [{ "productId": "tea", "qty": 2 }], "paymentMode": "parallel",
    }))
}

fn confirmed() -> Facts {
    let order = json!({
        "status": "confirmed", "stock": "reserved", "payment": "ok", "cancel": "none",
        "createdAt": AT, "lines": [{}], "amount": 500, "currency": "EUR", "paymentMode": "parallel",
    });
    let view = json!({
        "status": "confirmed",
        "stock": { "state": "reserved", "at": "2026-01-02T03:04:05.006Z" },
        "payment": { "state": "succeeded", "at": "2026-01-02T03:04:05.012Z" },
        "terminal": { "state": "confirmed", "at": "2026-01-02T03:04:05.016Z" },
    });
    let account = json!({ "captured": 500, "held": 0, "operations": [
        { "operation": "authorise", "answer": "approved", "calls": 3 },
        { "operation": "capture", "answer": "approved", "calls": 1 },
    ] });
    let job =
        json!({ "type": "confirmed", "revision": 1, "requestedAt": "2026-01-02T03:04:05.020Z" });
    let mail = json!({ "type": "confirmed", "revision": 1, "wantedAt": "2026-01-02T03:04:05.030Z",
        "state": "sent", "attempts": 1, "messageId": "o.confirmed.1@shakedown.invalid" });
    Facts {
        order: Part::Known(order),
        view: Part::Known(view),
        reservation: Part::Known(json!({ "state": "committed", "lines": { "tea": 2 } })),
        payment: Part::Known(
            json!({ "state": "captured", "amount": 500, "attempts": 0, "due": null }),
        ),
        account: Part::Known(account),
        notifications: Part::Known(json!([job])),
        mails: Part::Known(json!([mail])),
        ..nothing()
    }
}

#[test]
fn nobody_knows_it() {
    assert_eq!(tell(&nothing(), now()), None);
    let silent = Facts { order: Part::Silent("503".to_owned()), ..nothing() };
    let story = tell(&silent, now()).unwrap();
    assert_eq!(story.silent, ["Orders: 503"]);
}

#[test]
fn a_finished_order_waits_for_nothing() {
    let story = tell(&confirmed(), now()).unwrap();
    let told: Vec<(i64, &str, &str)> = story
        .happened
        .iter()
        .map(|line| {
            ((line.at - story.happened[0].at).num_milliseconds(), line.who, line.what.as_str())
        })
        .collect();
    assert_eq!(
        told,
        [
            (0, "Orders", "OrderCreated: 1 line for 5.00 EUR"),
            (6, "Inventory", "StockReserved"),
            (12, "Payments", "PaymentProcessed: succeeded"),
            (16, "Orders", "OrderConfirmed"),
            (20, "Notifications API", "asks for the mail confirmed, revision 1"),
            (30, "Notifications Worker", "takes on the mail confirmed, revision 1"),
        ]
    );
    assert_eq!(story.waits_for, Vec::<String>::new());
    let gateway = story.stands.iter().find(|(what, _)| *what == "gateway").unwrap();
    assert_eq!(
        gateway.1,
        "captured 5.00, held 0.00; authorise approved after 3 calls; capture approved"
    );
}

#[test]
fn what_it_waits_for() {
    let authorising =
        json!({ "state": "authorising", "attempts": 3, "due": "2026-01-02T03:04:21.000Z" });
    let lagging = json!({ "services": {
        "orders": { "outbox": 2, "lag": {} },
        "inventory": { "outbox": 0, "lag": { "test.orders.events": 7 } },
    } });
    let with = |change: &dyn Fn(&mut Facts)| {
        let mut facts = confirmed();
        change(&mut facts);
        facts
    };
    let pending = json!([{ "state": "pending", "attempts": 4, "due": "2026-01-02T03:05:17.000Z" }]);
    let letter = json!([
        { "service": "payments", "id": "orders.events:0:7", "state": "dead", "key": "o",
            "code": "order_changed", "eventType": "OrderCreated", "firstFailedAt": AT },
        { "service": "payments", "id": "orders.events:0:8", "state": "parked", "key": "o" },
    ]);
    for (facts, waits) in [
        (
            Facts { order: open("pending", "ok"), backlog: Part::Known(lagging), ..nothing() },
            &[
                "StockReserved or StockFailed since 12 s; Inventory has not read OrderCreated (2 unsent \
               at orders, 7 unread at inventory)",
                "at the latest its deadline, in 14 min",
            ][..],
        ),
        (
            Facts {
                order: open("reserved", "pending"),
                payment: Part::Known(authorising),
                ..nothing()
            },
            &[
                "PaymentProcessed since 12 s; Payments: authorising, 3 unknown answers, next call in 4 s",
                "at the latest its deadline",
            ],
        ),
        (
            Facts { order: open("reserved", "ok"), ..nothing() },
            &["Orders to decide", "at the latest its deadline"],
        ),
        (
            with(&|facts| facts.view = Part::Known(json!({ "status": "ready" }))),
            &["Query to show OrderConfirmed"],
        ),
        (
            with(&|facts| facts.reservation = Part::Known(json!({ "state": "reserved" }))),
            &["Inventory to read OrderConfirmed"],
        ),
        (
            with(&|facts| {
                facts.payment =
                    Part::Known(json!({ "state": "capture_failed", "refused": "expired" }));
            }),
            &["an operator to settle the payment: capture_failed (expired)"],
        ),
        (
            with(&|facts| {
                facts.notifications = Part::Absent;
                facts.mails = Part::Absent;
            }),
            &["Notifications API to read OrderConfirmed"],
        ),
        (with(&|facts| facts.mails = Part::Absent), &["Notifications Worker to take its job"]),
        (
            with(&|facts| facts.mails = Part::Known(pending.clone())),
            &["the mail to be sent: 4 attempts so far, next call in 60 s"],
        ),
        (
            with(&|facts| facts.dead_letters = Part::Known(letter.clone())),
            &[
                "an operator: payments has a dead letter of it (order_changed); when the cause is mended, \
                `shakedown dlq redrive payments orders.events:0:7`",
            ],
        ),
        (Facts { order: Part::Absent, ..confirmed() }, &["Orders never placed it, or lost it"]),
    ] {
        let story = tell(&facts, now()).unwrap();
        assert_eq!(story.waits_for.len(), waits.len(), "{:?} and not {waits:?}", story.waits_for);
        for (said, start) in story.waits_for.iter().zip(waits) {
            assert!(said.starts_with(start), "{said:?} and not {start:?}");
        }
    }
}
