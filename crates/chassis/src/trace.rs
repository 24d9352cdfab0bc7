//! The distributed trace that an input belongs to (W3C Trace Context): read from headers, carried with
//! events, written to headers. Never trusts what it reads: what is malformed is left out.

use bytes::Bytes;
use envelope::hexadecimal;
use ports::{Header, Runtime};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// The header with trace and span.
pub const TRACEPARENT: &str = "traceparent";
/// The header with what tracing systems add.
pub const TRACESTATE: &str = "tracestate";

/// Longest `tracestate` that is carried on; a longer one is left out.
const STATE_CHARS_MAX: usize = 512;

/// A trace, and the span in it that something follows from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Trace {
    id: u128,
    span: u64,
    sampled: bool,
    state: Option<String>,
}

/// A `traceparent` that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent of W3C Trace Context")]
pub struct Malformed;

/// [`Trace`] as rows and headers have it.
#[derive(Serialize, Deserialize)]
struct Stored {
    traceparent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
}

impl TryFrom<Stored> for Trace {
    type Error = Malformed;

    fn try_from(stored: Stored) -> Result<Self, Malformed> {
        Trace::parse(&stored.traceparent, stored.tracestate.as_deref())
    }
}

impl From<Trace> for Stored {
    fn from(trace: Trace) -> Self {
        Stored { traceparent: trace.traceparent(), tracestate: trace.state }
    }
}

impl Trace {
    /// Reads both headers. A `tracestate` that is too long or no text is left out alone.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Result<Trace, Malformed> {
        let (known, more) = traceparent.trim().split_at_checked(55).ok_or(Malformed)?;
        let known = known.as_bytes();
        let version = number(&known[..2])?;
        let id = u128::from(number(&known[3..19])?) << 64 | u128::from(number(&known[19..35])?);
        let (span, flags) = (number(&known[36..52])?, number(&known[53..])?);
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        // A later version may say more behind its flags; what is known of it stands before.
        let whole = more.is_empty() || version > 0 && more.starts_with('-');
        if !dashes || !whole || version == 0xff || id == 0 || span == 0 {
            return Err(Malformed);
        }
        let text = |state: &&str| {
            (1..=STATE_CHARS_MAX).contains(&state.len())
                && state.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        let state = tracestate.map(str::trim).filter(text).map(str::to_owned);
        Ok(Trace { id, span, sampled: flags & 1 == 1, state })
    }

    /// Of a record's headers; `None` where it has no `traceparent`.
    pub fn of_headers(headers: &[Header]) -> Option<Result<Trace, Malformed>> {
        let value = |wanted: &str| {
            let found = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| std::str::from_utf8(value).unwrap_or(""))
        };
        value(TRACEPARENT).map(|parent| Trace::parse(parent, value(TRACESTATE)))
    }

    /// A new trace, by choices of the runtime.
    pub fn fresh(runtime: &dyn Runtime, instance: &str) -> Trace {
        let [high, low, span] = [(); 3].map(|()| runtime.choose("trace", instance, u64::MAX));
        // None of them may be zero.
        let id = (u128::from(high) << 64) | u128::from(low);
        Trace { id: id.max(1), span: span.max(1), sampled: true, state: None }
    }

    /// The trace of something that came without one: a function of its id, so that a redelivery is in
    /// the same trace.
    pub fn begun_by(id: &str) -> Trace {
        let (trace, span) = (xxh3_128(id.as_bytes()), xxh3_64(id.as_bytes()));
        Trace { id: trace.max(1), span: span.max(1), sampled: true, state: None }
    }

    /// The same trace, in a span of its own for `what`: a function of the two, so that whoever makes an
    /// event again gives it the same bytes.
    pub fn follow(&self, what: &str) -> Trace {
        let span = xxh3_64([&self.id(), "\n", what].concat().as_bytes());
        Trace { span: span.max(1), ..self.clone() }
    }

    /// 32 hexadecimal digits: what log lines and tools know the trace by.
    pub fn id(&self) -> String {
        hexadecimal(self.id)
    }

    /// The value of `traceparent`.
    pub fn traceparent(&self) -> String {
        let (id, span) = (self.id(), hexadecimal(self.span.into()));
        let flags = if self.sampled { "01" } else { "00" };
        ["00-", &id, "-", &span[16..], "-", flags].concat()
    }

    /// The value of `tracestate`, where there is one.
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// As headers of a record.
    pub fn to_headers(&self) -> Vec<Header> {
        let mut headers = vec![(TRACEPARENT.into(), Bytes::from(self.traceparent()))];
        if let Some(state) = &self.state {
            headers.push((TRACESTATE.into(), Bytes::from(state.clone())));
        }
        headers
    }
}

/// What lower-case hexadecimal digits say, at most 16.
fn number(digits: &[u8]) -> Result<u64, Malformed> {
    digits.iter().try_fold(0, |number, byte| match byte {
        b'0'..=b'9' => Ok(number << 4 | u64::from(byte - b'0')),
        b'a'..=b'f' => Ok(number << 4 | u64::from(byte - b'a' + 10)),
        _ => Err(Malformed),
    })
}

#[cfg(test)]
mod tests {
    use model::virtual_time::VirtualTime;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_comes_back_as_it_was() {
        let trace = Trace::parse(PARENT, Some("vendor=1")).unwrap();
        assert_eq!(trace.traceparent(), PARENT);
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(Trace::of_headers(&trace.to_headers()), Some(Ok(trace.clone())));
        let stored = serde_json::to_string(&trace).unwrap();
        assert_eq!(serde_json::from_str::<Trace>(&stored).unwrap(), trace);
    }

    #[test]
    fn what_is_malformed_is_none() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Trace::parse(bad, None), Err(Malformed), "{bad}");
        }
        let not_text = vec![(TRACEPARENT.into(), Bytes::from_static(&[0xff]))];
        assert_eq!(Trace::of_headers(&not_text), Some(Err(Malformed)));
        assert_eq!(Trace::of_headers(&[]), None);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = PARENT.replacen("00-", "01-", 1) + "-more";
        assert_eq!(Trace::parse(&later, None).unwrap().traceparent(), PARENT);
    }

    #[test]
    fn a_state_that_is_too_long_or_no_text_is_left_out_alone() {
        let state = |state: &str| Trace::parse(PARENT, Some(state)).unwrap().state;
        assert_eq!(state("a=1,b=2").as_deref(), Some("a=1,b=2"));
        for bad in ["", "a=\u{e9}", "a=\r\nBcc: x", &"x".repeat(513)] {
            assert_eq!(state(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_follows_is_in_the_same_trace_and_in_a_span_of_its_own() {
        let trace = Trace::parse(PARENT, Some("vendor=1")).unwrap();
        let (one, other) = (trace.follow("event-1"), trace.follow("event-2"));
        assert_eq!((one.id(), one.tracestate()), (trace.id(), Some("vendor=1")));
        assert_ne!(one.traceparent(), trace.traceparent());
        assert_ne!(one, other);
        assert_eq!(one, trace.follow("event-1"));
        assert_eq!(Trace::begun_by("event-1"), Trace::begun_by("event-1"));
    }

    #[test]
    fn fresh_traces_differ_and_are_well_formed() {
        let time = VirtualTime::default();
        let [one, other] = [(); 2].map(|()| Trace::fresh(&time, "orders-0"));
        assert_ne!(one.id(), other.id());
        assert_eq!(Trace::parse(&one.traceparent(), None), Ok(one));
    }
}
