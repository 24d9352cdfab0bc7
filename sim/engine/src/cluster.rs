//! A world's cluster: nodes that start, are killed or leave and start again, and the servers they talk
//! to. What goes wrong with a call is the gate's.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use madsim::runtime::{Handle, NodeHandle};
use madsim::time::TimeHandle;
use model::log::LogServer;
use model::queue::QueueServer;
use model::store::StoreServer;
use ports::{EventLog, JobQueue, Key, Outcome, Record, Runtime, Store, Table, Task};

use crate::choices::Choices;
use crate::fault::{FaultKind, FaultSpec, Site, When};
use crate::outcome::FaultCount;
use crate::runtime::{NodeRuntime, wall};
use crate::touch::Touch;
use crate::trace::{Trace, TraceEvent};
use crate::{log, queue, store};

mod freeze;
mod gate;
mod leaving;
mod links;
mod phases;
mod requests;
mod strangers;

pub(crate) use gate::CLIENT_TIMEOUT;
pub use leaving::Leave;
use leaving::Manners;
pub(crate) use links::Beats;
use links::Links;
use phases::Phase;

/// How a world's servers behave.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The log's groups.
    pub log: model::log::Settings,
    /// The queues.
    pub queue: model::queue::Settings,
    /// The databases.
    pub store: model::store::Settings,
    /// A port call takes 1 ms and up to this much more on its way there, and as much on its way
    /// back, milliseconds.
    pub delay_ms: u64,
    /// A node's wall clock is wrong by up to this much, milliseconds; drawn anew at each start. The
    /// servers' clocks are right.
    pub skew_ms: u64,
    /// How long a node that is asked to leave may take before it is killed.
    pub drain: Duration,
    /// Rows that the databases never take, whoever writes them, as a server has limits that the model
    /// does not know. None: they take all.
    pub refuses: Option<fn(&Table, &Key) -> bool>,
    /// Whether to keep what each port call touched, for a page; the world is the same.
    pub detailed: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            log: model::log::Settings::default(),
            queue: model::queue::Settings::default(),
            store: model::store::Settings::default(),
            delay_ms: 0,
            skew_ms: 0,
            drain: Duration::from_secs(5),
            refuses: None,
            detailed: false,
        }
    }
}

/// What starts a node's code, and gives a way to ask it to leave. An error is a failed start: the node
/// is killed and started again.
pub type Start =
    Arc<dyn Fn(NodePorts) -> Pin<Box<dyn Future<Output = Outcome<Leave>> + Send>> + Send + Sync>;

/// What one incarnation of a node runs on.
#[derive(Clone)]
pub struct NodePorts {
    /// The simulated Kafka.
    pub log: Arc<dyn EventLog>,
    /// The simulated RabbitMQ.
    pub queue: Arc<dyn JobQueue>,
    /// The simulated database of this node's service.
    pub store: Arc<dyn Store>,
    /// The node.
    pub runtime: Arc<dyn Runtime>,
    pub(crate) node: Arc<Node>,
}

/// One incarnation of a node: cut off when it is killed.
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    /// Name and incarnation: what servers know it by.
    pub(crate) client: String,
    pub(crate) cluster: Cluster,
    pub(crate) handle: NodeHandle,
    /// Its database's name.
    pub(crate) database: Arc<str>,
    /// How wrong its wall clock is.
    pub(crate) skew_ms: AtomicI64,
    cut: AtomicBool,
    frozen: AtomicBool,
    manners: Mutex<Manners>,
}

struct Place {
    start: Start,
    database: String,
    incarnation: u32,
    running: Option<Arc<Node>>,
    /// By site, counted over its restarts.
    calls: BTreeMap<Site, u64>,
    /// The same by what they were for, where a fault asks for that.
    calls_for: BTreeMap<(Site, String), u64>,
    /// Faults that wait for a call.
    armed: Vec<FaultSpec>,
    /// The group that it joined last, and its topics.
    joined: Option<(Arc<str>, Vec<Arc<str>>)>,
}

struct State {
    places: BTreeMap<String, Place>,
    stores: BTreeMap<String, StoreServer>,
    trace: Trace,
    /// By node, those that will wait for a call when it is added.
    armed: BTreeMap<String, Vec<FaultSpec>>,
    faults: BTreeMap<String, FaultCount>,
    met: Vec<FaultSpec>,
    links: Links,
    phase: Phase,
    /// The nodes that are well while others stay broken.
    core: BTreeSet<String>,
    /// Others, which stand still at the end of their next transaction.
    soon: BTreeSet<String>,
}

