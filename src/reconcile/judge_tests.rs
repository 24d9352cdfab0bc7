use serde_json::json;

use super::*;

fn now() -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2026-01-02T03:04:05Z").unwrap().to_utc()
}

fn confirmed() -> Heard {
    Heard {
        order: json!({ "orderId": "o", "status": "confirmed", "amount": 500, "paymentMode": "parallel" }),
        view: json!({ "status": "confirmed", "terminal": { "state": "confirmed" } }),
        reservation: json!({ "state": "committed" }),
        payment: json!({ "state": "captured", "amount": 500, "openItem": false }),
        account: Some(json!({ "charges": 1, "captures": 1, "captured": 500, "held": 0 })),
        notifications: vec![json!({ "type": "confirmed", "revision": 1 })],
        mails: vec![(json!({ "type": "confirmed", "revision": 1, "state": "sent" }), Some(1))],
    }
}

fn cancelled() -> Heard {
    let job = json!({ "type": "cancelled", "revision": 1, "state": "sent" });
    Heard {
        order: json!({ "orderId": "o", "status": "cancelled", "reason": "declined", "amount": 500,
            "paymentMode": "parallel" }),
        view: json!({ "status": "cancelled", "terminal": { "state": "cancelled", "reason": "declined" } }),
        reservation: json!({ "state": "released" }),
        payment: json!({ "state": "voided", "amount": 500, "openItem": false }),
        account: Some(json!({ "charges": 1, "captures": 0, "captured": 0, "held": 0 })),
        notifications: vec![job.clone()],
        mails: vec![(job, Some(2))],
    }
}

