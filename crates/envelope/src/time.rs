//! Times on the wire: RFC 3339 in UTC with `Z` and milliseconds. Never reads a clock.

use chrono::{DateTime, SecondsFormat, Utc};

/// Reads an RFC 3339 time of any offset and precision; cut to milliseconds.
pub fn parse_time(text: &str) -> Result<DateTime<Utc>, chrono::ParseError> {
    let time = DateTime::parse_from_rfc3339(text)?.with_timezone(&Utc);
    Ok(DateTime::from_timestamp_millis(time.timestamp_millis()).unwrap_or(time))
}

/// For `#[serde(with = "envelope::rfc3339_millis")]`.
pub mod rfc3339_millis {
    use super::{DateTime, SecondsFormat, Utc, parse_time};
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes `2026-01-02T03:04:05.678Z`.
    pub fn serialize<S: Serializer>(time: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
    }

    /// Reads any RFC 3339 time.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        parse_time(&text).map_err(serde::de::Error::custom)
    }
}
