//! Around every request: the trace it belongs to, a log line, counts. Never reads a body, and never
//! changes what the routes answer.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use envelope::EventId;
use ports::Runtime;
use tracing::Instrument;

use crate::trace::{TRACEPARENT, TRACESTATE};
use crate::{Context, Metrics, Trace, meters};

/// What is needed around a request.
pub(crate) struct Around {
    pub(crate) service: &'static str,
    pub(crate) instance: String,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) metrics: Metrics,
}

/// Puts the request into its trace, or begins one; logs and counts it.
pub(crate) async fn around(
    State(around): State<Arc<Around>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Around { service, instance, runtime, metrics } = around.as_ref();
    let begun = runtime.elapsed();
    let trace = match of_headers(request.headers()) {
        Some(Ok(trace)) => trace,
        Some(Err(_)) => {
            metrics.count(&meters::TRACEPARENT_MALFORMED, &[]);
            Trace::fresh(runtime.as_ref(), instance)
        }
        None => Trace::fresh(runtime.as_ref(), instance),
    };
    put(request.headers_mut(), &trace);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    // At level error, so that no filter takes the ids from a line that it lets pass.
    let span = tracing::error_span!("request", service, traceId = trace.id(), %method, path);
    async move {
        let response = next.run(request).await;
        let took = runtime.elapsed().saturating_sub(begun);
        let status = response.status();
        metrics.count(&meters::HTTP_REQUESTS, &[method_label(&method), status.as_str()]);
        metrics.add(&meters::HTTP_REQUEST, &[], took.as_secs_f64());
        tracing::debug!(status = status.as_u16(), ms = took.as_millis() as u64, "request");
        response
    }
    .instrument(span)
    .await
}

fn of_headers(headers: &HeaderMap) -> Option<Result<Trace, crate::trace::Malformed>> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or("").to_owned();
    let parent = headers.get(TRACEPARENT).map(text)?;
    // Several of them are one list (RFC 9110).
    let states: Vec<String> = headers.get_all(TRACESTATE).iter().map(text).collect();
    let state = (!states.is_empty()).then(|| states.join(","));
    Some(Trace::parse(&parent, state.as_deref()))
}

fn put(headers: &mut HeaderMap, trace: &Trace) {
    headers.remove(TRACESTATE);
    // Both are visible ASCII.
    if let Ok(value) = HeaderValue::from_str(&trace.traceparent()) {
        headers.insert(TRACEPARENT, value);
    }
    if let Some(Ok(value)) = trace.tracestate().map(HeaderValue::from_str) {
        headers.insert(TRACESTATE, value);
    }
}

/// Methods that are not known share one label.
fn method_label(method: &Method) -> &str {
    let known =
        [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD];
    if known.contains(method) { method.as_str() } else { "other" }
}

impl Context {
    /// Where a request's command comes from: the request's own id, and the trace that its headers name.
    pub fn of_request(request: Option<EventId>, headers: &HeaderMap) -> Context {
        let trace = of_headers(headers).and_then(Result::ok);
        Context { cause: request, correlation: None, trace }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_of_a_request_come_back_as_its_context() {
        let mut headers = HeaderMap::new();
        assert_eq!(Context::of_request(None, &headers).trace, None);
        headers.append(TRACESTATE, HeaderValue::from_static("a=1"));
        headers.append(TRACESTATE, HeaderValue::from_static("b=2"));
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert(TRACEPARENT, HeaderValue::from_static(parent));
        let trace = Context::of_request(None, &headers).trace.unwrap();
        assert_eq!(trace.tracestate(), Some("a=1,b=2"));
        let mut again = HeaderMap::new();
        put(&mut again, &trace);
        assert_eq!(Context::of_request(None, &again).trace, Some(trace));
    }

    #[test]
    fn unknown_methods_share_a_label() {
        let strange = Method::from_bytes(b"BREW").unwrap();
        assert_eq!([&Method::GET, &strange].map(method_label), ["GET", "other"]);
    }
}
