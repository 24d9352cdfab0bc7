//! Times on the wire and in rows: RFC 3339 in UTC with `Z`. Never reads a clock. Each event and row has a few of
//! them, so the one form that we write is written and read here; all other forms are the library's.

use chrono::{DateTime, Datelike, NaiveDate, SecondsFormat, Timelike, Utc};

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
    let time = DateTime::from_timestamp_millis(read(text)?.timestamp_millis());
    let time = time.ok_or(TimeError::Year)?;
    if (0..=9999).contains(&time.year()) { Ok(time) } else { Err(TimeError::Year) }
}

/// Writes `2026-01-02T03:04:05.678Z`; what is finer is cut off.
pub fn format_time(time: &DateTime<Utc>) -> String {
    write(time, 3).unwrap_or_else(|| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn read(text: &str) -> Result<DateTime<Utc>, chrono::ParseError> {
    match read_as_written(text) {
        Some(time) => Ok(time),
        None => Ok(DateTime::parse_from_rfc3339(text)?.to_utc()),
    }
}

/// Reads what [`write`] writes, with any number of decimals up to nine.
fn read_as_written(text: &str) -> Option<DateTime<Utc>> {
    let text = text.as_bytes().strip_suffix(b"Z")?;
    let (seconds, fraction) = text.split_at_checked(19)?;
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| seconds[*at] != *mark) {
        return None;
    }
    let (year, month, day) = (&seconds[..4], &seconds[5..7], &seconds[8..10]);
    let date = NaiveDate::from_ymd_opt(number(year)?.cast_signed(), number(month)?, number(day)?)?;
    let (hour, minute, second) = (&seconds[11..13], &seconds[14..16], &seconds[17..]);
    let nanos = match fraction {
        [] => 0,
        [b'.', digits @ ..] if (1..=9).contains(&digits.len()) => {
            number(digits)? * 10_u32.pow(9 - digits.len() as u32)
        }
        _ => return None,
    };
    Some(date.and_hms_nano_opt(number(hour)?, number(minute)?, number(second)?, nanos)?.and_utc())
}

/// What at most nine decimal digits say.
fn number(digits: &[u8]) -> Option<u32> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u32::from(byte - b'0'));
    digits.iter().try_fold(0, |number, byte| Some(number * 10 + digit(byte)?))
}

/// Writes with so many decimals, at most nine; `None`: a leap second, or outside the years 0 to 9999.
fn write(time: &DateTime<Utc>, decimals: usize) -> Option<String> {
    // In UTC already: asked each for itself, they would be moved by their offset of zero.
    let time = time.naive_utc();
    let year = u32::try_from(time.year()).ok().filter(|year| *year <= 9999)?;
    let nanos = Some(time.nanosecond()).filter(|nanos| *nanos < 1_000_000_000)?;
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let mut put = |at: usize, digits: usize, mut number: u32| {
        for place in text[at..at + digits].iter_mut().rev() {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, time.month());
    put(8, 2, time.day());
    put(11, 2, time.hour());
    put(14, 2, time.minute());
    put(17, 2, time.second());
    put(20, 9, nanos);
    let end = if decimals == 0 { 19 } else { 20 + decimals };
    text[end] = b'Z';
    String::from_utf8(text[..=end].to_vec()).ok()
}

/// For `#[serde(with = "envelope::rfc3339_millis")]`.
pub mod rfc3339_millis {
    use super::{DateTime, Utc, format_time, parse_time};
    use serde::{Deserializer, Serializer};

    /// Writes `2026-01-02T03:04:05.678Z`.
    pub fn serialize<S: Serializer>(time: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format_time(time))
    }

    /// Reads any RFC 3339 time.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
        crate::parsed(from, parse_time)
    }
}

/// For `#[serde(with = "envelope::rfc3339")]`: with as many decimals as the time has, in threes, as chrono's
/// own form has them.
pub mod rfc3339 {
    use super::{DateTime, SecondsFormat, Timelike, Utc};
    use serde::{Deserializer, Serializer};

    /// Writes `2026-01-02T03:04:05Z`, or with three, six or nine decimals.
    pub fn serialize<S: Serializer>(time: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
        let decimals = match time.nanosecond() {
            0 => 0,
            nanos if nanos % 1_000_000 == 0 => 3,
            nanos if nanos % 1_000 == 0 => 6,
            _ => 9,
        };
        let text = super::write(time, decimals);
        let text = text.unwrap_or_else(|| time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        to.serialize_str(&text)
    }

    /// Reads any RFC 3339 time, as precise as it is.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
        crate::parsed(from, super::read)
    }

    /// The same where there may be none.
    pub mod option {
        use super::{DateTime, Utc};
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        struct Time(#[serde(with = "super")] DateTime<Utc>);

        /// Writes the time, or null.
        pub fn serialize<S: Serializer>(
            time: &Option<DateTime<Utc>>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            time.map(Time).serialize(to)
        }

        /// Reads a time or null.
        pub fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<DateTime<Utc>>, D::Error> {
            Ok(Option::<Time>::deserialize(from)?.map(|Time(time)| time))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Ours {
        #[serde(with = "rfc3339")]
        at: DateTime<Utc>,
        #[serde(with = "rfc3339::option")]
        due: Option<DateTime<Utc>>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Theirs {
        at: DateTime<Utc>,
        due: Option<DateTime<Utc>>,
    }

    /// From before the year 0 to behind 9999, some of them whole seconds, milliseconds or microseconds.
    fn times() -> impl Strategy<Value = DateTime<Utc>> {
        let unit = prop_oneof![Just(1_000_000_000), Just(1_000_000), Just(1_000), Just(1)];
        (-70_000_000_000_i64..260_000_000_000, unit, 0..2_000_000_000_u32)
            .prop_filter_map("no such time", |(seconds, unit, nanos)| {
                DateTime::from_timestamp(seconds, nanos / unit * unit)
            })
    }

    proptest! {
        #[test]
        fn ours_is_the_librarys_form(time in times(), is_due in any::<bool>()) {
            prop_assert_eq!(format_time(&time), time.to_rfc3339_opts(SecondsFormat::Millis, true));
            let due = is_due.then_some(time);
            let ours = serde_json::to_string(&Ours { at: time, due }).unwrap();
            prop_assert_eq!(&ours, &serde_json::to_string(&Theirs { at: time, due }).unwrap());
            let read: Result<Ours, _> = serde_json::from_str(&ours);
            if (0..=9999).contains(&time.year()) {
                prop_assert_eq!(read.unwrap(), Ours { at: time, due });
            }
        }

        #[test]
        fn what_is_read_is_what_the_library_reads(
            text in r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{0,10})?(Z|z|[+-]0[0-9]:00)?"
        ) {
            let theirs = DateTime::parse_from_rfc3339(&text).map(|time| time.to_utc());
            prop_assert_eq!(read(&text), theirs);
        }
    }
}
