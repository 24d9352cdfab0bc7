//! One order's story, made of what the services say of it: what happened when, how things stand, and
//! what is still to come. Pure: the same facts and time give the same story.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;

use super::facts::{Facts, Part};
use crate::words::{count, money, span};

/// A thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// When, as whoever did it says: clocks of several nodes.
    pub at: DateTime<Utc>,
    /// Who did it.
    pub who: &'static str,
    /// What.
    pub what: String,
}

/// The whole story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    /// As Orders says, or `unknown to Orders`.
    pub status: String,
    /// What happened, in the order of its times.
    pub happened: Vec<Line>,
    /// How each thing stands: what, and how.
    pub stands: Vec<(&'static str, String)>,
    /// What is still to come, and what keeps it; empty where it is over.
    pub waits_for: Vec<String>,
    /// Whom one could not ask.
    pub silent: Vec<String>,
}

/// The story; `None` where nobody knows the order.
pub fn tell(facts: &Facts, now: DateTime<Utc>) -> Option<Story> {
    let Facts { order, view, reservation, payment, account, notifications, mails, .. } = facts;
    let about = [order, view, reservation, payment, account, notifications, mails];
    let silent = silent(facts);
    if about.iter().all(|part| matches!(part, Part::Absent)) {
        return None;
    }
    let status = match order {
        Part::Known(order) => text(&order["status"]),
        Part::Absent => "unknown to Orders".to_owned(),
        Part::Silent(_) => "Orders does not answer".to_owned(),
    };
    let mut happened = happened(facts);
    happened.sort_by_key(|line| line.at);
    Some(Story { status, happened, stands: stands(facts), waits_for: waits(facts, now), silent })
}

fn silent(facts: &Facts) -> Vec<String> {
    [
        ("Orders", &facts.order),
        ("Query", &facts.view),
        ("Inventory", &facts.reservation),
        ("Payments", &facts.payment),
        ("the gateway", &facts.account),
        ("Notifications API", &facts.notifications),
        ("Notifications Worker", &facts.mails),
        ("the dead letters", &facts.dead_letters),
        ("the backlog", &facts.backlog),
    ]
    .into_iter()
    .filter_map(|(who, part)| match part {
        Part::Silent(error) => Some(format!("{who}: {error}")),
        Part::Known(_) | Part::Absent => None,
    })
    .collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn time(value: &Value) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc3339(value.as_str()?).ok()?.to_utc())
}

/// `what`, with its reason in brackets where there is one.
fn because(what: &str, reason: &Value) -> String {
    match reason.as_str() {
        Some(reason) => format!("{what} ({reason})"),
        None => what.to_owned(),
    }
}

fn happened(facts: &Facts) -> Vec<Line> {
    let (order, view) = (facts.order.value(), facts.view.value());
    let placed = if order.is_null() { view } else { order };
    let mut lines = vec![
        (&placed["createdAt"], "Orders", placed_as(placed)),
        (&view["stock"]["at"], "Inventory", because(&stock(view), &view["stock"]["reason"])),
        (&view["payment"]["at"], "Payments", because(&payment(view), &view["payment"]["reason"])),
        (&view["terminal"]["at"], "Orders", because(&ended(view), &view["terminal"]["reason"])),
    ];
    for job in facts.notifications.items() {
        let (kind, revision) = (text(&job["type"]), &job["revision"]);
        let what = format!("asks for the mail {kind}, revision {revision}");
        lines.push((&job["requestedAt"], "Notifications API", what));
    }
    for mail in facts.mails.items() {
        let (kind, revision) = (text(&mail["type"]), &mail["revision"]);
        let what = format!("takes on the mail {kind}, revision {revision}");
        lines.push((&mail["wantedAt"], "Notifications Worker", what));
    }
    for letter in facts.dead_letters.items() {
        let (service, code) = (text(&letter["service"]), text(&letter["code"]));
        let event = text(&letter["eventType"]);
        let what = match letter["state"].as_str() {
            Some("parked") => format!("{event} waits behind a dead letter at {service}"),
            _ => format!("{event} is a dead letter at {service}: {code}"),
        };
        lines.push((&letter["firstFailedAt"], "Dead letters", what));
    }
    let timed = lines.into_iter().filter_map(|(at, who, what)| {
        let at = time(at)?;
        Some(Line { at, who, what })
    });
    timed.collect()
}

fn placed_as(order: &Value) -> String {
    let lines = order["lines"].as_array().map_or(0, Vec::len) as u64;
    let mut what = format!("OrderCreated: {}", count(lines, "line", "lines"));
    if let Some(amount) = order["amount"].as_i64() {
        what += &format!(" for {} {}", money(amount), text(&order["currency"]));
    }
    match order["paymentMode"].as_str() {
        Some("after_stock") => what += ", paid after stock",
        Some("none") => what += ", not paid here",
        _ => {}
    }
    what
}

