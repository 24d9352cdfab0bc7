//! The services as nodes of a world: each on its simulated ports, the gateway and the mail server
//! behind the gate. The services are the very crates that ship.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use chassis::{LEASES, Lease, Metrics, POSITIONS, Ports, Position, Settings, position_key};
use contract::{Contract, OrderId, Service, Streams};
use model::store::StoreServer;
use notifications_worker::mail::Mail;
use notifications_worker::memory::{self, MemorySink};
use notifications_worker::rules::Answer as Sent;
use notifications_worker::sink::MailSink;
use payments::gateway::Gateway;
use payments::rules::{Answer, Operation};
use payments::simulated::{Call, Passage, Passes, SimulatedGateway, Steering};
use ports::{Key, Outcome};
use sim_engine::{Cluster, Leave, NodePorts, Start};

use crate::facts;
use crate::history;
use crate::next;
use crate::watch::{Sends, Watched};
use crate::workload::{LATE_CALLS, LATE_CALLS_AFTER, REFUSED_ENDING, Workload, is_late};

/// What the trace has of a node that has just left: see [`crate::leaving`].
pub const LET_GO: &str = "let go";
/// And of one that said goodbye everywhere.
pub const HOLDS_NOTHING: &str = "holds nothing";
/// What it has of one after which the log's copy is behind the positions of its service.
pub const LEFT_BEHIND: &str = "left behind";

/// How long a relay's lease lasts.
pub const LEASE: Duration = Duration::from_secs(4);

/// Outbox shards of a service.
pub const SHARDS: u16 = 2;

/// Partitions of each topic.
pub const PARTITIONS: i32 = 3;
/// How long a node is down for its upgrade.
const UPGRADE: Duration = Duration::from_millis(300);

/// What the world's nodes share that is no broker and no database.
#[derive(Clone)]
pub struct World {
    /// Nodes, log, queues and databases.
    pub cluster: Cluster,
    /// In the order of [`Service::ALL`], as [`World::database`] looks them up.
    databases: Arc<[StoreServer]>,
    /// The payment gateway with its own books.
    pub gateway: SimulatedGateway,
    /// The mail server.
    pub mails: MemorySink,
    /// How the relays sent.
    pub sends: Sends,
    metrics: Metered,
    asked: Asked,
    routers: Arc<Mutex<BTreeMap<String, Router>>>,
    /// The nodes that recover first.
    core: Arc<[String]>,
    /// Nodes that run the next release from their next start on.
    next: Arc<Mutex<BTreeSet<String>>>,
}

/// Where a start of this node counts.
pub type Metered = Arc<dyn Fn(&str) -> Metrics + Send + Sync>;

impl World {
    /// All services of the workload, started on the databases as the workload finds them.
    pub async fn start(cluster: Cluster, workload: &Workload, metrics: Metered) -> Self {
        history::write(&cluster, workload).await;
        let databases = Service::ALL.map(|service| cluster.database(service.name()));
        let late = |call: &Call| {
            let lost = match call.operation {
                Operation::Authorise => LATE_CALLS,
                Operation::Capture | Operation::Void | Operation::Charge => LATE_CALLS_AFTER,
            };
            match is_late(call.amount) && call.earlier < lost {
                true => Passage::LostBefore,
                false => Passage::Whole,
            }
        };
        let passes: Option<Passes> = Some(Arc::new(late));
        let steering = Steering { declined_ending: Some(13), passes, ..Steering::default() };
        let mails = MemorySink::default();
        if workload.refuses_mail {
            mails.steer(Some(Arc::new(|mail: &Mail, _| refuses(mail))));
        }
        let asked = Asked { cluster: cluster.clone(), times: Arc::default() };
        let world = World {
            cluster,
            databases: databases.into(),
            gateway: SimulatedGateway::new(steering),
            mails,
            sends: Sends::default(),
            metrics,
            asked,
            routers: Arc::default(),
            core: workload.core.as_slice().into(),
            next: Arc::new(Mutex::new(workload.next.iter().cloned().collect())),
        };
        let workload = Arc::new(workload.clone());
        for service in Service::ALL {
            for node in workload.nodes(service) {
                let start = world.starter(service, workload.clone());
                world.cluster.add(&node, service.name(), start);
            }
        }
        world
    }

    /// From now on the gateway refuses to take what it holds for an order, and to give it back.
    pub fn hold_stuck(&self, order_id: &str) {
        let Ok(order) = OrderId::parse(order_id) else { return };
        let stuck = [Operation::Capture, Operation::Void].map(|it| (order.clone(), it));
        self.gateway.steer(|steering| steering.declined.extend(stuck));
    }

