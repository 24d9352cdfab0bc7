//! Times on the wire: RFC 3339 in UTC with `Z` and milliseconds. Never reads a clock.

use chrono::{DateTime, Datelike, SecondsFormat, Utc};

/// Why a text is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not RFC 3339.
    #[error("not an RFC 3339 time: {0}")]
    Malformed(#[from] chrono::ParseError),
    /// In UTC it lies outside the years 0 to 9999, so that RFC 3339 could not write it again.
    #[error("a time outside the years 0 to 9999")]
    Year,
}

/// Reads an RFC 3339 time of any offset and precision; cut to milliseconds.
pub fn parse_time(text: &str) -> Result<DateTime<Utc>, TimeError> {
    let time = DateTime::parse_from_rfc3339(text)?;
    let time = DateTime::from_timestamp_millis(time.timestamp_millis()).ok_or(TimeError::Year)?;
    if (0..=9999).contains(&time.year()) { Ok(time) } else { Err(TimeError::Year) }
}

/// For `#[serde(with = "envelope::rfc3339_millis")]`.
pub mod rfc3339_millis {
    use super::{DateTime, SecondsFormat, Utc, parse_time};
    use serde::{Deserializer, Serializer};

    /// Writes `2026-01-02T03:04:05.678Z`.
    pub fn serialize<S: Serializer>(time: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
    }

    /// Reads any RFC 3339 time.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
        crate::parsed(from, parse_time)
    }
}