fn stock(view: &Value) -> String {
    match view["stock"]["state"].as_str() {
        Some("reserved") => "StockReserved".to_owned(),
        Some("failed") => "StockFailed".to_owned(),
        _ => text(&view["stock"]["state"]),
    }
}

fn payment(view: &Value) -> String {
    format!("PaymentProcessed: {}", text(&view["payment"]["state"]))
}

fn ended(view: &Value) -> String {
    match view["terminal"]["state"].as_str() {
        Some("confirmed") => "OrderConfirmed".to_owned(),
        Some("cancelled") => "OrderCancelled".to_owned(),
        _ => text(&view["terminal"]["state"]),
    }
}

fn stands(facts: &Facts) -> Vec<(&'static str, String)> {
    let mut stands = Vec::new();
    if let Part::Known(order) = &facts.order {
        let mut said = because(&text(&order["status"]), &order["reason"]);
        said += &format!("; stock {}, payment {}", text(&order["stock"]), text(&order["payment"]));
        if order["cancel"] == "requested" {
            said += ", the customer cancelled";
        }
        let late = order["late"]["stock"].as_u64().unwrap_or(0)
            + order["late"]["payment"].as_u64().unwrap_or(0);
        if late > 0 {
            said += &format!(", {} ignored", count(late, "late fact", "late facts"));
        }
        stands.push(("order", said));
    }
    if let Part::Known(view) = &facts.view {
        stands.push(("shown as", text(&view["status"])));
    }
    if let Part::Known(reservation) = &facts.reservation {
        let lines = reservation["lines"].as_object().map(|lines| {
            let lines: Vec<String> =
                lines.iter().map(|(product, qty)| format!("{qty} × {product}")).collect();
            format!(": {}", lines.join(", "))
        });
        let state = because(&text(&reservation["state"]), &reservation["reason"]);
        stands.push(("stock", state + &lines.unwrap_or_default()));
    }
    if let Part::Known(payment) = &facts.payment {
        let mut said = because(&text(&payment["state"]), &payment["reason"]);
        if let Some(amount) = payment["amount"].as_i64() {
            said += &format!(", {}", money(amount));
        }
        stands.push(("money", said));
    }
    if let Part::Known(account) = &facts.account {
        stands.push(("gateway", at_the_gateway(account)));
    }
    for mail in facts.mails.items() {
        let attempts = count(mail["attempts"].as_u64().unwrap_or(0), "attempt", "attempts");
        let state = because(&text(&mail["state"]), &mail["reason"]);
        stands.push(("mail", format!("{state} after {attempts}: <{}>", text(&mail["messageId"]))));
    }
    stands
}

fn at_the_gateway(account: &Value) -> String {
    let sum = |field: &str| money(account[field].as_i64().unwrap_or(0));
    let mut said = format!("captured {}, held {}", sum("captured"), sum("held"));
    for operation in account["operations"].as_array().into_iter().flatten() {
        let answer = match &operation["answer"] {
            Value::Null => "no answer yet".to_owned(),
            Value::Object(declined) => because("declined", &declined["declined"]),
            answer => text(answer),
        };
        said += &format!("; {} {answer}", text(&operation["operation"]));
        let calls = operation["calls"].as_u64().unwrap_or(0);
        if calls > 1 {
            said += &format!(" after {calls} calls");
        }
    }
    said
}

/// What is still to come.
fn waits(facts: &Facts, now: DateTime<Utc>) -> Vec<String> {
    let mut waits = Vec::new();
    if let Part::Known(order) = &facts.order {
        if order["status"] == "pending" {
            while_open(facts, order, now, &mut waits);
        } else {
            after_the_end(facts, order, now, &mut waits);
        }
    } else if matches!(facts.order, Part::Absent) {
        waits.push(
            "Orders never placed it, or lost it: what the others have is a stub (GET /stubs)"
                .into(),
        );
    }
    for letter in facts.dead_letters.items().iter().filter(|letter| letter["state"] != "parked") {
        let (service, id) = (text(&letter["service"]), text(&letter["id"]));
        waits.push(format!(
            "an operator: {service} has a dead letter of it ({}); when the cause is mended, \
             `shakedown dlq redrive {service} {id}`",
            text(&letter["code"])
        ));
    }
    waits
}

