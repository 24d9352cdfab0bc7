//! Records that somebody else's producer puts on the shop's topics and its queue: broken, foreign, or
//! said twice. What each of them must come to in every service is said here, once. Never planted by a
//! service of the shop.

use std::time::Duration;

use bytes::Bytes;
use chassis::DeadLetter;
use contract::{CATALOG, Profile, Row, Service, Stream};
use envelope::ENVELOPE_BYTES_MAX;
use ports::{EventLog, JobQueue, Record};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::customers::Customers;
use crate::forms::Form;
use crate::workload::CATEGORY;

/// The header by which a planted record is known.
pub const PLANTED: &str = "x-planted";
/// How long its planter waits for a record that it can copy.
const COPY_WITHIN: Duration = Duration::from_secs(8);

/// By so much a version from the future is higher than the one it was made from.
const LATER: u64 = 8;

/// A record to plant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Poison {
    /// When, milliseconds from the first instant after the setup.
    pub at_ms: u64,
    /// What is wrong with it.
    pub kind: Kind,
    /// Where, by its name in the catalog.
    pub stream: String,
    /// The order, by its name, in whose sequence it stands.
    pub order: String,
    /// Whether an operator mends it, where that can be done, or discards it.
    pub mend: bool,
    /// Of [`Kind::Invalid`] the name of its [`Form`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
    /// So long after it was planted its producer says it once more, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_after_ms: Option<u64>,
}

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// No JSON.
    Garbage,
    /// An envelope over the limit.
    TooLarge,
    /// A type that nobody knows.
    UnknownType,
    /// A known type whose payload lacks what is required.
    BadPayload,
    /// A known type in a version that comes later.
    HigherVersion,
    /// A known fact once more, under a new id.
    SameFact,
    /// A known id with another content.
    ReusedId,
    /// A known order once more, under a new id and at a higher price.
    OtherAmount,
    /// An order that was never placed here, as the owner's table has it: without an amount.
    Foreign,
    /// The same of an order whose rows no database takes.
    Unkept,
    /// A product that the catalog does not have, as the owner's table has it: without a version.
    Unversioned,
    /// The end of an order of which nobody ever said anything else.
    Confirmed,
    /// The other end.
    Cancelled,
    /// One of the [`forms`](crate::forms) of a wrong event.
    Invalid,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 14] = [
        Kind::Garbage,
        Kind::TooLarge,
        Kind::UnknownType,
        Kind::BadPayload,
        Kind::HigherVersion,
        Kind::SameFact,
        Kind::ReusedId,
        Kind::Invalid,
        Kind::OtherAmount,
        Kind::Foreign,
        Kind::Unkept,
        Kind::Unversioned,
        Kind::Confirmed,
        Kind::Cancelled,
    ];

    /// Whether it is made from a record that is there already.
    pub fn copies(self) -> bool {
        match self {
            Kind::HigherVersion | Kind::SameFact | Kind::ReusedId | Kind::OtherAmount => true,
            Kind::Garbage | Kind::TooLarge | Kind::UnknownType | Kind::Foreign => false,
            Kind::BadPayload | Kind::Invalid | Kind::Unkept => false,
            Kind::Unversioned | Kind::Confirmed | Kind::Cancelled => false,
        }
    }

    /// Whether it is about what a stranger made up, not about an order of the shop.
    fn is_made_up(self) -> bool {
        matches!(self, Kind::Foreign | Kind::Unkept | Kind::Unversioned) || self.is_end()
    }

    /// Whether it ends an order.
    pub fn is_end(self) -> bool {
        matches!(self, Kind::Confirmed | Kind::Cancelled)
    }
}

/// What it must come to in a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// A dead letter with this code, which is settled in the end.
    Dead(&'static str),
    /// Nothing.
    Skipped,
    /// An event like any other: known by its id, without a second effect.
    Applied,
    /// An event like any other, known by its row alone.
    Guarded,
}

