//! Links between nodes and servers, and servers that crash and come back. Never loses what a server
//! had committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use ports::{Fault, Outcome, Partition, Runtime, Task, Tx};

use super::{Cluster, Node, Phase};
use crate::fault::{FaultKind, Server, Site};

/// A server drops the connection of a client that it has not heard of for so long.
const HEARTBEAT: Duration = Duration::from_secs(4);
/// Longer than any world goes on.
const FOR_GOOD: Duration = Duration::from_secs(24 * 3600);

/// The way of a message between a node and a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    There,
    Back,
}

/// What keeps a message from getting through now.
pub(super) struct Hindrance {
    /// For so long nothing gets through; zero: it does.
    pub cut: Duration,
    /// So much longer it takes.
    pub slow: Duration,
    /// Whether the server is down: whoever calls it is refused at once.
    pub down: bool,
}

/// A link, each of its troubles until an instant of the world.
#[derive(Debug, Clone, Copy, Default)]
struct Link {
    no_requests: Duration,
    no_replies: Duration,
    slow: Duration,
}

/// A server's name in the world.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Log,
    Queue,
    Store(Arc<str>),
}

/// Links and servers that are not as they should be.
#[derive(Default)]
pub(super) struct Links {
    links: BTreeMap<(Arc<str>, Server), Link>,
    /// Until when each is down, and how often it has crashed.
    servers: BTreeMap<Name, (Duration, u32)>,
    /// Partitions without a leader, and groups without a coordinator, by name.
    leaderless: BTreeMap<String, Duration>,
    /// Transactions whose end their server has not heard of, by the node that dropped them.
    abandoned: Vec<(Arc<str>, Box<dyn Tx>)>,
}

impl Cluster {
    /// Cuts or slows the link of the node to the server of this site.
    pub(super) fn disturb(&self, node: &Node, site: Site, kind: FaultKind, long: Duration) {
        let Some(server) = site.server() else { return };
        let until = self.elapsed() + long;
        let mut state = self.state();
        let link = state.links.links.entry((node.name.clone(), server)).or_default();
        if matches!(kind, FaultKind::Cut | FaultKind::CutRequests) {
            link.no_requests = link.no_requests.max(until);
        }
        if matches!(kind, FaultKind::Cut | FaultKind::CutReplies) {
            link.no_replies = link.no_replies.max(until);
        }
        if kind == FaultKind::SlowLink {
            link.slow = link.slow.max(until);
            return;
        }
        drop(state);
        if server == Server::Queue {
            self.lose_channels(&node.client, long);
        }
    }

    /// Nothing gets from this node to that server any more, nor back, until its links are mended.
    pub(super) fn cut_off(&self, name: &str, server: Server) {
        let Some(node) = self.running(name) else { return };
        self.note(name, "cut off", format!("{} from {server:?}", node.client));
        let until = self.elapsed() + FOR_GOOD;
        let mut state = self.state();
        let link = state.links.links.entry((node.name.clone(), server)).or_default();
        (link.no_requests, link.no_replies) = (until, until);
    }

    /// The queue server drops a client that stays silent.
    pub(super) fn lose_channels(&self, client: &str, silent: Duration) {
        if silent <= HEARTBEAT {
            return;
        }
        let (cluster, client) = (self.clone(), client.to_owned());
        self.aside(async move {
            madsim::time::sleep(HEARTBEAT).await;
            if cluster.state().phase != Phase::Healed {
                cluster.shared.queue.disconnect(&client);
            }
        });
    }

    /// Crashes the server of this site; it is back after `long` with what it had committed.
    pub(super) fn crash(&self, node: &Node, site: Site, long: Duration) {
        let Some(server) = site.server() else { return };
        let name = node.server(server);
        let until = self.elapsed() + long;
        {
            let mut state = self.state();
            let server = state.links.servers.entry(name.clone()).or_default();
            server.0 = server.0.max(until);
            server.1 += 1;
        }
        self.note("world", "crashed", format!("{name:?} for {} ms", long.as_millis()));
        match &name {
            Name::Log => {
                // Members are given their time anew by a coordinator that has just come up.
                let cluster = self.clone();
                self.aside(async move {
                    madsim::time::sleep(long).await;
                    let now = cluster.elapsed();
                    cluster.shared.log.with(|log| log.resume(now));
                });
            }
            Name::Queue => self.shared.queue.restart(),
            Name::Store(database) => self.database(database).restart(),
        }
    }

    /// Leaves a partition without a leader, or a group without a coordinator.
    pub(crate) fn unlead(&self, name: String, long: Duration) {
        let until = self.elapsed() + long;
        self.state().links.leaderless.insert(name, until);
    }

    /// Whatever is appended to these partitions from now on stays invisible for so long.
    pub(crate) fn hide(&self, partitions: Vec<Partition>, long: Duration) {
        self.shared.log.with(|log| partitions.iter().for_each(|partition| log.hide(partition)));
        let cluster = self.clone();
        self.aside(async move {
            madsim::time::sleep(long).await;
            cluster.shared.log.with(|log| log.show(&partitions));
        });
    }