struct Shared {
    choices: Choices,
    settings: Settings,
    log: LogServer,
    queue: QueueServer,
    time: TimeHandle,
    /// What is none of the nodes.
    aside: NodeHandle,
    state: Mutex<State>,
}

/// The nodes and servers of one world. Clones are the same cluster.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

/// The clock of the servers: without skew, and never cut.
struct ServerClock {
    time: TimeHandle,
}

#[async_trait::async_trait]
impl Runtime for ServerClock {
    fn now(&self) -> DateTime<Utc> {
        wall(self.elapsed())
    }
    fn elapsed(&self) -> Duration {
        self.time.elapsed()
    }
    async fn sleep(&self, duration: Duration) {
        madsim::time::sleep(duration).await;
    }
    fn spawn(&self, _name: &'static str, task: Task) {
        drop(madsim::task::spawn(task));
    }
    fn choose(&self, _site: &'static str, _entity: &str, _below: u64) -> u64 {
        0
    }
    fn block(&self, work: &mut dyn FnMut()) {
        work();
    }
}

impl Cluster {
    /// An empty cluster inside a madsim runtime, with the faults of a plan armed.
    pub fn new(choices: Choices, settings: Settings, faults: &[FaultSpec]) -> Self {
        let time = TimeHandle::current();
        let clock = Arc::new(ServerClock { time: time.clone() });
        let mut state = State {
            places: BTreeMap::new(),
            stores: BTreeMap::new(),
            trace: Trace::default(),
            armed: BTreeMap::new(),
            faults: BTreeMap::new(),
            met: Vec::new(),
            links: Links::default(),
            phase: Phase::Faults,
            core: BTreeSet::new(),
            soon: BTreeSet::new(),
        };
        for fault in faults {
            state.faults.entry(step(fault)).or_default().injected += 1;
            if fault.when.site().is_some() {
                state.armed.entry(fault.node.clone()).or_default().push(fault.clone());
            }
        }
        let shared = Shared {
            choices,
            log: LogServer::new(settings.log.clone()),
            queue: QueueServer::new(settings.queue.clone(), clock),
            settings,
            time,
            aside: Handle::current().create_node().name("world").build(),
            state: Mutex::new(state),
        };
        let cluster = Cluster { shared: Arc::new(shared) };
        for fault in faults {
            if let When::AtMs(ms) = fault.when {
                cluster.at(Duration::from_millis(ms), fault.clone());
            }
        }
        cluster
    }

    /// How its servers behave.
    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The keyed choices of this world.
    pub fn choices(&self) -> &Choices {
        &self.shared.choices
    }