/// A record that was planted, as it is found at the end.
#[derive(Debug, Clone)]
pub struct Planted {
    /// Its place among what was to be planted.
    pub number: usize,
    /// What is wrong with it.
    pub kind: Kind,
    /// Which form it has, where it has one.
    pub form: Option<&'static Form>,
    /// Where.
    pub stream: Stream,
    /// Its type, where it has one.
    pub event_type: Option<String>,
    /// Its event id, where it has one.
    pub event_id: Option<String>,
    /// The id of the letter that it becomes.
    pub letter: String,
    /// What it says; null where that cannot be read.
    pub payload: Value,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Planted {
    /// A record as it stood on its stream; `None` where nobody planted it.
    pub fn read(
        workload: &[Poison],
        stream: Stream,
        record: &Record,
        letter: String,
    ) -> Option<Self> {
        let (_, number) = record.headers.iter().find(|(name, _)| &**name == PLANTED)?;
        let number: usize = std::str::from_utf8(number).ok()?.parse().ok()?;
        let json: Value = serde_json::from_slice(&record.payload).unwrap_or(Value::Null);
        let word = |field: &str| json[field].as_str().map(str::to_owned);
        let poison = workload.get(number)?;
        let payload = json["payload"].clone();
        Some(Planted {
            number,
            kind: poison.kind,
            form: poison.form.as_deref().and_then(Form::named),
            stream,
            event_type: word("eventType"),
            event_id: word("eventId"),
            letter,
            payload,
            bytes: record.payload.clone(),
        })
    }

    /// What it must come to in a service that reads its stream.
    pub fn fate(&self, service: Service, profile: Profile) -> Fate {
        let row = CATALOG.iter().find(|row| Some(row.event) == self.event_type.as_deref());
        let consumed = row.is_some_and(|row| row.consumers_in(profile).any(|it| it == service));
        match self.kind {
            Kind::Garbage => Fate::Dead("bad_envelope"),
            Kind::TooLarge => Fate::Dead("envelope_too_large"),
            Kind::UnknownType => Fate::Skipped,
            // Nobody can tell whom it concerns.
            Kind::Invalid if self.form.is_some_and(|form| form.code() == "bad_envelope") => {
                Fate::Dead("bad_envelope")
            }
            // Whom it does not concern never looks inside.
            Kind::Invalid
            | Kind::BadPayload
            | Kind::HigherVersion
            | Kind::SameFact
            | Kind::ReusedId
            | Kind::OtherAmount
            | Kind::Foreign
            | Kind::Unkept
            | Kind::Unversioned
            | Kind::Confirmed
            | Kind::Cancelled
                if !consumed =>
            {
                Fate::Skipped
            }
            Kind::BadPayload => Fate::Dead("bad_payload"),
            Kind::Unkept => Fate::Dead("store_refused"),
            Kind::Invalid => Fate::Dead(self.form.map_or("no form", Form::code)),
            Kind::HigherVersion => Fate::Dead("unsupported_version"),
            Kind::SameFact | Kind::Foreign | Kind::Confirmed | Kind::Cancelled => Fate::Applied,
            Kind::Unversioned => Fate::Guarded,
            Kind::ReusedId => Fate::Dead("event_id_reused"),
            // Who takes the money knows what the order costs; Inventory does not ask, and Query keeps the
            // smaller one.
            Kind::OtherAmount if service == Service::Payments => Fate::Dead("order_changed"),
            Kind::OtherAmount => Fate::Applied,
        }
    }
}

/// Whether a service reads this stream.
pub fn reads(service: Service, stream: Stream, profile: Profile) -> bool {
    let mut rows = CATALOG.iter().filter(|row| row.stream == stream);
    rows.any(|row: &Row| row.consumers_in(profile).any(|consumer| consumer == service))
}

/// A letter's payload as it should have been, where an operator can know that.
pub fn mended(letter: &DeadLetter, poisons: &[Poison]) -> Option<Value> {
    let (_, number) = letter.headers.iter().find(|(name, _)| name == PLANTED)?;
    let poison = poisons.get(number.0.parse::<usize>().ok()?)?;
    let mut envelope: Value = serde_json::from_slice(&letter.payload.bytes()).ok()?;
    (poison.mend && poison.kind == Kind::HigherVersion).then(|| {
        let version = envelope["eventVersion"].as_u64().unwrap_or(0);
        envelope["eventVersion"] = json!(version.saturating_sub(LATER));
        envelope
    })
}

impl Customers {
    /// Somebody else's producer plants a record, where there is one that it can copy if it has to.
    pub async fn plant(self, number: usize, poison: Poison) {
        madsim::time::sleep(Duration::from_millis(poison.at_ms)).await;
        let Some(stream) = Stream::ALL.into_iter().find(|it| it.name() == poison.stream) else {
            return;
        };
        let until = self.world().cluster.elapsed() + COPY_WITHIN;
        let payload = loop {
            if let Some(payload) = self.payload(number, &poison, stream) {
                break payload;
            }
            if self.world().cluster.elapsed() > until {
                return;
            }
            madsim::time::sleep(Duration::from_millis(50)).await;
        };
        let order = self.order_id(&poison.order).unwrap_or_else(|| poison.order.clone());
        let record = Record {
            to: stream.name().into(),
            key: if stream.is_topic() { order } else { format!("poison-{number}") }.into(),
            headers: vec![(PLANTED.into(), Bytes::from(number.to_string()))],
            payload,
        };
        let cluster = &self.world().cluster;
        if stream.is_topic() {
            // Ahead of it a transaction's marker, or what was compacted: offsets have gaps (K3).
            let gap = cluster.choices().below("stranger", "gap", 3) as i64;
            cluster.log().with(|log| {
                if let Ok(partition) = log.place(&record) {
                    log.skip(&partition, gap);
                }
            });
        }
        cluster.note("stranger", "planted", format!("{:?} on {}", poison.kind, poison.stream));
        let runtime = cluster.server_runtime();
        if !stream.is_topic() {
            let letter = job_letter(&record);
            if let Some(planted) = Planted::read(self.poisons(), stream, &record, letter) {
                self.note_job(planted);
            }
        }
        let sent = match stream.is_topic() {
            true => cluster.log().client("stranger", runtime).produce(vec![record.clone()]).await,
            false => {
                cluster.queue().client("stranger", runtime).publish(vec![record.clone()]).await
            }
        };
        assert!(sent.iter().all(Result::is_ok), "nothing befalls strangers: {sent:?}");
        let Some(after_ms) = poison.again_after_ms.filter(|_| stream.is_topic()) else { return };
        let log = cluster.log().client("stranger", cluster.server_runtime());
        self.later(async move {
            madsim::time::sleep(Duration::from_millis(after_ms)).await;
            let sent = log.produce(vec![record]).await;
            assert!(sent.iter().all(Result::is_ok), "nothing befalls strangers: {sent:?}");
        });
    }

