//! Judges one order by what each service says of it. Pure: it asks nobody.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::report::{Finding, Invariant};

/// How long after its deadline an order may stay open: the sweeper and the clocks take their time.
const SWEEP_MAX: TimeDelta = TimeDelta::minutes(1);

/// What was heard of an order that Orders knows.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// Orders.
    pub order: Value,
    /// Query; null where it knows nothing. So the next three.
    pub view: Value,
    /// Inventory.
    pub reservation: Value,
    /// Payments.
    pub payment: Value,
    /// The gateway's books; `None` where there is no gateway to look into.
    pub account: Option<Value>,
    /// Notifications API.
    pub notifications: Vec<Value>,
    /// Notifications Worker, each with the number of its copies at the sink; `None` where there is no
    /// sink to look into.
    pub mails: Vec<(Value, Option<usize>)>,
}

/// What is wrong with it, or not over. `flowing` is whether anything was under way between the
/// services: then what only waits for an event may still come.
pub fn judge(heard: &Heard, flowing: bool, now: DateTime<Utc>) -> Vec<Finding> {
    let judging = Judging { heard, flowing, findings: Vec::new() };
    judging.judge(now)
}

struct Judging<'a> {
    heard: &'a Heard,
    flowing: bool,
    findings: Vec<Finding>,
}

fn state(value: &Value) -> &str {
    value["state"].as_str().unwrap_or("nothing")
}

