//! Poison for topics and the queue: bytes that somebody may send, and what must become of them. Made
//! here, and sent nowhere from here.

use contract::Stream;
use serde_json::{Value, json};

/// What must become of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// A dead letter under this code: of those who consume the event, or, where nobody can tell what it
    /// is (`None`), of all who read the stream.
    Dead(&'static str, Option<&'static str>),
    /// Nothing, and no trace.
    Skipped,
    /// The same as without its flaw: readers are tolerant.
    Applied,
}

/// A record that is not as it should be.
#[derive(Debug, Clone)]
pub struct Poison {
    /// What is wrong with it, unique.
    pub name: String,
    /// Where it is put.
    pub stream: Stream,
    /// Its partition key, or the job's message id.
    pub key: String,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// What must become of it.
    pub fate: Fate,
    /// The order or product that it is about, where it can be told.
    pub about: String,
}

/// Every event type and where it travels.
pub const EVENTS: [(&str, Stream); 8] = [
    ("ProductUpserted", Stream::CatalogEvents),
    ("OrderCreated", Stream::OrdersEvents),
    ("OrderConfirmed", Stream::OrdersEvents),
    ("OrderCancelled", Stream::OrdersEvents),
    ("StockReserved", Stream::InventoryEvents),
    ("StockFailed", Stream::InventoryEvents),
    ("PaymentProcessed", Stream::PaymentsEvents),
    ("NotificationJob", Stream::NotificationsJobs),
];

/// A good event of this type about this order or product, under an id of its own.
pub fn good(kind: &str, about: &str, event_id: &str) -> Value {
    let payload = match kind {
        "ProductUpserted" => json!({
            "productId": about, "name": "Tea", "categoryId": "drinks", "price": 350,
            "updatedAt": "2026-01-02T03:04:05.678Z", "productVersion": 1,
        }),
        "OrderCreated" => json!({
            "orderId": about, "lines": [{ "productId": "tea", "qty": 1, "unitPrice": 350 }],
            "amount": 350, "currency": "EUR", "paymentMode": "parallel",
        }),
        "StockReserved" => json!({ "orderId": about }),
        "StockFailed" => json!({ "orderId": about, "reason": "insufficient_stock" }),
        "PaymentProcessed" => json!({ "orderId": about, "status": "success" }),
        "OrderConfirmed" => json!({ "orderId": about, "finalStatus": "confirmed" }),
        "OrderCancelled" => json!({ "orderId": about, "finalStatus": "cancelled" }),
        "NotificationJob" => json!({ "orderId": about, "type": "cancelled", "channel": "email" }),
        kind => panic!("no event is called {kind}"),
    };
    json!({
        "eventId": event_id, "eventType": kind, "eventVersion": 1,
        "occurredAt": "2026-01-02T03:04:05.678Z", "correlationId": about, "payload": payload,
    })
}

/// The whole table. `tag` keeps the ids of several tables in one world apart.
pub fn table(tag: &str) -> Vec<Poison> {
    let mut table = Table { tag: tag.to_owned(), rows: Vec::new() };
    for (kind, stream) in EVENTS {
        table.bytes(kind, stream);
        table.envelopes(kind, stream);
        table.payloads(kind, stream);
        table.tolerated(kind, stream);
    }
    table.orders();
    table.values();
    table.rows
}

struct Table {
    tag: String,
    rows: Vec<Poison>,
}

impl Table {
    fn about(&self) -> String {
        format!("{}-{}", self.tag, self.rows.len())
    }

    fn row(&mut self, name: String, stream: Stream, payload: impl Into<Vec<u8>>, fate: Fate) {
        let about = self.about();
        let (key, payload) = (about.clone(), payload.into());
        self.rows.push(Poison { name, stream, key, payload, fate, about });
    }

    /// A good event but for one edit.
    fn edit(
        &mut self,
        kind: &str,
        stream: Stream,
        what: &str,
        fate: Fate,
        edit: impl Fn(&mut Value),
    ) {
        let about = self.about();
        let mut event = good(kind, &about, &format!("e-{about}"));
        edit(&mut event);
        self.row(format!("{kind}: {what}"), stream, event.to_string(), fate);
    }

