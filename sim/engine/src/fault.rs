//! Faults as data: what goes wrong, on which node, at which call or instant. Each is legal under
//! broker-contract.md at the sites that [`FaultKind::legal`] names.

use serde::{Deserialize, Serialize};

/// A port call, seen from the node that makes it; [`Site::Http`] from the node that serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// `EventLog::produce`
    Produce,
    /// `EventLog::subscribe`
    Subscribe,
    /// `Consumer::poll`
    Poll,
    /// `Consumer::commit`
    CommitOffsets,
    /// `JobQueue::publish`
    Publish,
    /// `JobQueue::consume`
    Consume,
    /// `Deliveries::next`
    Deliver,
    /// `Deliveries::settle` and `requeue`
    Settle,
    /// `Store::begin`
    Begin,
    /// `Tx::run`
    Run,
    /// `Tx::commit` and `Store::transact`
    Commit,
    /// `Store::read`
    Read,
    /// A request that the node serves.
    Http,
    /// A call of the node to the outside: a gateway, a mail server.
    Outside,
}

impl Site {
    /// The server that the call goes to.
    pub fn server(self) -> Option<Server> {
        match self {
            Site::Produce | Site::Subscribe | Site::Poll | Site::CommitOffsets => Some(Server::Log),
            Site::Publish | Site::Consume | Site::Deliver | Site::Settle => Some(Server::Queue),
            Site::Begin | Site::Run | Site::Commit | Site::Read => Some(Server::Store),
            Site::Http | Site::Outside => None,
        }
    }

    /// Whether a call whose reply is lost may have had an effect that counts. Of the others nobody
    /// needs to know: the same again is as good.
    pub(crate) fn leaves_doubt(self) -> bool {
        use Site::{Commit, CommitOffsets, Http, Outside, Produce, Publish, Settle};
        matches!(self, Produce | CommitOffsets | Publish | Settle | Commit | Http | Outside)
    }

    /// Whether the call carries records, of which each has an outcome of its own.
    pub(crate) fn sends(self) -> bool {
        matches!(self, Site::Produce | Site::Publish)
    }

    /// Whether the call waits for something to come: it has no time-out of its own.
    pub(crate) fn waits(self) -> bool {
        matches!(self, Site::Poll | Site::Deliver)
    }

    /// All of them.
    pub const ALL: [Site; 14] = [
        Site::Produce,
        Site::Subscribe,
        Site::Poll,
        Site::CommitOffsets,
        Site::Publish,
        Site::Consume,
        Site::Deliver,
        Site::Settle,
        Site::Begin,
        Site::Run,
        Site::Commit,
        Site::Read,
        Site::Http,
        Site::Outside,
    ];

    /// Its name in traces.
    pub fn name(self) -> &'static str {
        match self {
            Site::Produce => "produce",
            Site::Subscribe => "subscribe",
            Site::Poll => "poll",
            Site::CommitOffsets => "commit_offsets",
            Site::Publish => "publish",
            Site::Consume => "consume",
            Site::Deliver => "deliver",
            Site::Settle => "settle",
            Site::Begin => "begin",
            Site::Run => "run",
            Site::Commit => "commit",
            Site::Read => "read",
            Site::Http => "http",
            Site::Outside => "outside",
        }
    }
}

