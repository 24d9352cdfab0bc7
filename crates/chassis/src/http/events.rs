//! Server-sent events: how they are written and resumed. Never knows where they come from, never
//! keeps time.

use std::convert::Infallible;
use std::fmt;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use futures_util::future::{FutureExt, ready};
use futures_util::stream::{StreamExt, once, unfold};
use serde_json::Value;

use super::Problem;

/// What a client waits before it comes again, milliseconds.
const RETRY_MS: u32 = 1_000;

/// An event on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Cursor: whoever sends it as Last-Event-ID gets what came behind it.
    pub id: u64,
    /// The sort of event.
    pub name: &'static str,
    /// What it says.
    pub data: Value,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // JSON as it is written here has no line breaks.
        write!(f, "id: {}\nevent: {}\ndata: {}\n\n", self.id, self.name, self.data)
    }
}

/// The cursor in Last-Event-ID, if there is one.
pub fn after(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().unwrap_or("");
    let cursor = text.parse().ok().filter(|cursor: &u64| cursor.to_string() == text);
    let bad = || Problem::invalid("Last-Event-ID: send the id of an event of this stream, or none");
    cursor.map(Some).ok_or_else(bad)
}

/// A stream of events. `next` gives events, or none for a heartbeat; its end ends the stream. `from`
/// is the cursor that it begins behind, and is said first: whoever is cut off before the first event
/// goes on from there.
pub fn event_stream<S, F>(
    from: u64,
    state: S,
    mut next: impl FnMut(S) -> F + Send + 'static,
) -> Response
where
    S: Send + 'static,
    F: Future<Output = Option<(Vec<Event>, S)>> + Send + 'static,
{
    let hello = ready(Ok::<_, Infallible>(format!("retry: {RETRY_MS}\nid: {from}\n\n")));
    let events = unfold(state, move |state| {
        next(state).map(|more| more.map(|(events, state)| (Ok(chunk(&events)), state)))
    });
    let mut response = Response::new(Body::from_stream(once(hello).chain(events)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The events, or a comment where there is none.
fn chunk(events: &[Event]) -> String {
    if events.is_empty() {
        return ":\n\n".to_owned();
    }
    events.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_framed_and_end_with_their_source() {
        let event = |id| Event { id, name: "order", data: json!({ "text": "a\nb" }) };
        let response = event_stream(7, 0, move |at: u32| async move {
            match at {
                0 => Some((vec![event(8), event(10)], 1)),
                1 => Some((Vec::new(), 2)),
                _ => None,
            }
        });
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let body = to_bytes(response.into_body(), 1_000).now_or_never().unwrap().unwrap();
        let said = "retry: 1000\nid: 7\n\n\
                    id: 8\nevent: order\ndata: {\"text\":\"a\\nb\"}\n\n\
                    id: 10\nevent: order\ndata: {\"text\":\"a\\nb\"}\n\n:\n\n";
        assert_eq!(body, said);
    }

    #[test]
    fn cursors_are_plain_numbers() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("last-event-id", HeaderValue::from_static(value));
            after(&headers)
        };
        assert_eq!(after(&HeaderMap::new()), Ok(None));
        assert_eq!((with("0"), with("42")), (Ok(Some(0)), Ok(Some(42))));
        for bad in ["", "x", "-1", "+1", "01", "1 ", "99999999999999999999"] {
            assert_eq!(with(bad).unwrap_err().status, 422, "{bad}");
        }
    }
}
