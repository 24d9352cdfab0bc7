//! A mail as text (RFC 5322). Never lets an id out of its place: what is not a letter, a digit, `-`
//! or `_` is percent-encoded in addresses and names.

use chassis::Trace;
use chrono::{DateTime, Utc};
use contract::NotificationType;

use crate::rules::Wanted;

/// Who sends.
const FROM: &str = "Orders <orders@shakedown.invalid>";

/// A mail to be sent. Each copy of it is the same, to the byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// `order.type.revision@shakedown.invalid`, without its angle brackets: the same for each copy,
    /// so that a sink may send one only.
    pub message_id: String,
    /// The customer's address.
    pub to: String,
    /// What it is about.
    pub subject: String,
    /// When it was wanted.
    pub date: DateTime<Utc>,
    /// Lines of text, in ASCII.
    pub body: Vec<String>,
    /// The trace that it belongs to, for whoever follows an order to its mail.
    pub trace: Option<Trace>,
}

impl Mail {
    /// The mail for what is wanted.
    pub fn new(wanted: &Wanted, wanted_at: DateTime<Utc>) -> Self {
        let Wanted { order_id, kind, channel: _, revision } = wanted;
        let safe = encoded(order_id.as_str());
        let happened = match kind {
            NotificationType::Confirmed => "confirmed",
            NotificationType::Cancelled => "cancelled",
        };
        let mut body = vec![format!("Your order {order_id} was {happened}.")];
        if *revision > 1 {
            body.push(format!("You asked to be told again: this is message {revision}."));
        }
        Mail {
            message_id: format!("{safe}.{}.{revision}@shakedown.invalid", kind.name()),
            to: format!("{safe}@example.invalid"),
            subject: format!("Order {order_id} {happened}"),
            date: wanted_at,
            body,
            trace: None,
        }
    }

    /// The mail as RFC 5322 text, with its line ends.
    pub fn text(&self) -> String {
        let mut headers = vec![
            format!("From: {FROM}"),
            format!("To: <{}>", self.to),
            format!("Subject: {}", self.subject),
            format!("Date: {}", self.date.to_rfc2822()),
            format!("Message-ID: <{}>", self.message_id),
            "MIME-Version: 1.0".to_owned(),
            "Content-Type: text/plain; charset=us-ascii".to_owned(),
        ];
        headers
            .extend(self.trace.iter().map(|trace| format!("Traceparent: {}", trace.traceparent())));
        headers.push(String::new());
        headers.iter().chain(&self.body).flat_map(|line| [line.as_str(), "\r\n"]).collect()
    }
}

/// Letters, digits, `-` and `_` as they are, every other byte as `%XX`: different texts stay
/// different, and the outcome is safe in an address and in a file's name.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{NotificationChannel, OrderId};
    use envelope::parse_time;
    use proptest::prelude::*;

    fn mail(order: &str, revision: u32) -> Mail {
        let order_id = OrderId::parse(order).unwrap();
        let (kind, channel) = (NotificationType::Confirmed, NotificationChannel::Email);
        let wanted_at = parse_time("2026-01-02T03:04:05.678Z").unwrap();
        Mail::new(&Wanted { order_id, kind, channel, revision }, wanted_at)
    }

    #[test]
    fn a_mail_as_text() {
        let lines = [
            "From: Orders <orders@shakedown.invalid>",
            "To: <o-1@example.invalid>",
            "Subject: Order o-1 confirmed",
            "Date: Fri, 2 Jan 2026 03:04:05 +0000",
            "Message-ID: <o-1.confirmed.1@shakedown.invalid>",
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=us-ascii",
            "",
            "Your order o-1 was confirmed.",
            "",
        ];
        assert_eq!(mail("o-1", 1).text(), lines.join("\r\n"));
    }

    #[test]
    fn a_mail_says_its_trace() {
        let trace = Trace::begun_by("job-1");
        let text = Mail { trace: Some(trace.clone()), ..mail("o-1", 1) }.text();
        let line = format!("\r\nTraceparent: {}\r\n\r\n", trace.traceparent());
        assert!(text.contains(&line), "{text}");
    }

    #[test]
    fn a_resend_has_an_id_of_its_own() {
        assert_eq!(mail("o", 2).message_id, "o.confirmed.2@shakedown.invalid");
        assert_ne!(mail("o", 1).text(), mail("o", 2).text());
    }

    #[test]
    fn an_id_cannot_leave_the_address() {
        let strange = mail("a>,<b@evil.example", 1);
        assert_eq!(strange.to, "a%3E%2C%3Cb%40evil%2Eexample@example.invalid");
        let id = "a%3E%2C%3Cb%40evil%2Eexample.confirmed.1@shakedown.invalid";
        assert_eq!(strange.message_id, id);
        assert_eq!(mail("../../etc", 1).to, "%2E%2E%2F%2E%2E%2Fetc@example.invalid");
    }

    proptest! {
        #[test]
        fn no_id_makes_a_header(order in "[!-~]{1,64}") {
            let text = mail(&order, 1).text();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let names: Vec<&str> =
                head.split("\r\n").map(|line| line.split_once(": ").unwrap().0).collect();
            let expected =
                ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"];
            prop_assert_eq!(names, expected);
            prop_assert_eq!(body.matches("\r\n").count(), 1);
            prop_assert!(text.split("\r\n").all(|line| line.len() <= 998 && !line.contains('\n')));
            prop_assert_eq!(text.matches('<').count() - order.matches('<').count() * 2, 3);
        }

        #[test]
        fn different_orders_have_different_ids(one in "[!-~]{1,8}", other in "[!-~]{1,8}") {
            let same = mail(&one, 1).message_id == mail(&other, 1).message_id;
            prop_assert_eq!(same, one == other);
        }
    }
}
