//! What every service's HTTP has in common: problems (RFC 9457), strict JSON bodies, parameters and
//! paths, the Idempotency-Key, conditions, bulk requests, streams of events, replies. Never decides,
//! never keeps time.

mod bulk;
mod conditional;
mod events;
mod idempotency;

pub use bulk::{Bulk, LINES_MAX, Lines};
pub use conditional::{Tag, Tags};
pub use events::{Event, after, event_stream};
pub(crate) use idempotency::is_given;
pub use idempotency::{command_id, idempotency_key, keyed_id, request_fingerprint, required_key};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use envelope::Object;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

use crate::Reply;

/// Largest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 262_144;
/// Deepest nesting of lists and objects in a body; no request of any service needs half of it.
pub const JSON_DEPTH_MAX: usize = 16;

/// A problem document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// Stable, kebab case; the `type` is `urn:shakedown:problem:<kind>`.
    pub kind: &'static str,
    /// The same for every problem of this kind.
    pub title: &'static str,
    /// What was wrong here, and what to do.
    pub detail: String,
    /// Seconds after which a retry may help.
    pub retry_after_s: Option<u32>,
}

impl Problem {
    /// A problem without Retry-After.
    pub fn new(
        status: u16,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Problem { status, kind, title, detail: detail.into(), retry_after_s: None }
    }

    /// 404 for a thing of this sort.
    pub fn not_found(what: &'static str, id: &str) -> Self {
        Problem::new(404, "not-found", "Not found", format!("there is no {what} {id}"))
    }

    /// 405 for a method that the path does not have.
    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let detail = format!("{path} takes no {method}; see the Allow header");
        Problem::new(405, "method-not-allowed", "Method not allowed", detail)
    }

    /// 422 for a value that cannot be.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Problem::new(422, "invalid-request", "The request is invalid", detail)
    }

    /// 503: nothing was done, try again.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let problem = Problem::new(503, "unavailable", "Temporarily unavailable", detail);
        Problem { retry_after_s: Some(1), ..problem }
    }

    /// As a reply that repeats get too.
    pub fn into_reply(self) -> Reply {
        let body = json!({
            "type": format!("urn:shakedown:problem:{}", self.kind),
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        });
        let retry_after_s = self.retry_after_s;
        Reply { status: self.status, body, location: None, retry_after_s, kept: true }
    }
}

impl From<ports::Fault> for Problem {
    fn from(fault: ports::Fault) -> Self {
        tracing::warn!(%fault, "a read failed");
        Problem::unavailable("the store did not answer; try again")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.into_reply().into_response()
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        if self.status >= 400 {
            let problem = HeaderValue::from_static("application/problem+json");
            headers.insert(header::CONTENT_TYPE, problem);
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(location) = self.location.and_then(|l| HeaderValue::from_str(&l).ok()) {
            headers.insert(header::LOCATION, location);
        }
        response
    }
}

/// A JSON object as body, read strictly: give the type `#[serde(deny_unknown_fields)]` (saga-rules 13).
#[derive(Debug)]
pub struct Strict<T> {
    /// What it says.
    pub value: T,
    /// The bytes it was read from, for a fingerprint.
    pub bytes: Bytes,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Strict<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        if media_type(&request) != "application/json" {
            let detail = "send the body as JSON, with Content-Type: application/json";
            return Err(Problem::new(415, "not-json", "Unsupported media type", detail));
        }
        let bytes = whole_body(request).await?;
        let value = strict_json(&bytes)?;
        Ok(Strict { value, bytes })
    }
}

/// A request that says all in its path: its body is empty, or an empty object.
#[derive(Debug)]
pub struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        match whole_body(request).await?.trim_ascii() {
            b"" | b"{}" => Ok(NoBody),
            _ => Err(Problem::invalid("this request has no body: send none, or {}")),
        }
    }
}

/// The Content-Type without its parameters, as it was written.
fn media_type(request: &Request) -> &str {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let whole = content_type.and_then(|value| value.to_str().ok()).unwrap_or("");
    whole.split(';').next().unwrap_or("").trim()
}

/// The body, if it is not too large. What its sender announces is looked at first.
async fn whole_body(request: Request) -> Result<Bytes, Problem> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if length.is_some_and(|n| n > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    // It fails for its size, or because its sender is gone and reads no answer.
    axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX).await.map_err(|_| too_large())
}

