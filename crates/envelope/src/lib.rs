//! The envelope on every event and job: identity, type and version, correlation, and a payload that
//! stays raw until somebody who knows the type reads it. Never knows a particular event.
#![warn(missing_docs)]

mod id;
mod object;
mod text;
mod time;

pub use id::{CorrelationId, EventId, IdError};
pub use object::{Object, objects};
pub use time::{TimeError, format_time, parse_time, rfc3339, rfc3339_millis};
#[doc(hidden)]
pub use {id::Id, serde, text::parsed};

use std::fmt::Display;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
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
    /// The truth about what this is. Like an id it has at most 64 visible ASCII characters: unknown
    /// types end in logs, counters and text columns.
    #[serde(deserialize_with = "event_type")]
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

impl ReadError {
    /// The stable reason code of its dead letter.
    pub fn code(&self) -> &'static str {
        match self {
            ReadError::TooLarge(_) => "envelope_too_large",
            ReadError::Malformed(_) | ReadError::Version => "bad_envelope",
        }
    }
}

fn event_type<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    match <EventId as Id>::check(&text) {
        Ok(()) => Ok(text),
        Err(e) => Err(serde::de::Error::custom(format_args!("eventType: {e}"))),
    }
}

/// What a parser says about somebody else's bytes, made fit for a log line and a text column: it may
/// quote them, so control characters are escaped and 200 characters are kept.
pub fn printable(error: &impl Display) -> String {
    let text = error.to_string();
    let mut kept = String::new();
    for c in text.chars().take(200) {
        if c.is_control() { kept.extend(c.escape_default()) } else { kept.push(c) }
    }
    kept
}

impl Envelope {
    /// Wraps a payload.
    ///
    /// # Panics
    /// Where the payload has no JSON form, which no payload type of ours lacks.
    pub fn seal<P: Payload>(seal: Seal, payload: &P) -> Self {
        let payload = serde_json::value::to_raw_value(payload).expect("payloads have a JSON form");
        Envelope::seal_raw(seal, P::TYPE, P::VERSION, payload)
    }

    /// Wraps a payload that is JSON already, of this type and version.
    pub fn seal_raw(
        seal: Seal,
        event_type: &str,
        event_version: u32,
        payload: Box<RawValue>,
    ) -> Self {
        let Seal { event_id, occurred_at, correlation_id, causation_id } = seal;
        let event_type = event_type.to_owned();
        Envelope {
            event_id,
            event_type,
            event_version,
            occurred_at,
            correlation_id,
            causation_id,
            payload,
        }
    }

    /// The bytes that travel. Whoever makes an event bounds its fields, so that it stays under
    /// [`ENVELOPE_BYTES_MAX`]: readers refuse what is larger.
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
        // Checked once as a whole, which is quicker than string by string.
        let text = str::from_utf8(bytes).map_err(|e| ReadError::Malformed(printable(&e)))?;
        let Object(envelope) = serde_json::from_str::<Object<Envelope>>(text)
            .map_err(|e| ReadError::Malformed(printable(&e)))?;
        if envelope.event_version == 0 {
            return Err(ReadError::Version);
        }
        Ok(envelope)
    }

    /// Fingerprint of what the event says (type, version, payload), 32 hex digits: the same id with
    /// another fingerprint is a contract violation. It is taken from the payload's bytes as they
    /// travelled: relay and redrive copy them, and whoever repeats an event must do the same.
    pub fn fingerprint(&self) -> String {
        let version = self.event_version.to_string();
        let text = [&self.event_type, "\n", &version, "\n", self.payload.get()].concat();
        fingerprint(text.as_bytes())
    }
}

/// XXH3-128 of the bytes, as 32 hex digits. For telling contents apart, not for security.
pub fn fingerprint(bytes: &[u8]) -> String {
    hexadecimal(xxh3_128(bytes))
}

/// 32 lower-case hexadecimal digits.
pub fn hexadecimal(number: u128) -> String {
    hex(&number.to_be_bytes())
}

/// Two lower-case hexadecimal digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut text = Vec::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
    String::from_utf8(text).expect("digits are ASCII")
}

#[cfg(test)]
mod tests;
