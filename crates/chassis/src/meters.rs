//! What every service measures of its loops. The names are those of docs/operations.md, which says what
//! each means and what to do. Never a label with values from the wire.

use crate::Meter;

/// Rows of the outbox that are not confirmed, counted up to a bound for each shard.
pub static OUTBOX_UNSENT: Meter = Meter::gauge(
    "outbox_unsent",
    "Outbox rows not yet confirmed by a broker; counted up to 100 a shard.",
    &[],
);
/// Age of the oldest of them, by the store's clock.
pub static OUTBOX_OLDEST_AGE: Meter = Meter::gauge(
    "outbox_oldest_age_seconds",
    "Age of the oldest outbox row that is not yet confirmed; 0 where there is none.",
    &[],
);
/// Sends of outbox rows: confirmed, retry, refused, unknown.
pub static OUTBOX_PUBLISH: Meter =
    Meter::counter("outbox_publish_total", "Sends of outbox rows by how they ended.", &["result"]);
/// From the append of a row to its confirmed deletion, by the store's clock.
pub static OUTBOX_COMMIT_TO_ACK: Meter = Meter::seconds(
    "outbox_commit_to_ack_seconds",
    "From an outbox row's commit to its confirmation by the broker.",
    &[],
);
/// Redeliveries that the inbox knew.
pub static INBOX_DUPLICATES: Meter = Meter::counter(
    "inbox_duplicates_total",
    "Events and jobs that came again and were known by the inbox.",
    &[],
);
/// Events and jobs by how they ended.
pub static EVENT_HANDLED: Meter = Meter::counter(
    "event_handled_total",
    "Events and jobs by type and by how they ended.",
    &["type", "result"],
);
/// From the beginning of an event's transaction to its commit, its repeats included.
pub static EVENT_HANDLE: Meter = Meter::seconds(
    "event_handle_seconds",
    "From the beginning of the transaction of an event to its commit, repeats included.",
    &[],
);
/// Events that mean nothing here.
pub static EVENT_SKIPPED: Meter =
    Meter::counter("event_skipped_total", "Events passed over, by the reason.", &["reason"]);
/// Records of a partition that the service's database has not handled.
pub static CONSUMER_LAG: Meter = Meter::gauge(
    "consumer_lag",
    "Records behind the position in the service's own database.",
    &["topic", "partition", "group"],
);
/// Since this instance last got a record or job.
pub static CONSUMER_LAST_MESSAGE_AGE: Meter = Meter::gauge(
    "consumer_last_message_age_seconds",
    "Since this instance last got a record or job; since its start where it got none.",
    &[],
);
/// Changes of this instance's partitions: assigned, revoked, lost.
pub static REBALANCE: Meter =
    Meter::counter("rebalance_total", "Changes of the assignment by their sort.", &["change"]);
/// Open letters, counted up to a bound.
pub static DEAD_LETTERS: Meter = Meter::gauge(
    "dead_letters",
    "Open letters by state and reason, of the oldest 1000; reason none where there are none.",
    &["state", "reason"],
);
/// Keys whose events wait behind a letter.
pub static PARKED_KEYS: Meter =
    Meter::gauge("parked_keys", "Keys with open letters, counted up to 1000.", &[]);
/// Shards of the outbox whose lease this instance holds.
pub static LEASE_HELD: Meter =
    Meter::gauge("lease_held", "Outbox shards that this instance may send.", &[]);
/// Whether a dependency answered the last look: 1 or 0.
pub static DEPENDENCY_UP: Meter = Meter::gauge(
    "dependency_up",
    "Whether the dependency answered the last look: 1 or 0.",
    &["dependency"],
);
/// Requests with an Idempotency-Key: new, repeated, reused.
pub static HTTP_IDEMPOTENCY: Meter = Meter::counter(
    "http_idempotency_total",
    "Commands with an Idempotency-Key by whether the key was known.",
    &["result"],
);
/// Requests by method and status.
pub static HTTP_REQUESTS: Meter =
    Meter::counter("http_requests_total", "Requests by method and status.", &["method", "status"]);
/// How long they took.
pub static HTTP_REQUEST: Meter =
    Meter::seconds("http_request_seconds", "From a request to its response.", &[]);
/// Headers that are no `traceparent`.
pub static TRACEPARENT_MALFORMED: Meter = Meter::counter(
    "traceparent_malformed_total",
    "Requests and records whose traceparent was malformed; they begin a trace of their own.",
    &[],
);

/// All of them.
pub static ALL: [&Meter; 19] = [
    &OUTBOX_UNSENT,
    &OUTBOX_OLDEST_AGE,
    &OUTBOX_PUBLISH,
    &OUTBOX_COMMIT_TO_ACK,
    &INBOX_DUPLICATES,
    &EVENT_HANDLED,
    &EVENT_HANDLE,
    &EVENT_SKIPPED,
    &CONSUMER_LAG,
    &CONSUMER_LAST_MESSAGE_AGE,
    &REBALANCE,
    &DEAD_LETTERS,
    &PARKED_KEYS,
    &LEASE_HELD,
    &DEPENDENCY_UP,
    &HTTP_IDEMPOTENCY,
    &HTTP_REQUESTS,
    &HTTP_REQUEST,
    &TRACEPARENT_MALFORMED,
];