impl Judging<'_> {
    fn judge(mut self, now: DateTime<Utc>) -> Vec<Finding> {
        self.charges();
        match self.heard.order["status"].as_str() {
            Some("pending") => self.open(now),
            Some("confirmed") => self.ended("confirmed", &["committed"]),
            Some("cancelled") => self.ended("cancelled", &["released", "failed", "tombstone"]),
            _ => self.wrong(Invariant::EndsOnce, "Orders shows no status of it".to_owned()),
        }
        self.findings
    }

    fn named(&self, text: String) -> String {
        format!("order {}: {text}", self.heard.order["orderId"].as_str().unwrap_or("?"))
    }

    fn wrong(&mut self, invariant: Invariant, text: String) {
        self.findings.push(Finding::Wrong(invariant, self.named(text)));
    }

    fn unsettled(&mut self, text: String) {
        self.findings.push(Finding::Unsettled(self.named(text)));
    }

    /// Wrong, unless an event that mends it may be on its way.
    fn missing(&mut self, invariant: Invariant, text: String) {
        if self.flowing { self.unsettled(text) } else { self.wrong(invariant, text) }
    }

    fn open(&mut self, now: DateTime<Utc>) {
        let deadline = self.heard.order["deadline"].as_str();
        let deadline = deadline.and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        match deadline {
            Some(deadline) if now > deadline.to_utc() + SWEEP_MAX => {
                self.wrong(Invariant::EndsOnce, format!("open, with its deadline at {deadline}"));
            }
            _ => self.unsettled("open".to_owned()),
        }
        if matches!(
            self.heard.view["status"].as_str(),
            Some("confirmed" | "cancelled" | "conflict")
        ) {
            let shown = &self.heard.view["status"];
            self.wrong(Invariant::EndsOnce, format!("open at Orders, {shown} in Query"));
        }
    }

    fn ended(&mut self, status: &str, reservations: &[&str]) {
        let Heard { order, view, reservation, .. } = self.heard;
        if view["status"] != status {
            let text = format!("{status} at Orders, {} in Query", view["status"]);
            let invariant = Invariant::EndsOnce;
            let ended =
                matches!(view["status"].as_str(), Some("confirmed" | "cancelled" | "conflict"));
            if ended { self.wrong(invariant, text) } else { self.missing(invariant, text) }
        // The event carries its reason by an addition of ours: it may lack.
        } else if !view["terminal"]["reason"].is_null()
            && view["terminal"]["reason"] != order["reason"]
        {
            let (ours, theirs) = (&order["reason"], &view["terminal"]["reason"]);
            let text = format!("cancelled for {ours} at Orders, for {theirs} in Query");
            self.wrong(Invariant::EndsOnce, text);
        }
        if status == "confirmed"
            && reservation["state"] == "pending"
            && !reservation["reason"].is_null()
        {
            let text = "confirmed, and its stock did not fit: an operator's to settle".to_owned();
            self.wrong(Invariant::EndsOnce, text);
        } else if !reservations.contains(&state(reservation)) {
            let text = format!("{status} at Orders, {} at Inventory", state(reservation));
            self.missing(Invariant::EndsOnce, text);
        }
        if order["paymentMode"] != "none" || !self.heard.payment.is_null() {
            self.paid(status);
        }
        self.mailed(status);
    }

    fn charges(&mut self) {
        let Some(account) = &self.heard.account else { return };
        let charges = account["charges"].as_u64().unwrap_or(0);
        if charges > 1 {
            self.wrong(Invariant::ChargedOnce, format!("charged {charges} times"));
        }
        let known = &self.heard.payment;
        if charges > 0 && known.is_null() {
            self.wrong(Invariant::GatewayAgrees, "charged, and Payments knows nothing".to_owned());
        }
    }

    fn paid(&mut self, status: &str) {
        let payment = &self.heard.payment;
        if payment["openItem"] == true {
            let refused = payment["refused"].as_str().unwrap_or("no reason");
            let text = format!("{} ({refused}): an operator's to settle", state(payment));
            return self.wrong(Invariant::MoneyFollowsOrders, text);
        }
        let text = format!("{status} at Orders, {} at Payments", state(payment));
        match (status, state(payment)) {
            ("confirmed", "captured" | "not_required")
            | ("cancelled", "voided" | "declined" | "tombstone" | "not_required") => {}
            // It waits for the gateway: at rest nothing does.
            (_, "authorising" | "capturing" | "voiding" | "charging") => {
                return self.unsettled(text);
            }
            (_, "nothing" | "intent" | "authorised") => {
                return self.missing(Invariant::MoneyFollowsOrders, text);
            }
            _ => self.wrong(Invariant::MoneyFollowsOrders, text),
        }
        self.at_the_gateway(status);
    }

    /// The gateway's books against Payments' state and the order's end.
    fn at_the_gateway(&mut self, status: &str) {
        let (payment, order) = (&self.heard.payment, &self.heard.order);
        let Some(account) = &self.heard.account else { return };
        let of = |field: &str| account[field].as_i64().unwrap_or(0);
        let amount = payment["amount"].as_i64().unwrap_or(0);
        // Nothing to pay needs no gateway; where there are no amounts, captures count.
        let free = payment["amount"] == 0;
        let (captured, held, captures) = (of("captured"), of("held"), of("captures"));
        let due = match state(payment) {
            "captured" => amount,
            _ => 0,
        };
        let taken = i64::from(state(payment) == "captured" && !free);
        if captured != due || held != 0 || (!free && captures != taken) {
            let said = state(payment);
            self.wrong(
                Invariant::GatewayAgrees,
                format!(
                    "{said} with {amount} at Payments; the gateway captured {captured} in {captures} \
                     captures and holds {held}"
                ),
            );
        }
        let ordered = order["amount"].as_i64().unwrap_or(0);
        let owed =
            if status == "confirmed" && order["paymentMode"] != "none" { ordered } else { 0 };
        if captured != owed || held != 0 {
            let text =
                format!("{status}, owes {owed}; the gateway captured {captured}, holds {held}");
            self.wrong(Invariant::MoneyFollowsOrders, text);
        }
    }

    fn mailed(&mut self, status: &str) {
        let Heard { notifications, mails, .. } = self.heard;
        if notifications.is_empty() {
            let text = format!("{status}, and Notifications API asked for no mail");
            return self.missing(Invariant::MailSent, text);
        }
        for job in notifications {
            let revision = &job["revision"];
            if job["type"] != status {
                let text = format!("{status}, and a mail says {}", job["type"]);
                self.wrong(Invariant::MailSent, text);
            }
            let same = |mail: &Value| mail["revision"] == *revision && mail["type"] == job["type"];
            let found = mails.iter().find(|(mail, _)| same(mail));
            let Some((mail, copies)) = found else {
                let text = format!("the worker knows no mail of revision {revision}");
                self.missing(Invariant::MailSent, text);
                continue;
            };
            match (state(mail), copies) {
                ("pending", _) => {
                    self.unsettled(format!("the mail of revision {revision} is pending"))
                }
                ("sent", Some(0)) => {
                    let text =
                        format!("the mail {} is sent and not at the sink", mail["messageId"]);
                    self.wrong(Invariant::MailSent, text);
                }
                // Undeliverable is visible, which is what is promised.
                _ => {}
            }
        }
        if mails.len() > notifications.len() {
            let text = format!("{} mails for {} notifications", mails.len(), notifications.len());
            self.missing(Invariant::MailSent, text);
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
