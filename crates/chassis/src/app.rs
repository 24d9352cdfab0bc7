//! A service as a whole: its ports, its handler, and the tasks that run them. Never decides.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use ports::{EventLog, JobQueue, Outcome, Runtime, Store, Task};
use serde_json::json;
use tokio::sync::{Notify, mpsc};

use crate::batch::Batches;
use crate::commands::Command;
use crate::stop::{Stage, Working};
use crate::watch::Watch;
use crate::{
    Commands, Due, Handler, Outside, Settings, Stop, consume, drain, http, jobs, letters_http,
    relay, work,
};

/// What a service runs on.
#[derive(Clone)]
pub struct Ports {
    /// Topics.
    pub log: Arc<dyn EventLog>,
    /// Queues.
    pub queue: Arc<dyn JobQueue>,
    /// Its own database.
    pub store: Arc<dyn Store>,
    /// Its node.
    pub runtime: Arc<dyn Runtime>,
}

/// What every task of a service shares.
pub(crate) struct Shared<H: Handler> {
    pub(crate) ports: Ports,
    pub(crate) settings: Settings,
    pub(crate) handler: H,
    /// Rung after a commit that appended to the outbox.
    pub(crate) appended: Notify,
    /// Rung after a commit that put rows with something due.
    pub(crate) due: Arc<Notify>,
    /// Rung after a commit that left letters behind which nothing stands any more.
    pub(crate) drainable: Notify,
    pub(crate) stop: Stop,
}

/// A service being put together. Start what it needs, then [`App::finish`].
pub struct App<H: Handler> {
    shared: Arc<Shared<H>>,
    commands: Commands<H::Fact>,
    work: mpsc::Sender<consume::Work>,
}

/// A running service.
pub struct Service {
    /// Its HTTP, to be served by a shell.
    pub router: Router,
    /// To end it.
    pub stop: Stop,
}

impl<H: Handler> Shared<H> {
    /// Pauses after a failure.
    pub(crate) async fn back_off(&self, what: &'static str, failures: &mut u32) {
        let pause = self.pause(what, failures);
        self.ports.runtime.sleep(pause).await;
    }

    /// How long to pause after a failure: twice as long each time, up to a bound, with jitter.
    pub(crate) fn pause(&self, what: &'static str, failures: &mut u32) -> Duration {
        let Settings { backoff, backoff_max, instance, .. } = &self.settings;
        let full = backoff.saturating_mul(1 << (*failures).min(16)).min(*backoff_max);
        *failures += 1;
        let full_ms = full.as_millis() as u64;
        let jitter_ms = self.ports.runtime.choose(what, instance, full_ms / 2 + 1);
        Duration::from_millis(full_ms / 2 + jitter_ms)
    }
}

impl<H: Handler> App<H> {
    /// Prepares the store and starts the batch loop.
    pub async fn start(ports: Ports, settings: Settings, handler: H) -> Outcome<App<H>> {
        let mut tables = crate::tables::ALL.to_vec();
        tables.extend(handler.tables());
        ports.store.prepare(&tables).await?;
        let (queue, waiting) = mpsc::channel::<Command<H::Fact>>(settings.commands_max);
        let commands = Commands::new(queue, ports.runtime.clone(), &settings);
        // One batch of records in hand and one behind it: the log is the buffer.
        let (work, records) = mpsc::channel(2);
        let (appended, due, drainable) = (Notify::new(), Arc::new(Notify::new()), Notify::new());
        let stop = Stop::new();
        let shared = Shared { ports, settings, handler, appended, due, drainable, stop };
        let shared = Arc::new(shared);
        let app = App { shared, commands, work };
        let batches = Batches::new(app.shared.clone(), waiting, records);
        app.spawn("batch", Stage::Batch, |working| Box::pin(batches.run(working)));
        let (shared, commands) = (app.shared.clone(), app.commands.clone());
        app.spawn("drain", Stage::Intake, |working| {
            Box::pin(drain::run(shared, commands, working))
        });
        Ok(app)
    }

    /// The way in for this service's HTTP.
    pub fn commands(&self) -> Commands<H::Fact> {
        self.commands.clone()
    }

    /// What it runs on.
    pub fn ports(&self) -> &Ports {
        &self.shared.ports
    }

    /// How its HTTP notices rows that change while a request is open.
    pub fn watch(&self) -> Watch {
        let Ports { runtime, .. } = self.ports();
        let (changed, stop) = (self.shared.due.clone(), self.shared.stop.clone());
        Watch { runtime: runtime.clone(), changed, stop }
    }

    /// Consumes these topics in the service's group.
    pub fn consume(&self, topics: Vec<Arc<str>>) {
        let (shared, work) = (self.shared.clone(), self.work.clone());
        self.spawn("consume", Stage::Intake, |working| {
            Box::pin(consume::run(shared, topics, work, working))
        });
    }

    /// Consumes this queue, whose messages may come back `delivery_limit` times.
    pub fn jobs(&self, queue: Arc<str>, prefetch: u16, delivery_limit: u32) {
        let (shared, work) = (self.shared.clone(), self.work.clone());
        let limits = (prefetch, delivery_limit);
        self.spawn("jobs", Stage::Intake, |working| {
            Box::pin(jobs::run(shared, queue, limits, work, working))
        });
    }

    /// Sends the outbox.
    pub fn relay(&self) {
        let shared = self.shared.clone();
        self.spawn("relay", Stage::Relay, |working| Box::pin(relay::run(shared, working)));
    }

    /// Claims what is due in a table, calls the outside for it, and hands in what comes of it. Timers
    /// are outside calls that answer at once.
    pub fn work(&self, due: Due, outside: impl Outside<H::Fact>) {
        let (shared, commands) = (self.shared.clone(), self.commands.clone());
        self.spawn("work", Stage::Intake, |working| {
            Box::pin(work::run(shared, due, outside, commands, working))
        });
    }

    /// The service with its HTTP: the given routes, `/health` and `/dead-letters`.
    pub fn finish(self, router: Router) -> Service {
        let name = self.shared.settings.service;
        let health = move || async move { http::ok(json!({ "service": name, "status": "ok" })) };
        let letters = letters_http::router(self.shared.clone(), self.commands.clone());
        let router = router.merge(letters).route("/health", get(health)).fallback(no_such_route);
        let router = router.method_not_allowed_fallback(no_such_method);
        Service { router, stop: self.shared.stop.clone() }
    }

    fn spawn(&self, name: &'static str, stage: Stage, task: impl FnOnce(Working) -> Task) {
        let working = self.shared.stop.working(stage);
        self.shared.ports.runtime.spawn(name, task(working));
    }
}

async fn no_such_method(method: axum::http::Method, uri: axum::http::Uri) -> http::Problem {
    let detail = format!("{} takes no {method}; see the Allow header", uri.path());
    http::Problem::new(405, "method-not-allowed", "Method not allowed", detail)
}

async fn no_such_route(uri: axum::http::Uri) -> http::Problem {
    http::Problem::not_found("resource", uri.path())
}
