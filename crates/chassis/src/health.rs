//! Health for load balancers and people: `/health/live` says that the process answers,
//! `/health/ready` what each dependency says. Never waits longer than a look does.
//!
//! A service without its store can answer nothing: it is unavailable. Without a broker it still answers
//! from its rows, and keeps what it is given until the broker is back: it is degraded. To take it out
//! of a load balancer for that would turn a delay into an outage.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::look::{Held, Look};
use crate::vitals::Loop;

/// A reader that got no answer from its broker for so long is stuck, seconds. A poll returns after half
/// a second at most where nothing comes, a batch is bounded, and pauses between attempts are short.
const SILENT_MAX_S: u64 = 30;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    Ok,
    /// It goes on, but not all of it.
    Degraded,
    /// It cannot do its work.
    Unavailable,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Degraded => "degraded",
            Status::Unavailable => "unavailable",
        }
    }
}

/// A service's readiness.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) status: Status,
    /// Each check by its name, as JSON with a `status`.
    checks: Map<String, Value>,
}

impl Ready {
    /// What a look says. `leaving`: the service was asked to end.
    pub(crate) fn of(look: &Look, leaving: bool) -> Ready {
        let mut ready = Ready { status: Status::Ok, checks: Map::new() };
        ready.dependency("store", Some(&look.store), Status::Unavailable);
        ready.dependency("log", look.log.as_ref(), Status::Degraded);
        ready.dependency("queue", look.queue.as_ref(), Status::Degraded);
        if let Some(consumer) = &look.seen.consumer {
            ready.reads("consumer", consumer, look, true);
        }
        if let Some(jobs) = &look.seen.jobs {
            ready.reads("jobs", jobs, look, false);
        }
        if look.seen.relay.is_some() {
            ready.relay(look);
        }
        if leaving {
            let detail = "the service was asked to end";
            ready.add("leaving", Status::Unavailable, json!({ "detail": detail }));
        }
        ready
    }

    fn add(&mut self, name: &str, status: Status, mut said: Value) {
        self.status = self.status.max(status);
        said["status"] = json!(status.name());
        self.checks.insert(name.to_owned(), said);
    }

    fn dependency(
        &mut self,
        name: &'static str,
        state: Option<&Result<(), String>>,
        otherwise: Status,
    ) {
        match state {
            None => {}
            Some(Ok(())) => self.add(name, Status::Ok, json!({})),
            Some(Err(cause)) => self.add(name, otherwise, json!({ "detail": cause })),
        }
    }

    /// A loop that reads: in its group, or on its channel, and heard of lately.
    fn reads(&mut self, name: &'static str, reader: &Loop, look: &Look, group: bool) {
        let silent_s = look.at.saturating_sub(reader.polled).as_secs();
        let detail = if !reader.joined {
            Some("not joined")
        } else if silent_s > SILENT_MAX_S && group {
            Some("no poll was answered for too long: it is stuck in a batch, or the log is silent")
        } else if reader.claimed < reader.assigned {
            Some("positions are not claimed yet")
        } else {
            None
        };
        let mut said = json!({ "joined": reader.joined });
        if group {
            said["lastPollSeconds"] = json!(silent_s);
            said["partitions"] = json!(reader.assigned);
        }
        if let Some(detail) = detail {
            said["detail"] = json!(detail);
        }
        self.add(name, if detail.is_some() { Status::Degraded } else { Status::Ok }, said);
    }

    /// The relay goes round, and every shard has a holder.
    fn relay(&mut self, look: &Look) {
        let round = look.seen.relay.unwrap_or_default();
        let silent_s = look.at.saturating_sub(round).as_secs();
        let count = |wanted| look.leases.values().filter(|held| **held == wanted).count();
        let (ours, nobodys) = (count(Held::Ours), count(Held::Nobody));
        let detail = if silent_s > SILENT_MAX_S {
            Some("no round for too long: a broker or the store does not answer")
        } else if nobodys > 0 {
            Some("shards that nobody holds a lease of")
        } else {
            None
        };
        let mut said = json!({ "shards": look.leases.len(), "held": ours, "unheld": nobodys,
            "lastRoundSeconds": silent_s });
        if let Some(detail) = detail {
            said["detail"] = json!(detail);
        }
        self.add("relay", if detail.is_some() { Status::Degraded } else { Status::Ok }, said);
    }

    /// 503 where it is unavailable.
    pub(crate) fn response(self, service: &str) -> Response {
        let Ready { status, checks } = self;
        let code = match status {
            Status::Ok | Status::Degraded => StatusCode::OK,
            Status::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        let body = json!({ "service": service, "status": status.name(), "checks": checks });
        (code, Json(body)).into_response()
    }
}

/// The process answers.
pub(crate) fn live(service: &str) -> Response {
    Json(json!({ "service": service, "status": "ok" })).into_response()
}