/// A server as a node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Server {
    /// The event log.
    Log,
    /// The job queue.
    Queue,
    /// The node's own database.
    Store,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The node is killed before the call has its effect.
    KillBefore,
    /// The node is killed between the call's effect and its reply.
    KillAfter,
    /// The call has its effect, and the reply is lost (K11, R3, D2).
    LostReply,
    /// The call has no effect, and the reply is lost all the same.
    LostRequest,
    /// The reply is lost, and the effect comes late: after whatever the caller did next (K9, K11).
    LateEffect,
    /// The call fails with no effect, and says so (D5, K13); what is sent, now and then as if for good.
    Rejected,
    /// The call's effect happens twice (K5, R3, a customer's retry).
    Duplicated,
    /// The call takes so much longer, before its effect.
    Slow,
    /// The node is asked to stop (SIGTERM) and finishes what it has in hand: at most the cluster's
    /// drain. Then it is gone, as long as a killed one.
    Leave,
    /// The node stands still from this call on, and goes on later as if nothing had been: with what
    /// it held then (K23, K24).
    Freeze,
    /// The node's wall clock jumps ahead by that much.
    ClockAhead,
    /// The node's wall clock jumps back by that much.
    ClockBack,
    /// Nothing gets through between the node and the server of this call, from before it on.
    Cut,
    /// Nothing gets from the node to the server of this call; what the server says arrives.
    CutRequests,
    /// Nothing gets from the server of this call to the node; what the node says arrives.
    CutReplies,
    /// All calls of the node to the server of this call take longer.
    SlowLink,
    /// The server of this call crashes before the call's effect, and is down so long (D8, R29, K4).
    RestartBefore,
    /// The server of this call crashes between the call's effect and its reply (D2, R3, K11).
    RestartAfter,
    /// The partition that the call writes to, or the group that it commits for, is without a leader
    /// or coordinator so long: what goes there is refused for now (K13, K27).
    LeaderChange,
    /// New records of the partitions that the call read stay invisible so long: below the high
    /// watermark only (K4).
    Hidden,
    /// Another member joins the node's group, reads nothing, and leaves after that time (K22).
    Rebalance,
    /// The server closes the node's connection: what is unsettled goes back (R8, R24).
    ChannelLost,
    /// Somebody else holds the rows that the call locks or inserts so long, and changes nothing
    /// (D4).
    Locked,
    /// Somebody else locks the rows that the call wants, and waits for those that its transaction
    /// has (D5).
    Deadlock,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [FaultKind; 24] = [
        FaultKind::KillBefore,
        FaultKind::KillAfter,
        FaultKind::LostReply,
        FaultKind::LostRequest,
        FaultKind::LateEffect,
        FaultKind::Rejected,
        FaultKind::Duplicated,
        FaultKind::Slow,
        FaultKind::Leave,
        FaultKind::Freeze,
        FaultKind::ClockAhead,
        FaultKind::ClockBack,
        FaultKind::Cut,
        FaultKind::CutRequests,
        FaultKind::CutReplies,
        FaultKind::SlowLink,
        FaultKind::RestartBefore,
        FaultKind::RestartAfter,
        FaultKind::LeaderChange,
        FaultKind::Hidden,
        FaultKind::Rebalance,
        FaultKind::ChannelLost,
        FaultKind::Locked,
        FaultKind::Deadlock,
    ];

    /// Whether it can happen at this site.
    pub fn legal(self, site: Site) -> bool {
        use FaultKind as Kind;
        match self {
            Kind::KillBefore | Kind::KillAfter | Kind::Slow | Kind::Rejected => true,
            Kind::Leave | Kind::Freeze | Kind::ClockAhead | Kind::ClockBack => true,
            Kind::LostReply | Kind::LostRequest => site.leaves_doubt(),
            Kind::LateEffect | Kind::Duplicated => {
                matches!(site, Site::Produce | Site::Publish | Site::Outside)
            }
            Kind::Cut | Kind::CutRequests | Kind::CutReplies | Kind::SlowLink => {
                site.server().is_some()
            }
            Kind::RestartBefore | Kind::RestartAfter => site.server().is_some(),
            Kind::LeaderChange => matches!(site, Site::Produce | Site::CommitOffsets),
            Kind::Hidden => site == Site::Poll,
            Kind::Rebalance => {
                matches!(site, Site::Poll | Site::CommitOffsets | Site::Begin | Site::Commit)
            }
            Kind::ChannelLost => matches!(site, Site::Deliver | Site::Settle),
            Kind::Locked => matches!(site, Site::Begin | Site::Run),
            Kind::Deadlock => site == Site::Run,
        }
    }

    /// Whether it does nothing before the call has got to where it goes.
    pub(crate) fn acts_there(self, site: Site) -> bool {
        use FaultKind as Kind;
        match self {
            Kind::LostReply | Kind::LostRequest | Kind::LateEffect | Kind::Duplicated => true,
            Kind::KillAfter | Kind::RestartAfter | Kind::LeaderChange => true,
            Kind::Rejected => site.sends(),
            _ => self.may_do_nothing(),
        }
    }

    /// Whether what the call carries, or who makes it, may leave it nothing to do.
    pub(crate) fn may_do_nothing(self) -> bool {
        use FaultKind::{Deadlock, Hidden, Locked};
        matches!(self, Hidden | Locked | Deadlock)
    }

    /// Whether it can happen to a node at any instant, without a call.
    pub fn any_instant(self) -> bool {
        use FaultKind::{ClockAhead, ClockBack, Freeze, KillAfter, KillBefore, Leave};
        matches!(self, KillBefore | KillAfter | Leave | Freeze | ClockAhead | ClockBack)
    }

    /// The cell of the matrix of faults and steps, as `kill before @ commit`; `None`: an instant
    /// without a call.
    pub fn at(self, site: Option<Site>) -> String {
        format!("{} @ {}", self.name(), site.map_or("any instant", Site::name))
    }

    /// Its name in traces.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::KillBefore => "kill before",
            FaultKind::KillAfter => "kill after",
            FaultKind::LostReply => "lost reply",
            FaultKind::LostRequest => "lost request",
            FaultKind::LateEffect => "late effect",
            FaultKind::Rejected => "rejected",
            FaultKind::Duplicated => "duplicated",
            FaultKind::Slow => "slow",
            FaultKind::Leave => "leave",
            FaultKind::Freeze => "freeze",
            FaultKind::ClockAhead => "clock ahead",
            FaultKind::ClockBack => "clock back",
            FaultKind::Cut => "cut",
            FaultKind::CutRequests => "cut requests",
            FaultKind::CutReplies => "cut replies",
            FaultKind::SlowLink => "slow link",
            FaultKind::RestartBefore => "restart before",
            FaultKind::RestartAfter => "restart after",
            FaultKind::LeaderChange => "leader change",
            FaultKind::Hidden => "hidden",
            FaultKind::Rebalance => "rebalance",
            FaultKind::ChannelLost => "channel lost",
            FaultKind::Locked => "locked",
            FaultKind::Deadlock => "deadlock",
        }
    }
}

