//! Which versions of each type a build reads and writes, as a value: what ships, or, in a test, what
//! the next release will. An older payload becomes a newer one step by step, so that whoever handles
//! events knows the newest alone. Never decides what an event is good for.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use envelope::{CorrelationId, Envelope, EventId, Object, Payload, Seal, printable};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{
    CATALOG, ContractError, Event, NotificationJob, OrderCancelled, OrderConfirmed, OrderCreated,
    OrderId, PaymentProcessed, ProductUpserted, Profile, Service, StockFailed, StockReserved,
    derived_id,
};

/// Takes a payload of one version to the next. It moves fields and judges nothing: what is missing
/// or wrong is found by whoever reads the newest version. An error says what cannot be moved.
pub type Upcast = fn(Value) -> Result<Value, String>;

/// Reads a payload. The error is for people, and may quote what it was given.
pub type ReadPayload = fn(&RawValue) -> Result<Event, String>;

/// Writes an event's payload; `None` where it is an event of another type.
pub type WritePayload = fn(&Event) -> Option<Box<RawValue>>;

/// The versions of one type that a build knows. They are 1 to [`Versions::newest`].
#[derive(Debug, Clone)]
pub struct Versions {
    /// From version 1 to 2, from 2 to 3 and so on: one fewer than there are versions.
    pub upcasts: Vec<Upcast>,
    /// Reads a payload of the newest version.
    pub read: ReadPayload,
    /// The version that is written. Older than the newest while consumers of this type are still to
    /// be upgraded: a release reads a version before the next one writes it.
    pub written: u32,
    /// Writes a payload of that version.
    pub write: WritePayload,
}

impl Versions {
    /// The highest version that is read.
    pub fn newest(&self) -> u32 {
        self.upcasts.len() as u32 + 1
    }
}

/// What a service makes of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// An event that it consumes.
    Event(Event),
    /// Nothing to it, for this reason: `unknown_type`, or `not_consumed` by this service, whose
    /// payload was not looked at.
    Skip(&'static str),
}

