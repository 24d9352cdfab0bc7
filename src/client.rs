//! A small HTTP client for one address, as a customer has it: JSON, an Idempotency-Key with every
//! write, and patience with 503. Never looks into the process it talks to.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::http_shell::pause;

/// How often a write is tried before the client gives up: with the pauses about 20 s.
const ATTEMPTS_MAX: u32 = 40;

/// A client of one address. Cloning shares the connections.
#[derive(Clone)]
pub struct Client {
    hyper: Hyper<HttpConnector, Full<Bytes>>,
    base: String,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// The body; null where it was empty.
    pub body: Value,
}

impl Client {
    /// A client for the services behind this address.
    pub fn new(address: SocketAddr) -> Client {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let hyper = Hyper::builder(TokioExecutor::new()).build(connector);
        Client { hyper, base: format!("http://{address}") }
    }

    /// One GET.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.once(Method::GET, path, None, &Value::Null).await
    }

    /// A write, repeated with the same Idempotency-Key on 503 and 504 and while nobody answers.
    pub async fn write(
        &self,
        method: Method,
        path: &str,
        key: &str,
        body: &Value,
    ) -> anyhow::Result<Answer> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let answer = self.once(method.clone(), path, Some(key), body).await;
            let again = match &answer {
                Ok(answer) => matches!(answer.status.as_u16(), 503 | 504),
                Err(_) => true,
            };
            if !again || attempt == ATTEMPTS_MAX {
                return answer;
            }
            pause(Duration::from_millis(u64::from(25 * attempt.min(20)))).await;
        }
    }

    /// One request, sent once.
    pub async fn once(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: &Value,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(&method).uri(format!("{}{path}", self.base));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let content = if body.is_null() {
            Bytes::new()
        } else {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Bytes::from(body.to_string())
        };
        let request = request.body(Full::new(content))?;
        let context = || format!("{method} {path}");
        let response = self.hyper.request(request).await.with_context(context)?;
        let status = response.status();
        let bytes = response.into_body().collect().await.with_context(context)?.to_bytes();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).with_context(context)?
        };
        Ok(Answer { status, body })
    }

    /// All items of a list, page by page.
    pub async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let sign = if path.contains('?') { '&' } else { '?' };
            let answer = self.get(&format!("{path}{sign}limit=200{cursor}")).await?;
            let mut body = answer.expect(StatusCode::OK)?;
            let Value::Array(page) = body["items"].take() else {
                bail!("GET {path}: no items in {body}");
            };
            items.extend(page);
            match body["next"].as_str() {
                Some(next) => cursor = format!("&cursor={}", escaped(next)),
                None => return Ok(items),
            }
        }
    }
}

impl Answer {
    /// The body, if this is the status; else an error that shows what came.
    pub fn expect(self, status: StatusCode) -> anyhow::Result<Value> {
        if self.status != status {
            bail!("answered {} instead of {status}: {}", self.status, self.body);
        }
        Ok(self.body)
    }
}

/// Percent-encodes what has a meaning of its own in a query (RFC 3986).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