    /// When the gateway and the mail server were asked, by key; whether or not that reached them.
    pub fn asked(&self) -> BTreeMap<String, Vec<Duration>> {
        self.asked.times.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A service's database.
    pub fn database(&self, service: Service) -> &StoreServer {
        &self.databases[service as usize]
    }

    /// Of these nodes the ones that a request is sent to: all, as their health is not known; of the
    /// core, where others stay broken.
    pub fn reached(&self, mut nodes: Vec<String>) -> Vec<String> {
        if self.cluster.is_recovering() {
            nodes.retain(|node| self.core.contains(node));
        }
        nodes
    }

    /// What the nodes outside the core hold: leases that have not run out, and memberships.
    pub fn held_by_the_broken(&self) -> [usize; 2] {
        let broken = |node: &str| !self.core.iter().any(|well| well == node);
        let leases = Service::ALL.map(|service| self.leases(service, broken));
        // A client is a node and its incarnation.
        let of_broken =
            |client: &str| client.rsplit_once('.').is_some_and(|(node, _)| broken(node));
        [leases.iter().sum(), self.memberships(of_broken)]
    }

    /// How many leases these instances of a service have that have not run out.
    fn leases(&self, service: Service, of: impl Fn(&str) -> bool) -> usize {
        let now_ms = self.cluster.now().timestamp_millis();
        let leases = facts::rows::<Lease>(self, service, &LEASES);
        leases.values().filter(|lease| lease.until_ms > now_ms && of(&lease.owner)).count()
    }

    /// How many memberships these clients have.
    fn memberships(&self, of: impl Fn(&str) -> bool) -> usize {
        self.cluster.log().with(|log| {
            let groups = log.groups().into_iter();
            groups.flat_map(|group| log.members(&group).into_values()).filter(|it| of(it)).count()
        })
    }

    /// The HTTP of a node, as its last start left it.
    pub fn router(&self, node: &str) -> Option<Router> {
        self.routers.lock().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    /// Replaces a node's release by the next one: it stops where it stands, and is down for a moment.
    pub fn upgrade(&self, node: &str) {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned());
        self.cluster.note(node, "upgraded", String::new());
        self.cluster.kill(node, UPGRADE);
    }

    /// The contract of the release that a node runs.
    fn contract(&self, node: &str) -> Contract {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.contains(node) { next::contract() } else { Contract::default() }
    }

    fn starter(&self, service: Service, workload: Arc<Workload>) -> Start {
        let world = self.clone();
        Arc::new(move |ports: NodePorts| {
            let (world, workload) = (world.clone(), workload.clone());
            Box::pin(async move {
                let running = world.run(service, &workload, ports.clone()).await?;
                let mut routers = world.routers.lock().unwrap_or_else(PoisonError::into_inner);
                routers.insert(ports.node().to_owned(), running.router);
                drop(routers);
                let stop = running.stop;
                let leave: Leave = Box::new(move || {
                    Box::pin(async move {
                        stop.ask();
                        stop.ended().await;
                        let alone = workload.count(service) == 1;
                        world.note_what_it_holds(service, &ports, alone);
                    })
                });
                Ok(leave)
            })
        })
    }

    /// What a node that has just left still holds: nothing, if it said goodbye everywhere. Where it was
    /// its service's only one, its rows are to be sent and the log is to have its positions.
    fn note_what_it_holds(&self, service: Service, ports: &NodePorts, alone: bool) {
        let mut held = vec![
            (self.leases(service, |owner| owner == ports.node()), "leases"),
            (self.memberships(|client| client == ports.client()), "memberships"),
        ];
        if alone {
            held.push((self.database(service).with(|db| db.outbox().count()), "unsent rows"));
        }
        let held = held.into_iter().filter(|(count, _)| *count > 0);
        let held: Vec<String> = held.map(|(count, what)| format!("{count} {what}")).collect();
        let text = match held.is_empty() {
            true => HOLDS_NOTHING.to_owned(),
            false => format!("holds {}", held.join(", ")),
        };
        ports.note(LET_GO, text);
        let uncommitted = if alone { self.uncommitted(service) } else { 0 };
        if uncommitted > 0 {
            ports.note(LEFT_BEHIND, format!("{uncommitted} positions that are not committed"));
        }
    }

    /// How many of a service's positions the log's copy is behind.
    fn uncommitted(&self, service: Service) -> usize {
        let group = service.name();
        let committed = self.cluster.log().with(|log| log.committed(group));
        let committed: BTreeMap<Key, i64> =
            committed.iter().map(|(p, next)| (position_key(p), *next)).collect();
        let positions = facts::rows::<Position>(self, service, &POSITIONS);
        let behind = positions.iter().filter(|(partition, position)| {
            let committed = committed.get(partition.as_str()).copied();
            position.next.unwrap_or(0) > committed.unwrap_or(0)
        });
        behind.count()
    }

    async fn run(
        &self,
        service: Service,
        workload: &Workload,
        node: NodePorts,
    ) -> Outcome<chassis::Service> {
        let NodePorts { log, queue, store, runtime, .. } = node.clone();
        let log = Arc::new(Watched::new(log, self, service, node.node()));
        let queue = Arc::new(Watched::new(queue, self, service, node.node()));
        let ports = Ports { log, queue, store, runtime };
        let metrics = (self.metrics)(node.node());
        let settings = Settings { metrics, ..settings(service, node.node(), workload) };
        let (streams, profile) = (Streams::default(), workload.profile());
        let contract = self.contract(node.node());
        let partitions = PARTITIONS;
        match service {
            Service::Catalog => {
                let config = catalog::Config { contract, streams, profile, partitions };
                catalog::run(ports, settings, config).await
            }
            Service::Orders => {
                let deadline = Duration::from_millis(workload.deadline_ms);
                let config = orders::Config {
                    contract,
                    streams,
                    profile,
                    partitions,
                    deadline,
                    ..orders::Config::default()
                };
                orders::run(ports, settings, config).await
            }
            Service::Inventory => {
                let config = inventory::Config { contract, streams, profile, partitions };
                inventory::run(ports, settings, config).await
            }
            Service::Payments => {
                let gateway = Arc::new(GatedGateway {
                    node,
                    inner: self.gateway.clone(),
                    asked: self.asked.clone(),
                    wordy: workload.wordy_gateway,
                });
                let config = payments::Config {
                    contract,
                    streams,
                    profile,
                    partitions,
                    ..payments::Config::new(gateway)
                };
                payments::run(ports, settings, config).await
            }
            Service::Query => {
                let follow = query::Follow::default();
                let config = query::Config { contract, streams, profile, partitions, follow };
                query::run(ports, settings, config).await
            }
            Service::NotificationsApi => {
                let config = notifications_api::Config { contract, streams, profile, partitions };
                notifications_api::run(ports, settings, config).await
            }
            Service::NotificationsWorker => {
                let sink = Arc::new(GatedSink {
                    node,
                    inner: self.mails.clone(),
                    asked: self.asked.clone(),
                });
                let config = notifications_worker::Config {
                    contract,
                    streams,
                    ..notifications_worker::Config::new(sink)
                };
                notifications_worker::run(ports, settings, config).await
            }
        }
    }
}

/// See [`Workload::refuses_mail`].
fn refuses(mail: &Mail) -> memory::Passage {
    match mail.message_id.split('.').next().is_some_and(|order| order.ends_with(REFUSED_ENDING)) {
        true => memory::Passage::Refused("no such mailbox".to_owned()),
        false => memory::Passage::Whole,
    }
}

/// As in production but for the pace: leases and pauses that fit a world of seconds.
fn settings(service: Service, node: &str, workload: &Workload) -> Settings {
    let mut settings = Settings {
        shards: SHARDS,
        lease: LEASE,
        idle: Duration::from_secs(1),
        // As long as no fault is that long, a batch that hangs makes a zombie.
        stall: Duration::from_secs(2),
        batch_max: 16,
        ..Settings::new(service.name(), node)
    };
    if workload.commits_each {
        settings.offsets_every = Duration::ZERO;
    }
    if workload.narrow {
        settings.commands_max = 4;
    }
    if let Some(retention) = &workload.retention {
        let keep = Duration::from_millis(retention.keep_ms);
        settings.keep_events = keep * retention.events_times;
        settings.keep_commands = keep;
        settings.sweep = Duration::from_millis(retention.every_ms);
        settings.sweep_max = 16;
        settings.sweep_pause = Duration::from_millis(50);
    }
    settings
}

/// When the gateway and the mail server were asked, by key.
#[derive(Clone)]
struct Asked {
    cluster: Cluster,
    times: Arc<Mutex<BTreeMap<String, Vec<Duration>>>>,
}

impl Asked {
    fn note(&self, key: &str) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.entry(key.to_owned()).or_default().push(self.cluster.elapsed());
    }
}