/// When it goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum When {
    /// At the node's `nth` call (from 1) of this site, counted over its restarts.
    Call {
        /// Which call.
        site: Site,
        /// From 1.
        nth: u64,
    },
    /// At the node's `nth` call (from 1) of this site for one thing: a topic, a queue, a group, what is
    /// called outside. It is the first word that the trace has of the call. Calls of the site for other
    /// things do not count, so that a plan still fits when the code makes more of them.
    CallFor {
        /// Which call.
        site: Site,
        /// For what.
        what: String,
        /// From 1.
        nth: u64,
    },
    /// At this instant of the world, milliseconds from its start: see [`FaultKind::any_instant`].
    AtMs(u64),
}

impl When {
    /// The call that it waits for, if it waits for one.
    pub fn site(&self) -> Option<Site> {
        match self {
            When::Call { site, .. } | When::CallFor { site, .. } => Some(*site),
            When::AtMs(_) => None,
        }
    }
}

/// A fault of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultSpec {
    /// What.
    pub kind: FaultKind,
    /// On which node.
    pub node: String,
    /// When.
    pub when: When,
    /// How long it lasts: a killed node is down, a link is cut, a slow call takes longer; by how much a
    /// clock jumps. Milliseconds.
    pub for_ms: u64,
}

impl std::fmt::Display for FaultSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, node) = (self.kind.name(), &self.node);
        match &self.when {
            When::Call { site, nth } => write!(f, "{kind} {node} @ {} {nth}", site.name())?,
            When::CallFor { site, what, nth } => {
                write!(f, "{kind} {node} @ {} {what} {nth}", site.name())?;
            }
            When::AtMs(ms) => write!(f, "{kind} {node} at {ms} ms")?,
        }
        write!(f, " for {} ms", self.for_ms)
    }
}
