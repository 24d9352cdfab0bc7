//! The envelope on every event and job: identity, type and version, correlation, and a payload that
//! stays raw until somebody who knows the type reads it. Never knows a particular event.
#![warn(missing_docs)]

mod id;
mod time;

pub use id::{CorrelationId, EventId, IdError};
pub use time::{parse_time, rfc3339_millis};
#[doc(hidden)]
pub use {id::Id, serde};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_128;

/// The largest envelope that is read or written, in bytes: well under Kafka's default record limit
/// of 1,000,000 (broker-contract K12), so that the relay never meets it.
pub const ENVELOPE_BYTES_MAX: usize = 262_144;

/// A payload's place among the types and versions.
pub trait Payload: Serialize + DeserializeOwned {
    /// `eventType` on the wire.
    const TYPE: &'static str;
    /// `eventVersion` on the wire, from 1. A breaking change adds one.
    const VERSION: u32;
}

/// What travels around every payload. Unknown fields are ignored: consumers are tolerant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Unique; a redelivery and a redrive keep it.
    pub event_id: EventId,
    /// The truth about what this is.
    pub event_type: String,
    /// From 1.
    pub event_version: u32,
    /// When it happened, at the producer. Information only, never an order.
    #[serde(with = "rfc3339_millis")]
    pub occurred_at: DateTime<Utc>,
    /// What belongs together: the order's id in the saga.
    pub correlation_id: CorrelationId,
    /// The event that caused this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<EventId>,
    /// Minimal fields of the event.
    pub payload: Box<RawValue>,
}

/// Who and why, to seal a payload with.
#[derive(Debug, Clone)]
pub struct Seal {
    /// The new event's id.
    pub event_id: EventId,
    /// The producer's time.
    pub occurred_at: DateTime<Utc>,
    /// What it belongs to.
    pub correlation_id: CorrelationId,
    /// The trigger.
    pub causation_id: Option<EventId>,
}

/// Why bytes are not an envelope. A contract violation: a dead letter, no retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Longer than [`ENVELOPE_BYTES_MAX`].
    #[error("envelope of {0} bytes is over the limit of {ENVELOPE_BYTES_MAX}")]
    TooLarge(usize),
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("not an envelope: {0}")]
    Malformed(String),
    /// `eventVersion` 0.
    #[error("eventVersion starts at 1")]
    Version,
}

impl Envelope {
    /// Wraps a payload.
    ///
    /// # Panics
    /// Where the payload has no JSON form, which no payload type of ours lacks.
    pub fn seal<P: Payload>(seal: Seal, payload: &P) -> Self {
        let json = serde_json::to_string(payload).expect("payloads have a JSON form");
        Envelope {
            event_id: seal.event_id,
            event_type: P::TYPE.to_owned(),
            event_version: P::VERSION,
            occurred_at: seal.occurred_at,
            correlation_id: seal.correlation_id,
            causation_id: seal.causation_id,
            payload: RawValue::from_string(json).expect("what serde_json wrote is JSON"),
        }
    }

    /// The bytes that travel.
    ///
    /// # Panics
    /// Never: an envelope always has a JSON form.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(serde_json::to_vec(self).expect("an envelope has a JSON form"))
    }

    /// Reads what travelled.
    pub fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(ReadError::TooLarge(bytes.len()));
        }
        let envelope: Envelope =
            serde_json::from_slice(bytes).map_err(|e| ReadError::Malformed(e.to_string()))?;
        if envelope.event_version == 0 {
            return Err(ReadError::Version);
        }
        Ok(envelope)
    }

    /// Fingerprint of what the event says (type, version, payload), 32 hex digits: the same id with
    /// another fingerprint is a contract violation.
    pub fn fingerprint(&self) -> String {
        let mut text = format!("{}\n{}\n", self.event_type, self.event_version);
        text.push_str(self.payload.get());
        fingerprint(text.as_bytes())
    }
}

/// XXH3-128 of the bytes, as 32 hex digits. For telling contents apart, not for security.
pub fn fingerprint(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Pinged {
        n: u32,
    }
    impl Payload for Pinged {
        const TYPE: &'static str = "Pinged";
        const VERSION: u32 = 1;
    }

    fn sealed(n: u32) -> Envelope {
        let seal = Seal {
            event_id: EventId::parse("e-1").unwrap(),
            occurred_at: parse_time("2026-01-02T03:04:05.678Z").unwrap(),
            correlation_id: CorrelationId::parse("c-1").unwrap(),
            causation_id: None,
        };
        Envelope::seal(seal, &Pinged { n })
    }

    #[test]
    fn travels_and_comes_back() {
        let bytes = sealed(7).to_bytes();
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            r#"{"eventId":"e-1","eventType":"Pinged","eventVersion":1,"occurredAt":"2026-01-02T03:04:05.678Z","correlationId":"c-1","payload":{"n":7}}"#
        );
        let back = Envelope::read(&bytes).unwrap();
        assert_eq!(back.fingerprint(), sealed(7).fingerprint());
        assert_ne!(back.fingerprint(), sealed(8).fingerprint());
    }

    #[test]
    fn refuses_what_is_no_envelope() {
        let good = String::from_utf8(sealed(1).to_bytes().to_vec()).unwrap();
        let bad = [
            "".to_owned(),
            "{}".to_owned(),
            "[1]".to_owned(),
            good.replace("e-1", ""),
            good.replace("e-1", "has space"),
            good.replace(":1,\"occ", ":0,\"occ"),
            good.replace(":1,\"occ", ":-1,\"occ"),
            good.replace("2026-01-02T03:04:05.678Z", "yesterday"),
            good.replace("c-1", &"c".repeat(65)),
        ];
        for text in bad {
            assert!(Envelope::read(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(
            Envelope::read(&vec![b' '; ENVELOPE_BYTES_MAX + 1]).unwrap_err(),
            ReadError::TooLarge(ENVELOPE_BYTES_MAX + 1)
        );
    }

    #[test]
    fn ignores_unknown_fields() {
        let good = String::from_utf8(sealed(1).to_bytes().to_vec()).unwrap();
        assert!(Envelope::read(good.replacen('{', r#"{"new":1,"#, 1).as_bytes()).is_ok());
    }
}