    /// Simulated time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.shared.time.elapsed()
    }

    /// The wall clock of the servers.
    pub fn now(&self) -> DateTime<Utc> {
        wall(self.elapsed())
    }

    /// The servers' own clock, for clients of them that are no node.
    pub fn server_runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(ServerClock { time: self.shared.time.clone() })
    }

    /// The log, for verdicts and for customers that are no node.
    pub fn log(&self) -> &LogServer {
        &self.shared.log
    }

    /// The queues, for verdicts.
    pub fn queue(&self) -> &QueueServer {
        &self.shared.queue
    }

    /// The database of this name, for verdicts.
    pub fn database(&self, name: &str) -> StoreServer {
        let mut state = self.state();
        if let Some(server) = state.stores.get(name) {
            return server.clone();
        }
        let clock = Arc::new(ServerClock { time: self.shared.time.clone() });
        let server = StoreServer::new(self.shared.settings.store, clock);
        state.stores.insert(name.to_owned(), server.clone());
        server
    }

    /// Adds a node and starts it. It keeps its data in the database of that name.
    pub fn add(&self, name: &str, database: &str, start: Start) {
        let (database, calls, calls_for) = (database.to_owned(), BTreeMap::new(), BTreeMap::new());
        let (incarnation, running, joined) = (0, None, None);
        let mut state = self.state();
        let armed = state.armed.remove(name).unwrap_or_default();
        let place =
            Place { start, database, incarnation, running, calls, calls_for, armed, joined };
        state.places.insert(name.to_owned(), place);
        drop(state);
        self.start(name);
    }

    /// Writes something into the trace.
    pub fn note(&self, node: impl Into<Arc<str>>, what: &'static str, text: String) {
        let (at, node) = (self.elapsed(), node.into());
        self.state().trace.push(TraceEvent { at, node, what, text });
    }

    /// Notes when a transaction was over.
    pub(crate) fn end_transaction(&self, begun: usize) {
        if self.shared.settings.detailed {
            let at = self.elapsed();
            self.state().trace.detail().ended.insert(begun, at);
        }
    }

    /// Kills the node now; it starts again after `down`. A node that is down stays so.
    pub fn kill(&self, name: &str, down: Duration) -> bool {
        self.end(name, "killed", down)
    }

    fn end(&self, name: &str, what: &'static str, down: Duration) -> bool {
        let Some(node) = self.state().places.get_mut(name).and_then(|p| p.running.take()) else {
            return false;
        };
        // Who left after the faults have ended comes back at once, as others do.
        let down = if self.is_healed() { down.min(Duration::from_millis(200)) } else { down };
        self.note(name, what, format!("{} for {} ms", node.client, down.as_millis()));
        // Channels vanish without goodbye, open transactions roll back; the group finds out by its
        // session time-out.
        self.shared.queue.disconnect(&node.client);
        for store in self.stores() {
            store.disconnect(&node.client);
        }
        node.cut_off();
        let (cluster, name) = (self.clone(), name.to_owned());
        self.aside(async move {
            madsim::time::sleep(down).await;
            if !cluster.stays_broken(&name) {
                cluster.start(&name);
            }
        });
        true
    }

    /// Whether a node is to stay as it is until everything is well.
    fn stays_broken(&self, name: &str) -> bool {
        let state = self.state();
        state.phase == Phase::Core && !state.core.contains(name)
    }

    /// Whether this node runs.
    pub fn is_up(&self, name: &str) -> bool {
        self.running(name).is_some()
    }

    /// The incarnation of this node that runs now.
    fn running(&self, name: &str) -> Option<Arc<Node>> {
        self.state().places.get(name).and_then(|place| place.running.clone())
    }

    /// What happened so far and is wanted, for verdicts about a way and not an end.
    pub fn events(&self, wanted: impl Fn(&TraceEvent) -> bool) -> Vec<TraceEvent> {
        self.state().trace.events().iter().filter(|event| wanted(event)).cloned().collect()
    }

    /// How the faults went so far, by kind and step.
    pub fn faults(&self) -> BTreeMap<String, FaultCount> {
        self.state().faults.clone()
    }

    /// The faults that met their step so far, in the order in which they did.
    pub fn met(&self) -> Vec<FaultSpec> {
        self.state().met.clone()
    }

    /// Ends the tasks of all nodes and those beside them. A task that waits for something it owns
    /// itself, a bell or the cluster's own clock, would outlive the world otherwise, and the world with
    /// it.
    pub(crate) async fn stop(&self) {
        let running: Vec<Arc<Node>> = {
            let mut state = self.state();
            state.places.values_mut().filter_map(|place| place.running.take()).collect()
        };
        running.iter().for_each(|node| node.cut_off());
        Handle::current().kill(self.shared.aside.id());
        // Killed tasks are dropped when they are next looked at.
        madsim::time::sleep(Duration::from_millis(1)).await;
    }

    /// Takes the cluster apart, so that nothing keeps itself alive, and gives its trace.
    pub(crate) fn dismantle(&self) -> Trace {
        let (places, stores, trace) = {
            let mut state = self.state();
            let places = std::mem::take(&mut state.places);
            drop(std::mem::take(&mut state.links));
            let stores = std::mem::take(&mut state.stores);
            (places, stores, std::mem::take(&mut state.trace))
        };
        drop((places, stores));
        trace
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stores(&self) -> Vec<StoreServer> {
        self.state().stores.values().cloned().collect()
    }

    /// Records that come late, whatever became of their sender.
    pub(crate) fn send_late(&self, site: Site, client: &str, batch: Vec<Record>, late: Duration) {
        let clock = Arc::new(ServerClock { time: self.shared.time.clone() });
        let log = self.shared.log.client(client, clock.clone());
        let queue = self.shared.queue.client(client, clock);
        self.aside(async move {
            madsim::time::sleep(late).await;
            // Nobody waits for the answer.
            drop(match site {
                Site::Publish => queue.publish(batch).await,
                _ => log.produce(batch).await,
            });
        });
    }

    /// Runs beside the nodes, on none of them: a kill of the caller's node does not end it, the end of
    /// the world does.
    pub fn aside(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.shared.aside.spawn(task));
    }

    fn at(&self, at: Duration, fault: FaultSpec) {
        let cluster = self.clone();
        self.aside(async move {
            madsim::time::sleep(at).await;
            let long = Duration::from_millis(fault.for_ms);
            let met = !cluster.is_over()
                && match fault.kind {
                    FaultKind::Leave => cluster.leave(&fault.node, long),
                    FaultKind::Freeze => cluster.freeze(&fault.node, long),
                    FaultKind::ClockAhead | FaultKind::ClockBack => cluster.jump(&fault),
                    _ => cluster.kill(&fault.node, long),
                };
            if met {
                cluster.meet(&fault);
            }
        });
    }

    fn meet(&self, fault: &FaultSpec) {
        let mut state = self.state();
        state.faults.entry(step(fault)).or_default().effective += 1;
        state.met.push(fault.clone());
        drop(state);
        self.note(fault.node.as_str(), "fault", fault.to_string());
    }

    /// How wrong the clock of an incarnation is, milliseconds.
    fn skew_ms(&self, client: &str) -> i64 {
        let most_ms = self.shared.settings.skew_ms;
        let drawn_ms = self.shared.choices.below("skew", client, 2 * most_ms + 1);
        drawn_ms as i64 - most_ms as i64
    }

    fn start(&self, name: &str) {
        let (start, database, incarnation) = {
            let mut state = self.state();
            let Some(place) = state.places.get_mut(name) else { return };
            if place.running.is_some() {
                return;
            }
            place.incarnation += 1;
            (place.start.clone(), place.database.clone(), place.incarnation)
        };
        let client = format!("{name}.{incarnation}");
        let handle = Handle::current().create_node().name(&client).build();
        let skew_ms = AtomicI64::new(self.skew_ms(&client));
        let node = Arc::new(Node {
            name: name.into(),
            client,
            cluster: self.clone(),
            handle,
            database: database.as_str().into(),
            skew_ms,
            cut: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            manners: Mutex::new(Manners::Starting),
        });
        if let Some(place) = self.state().places.get_mut(name) {
            place.running = Some(node.clone());
        }
        self.note(name, "started", node.client.clone());
        let ports = node.ports(&self.database(&database));
        let task = start(ports);
        let supervised = node.clone();
        drop(node.handle.spawn(async move {
            match task.await {
                Ok(leave) => *supervised.manners() = Manners::Listening(leave),
                Err(fault) => {
                    let cluster = supervised.cluster.clone();
                    cluster.note(supervised.name.clone(), "start failed", fault.to_string());
                    cluster.kill(&supervised.name, Duration::from_millis(200));
                }
            }
        }));
    }
}

