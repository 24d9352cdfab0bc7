//! A service as a whole: its ports, its handler, and the tasks that run them. Never decides.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use futures_util::future::{BoxFuture, select};
use ports::{Channel, EventLog, JobQueue, Outcome, Runtime, Store, Task};
use tokio::sync::{Notify, mpsc};

use crate::batch::Batches;
use crate::commands::Command;
use crate::health::{self, Ready};
use crate::look::Looks;
use crate::requests::{self, Around};
use crate::stop::{Stage, Working};
use crate::vitals::{Loop, Vitals};
use crate::watch::Watch;
use crate::work::Desk;
use crate::{
    Commands, Due, Exposition, Handler, Outside, Settings, Stop, TEXT_FORMAT, consume, drain, http,
    jobs, letters_http, meters, relay, retention, work,
};

/// Tries of a service that leaves to take a mark back. Where none succeeds it stands, as that of a process that died.
const TAKE_BACK_TRIES: u32 = 3;

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
pub(crate) struct Shared {
    pub(crate) ports: Ports,
    pub(crate) settings: Settings,
    /// Rung after a commit that appended to the outbox.
    pub(crate) appended: Notify,
    /// Rung after a commit that put rows with index values.
    pub(crate) changed: Arc<Notify>,
    /// Rung after a commit that left letters behind which nothing stands any more.
    pub(crate) drainable: Notify,
    desks: Mutex<Vec<Arc<Desk>>>,
    pub(crate) stop: Stop,
    /// What the loops let be seen.
    pub(crate) vitals: Vitals,
    looks: Looks,
}

/// A service being put together. Start what it needs, then [`App::finish`].
pub struct App<H: Handler> {
    shared: Arc<Shared>,
    handler: Arc<H>,
    commands: Commands<H::Fact>,
    work: mpsc::Sender<consume::Work>,
}

/// A running service.
pub struct Service {
    /// Its HTTP, to be served by a shell.
    pub router: Router,
    /// To end it.
    pub stop: Stop,
    /// Its metrics.
    pub scrape: Scrape,
}