/// What a change to a sound order is judged as: `None` where it is sound.
type Case = (&'static str, fn(&mut Heard), bool, Option<Invariant>);

#[test]
fn a_sound_order_is_sound() {
    for heard in [confirmed(), cancelled()] {
        assert_eq!(judge(&heard, false, now()), []);
        assert_eq!(judge(&heard, true, now()), []);
        let blind = Heard { account: None, ..heard };
        assert_eq!(judge(&blind, false, now()), []);
    }
}

#[test]
fn each_way_to_be_wrong_is_found() {
    let cases: &[Case] = &[
        (
            "two charges",
            |h| h.account.as_mut().unwrap()["charges"] = json!(2),
            true,
            Some(Invariant::ChargedOnce),
        ),
        (
            "captured less",
            |h| h.account.as_mut().unwrap()["captured"] = json!(499),
            false,
            Some(Invariant::GatewayAgrees),
        ),
        (
            "held too",
            |h| h.account.as_mut().unwrap()["held"] = json!(1),
            false,
            Some(Invariant::GatewayAgrees),
        ),
        ("no account", |h| h.account = Some(Value::Null), false, Some(Invariant::GatewayAgrees)),
        (
            "payment of another amount",
            |h| h.payment["amount"] = json!(400),
            false,
            Some(Invariant::GatewayAgrees),
        ),
        ("no payment", |h| h.payment = Value::Null, false, Some(Invariant::GatewayAgrees)),
        (
            "an open item",
            |h| h.payment["openItem"] = json!(true),
            false,
            Some(Invariant::MoneyFollowsOrders),
        ),
        (
            "voided though confirmed",
            |h| h.payment["state"] = json!("voided"),
            false,
            Some(Invariant::MoneyFollowsOrders),
        ),
        (
            "the event is lost",
            |h| h.payment["state"] = json!("authorised"),
            false,
            Some(Invariant::MoneyFollowsOrders),
        ),
        ("the event flows", |h| h.payment["state"] = json!("authorised"), true, None),
        ("the gateway is asked", |h| h.payment["state"] = json!("capturing"), false, None),
        (
            "another end in Query",
            |h| h.view["status"] = json!("cancelled"),
            true,
            Some(Invariant::EndsOnce),
        ),
        (
            "both ends in Query",
            |h| h.view["status"] = json!("conflict"),
            true,
            Some(Invariant::EndsOnce),
        ),
        ("Query is behind", |h| h.view["status"] = json!("ready"), true, None),
        ("Query never hears", |h| h.view = Value::Null, false, Some(Invariant::EndsOnce)),
        (
            "stock still held",
            |h| h.reservation["state"] = json!("reserved"),
            false,
            Some(Invariant::EndsOnce),
        ),
        (
            "stock did not fit",
            |h| h.reservation = json!({ "state": "pending", "reason": "x" }),
            true,
            Some(Invariant::EndsOnce),
        ),
        ("no notification", |h| h.notifications.clear(), false, Some(Invariant::MailSent)),
        ("no mail", |h| h.mails.clear(), false, Some(Invariant::MailSent)),
        ("mail on its way", |h| h.mails.clear(), true, None),
        ("mail pending", |h| h.mails[0].0["state"] = json!("pending"), false, None),
        ("mail gone", |h| h.mails[0].1 = Some(0), true, Some(Invariant::MailSent)),
        (
            "another mail",
            |h| h.notifications[0]["type"] = json!("cancelled"),
            true,
            Some(Invariant::MailSent),
        ),
        ("no status", |h| h.order["status"] = Value::Null, true, Some(Invariant::EndsOnce)),
    ];
    for (what, change, flowing, expected) in cases {
        let mut heard = confirmed();
        change(&mut heard);
        let findings = judge(&heard, *flowing, now());
        match expected {
            Some(invariant) => {
                let found =
                    |f: &Finding| matches!(f, Finding::Wrong(found, _) if found == invariant);
                assert!(findings.iter().any(found), "{what}: {findings:?}");
            }
            None => {
                let unsettled = |f: &Finding| matches!(f, Finding::Unsettled(_));
                assert!(
                    !findings.is_empty() && findings.iter().all(unsettled),
                    "{what}: {findings:?}"
                );
            }
        }
    }
}

#[test]
fn a_cancelled_order_holds_nothing() {
    let with = |change: fn(&mut Heard)| {
        let mut heard = cancelled();
        change(&mut heard);
        judge(&heard, false, now())
    };
    for findings in [
        with(|h| {
            h.account = Some(json!({ "charges": 1, "captures": 1, "captured": 500, "held": 0 }))
        }),
        with(|h| h.account.as_mut().unwrap()["held"] = json!(500)),
        with(|h| h.payment["state"] = json!("captured")),
        with(|h| h.view["terminal"]["reason"] = json!("deadline")),
        with(|h| h.reservation["state"] = json!("committed")),
    ] {
        assert!(findings.iter().any(|f| matches!(f, Finding::Wrong(..))), "{findings:?}");
    }
    assert_eq!(with(|h| h.view["terminal"]["reason"] = Value::Null), [], "its reason is optional");
    let undeliverable = with(|h| {
        h.mails[0] =
            (json!({ "type": "cancelled", "revision": 1, "state": "undeliverable" }), Some(0))
    });
    assert_eq!(undeliverable, []);
}

#[test]
fn an_open_order_is_unsettled_until_its_deadline_is_long_over() {
    let open = |deadline: &str| Heard {
        order: json!({ "orderId": "o", "status": "pending", "deadline": deadline }),
        ..Heard::default()
    };
    let findings = judge(&open("2026-01-02T03:04:00Z"), false, now());
    assert!(matches!(findings[..], [Finding::Unsettled(_)]), "{findings:?}");
    let findings = judge(&open("2026-01-02T03:00:00Z"), false, now());
    assert!(matches!(findings[..], [Finding::Wrong(Invariant::EndsOnce, _)]), "{findings:?}");
}

#[test]
fn what_costs_nothing_needs_no_gateway() {
    let mut heard = confirmed();
    heard.order["amount"] = json!(0);
    heard.payment["amount"] = json!(0);
    heard.account = Some(Value::Null);
    assert_eq!(judge(&heard, false, now()), []);
    heard.order["paymentMode"] = json!("none");
    heard.order["amount"] = json!(500);
    heard.payment = json!({ "state": "not_required", "amount": 500 });
    assert_eq!(judge(&heard, false, now()), []);
}