/// Why the gateway declines, in its own words, where it is wordy.
pub fn declined(wordy: bool, why: &str) -> String {
    if wordy { format!("{why} \0{}", "at length ".repeat(60)) } else { why.to_owned() }
}

struct GatedGateway {
    node: NodePorts,
    inner: SimulatedGateway,
    asked: Asked,
    wordy: bool,
}

#[async_trait]
impl Gateway for GatedGateway {
    async fn call(
        &self,
        key: &str,
        operation: Operation,
        order: &OrderId,
        amount: Option<i64>,
    ) -> Answer {
        self.asked.note(key);
        let (gateway, order, about) = (self.inner.clone(), order.clone(), key.to_owned());
        let wordy = self.wordy;
        let effect = move || match gateway.answer(&about, operation, &order, amount) {
            Answer::Declined(why) => Answer::Declined(declined(wordy, &why)),
            answer => answer,
        };
        self.node.outside(key.to_owned(), effect).await.unwrap_or(Answer::Unknown)
    }
}

struct GatedSink {
    node: NodePorts,
    inner: MemorySink,
    asked: Asked,
}

#[async_trait]
impl MailSink for GatedSink {
    async fn send(&self, mail: &Mail) -> Sent {
        self.asked.note(&mail.message_id);
        let (sink, sent) = (self.inner.clone(), mail.clone());
        let effect = move || sink.answer(&sent);
        self.node.outside(mail.message_id.clone(), effect).await.unwrap_or(Sent::Unknown)
    }
}