    /// What it plants; `None` while the order, or a record of it, is not there yet.
    fn payload(&self, number: usize, poison: &Poison, stream: Stream) -> Option<Bytes> {
        let made_up = poison.kind.is_made_up().then(|| poison.order.clone());
        let order = made_up.or_else(|| self.order_id(&poison.order))?;
        let id = format!("poison-{number}");
        let row = CATALOG.iter().find(|row| row.stream == stream)?;
        let envelope = |event_type: &str| {
            json!({
                "eventId": id, "eventType": event_type, "eventVersion": 1,
                "occurredAt": "2026-01-02T03:04:05.000Z", "correlationId": order,
                "payload": { "orderId": 7 },
            })
        };
        let json = match poison.kind {
            Kind::Garbage => return Some(Bytes::from_static(b"\xffno envelope\0")),
            Kind::TooLarge => {
                let mut json = envelope(row.event);
                json["payload"] = json!({ "orderId": "x".repeat(ENVELOPE_BYTES_MAX) });
                json
            }
            Kind::Invalid => {
                let form = Form::named(poison.form.as_deref()?)?;
                return Some(Bytes::from_static(form.bytes));
            }
            Kind::UnknownType => envelope("OrderDreamt"),
            Kind::Foreign | Kind::Unkept => {
                let mut json = envelope(row.event);
                let line = json!({ "productId": "p0", "qty": 1 });
                json["payload"] = json!({ "orderId": order, "lines": [line] });
                json
            }
            Kind::Unversioned => {
                // Who comes later is older.
                let second = 59 - number % 60;
                let mut json = envelope("ProductUpserted");
                json["correlationId"] = json!("stranger");
                json["payload"] = json!({
                    "productId": order, "name": order, "categoryId": CATEGORY, "price": number,
                    "updatedAt": format!("2026-01-02T03:04:{second:02}.000Z"),
                });
                json
            }
            Kind::Confirmed | Kind::Cancelled => {
                let (event_type, end) = match poison.kind {
                    Kind::Confirmed => ("OrderConfirmed", "confirmed"),
                    _ => ("OrderCancelled", "cancelled"),
                };
                let mut json = envelope(event_type);
                json["payload"] = json!({ "orderId": order, "finalStatus": end });
                json
            }
            Kind::BadPayload => envelope(row.event),
            Kind::OtherAmount => {
                let is_created = |json: &Value| json["eventType"] == "OrderCreated";
                let mut json = self.said(stream, &order, is_created)?;
                // Where the table is as written, it has none.
                let amount = json["payload"]["amount"].as_i64()?;
                (json["eventId"], json["payload"]["amount"]) = (json!(id), json!(amount + 1));
                json
            }
            Kind::HigherVersion | Kind::SameFact | Kind::ReusedId => {
                let mut json = self.said(stream, &order, |_| true)?;
                match poison.kind {
                    Kind::ReusedId => json["payload"]["more"] = json!(number),
                    _ => json["eventId"] = json!(id),
                }
                if poison.kind == Kind::HigherVersion {
                    let version = json["eventVersion"].as_u64()?;
                    json["eventVersion"] = json!(version + LATER);
                }
                json
            }
        };
        Some(Bytes::from(json.to_string()))
    }

    /// The last thing of this sort that the shop said of an order on a topic, or wanted of the worker.
    fn said(&self, stream: Stream, order: &str, sort: impl Fn(&Value) -> bool) -> Option<Value> {
        if !stream.is_topic() {
            let seen = self.world().sends.seen();
            let jobs = seen.jobs.iter().rev();
            let mut jobs = jobs.filter_map(|job| serde_json::from_slice(&job.payload).ok());
            return jobs.find(|job: &Value| job["payload"]["orderId"] == order && sort(job));
        }
        self.world().cluster.log().with(|log| {
            let own = log.records(stream.name()).filter(|fetched| {
                let strange = fetched.record.headers.iter().any(|(name, _)| &**name == PLANTED);
                *fetched.record.key == *order && !strange
            });
            let own = own.filter_map(|it| serde_json::from_slice(&it.record.payload).ok());
            own.filter(sort).last()
        })
    }
}

/// The id of the letter that a job becomes.
fn job_letter(record: &Record) -> String {
    format!("{}:{}", record.to, envelope::fingerprint(&record.payload))
}