/// Looks at a service's metrics. Clones look at the same service.
#[derive(Clone)]
pub struct Scrape(Arc<dyn Fn() -> BoxFuture<'static, Exposition> + Send + Sync>);

impl Scrape {
    /// What it has counted, with gauges as they are now or were a second ago. Bounded in time: what does
    /// not answer is left out.
    pub async fn look(&self) -> Exposition {
        (self.0)().await
    }
}

impl Shared {
    /// Where rows that a transaction makes due are claimed at once: nowhere when the service leaves.
    pub(crate) fn desks(&self) -> Vec<Arc<Desk>> {
        let desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stop.asked() { Vec::new() } else { desks.clone() }
    }

    /// Pauses after a failure.
    pub(crate) async fn back_off(&self, what: &'static str, failures: &mut u32) {
        let pause = self.pause(what, failures);
        self.ports.runtime.sleep(pause).await;
    }

    /// Takes a mark back, of what did not end the process, and for as long as that takes: a database that stays
    /// away accuses nobody.
    pub(crate) async fn take_back<'a>(
        &self,
        what: &'static str,
        working: &Working,
        try_it: impl Fn() -> BoxFuture<'a, Outcome<()>>,
    ) {
        let mut failures = 0;
        while let Err(fault) = try_it().await {
            tracing::debug!(service = self.settings.service, %fault, what, "a mark was not taken back");
            self.back_off("take back", &mut failures).await;
            if working.asked() && failures >= TAKE_BACK_TRIES {
                return;
            }
        }
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
        let runtime = ports.runtime.clone();
        let (appended, changed, drainable) =
            (Notify::new(), Arc::new(Notify::new()), Notify::new());
        settings.metrics.announce(&meters::ALL);
        settings.metrics.announce(handler.meters());
        let (stop, vitals, looks) = (Stop::new(), Vitals::default(), Looks::default());
        let now = runtime.elapsed();
        vitals.note(|seen| seen.message = now);
        let shared = Arc::new(Shared {
            ports,
            settings,
            appended,
            changed,
            drainable,
            desks: Mutex::default(),
            stop,
            vitals,
            looks,
        });
        let app = App { shared, handler: Arc::new(handler), commands, work };
        let times =
            app.shared.stop.times(app.shared.ports.runtime.clone(), app.shared.settings.drain);
        app.shared.ports.runtime.spawn("times of leaving", times);
        let batches = Batches::new(app.shared.clone(), app.handler.clone(), waiting, records);
        app.spawn("batch", Stage::Batch, |working| {
            let late = working.until_late();
            // Dropped in the middle, a transaction rolls back or is repeated by whoever is next.
            Box::pin(async move {
                select(pin!(batches.run(working)), pin!(late)).await;
            })
        });
        let (shared, handler) = (app.shared.clone(), app.handler.clone());
        let commands = app.commands.clone();
        app.spawn("drain", Stage::Intake, |working| {
            Box::pin(drain::run(shared, handler, commands, working))
        });
        let shared = app.shared.clone();
        app.spawn("retention", Stage::Intake, |working| Box::pin(retention::run(shared, working)));
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
        let (changed, stop) = (self.shared.changed.clone(), self.shared.stop.clone());
        Watch { runtime: runtime.clone(), changed, stop }
    }

    /// Consumes these topics in the service's group.
    pub fn consume(&self, topics: Vec<Arc<str>>) {
        self.shared.vitals.note(|seen| {
            seen.topics.extend(topics.iter().cloned());
            seen.consumer = Some(Loop::default());
        });
        let (shared, work) = (self.shared.clone(), self.work.clone());
        self.spawn("consume", Stage::Intake, |working| {
            Box::pin(consume::run(shared, topics, work, working))
        });
    }

    /// Consumes this queue.
    pub fn jobs(&self, queue: Arc<str>, prefetch: u16) {
        self.reaches(Channel::Queue, queue.clone());
        self.shared.vitals.note(|seen| seen.jobs = Some(Loop::default()));
        let (shared, work) = (self.shared.clone(), self.work.clone());
        self.spawn("jobs", Stage::Intake, |working| {
            Box::pin(jobs::run(shared, queue, prefetch, work, working))
        });
    }

    /// Says that this service sends there: readiness looks whether that broker answers.
    pub fn reaches(&self, channel: Channel, name: Arc<str>) {
        self.shared.vitals.note(|seen| {
            seen.reached.insert((channel, name));
        });
    }

    /// Sends the outbox.
    pub fn relay(&self) {
        let now = self.shared.ports.runtime.elapsed();
        self.shared.vitals.note(|seen| seen.relay = Some(now));
        let shared = self.shared.clone();
        self.spawn("relay", Stage::Relay, |working| Box::pin(relay::run(shared, working)));
    }

    /// Claims what is due in a table, calls the outside for it, and hands in what comes of it. Timers
    /// are outside calls that answer at once.
    pub fn work(&self, due: Due, outside: impl Outside<H::Fact>) {
        let shared = self.shared.clone();
        let desk = Arc::new(Desk::new(&shared, due, outside, self.commands.clone()));
        shared.desks.lock().unwrap_or_else(PoisonError::into_inner).push(desk.clone());
        self.spawn("work", Stage::Intake, |working| Box::pin(work::run(shared, desk, working)));
    }

    /// The service with its HTTP: the given routes, `/dead-letters`, `/health/live`, `/health/ready`
    /// (`/health` is the same) and `/metrics`.
    pub fn finish(self, router: Router) -> Service {
        let App { shared, handler, commands, .. } = self;
        let Settings { service, ref instance, ref metrics, .. } = shared.settings;
        let around = Around {
            service,
            instance: instance.clone(),
            runtime: shared.ports.runtime.clone(),
            metrics: metrics.clone(),
        };
        let router = letters_http::add(router, shared.clone(), handler.clone(), commands);
        let (stop, scrape) = (shared.stop.clone(), scrape(shared.clone(), handler.clone()));
        let ready = move || async move {
            let look = shared.looks.get(&shared, &*handler).await;
            Ready::of(&look, shared.stop.asked()).response(shared.settings.service)
        };
        let shown = scrape.clone();
        let metrics = move || async move {
            ([(header::CONTENT_TYPE, TEXT_FORMAT)], shown.look().await.text())
        };
        let router = router
            .fallback(no_such_route)
            .method_not_allowed_fallback(no_such_method)
            .layer(from_fn_with_state(Arc::new(around), requests::around))
            // Outside of the layer: those who look are not what is looked at.
            .route("/health/live", get(move || async move { health::live(service) }))
            .route("/health/ready", get(ready.clone()))
            .route("/health", get(ready))
            .route("/metrics", get(metrics))
            .method_not_allowed_fallback(no_such_method);
        Service { router, stop, scrape }
    }

    /// Runs a task until it ends or the drain is over.
    fn spawn(&self, name: &'static str, stage: Stage, task: impl FnOnce(Working) -> Task) {
        let working = self.shared.stop.working(stage);
        let gone = working.until_gone();
        let task = task(working);
        let bounded = async move { drop(select(task, pin!(gone)).await) };
        self.shared.ports.runtime.spawn(name, Box::pin(bounded));
    }
}

async fn no_such_method(method: axum::http::Method, uri: axum::http::Uri) -> http::Problem {
    http::Problem::method_not_allowed(method.as_str(), uri.path())
}

fn scrape<H: Handler>(shared: Arc<Shared>, handler: Arc<H>) -> Scrape {
    Scrape(Arc::new(move || {
        let (shared, handler) = (shared.clone(), handler.clone());
        Box::pin(async move {
            let look = shared.looks.get(&shared, &*handler).await;
            let Settings { service, metrics, .. } = &shared.settings;
            metrics.expose(service, look.gauges)
        })
    }))
}

async fn no_such_route(uri: axum::http::Uri) -> http::Problem {
    http::Problem::not_found("resource", uri.path())
}