    /// What is no envelope at all.
    fn bytes(&mut self, kind: &'static str, stream: Stream) {
        // Once a stream: who sent it does not matter where nothing can be read.
        if EVENTS.iter().find(|(_, there)| *there == stream).map(|(first, _)| *first) != Some(kind)
        {
            return;
        }
        let whole = good(kind, &self.about(), "cut").to_string();
        let cut = whole[..whole.len() / 2].to_owned();
        let large = format!("{whole}{}", " ".repeat(2_000_000));
        let nested = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        let unread = Fate::Dead("bad_envelope", None);
        for (what, bytes) in [
            ("no bytes", Vec::new()),
            ("no JSON", b"hello".to_vec()),
            ("half an event", cut.into_bytes()),
            ("invalid UTF-8", vec![0xff, 0xfe, b'{', b'}', 0xc3]),
            ("only U+0000", vec![0; 16]),
            ("a list", b"[1,2,3]".to_vec()),
            ("null", b"null".to_vec()),
            ("an empty object", b"{}".to_vec()),
            ("5,000 lists in each other", nested.into_bytes()),
            ("two events in one record", format!("{whole}{whole}").into_bytes()),
        ] {
            self.row(format!("{}: {what}", stream.name()), stream, bytes, unread);
        }
        let fate = Fate::Dead("envelope_too_large", None);
        self.row(format!("{}: 2 MB", stream.name()), stream, large, fate);
    }

    /// What is wrong around the payload.
    fn envelopes(&mut self, kind: &'static str, stream: Stream) {
        let unread = Fate::Dead("bad_envelope", None);
        let newer = Fate::Dead("unsupported_version", Some(kind));
        self.edit(kind, stream, "no eventId", unread, |e| {
            drop(e.as_object_mut().map(|e| e.remove("eventId")))
        });
        self.edit(kind, stream, "version 0", unread, |e| e["eventVersion"] = json!(0));
        self.edit(kind, stream, "version 99", newer, |e| e["eventVersion"] = json!(99));
        self.edit(kind, stream, "an unknown type", Fate::Skipped, |e| {
            e["eventType"] = json!("OrderShipped")
        });
    }

    /// What is wrong inside of it.
    fn payloads(&mut self, kind: &'static str, stream: Stream) {
        let bad = Fate::Dead("bad_payload", Some(kind));
        let id = if kind == "ProductUpserted" { "productId" } else { "orderId" };
        self.edit(kind, stream, "payload null", bad, |e| e["payload"] = Value::Null);
        self.edit(kind, stream, "payload a list", bad, |e| e["payload"] = json!([]));
        let missing = format!("no {id}");
        self.edit(kind, stream, &missing, bad, |e| {
            drop(e["payload"].as_object_mut().map(|p| p.remove(id)))
        });
        for (what, value) in [
            ("a number", json!(7)),
            ("empty", json!("")),
            ("65 characters", json!("x".repeat(65))),
            ("with a control character", json!("a\u{7}b")),
        ] {
            let what = format!("{id} {what}");
            self.edit(kind, stream, &what, bad, |e| e["payload"][id] = value.clone());
        }
    }

    /// What looks wrong and is none.
    fn tolerated(&mut self, kind: &'static str, stream: Stream) {
        let applied = Fate::Applied;
        self.edit(kind, stream, "unknown fields", applied, |e| {
            e["shop"] = json!("Berlin");
            e["payload"]["shop"] = json!({ "city": ["Berlin"] });
        });
        if kind == "NotificationJob" {
            return;
        }
        for (what, key) in [("another partition key", "somebody-else"), ("no partition key", "")] {
            self.edit(kind, stream, what, applied, |_| {});
            self.rows.last_mut().expect("a row was added").key = key.to_owned();
        }
    }