fn while_open(facts: &Facts, order: &Value, now: DateTime<Utc>, waits: &mut Vec<String>) {
    let since =
        time(&order["createdAt"]).map_or(String::new(), |at| format!(" since {}", span(now - at)));
    let before = waits.len();
    if order["stock"] == "pending" {
        let why = match &facts.reservation {
            Part::Absent => {
                "Inventory has not read OrderCreated".to_owned()
                    + &behind(facts, "orders", "inventory")
            }
            Part::Known(row) => format!(
                "Inventory: {}{}",
                text(&row["state"]),
                behind(facts, "inventory", "orders")
            ),
            Part::Silent(_) => "Inventory does not answer".to_owned(),
        };
        waits.push(format!("StockReserved or StockFailed{since}; {why}"));
    }
    let after_stock = order["paymentMode"] == "after_stock" && order["stock"] == "pending";
    if order["payment"] == "pending" && !after_stock {
        let why = match &facts.payment {
            Part::Absent => {
                "Payments has not read OrderCreated".to_owned()
                    + &behind(facts, "orders", "payments")
            }
            Part::Known(row) => {
                format!("Payments: {}{}", calling(row, now), behind(facts, "payments", "orders"))
            }
            Part::Silent(_) => "Payments does not answer".to_owned(),
        };
        waits.push(format!("PaymentProcessed{since}; {why}"));
    }
    if waits.len() == before {
        waits.push(format!(
            "Orders to decide, which it does at once{}",
            behind(facts, "payments", "orders")
        ));
    }
    if let Some(deadline) = time(&order["deadline"]) {
        waits.push(if deadline > now {
            format!("at the latest its deadline, in {}: then it is cancelled", span(deadline - now))
        } else {
            format!("its cancellation: the deadline passed {} ago", span(now - deadline))
        });
    }
}

/// How a payment's call to the gateway stands.
fn calling(payment: &Value, now: DateTime<Utc>) -> String {
    let mut said = text(&payment["state"]);
    let attempts = payment["attempts"].as_u64().unwrap_or(0);
    if attempts > 0 {
        said += &format!(", {}", count(attempts, "unknown answer", "unknown answers"));
    }
    if let Some(due) = time(&payment["due"]) {
        said += &next(due, now);
    }
    said
}

fn next(due: DateTime<Utc>, now: DateTime<Utc>) -> String {
    if due > now + TimeDelta::milliseconds(1) {
        format!(", next call in {}", span(due - now))
    } else {
        ", a call is due".to_owned()
    }
}

/// What is under way from one service to another, where it is any.
fn behind(facts: &Facts, from: &str, to: &str) -> String {
    let services = &facts.backlog.value()["services"];
    let unsent = services[from]["outbox"].as_u64().unwrap_or(0);
    let lag = services[to]["lag"].as_object().into_iter().flatten();
    let lag: u64 = lag
        .filter(|(topic, _)| topic.ends_with(&format!("{from}.events")))
        .filter_map(|(_, lag)| lag.as_u64())
        .sum();
    match (unsent, lag) {
        (0, 0) => String::new(),
        _ => format!(" ({unsent} unsent at {from}, {lag} unread at {to})"),
    }
}

fn after_the_end(facts: &Facts, order: &Value, now: DateTime<Utc>, waits: &mut Vec<String>) {
    let event = if order["status"] == "confirmed" { "OrderConfirmed" } else { "OrderCancelled" };
    let view = facts.view.value();
    if matches!(facts.view, Part::Absent) || !view.is_null() && view["status"] != order["status"] {
        waits.push(format!("Query to show {event}{}", behind(facts, "orders", "query")));
    }
    let reservation = facts.reservation.value();
    match reservation["state"].as_str() {
        Some("reserved") => {
            waits
                .push(format!("Inventory to read {event}{}", behind(facts, "orders", "inventory")));
        }
        Some("pending") if !reservation["reason"].is_null() => {
            waits.push("an operator: it is confirmed, and its stock did not fit".to_owned());
        }
        _ => {}
    }
    let payment = facts.payment.value();
    match payment["state"].as_str() {
        Some("capture_failed" | "void_failed") => waits.push(format!(
            "an operator to settle the payment: {}",
            because(&text(&payment["state"]), &payment["refused"])
        )),
        Some("authorising" | "capturing" | "voiding" | "charging") => {
            waits.push(format!("the gateway; Payments: {}", calling(payment, now)));
        }
        Some("authorised") => {
            waits.push(format!("Payments to read {event}{}", behind(facts, "orders", "payments")));
        }
        _ => {}
    }
    after_the_end_mail(facts, event, now, waits);
}

fn after_the_end_mail(facts: &Facts, event: &str, now: DateTime<Utc>, waits: &mut Vec<String>) {
    let (jobs, mails) = (facts.notifications.items(), facts.mails.items());
    if matches!(facts.notifications, Part::Absent) {
        let behind = behind(facts, "orders", "notifications-api");
        waits.push(format!("Notifications API to read {event}{behind}"));
    } else if jobs.len() > mails.len() && !matches!(facts.mails, Part::Silent(_)) {
        waits.push("Notifications Worker to take its job from the queue".to_owned());
    }
    for mail in mails {
        match mail["state"].as_str() {
            Some("pending") => {
                let attempts = count(mail["attempts"].as_u64().unwrap_or(0), "attempt", "attempts");
                let due = time(&mail["due"]).map_or(String::new(), |due| next(due, now));
                waits.push(format!("the mail to be sent: {attempts} so far{due}"));
            }
            Some("undeliverable") => {
                let why = because("the mail is undeliverable", &mail["reason"]);
                waits.push(format!("an operator: {why}"));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "story_tests.rs"]
mod tests;