    /// Whether it has no leader now.
    pub(crate) fn is_leaderless(&self, name: impl FnOnce() -> String) -> bool {
        let state = self.state();
        if state.links.leaderless.is_empty() {
            return false;
        }
        state.links.leaderless.get(&name()).is_some_and(|until| *until > self.elapsed())
    }

    /// All links of these nodes are whole; of all nodes where there is no list. Servers are up.
    pub(super) fn mend(&self, nodes: Option<&[String]>) {
        let now = self.elapsed();
        let abandoned = {
            let mut state = self.state();
            let links = &mut state.links;
            let concerns = |node: &str| nodes.is_none_or(|nodes| nodes.iter().any(|n| n == node));
            links.links.retain(|(node, _), _| !concerns(node));
            links.leaderless.clear();
            links.servers.values_mut().for_each(|(until, _)| *until = (*until).min(now));
            std::mem::take(&mut links.abandoned)
        };
        drop(abandoned);
        self.shared.log.with(|log| {
            log.resume(now);
            let topics = log.topics();
            topics.iter().for_each(|topic| log.show(&log.partitions(&topic.name)));
        });
    }

    /// A transaction that its node dropped: its server hears of that only over a whole link.
    pub(crate) fn abandon(&self, node: &Node, tx: Box<dyn Tx>) {
        let cut = self.hindrance(node, Server::Store, Way::There).cut;
        if cut.is_zero() || node.is_cut() {
            return;
        }
        let (name, cluster) = (node.name.clone(), self.clone());
        self.state().links.abandoned.push((name.clone(), tx));
        self.aside(async move {
            madsim::time::sleep(cut).await;
            let mut state = cluster.state();
            let all = std::mem::take(&mut state.links.abandoned);
            let (heard, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(of, _)| *of == name);
            state.links.abandoned = rest;
            drop(state);
            drop(heard);
        });
    }

    /// What keeps a message from getting through now.
    pub(super) fn hindrance(&self, node: &Node, server: Server, way: Way) -> Hindrance {
        let now = self.elapsed();
        let state = self.state();
        let mut found = Hindrance { cut: Duration::ZERO, slow: Duration::ZERO, down: false };
        if !state.links.servers.is_empty()
            && let Some((until, _)) = state.links.servers.get(&node.server(server))
        {
            found.cut = until.saturating_sub(now);
            found.down = !found.cut.is_zero();
        }
        if !state.links.links.is_empty()
            && let Some(link) = state.links.links.get(&(node.name.clone(), server))
        {
            let until = if way == Way::There { link.no_requests } else { link.no_replies };
            found.cut = found.cut.max(until.saturating_sub(now));
            if link.slow > now {
                found.slow = Duration::from_millis(self.choices().below("slow", &node.name, 400));
            }
        }
        found
    }
}

impl Node {
    fn server(&self, server: Server) -> Name {
        match server {
            Server::Log => Name::Log,
            Server::Queue => Name::Queue,
            Server::Store => Name::Store(self.database.clone()),
        }
    }

    /// How often the server of this site has crashed.
    pub(super) fn crashes(&self, site: Site) -> u32 {
        let state = self.cluster.state();
        if state.links.servers.is_empty() {
            return 0;
        }
        let name = site.server().map(|server| self.server(server));
        name.and_then(|name| state.links.servers.get(&name)).map_or(0, |(_, crashes)| *crashes)
    }

    /// `Retry` where nothing gets to the server now.
    pub(crate) fn open(&self, server: Server) -> Outcome<()> {
        match self.cluster.hindrance(self, server, Way::There).cut.is_zero() {
            true => Ok(()),
            false => Err(Fault::retry("injected: no connection")),
        }
    }

    /// Waits until what this node says gets to the server.
    pub(crate) async fn until_heard(&self, server: Server) {
        loop {
            let cut = self.cluster.hindrance(self, server, Way::There).cut;
            if cut.is_zero() {
                return;
            }
            madsim::time::sleep(cut).await;
            self.stop_if_cut().await;
        }
    }
}

/// A node's runtime as the log's client library has it: its heartbeats get through or not.
pub(crate) struct Beats {
    pub(crate) node: Arc<Node>,
    pub(crate) inner: Arc<dyn Runtime>,
}

#[async_trait]
impl Runtime for Beats {
    fn now(&self) -> DateTime<Utc> {
        self.inner.now()
    }

    fn elapsed(&self) -> Duration {
        self.inner.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        self.inner.sleep(duration).await;
        self.node.until_heard(Server::Log).await;
    }

    fn spawn(&self, name: &'static str, task: Task) {
        self.inner.spawn(name, task);
    }

    fn choose(&self, site: &'static str, entity: &str, below: u64) -> u64 {
        self.inner.choose(site, entity, below)
    }

    fn block(&self, work: &mut dyn FnMut()) {
        self.inner.block(work);
    }
}
