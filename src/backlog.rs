//! `GET /backlog`: what is still under way between the services of this process: unsent outbox rows,
//! unread records, ready jobs. All zero is what reconciling calls rest. Never changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router, response::IntoResponse};
use chassis::Ports;
use chassis::http::Problem;
use chrono::{DateTime, Utc};
use contract::{CATALOG, Profile, Service, Streams};
use futures_util::future::try_join_all;
use ports::{Op, Outcome, Reply};
use serde::Serialize;

/// Most rows of a shard that are looked at.
const ROWS_MAX: usize = 1000;

/// What is looked at.
pub struct Watched {
    ports: BTreeMap<Service, Ports>,
    streams: Streams,
    profile: Profile,
    shards: u16,
}

/// A service's backlog.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Backlog {
    /// Unsent rows of the outbox.
    outbox: usize,
    /// Whether there are more than were looked at.
    more: bool,
    /// When the oldest of them was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_at: Option<DateTime<Utc>>,
    /// Records that its group has not committed yet, by topic.
    lag: BTreeMap<String, i64>,
}

impl Watched {
    /// Watches the services on these ports.
    pub fn new(
        ports: &BTreeMap<Service, Ports>,
        streams: &Streams,
        profile: Profile,
        shards: u16,
    ) -> Watched {
        Watched { ports: ports.clone(), streams: streams.clone(), profile, shards }
    }

    /// The route.
    pub fn router(self) -> Router {
        Router::new().route("/backlog", get(show)).with_state(Arc::new(self))
    }

    /// The topics that a service reads in this profile.
    fn consumed(&self, service: Service) -> Vec<Arc<str>> {
        let rows = CATALOG.iter().filter(|row| row.stream.is_topic());
        let read = rows.filter(|row| row.consumers_in(self.profile).any(|one| one == service));
        let streams: BTreeSet<_> = read.map(|row| row.stream).collect();
        streams.into_iter().map(|stream| self.streams.name(stream)).collect()
    }

    async fn of(&self, service: Service, ports: &Ports) -> Outcome<(&'static str, Backlog)> {
        let unsent = (0..self.shards).map(|shard| Op::Unsent { shard, limit: ROWS_MAX }).collect();
        let (mut outbox, mut more, mut oldest_at) = (0, false, None);
        for reply in ports.store.read(unsent).await? {
            let Reply::Outbox(rows) = reply else { continue };
            outbox += rows.len();
            more |= rows.len() == ROWS_MAX;
            let first = rows.iter().map(|row| row.at).min();
            oldest_at = [oldest_at, first].into_iter().flatten().min();
        }
        let topics = self.consumed(service);
        let committed = ports.log.committed(service.name(), &topics).await?;
        let mut lag = BTreeMap::new();
        for topic in &topics {
            let partitions = ports.log.watermarks(topic).await?;
            let behind = partitions.iter().map(|(partition, (low, high))| {
                high - committed.get(partition).map_or(*low, |next| *next)
            });
            lag.insert(topic.to_string(), behind.sum());
        }
        Ok((service.name(), Backlog { outbox, more, oldest_at, lag }))
    }
}

async fn show(State(watched): State<Arc<Watched>>) -> Result<Response, Problem> {
    let all = watched.ports.iter().map(|(service, ports)| watched.of(*service, ports));
    let services: BTreeMap<&str, Backlog> = try_join_all(all).await?.into_iter().collect();
    let mut queues = BTreeMap::new();
    if let Some(ports) = watched.ports.get(&Service::NotificationsWorker) {
        let jobs = watched.streams.jobs();
        for queue in [jobs.name, jobs.dead_letters] {
            let ready = ports.queue.depth(&queue).await?;
            queues.insert(queue.to_string(), ready);
        }
    }
    Ok(Json(serde_json::json!({ "services": services, "queues": queues })).into_response())
}
