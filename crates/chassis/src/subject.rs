//! What an input is about, for logs, counters and the events that follow from it. Never decides.

use std::time::Duration;

use envelope::Envelope;
use ports::Record;
use tracing::{Level, Span};

use crate::app::Shared;
use crate::http::is_given;
use crate::slot::{Ended, Slot, Source};
use crate::trace::Malformed;
use crate::{Context, Handler, Reply, Trace, meters};

/// The label of what no handler knows.
const UNKNOWN: &str = "unknown";

/// What an input is subject.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subject {
    /// The event's type where the service knows it, else `unknown`; of a command nothing.
    kind: Option<&'static str>,
    /// Its ids, as far as they could be read.
    context: Context,
    /// Why it means nothing here.
    pub(crate) skipped: Option<&'static str>,
    /// Whether it said that it belongs to a trace, and did not say which.
    malformed: bool,
}

impl Subject {
    /// Of a command, a timer or an answer from outside.
    pub(crate) fn command(context: &Context) -> Self {
        Subject { context: context.clone(), ..Subject::default() }
    }

    /// Of a record that is no envelope.
    pub(crate) fn unreadable(record: &Record) -> Self {
        let (trace, malformed) = traced(Trace::of_headers(&record.headers));
        let context = Context { trace, ..Context::default() };
        Subject { kind: Some(UNKNOWN), context, skipped: None, malformed }
    }

    /// Of an event or job. Without a trace of its own it begins one.
    pub(crate) fn event<H: Handler>(handler: &H, envelope: &Envelope, record: &Record) -> Self {
        let (trace, malformed) = traced(Trace::of_headers(&record.headers));
        let trace = trace.unwrap_or_else(|| Trace::begun_by(envelope.event_id.as_str()));
        let known = handler.event_types().iter().find(|known| **known == envelope.event_type);
        let context = Context {
            cause: Some(envelope.event_id.clone()),
            correlation: Some(envelope.correlation_id.clone()),
            trace: Some(trace),
        };
        Subject { kind: Some(known.unwrap_or(&UNKNOWN)), context, skipped: None, malformed }
    }

    /// Where it came from, for its input.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// The span that log lines about it stand in. At level error, so that no filter takes the ids from a
    /// line that it lets pass.
    pub(crate) fn span(&self, service: &'static str) -> Span {
        let Context { cause, correlation, trace } = &self.context;
        tracing::error_span!(
            "event",
            service,
            correlationId = correlation.as_ref().map(|id| id.as_str()),
            eventId = cause.as_ref().map(|id| id.as_str()),
            eventType = self.kind,
            traceId = trace.as_ref().map(Trace::id),
        )
    }
}

fn traced(read: Option<Result<Trace, Malformed>>) -> (Option<Trace>, bool) {
    match read {
        Some(Ok(trace)) => (Some(trace), false),
        Some(Err(Malformed)) => (None, true),
        None => (None, false),
    }
}

impl Shared {
    /// Counts and logs how the inputs of a batch ended, after its commit, and that it took so long.
    pub(crate) fn count<F>(&self, slots: &[Slot<F>], ended: &[Ended], took: Duration) {
        let metrics = &self.settings.metrics;
        for (slot, ended) in slots.iter().zip(ended) {
            let subject = &slot.head.subject;
            let result = word(ended);
            if tracing::enabled!(Level::DEBUG) {
                subject.span(self.settings.service).in_scope(|| tracing::debug!(result, "handled"));
            }
            if subject.malformed {
                metrics.count(&meters::TRACEPARENT_MALFORMED, &[]);
            }
            match (&slot.head.source, subject.kind) {
                (Source::Log { .. } | Source::Queue, kind) => {
                    metrics.count(&meters::EVENT_HANDLED, &[kind.unwrap_or(UNKNOWN), result]);
                    metrics.add(&meters::EVENT_HANDLE, &[], took.as_secs_f64());
                    if matches!(ended, Ended::Repeated(_)) {
                        metrics.count(&meters::INBOX_DUPLICATES, &[]);
                    }
                    if matches!(ended, Ended::Skipped) {
                        // Else the position was behind it already.
                        let reason = subject.skipped.unwrap_or("handled_before");
                        metrics.count(&meters::EVENT_SKIPPED, &[reason]);
                    }
                }
                // Letters have gauges of their own.
                (Source::Letter { .. }, _) => {}
                (Source::Command, _) => {
                    if slot.inbox().is_some_and(|(id, _)| is_given(id))
                        && let Some(result) = idempotency(ended)
                    {
                        metrics.count(&meters::HTTP_IDEMPOTENCY, &[result]);
                    }
                }
            }
        }
    }
}

/// How an input ended, as a label.
fn word(ended: &Ended) -> &'static str {
    match ended {
        Ended::Applied(_) => "applied",
        Ended::Repeated(_) => "repeated",
        Ended::Refused(_) => "dead",
        Ended::Parked => "parked",
        Ended::Skipped => "skipped",
        Ended::Fenced => "fenced",
    }
}

fn idempotency(ended: &Ended) -> Option<&'static str> {
    let reused =
        |reply: &Reply| reply.body["type"] == "urn:shakedown:problem:idempotency-key-reused";
    match ended {
        Ended::Applied(_) | Ended::Refused(_) => Some("new"),
        Ended::Repeated(Some(reply)) if reused(reply) => Some("reused"),
        Ended::Repeated(_) => Some("repeated"),
        Ended::Parked | Ended::Skipped | Ended::Fenced => None,
    }
}