/// The types and versions that a build knows. Clones share it.
#[derive(Debug, Clone)]
pub struct Contract(Arc<BTreeMap<&'static str, Versions>>);

impl Default for Contract {
    /// What ships.
    fn default() -> Self {
        static SHIPPED: LazyLock<Contract> = LazyLock::new(shipped);
        SHIPPED.clone()
    }
}

impl Contract {
    /// The same with these versions of a type of the catalog.
    ///
    /// # Panics
    /// Where the catalog has no such type, or the version to write is none of those that are read.
    pub fn with(&self, event: &'static str, versions: Versions) -> Self {
        assert!(CATALOG.iter().any(|row| row.event == event), "the catalog has no {event}");
        let (written, newest) = (versions.written, versions.newest());
        assert!((1..=newest).contains(&written), "{event}: {written} is not in 1 to {newest}");
        let mut types = (*self.0).clone();
        types.insert(event, versions);
        Contract(Arc::new(types))
    }

    /// The versions of a type, `None` where the catalog has no such type.
    pub fn versions(&self, event: &str) -> Option<&Versions> {
        self.0.get(event)
    }

    /// The event in the envelope; `None` where the type is unknown (skip and count, saga-rules 14).
    pub fn read(&self, envelope: &Envelope) -> Result<Option<Event>, ContractError> {
        let Some((&kind, versions)) = self.0.get_key_value(envelope.event_type.as_str()) else {
            return Ok(None);
        };
        let (version, known) = (envelope.event_version, versions.newest());
        if version > known {
            return Err(ContractError::UnsupportedVersion { kind, version, known });
        }
        let steps = &versions.upcasts[version as usize - 1..];
        let read = match steps {
            [] => (versions.read)(&envelope.payload),
            steps => upcast(&envelope.payload, steps).and_then(|payload| (versions.read)(&payload)),
        };
        let checked = read.and_then(|event| match event.check() {
            Ok(()) => Ok(event),
            Err(cause) => Err(cause.to_owned()),
        });
        match checked {
            Ok(event) => Ok(Some(event)),
            Err(cause) => Err(ContractError::Payload { kind, cause: printable(&cause) }),
        }
    }

    /// What the envelope is to this service. An event that it does not consume is skipped unread:
    /// a violation in it is a dead letter of those whom it concerns.
    pub fn read_as(
        &self,
        service: Service,
        profile: Profile,
        envelope: &Envelope,
    ) -> Result<Reading, ContractError> {
        let Some(row) = CATALOG.iter().find(|row| row.event == envelope.event_type) else {
            return Ok(Reading::Skip("unknown_type"));
        };
        if !row.consumers_in(profile).any(|consumer| consumer == service) {
            return Ok(Reading::Skip("not_consumed"));
        }
        Ok(self.read(envelope)?.map_or(Reading::Skip("unknown_type"), Reading::Event))
    }

    /// Wraps an event, in the version that this build writes.
    ///
    /// # Panics
    /// Where every reader would refuse it: whoever makes an event has checked what it is made of.
    pub fn seal(&self, event: &Event, seal: Seal) -> Envelope {
        let kind = event.kind();
        if let Err(cause) = event.check() {
            panic!("{kind} breaks its own contract: {cause}");
        }
        let versions = self.0.get(kind).unwrap_or_else(|| panic!("no versions of {kind}"));
        let payload = (versions.write)(event);
        let payload = payload.unwrap_or_else(|| panic!("{kind} is written as another type"));
        Envelope::seal_raw(seal, kind, versions.written, payload)
    }

    /// Wraps what an order can have once: whoever tells it again derives the same event id
    /// (saga-rules 8). Profile `catalog` says no cause.
    ///
    /// # Panics
    /// As [`Contract::seal`].
    pub fn seal_derived(
        &self,
        event: &Event,
        order: &OrderId,
        profile: Profile,
        cause: Option<EventId>,
        now: DateTime<Utc>,
    ) -> Envelope {
        let correlation_id = CorrelationId::parse(order.as_str());
        let seal = Seal {
            event_id: derived_id(order, event.kind()),
            occurred_at: now,
            correlation_id: correlation_id.expect("an order's id is an id"),
            causation_id: match profile {
                Profile::Default => cause,
                Profile::Catalog => None,
            },
        };
        self.seal(event, seal)
    }
}

fn upcast(payload: &RawValue, steps: &[Upcast]) -> Result<Box<RawValue>, String> {
    let payload = serde_json::from_str(payload.get()).map_err(|e| e.to_string())?;
    let payload = steps.iter().try_fold(payload, |payload, step| step(payload))?;
    serde_json::value::to_raw_value(&payload).map_err(|e| e.to_string())
}

/// A payload type as what its event is.
trait Said: Payload {
    fn event(self) -> Event;
    fn said(event: &Event) -> Option<&Self>;
}

macro_rules! said {
    ($($name:ident),+ $(,)?) => {$(
        impl Said for $name {
            fn event(self) -> Event {
                Event::$name(self)
            }
            fn said(event: &Event) -> Option<&Self> {
                match event {
                    Event::$name(payload) => Some(payload),
                    _ => None,
                }
            }
        }
    )+};
}
said! {
    ProductUpserted, OrderCreated, StockReserved, StockFailed, PaymentProcessed, OrderConfirmed,
    OrderCancelled, NotificationJob,
}

/// Reads a payload whose newest version the type `P` is.
fn read<P: Said>(payload: &RawValue) -> Result<Event, String> {
    let Object(payload) =
        serde_json::from_str::<Object<P>>(payload.get()).map_err(|e| e.to_string())?;
    Ok(payload.event())
}

/// Writes a payload whose version the type `P` is.
fn write<P: Said>(event: &Event) -> Option<Box<RawValue>> {
    let payload = serde_json::value::to_raw_value(P::said(event)?);
    Some(payload.expect("payloads have a JSON form"))
}

/// A type whose newest version, read and written, is `P`, and what takes older ones to it.
fn versions<P: Said>(upcasts: &[Upcast]) -> (&'static str, Versions) {
    let (upcasts, written) = (upcasts.to_vec(), P::VERSION);
    let versions = Versions { upcasts, read: read::<P>, written, write: write::<P> };
    assert_eq!(versions.newest(), written, "{}: an upcast for each older version", P::TYPE);
    (P::TYPE, versions)
}

/// The versions that ship. A new one is a line here: docs/catalog.md, "Versions".
fn shipped() -> Contract {
    Contract(Arc::new(BTreeMap::from([
        versions::<ProductUpserted>(&[]),
        versions::<OrderCreated>(&[]),
        versions::<StockReserved>(&[]),
        versions::<StockFailed>(&[]),
        versions::<PaymentProcessed>(&[]),
        versions::<OrderConfirmed>(&[]),
        versions::<OrderCancelled>(&[]),
        versions::<NotificationJob>(&[]),
    ])))
}