impl Node {
    fn ports(self: &Arc<Self>, database: &StoreServer) -> NodePorts {
        let shared = &self.cluster.shared;
        let runtime: Arc<dyn Runtime> = Arc::new(NodeRuntime { node: self.clone() });
        let beats = Arc::new(Beats { node: self.clone(), inner: runtime.clone() });
        let log = shared.log.client(&self.client, beats);
        let queue = shared.queue.client(&self.client, runtime.clone());
        let store = database.client(&self.client, runtime.clone());
        NodePorts {
            log: Arc::new(log::GatedLog { node: self.clone(), inner: log }),
            queue: Arc::new(queue::GatedQueue { node: self.clone(), inner: queue }),
            store: Arc::new(store::GatedStore { node: self.clone(), inner: store }),
            runtime,
            node: self.clone(),
        }
    }

    /// Its end: its calls do nothing from here on, and its tasks are dropped when they are next looked
    /// at, those of a frozen one as well.
    fn cut_off(&self) {
        self.cut.store(true, Ordering::Relaxed);
        Handle::current().resume(self.handle.id());
        Handle::current().kill(self.handle.id());
        // A way to leave holds the node's ports, and those the node.
        let leave = std::mem::replace(&mut *self.manners(), Manners::Leaving);
        drop(leave);
    }

    fn manners(&self) -> MutexGuard<'_, Manners> {
        self.manners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what the call that is about to be noted touches, in a world that is looked at in detail;
    /// the number that the call's event will have.
    pub(crate) fn touches(&self, touches: impl FnOnce() -> Vec<Touch>) -> usize {
        match self.cluster.shared.settings.detailed {
            true => self.cluster.state().trace.touching(touches()),
            false => 0,
        }
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }
}

impl NodePorts {
    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node.name
    }

    /// What servers know this incarnation of the node by.
    pub fn client(&self) -> &str {
        &self.node.client
    }

    /// Writes something into the trace.
    pub fn note(&self, what: &'static str, text: String) {
        self.node.cluster.note(self.node.name.clone(), what, text);
    }
}

/// A fault's kind and step, as `kill before @ commit`.
fn step(fault: &FaultSpec) -> String {
    fault.kind.at(fault.when.site())
}