/// One JSON object and nothing else. Its depth is checked before anything recurses into it.
fn strict_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if depth(bytes) > JSON_DEPTH_MAX {
        let detail = format!("lists and objects are nested at most {JSON_DEPTH_MAX} deep");
        return Err(Problem::new(400, "json-too-deep", "The JSON is nested too deep", detail));
    }
    let error = match serde_json::from_slice(bytes) {
        Ok(Object(value)) => return Ok(value),
        Err(error) => error,
    };
    // Serde stops at the first thing that is wrong, and calls some wrong types a syntax error: whether
    // it is JSON at all is asked by itself.
    match serde_json::from_slice::<IgnoredAny>(bytes) {
        Ok(_) if std::str::from_utf8(bytes).is_ok() => Err(Problem::invalid(error.to_string())),
        Ok(_) => Err(malformed("it is not UTF-8".to_owned())),
        Err(cause) => Err(malformed(cause.to_string())),
    }
}

fn malformed(detail: String) -> Problem {
    Problem::new(400, "malformed-json", "Malformed JSON", detail)
}

/// How deep brackets are nested, those in strings left out. Says nothing of whether they fit.
fn depth(bytes: &[u8]) -> usize {
    let (mut now, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' if !in_string => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The parameters behind `?`, read strictly: give the type `#[serde(deny_unknown_fields)]`.
#[derive(Debug)]
pub struct Parameters<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let read = Query::try_from_uri(&parts.uri);
        read.map(|Query(value)| Parameters(value)).map_err(|e| Problem::invalid(e.body_text()))
    }
}

/// The one variable part of a path; 422 where it is no text or no such id.
#[derive(Debug)]
pub struct InPath<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Path::from_request_parts(parts, state).await;
        read.map(|Path(value)| InPath(value)).map_err(|e| Problem::invalid(e.body_text()))
    }
}

fn too_large() -> Problem {
    let detail = format!("a body has at most {BODY_BYTES_MAX} bytes");
    Problem::new(413, "body-too-large", "The body is too large", detail)
}

/// A JSON body with status 200.
pub fn ok(body: Value) -> Response {
    Json(body).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::FutureExt;

    use super::*;

    fn strict(content_type: &str, body: &str) -> Result<Value, Problem> {
        let request = Request::post("/").header(header::CONTENT_TYPE, content_type);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let read = Strict::<Value>::from_request(request, &()).now_or_never().unwrap();
        read.map(|body| body.value)
    }

    #[test]
    fn bodies_are_json_within_their_bounds() {
        let json = "application/json; charset=utf-8";
        assert_eq!(strict(json, "{\"a\":[1]}"), Ok(json!({ "a": [1] })));
        let kind = |content_type: &str, body: &str| {
            let problem = strict(content_type, body).unwrap_err();
            (problem.status, problem.kind)
        };
        assert_eq!(kind("text/plain", "[1]"), (415, "not-json"));
        assert_eq!(kind(json, "[1]"), (422, "invalid-request"));
        assert_eq!(kind(json, "[1"), (400, "malformed-json"));
        assert_eq!(kind(json, "{\"a\":1} 2"), (400, "malformed-json"));
        let full = format!("{{\"a\":\"{}\"}}", "x".repeat(BODY_BYTES_MAX - 8));
        assert!(strict(json, &full).is_ok());
        assert_eq!(kind(json, &format!("{full} ")), (413, "body-too-large"));
    }

    #[test]
    fn nesting_is_bounded_before_it_is_read() {
        let nested =
            |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(strict("application/json", &nested(JSON_DEPTH_MAX)).is_ok());
        for deep in [nested(JSON_DEPTH_MAX + 1), "[".repeat(100_000), "{\"a\":".repeat(17)] {
            let problem = strict("application/json", &deep).unwrap_err();
            assert_eq!((problem.status, problem.kind), (400, "json-too-deep"));
        }
        // Brackets in strings nest nothing, escaped quotes end no string.
        assert_eq!(depth(br#"["[[[", {"a\"[[": "\\"}, [1]]"#), 2);
    }

    #[test]
    fn no_body_is_empty_or_an_empty_object() {
        let read = |body: &'static str| {
            let request = Request::post("/").body(Body::from(body)).unwrap();
            NoBody::from_request(request, &()).now_or_never().unwrap().map(|NoBody| ())
        };
        assert_eq!((read(""), read(" {}\n")), (Ok(()), Ok(())));
        assert_eq!(read("{\"why\":1}").unwrap_err().status, 422);
    }
}