    /// OrderCreated, which starts everything.
    fn orders(&mut self) {
        let (kind, stream) = ("OrderCreated", Stream::OrdersEvents);
        let bad = Fate::Dead("bad_payload", Some(kind));
        let line = json!({ "productId": "tea", "qty": 1 });
        for (what, lines) in [
            ("no lines", json!([])),
            ("lines null", Value::Null),
            ("lines an object", json!({ "tea": 1 })),
            ("a line that is a list", json!([["tea", 1]])),
            ("a line without product", json!([{ "qty": 1 }])),
            ("qty 0", json!([{ "productId": "tea", "qty": 0 }])),
            ("qty negative", json!([{ "productId": "tea", "qty": -1 }])),
            ("qty beyond 32 bits", json!([{ "productId": "tea", "qty": 4_294_967_296_u64 }])),
            ("qty a fraction", json!([{ "productId": "tea", "qty": 1.5 }])),
            ("qty a text", json!([{ "productId": "tea", "qty": "1" }])),
            ("a good line and a bad one", json!([line, { "productId": "tea", "qty": 0 }])),
            ("unitPrice negative", json!([{ "productId": "tea", "qty": 1, "unitPrice": -1 }])),
        ] {
            self.edit(kind, stream, what, bad, |e| e["payload"]["lines"] = lines.clone());
        }
        for (field, what, value) in [
            ("amount", "negative", json!(-1)),
            ("amount", "beyond 64 bits", json!(1e30)),
            ("amount", "a fraction", json!(0.5)),
            ("amount", "an object", json!({ "minor": 1 })),
            ("currency", "in small letters", json!("eur")),
            ("currency", "a sign", json!("€")),
            ("paymentMode", "unknown", json!("barter")),
            ("cartId", "empty", json!("")),
        ] {
            let what = format!("{field} {what}");
            self.edit(kind, stream, &what, bad, |e| e["payload"][field] = value.clone());
        }
        let many = |count: usize| Value::from(vec![line.clone(); count]);
        let large = Fate::Dead("envelope_too_large", None);
        self.edit(kind, stream, "10,000 lines", large, |e| e["payload"]["lines"] = many(10_000));
        self.edit(kind, stream, "5,000 lines of one product", Fate::Applied, |e| {
            e["payload"]["lines"] = many(5_000)
        });
        let most = json!([{ "productId": "tea", "qty": u32::MAX }, { "productId": "tea", "qty": u32::MAX }]);
        self.edit(kind, stream, "the most of a product, twice", Fate::Applied, |e| {
            e["payload"]["lines"] = most.clone()
        });
        self.edit(kind, stream, "the highest amount", Fate::Applied, |e| {
            e["payload"]["amount"] = json!(i64::MAX)
        });
        self.edit(kind, stream, "an amount of nothing", Fate::Applied, |e| {
            e["payload"]["amount"] = json!(0)
        });
    }

    /// Values of the other types.
    fn values(&mut self) {
        for (kind, field, what, value) in [
            ("OrderConfirmed", "finalStatus", "contradicts", json!("cancelled")),
            ("OrderConfirmed", "finalStatus", "unknown", json!("lost")),
            ("OrderCancelled", "finalStatus", "contradicts", json!("confirmed")),
            ("OrderCancelled", "reason", "with U+0000", json!("a\u{0}b")),
            ("StockFailed", "reason", "a number", json!(7)),
            ("StockFailed", "reason", "with U+0000", json!("\u{0}")),
            ("PaymentProcessed", "status", "in capitals", json!("SUCCESS")),
            ("PaymentProcessed", "status", "unknown", json!("maybe")),
            ("ProductUpserted", "price", "negative", json!(-1)),
            ("ProductUpserted", "price", "a text", json!("3.50")),
            ("ProductUpserted", "price", "beyond 64 bits", json!(1e30)),
            ("ProductUpserted", "name", "with U+0000", json!("a\u{0}b")),
            ("ProductUpserted", "updatedAt", "no time", json!("yesterday")),
            ("ProductUpserted", "productVersion", "0", json!(0)),
            ("ProductUpserted", "productVersion", "negative", json!(-1)),
            ("NotificationJob", "type", "unknown", json!("greeting")),
            ("NotificationJob", "channel", "unknown", json!("pigeon")),
            ("NotificationJob", "revision", "0", json!(0)),
        ] {
            let stream = EVENTS.iter().find(|(name, _)| *name == kind).map(|(_, stream)| *stream);
            let stream = stream.unwrap_or_else(|| panic!("no event is called {kind}"));
            let fate = Fate::Dead("bad_payload", Some(kind));
            let what = format!("{field} {what}");
            self.edit(kind, stream, &what, fate, |e| e["payload"][field] = value.clone());
        }
    }
}
