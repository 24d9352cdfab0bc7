//! What every service's HTTP has in common: problems (RFC 9457), strict JSON bodies, parameters and
//! paths, the Idempotency-Key, replies. Never decides, never keeps time.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use envelope::EventId;
use ports::Key;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Reply;

/// Largest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 262_144;

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

/// A JSON body, read strictly: give the type `#[serde(deny_unknown_fields)]` (saga-rules 13).
#[derive(Debug)]
pub struct Strict<T> {
    /// What it says.
    pub value: T,
    /// The bytes it was read from, for a fingerprint.
    pub bytes: Bytes,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Strict<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let essence = content_type.and_then(|v| v.to_str().ok()).unwrap_or("");
        if essence.split(';').next().map(str::trim) != Some("application/json") {
            let detail = "send the body as JSON, with Content-Type: application/json";
            return Err(Problem::new(415, "not-json", "Unsupported media type", detail));
        }
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
        if length.is_some_and(|n| n > BODY_BYTES_MAX) {
            return Err(too_large());
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|_| too_large())?;
        let value = serde_json::from_slice(&bytes).map_err(|e| match e.classify() {
            serde_json::error::Category::Data => Problem::invalid(e.to_string()),
            _ => Problem::new(400, "malformed-json", "Malformed JSON", e.to_string()),
        })?;
        Ok(Strict { value, bytes })
    }
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

/// The request's Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-06), if it has one.
/// It is at most 64 visible characters, as every id here; quotes around it are taken off.
pub fn idempotency_key(headers: &HeaderMap, required: bool) -> Result<Option<Key>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        if required {
            let detail =
                "send an Idempotency-Key header: a value of your own, new for each request";
            let title = "An Idempotency-Key is required";
            return Err(Problem::new(400, "idempotency-key-missing", title, detail));
        }
        return Ok(None);
    };
    let text = value.to_str().unwrap_or("").trim();
    let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    match EventId::parse(text) {
        Ok(id) => Ok(Some(id.key())),
        Err(cause) => {
            let detail = format!("Idempotency-Key: {cause}");
            let title = "The Idempotency-Key is invalid";
            Err(Problem::new(400, "idempotency-key-invalid", title, detail))
        }
    }
}

/// A command's id in the inbox: its route with the Idempotency-Key, or the request's own fresh id.
pub fn command_id(route: &'static str, key: Option<&Key>, request: &EventId) -> Key {
    match key {
        Some(key) => format!("{route}:{key}").into(),
        None => format!("req:{request}").into(),
    }
}

/// The fingerprint of a request: the same Idempotency-Key with another one is refused. `path` is the
/// route's own, whatever prefix it is mounted under.
pub fn request_fingerprint(method: &str, path: &str, body: &[u8]) -> String {
    let mut said = format!("{method} {path}\n").into_bytes();
    said.extend_from_slice(body);
    envelope::fingerprint(&said)
}

/// A JSON body with status 200.
pub fn ok(body: Value) -> Response {
    Json(body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idempotency_keys() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", HeaderValue::from_str(value).unwrap());
            idempotency_key(&headers, true)
        };
        assert_eq!(with("k-1"), Ok(Some("k-1".into())));
        assert_eq!(with("\"k-1\""), Ok(Some("k-1".into())));
        assert_eq!(with("").unwrap_err().kind, "idempotency-key-invalid");
        assert_eq!(with("a b").unwrap_err().kind, "idempotency-key-invalid");
        assert_eq!(with(&"k".repeat(65)).unwrap_err().status, 400);
        assert_eq!(idempotency_key(&HeaderMap::new(), false), Ok(None));
        let missing = idempotency_key(&HeaderMap::new(), true).unwrap_err();
        assert_eq!(missing.kind, "idempotency-key-missing");
    }
}
