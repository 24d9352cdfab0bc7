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
    /// The call fails with no effect, and says so (D5, K13).
    Rejected,
    /// The call's effect happens twice (K5, R3, a customer's retry).
    Duplicated,
    /// The call takes so much longer, before its effect.
    Slow,
    /// The node is asked to stop (SIGTERM) and finishes what it has in hand: at most the cluster's
    /// drain. Then it is gone, as long as a killed one.
    Leave,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [FaultKind; 9] = [
        FaultKind::KillBefore,
        FaultKind::KillAfter,
        FaultKind::LostReply,
        FaultKind::LostRequest,
        FaultKind::LateEffect,
        FaultKind::Rejected,
        FaultKind::Duplicated,
        FaultKind::Slow,
        FaultKind::Leave,
    ];

    /// Whether it can happen at this site.
    pub fn legal(self, site: Site) -> bool {
        match self {
            FaultKind::KillBefore | FaultKind::KillAfter | FaultKind::Slow => true,
            FaultKind::Rejected | FaultKind::Leave => true,
            FaultKind::LostReply | FaultKind::LostRequest => matches!(
                site,
                Site::Produce
                    | Site::CommitOffsets
                    | Site::Publish
                    | Site::Settle
                    | Site::Commit
                    | Site::Http
                    | Site::Outside
            ),
            FaultKind::LateEffect => matches!(site, Site::Produce | Site::Publish),
            FaultKind::Duplicated => matches!(site, Site::Produce | Site::Publish | Site::Outside),
        }
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
        }
    }
}

/// When it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum When {
    /// At the node's `nth` call (from 1) of this site, counted over its restarts.
    Call {
        /// Which call.
        site: Site,
        /// From 1.
        nth: u64,
    },
    /// At this instant of the world, milliseconds from its start; kills and leaving only.
    AtMs(u64),
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
    /// How long: a killed node, or one that left, stays down, a slow call takes longer, a late effect comes by this.
    pub for_ms: u64,
}

impl std::fmt::Display for FaultSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, node) = (self.kind.name(), &self.node);
        match self.when {
            When::Call { site, nth } => write!(f, "{kind} {node} @ {} {nth}", site.name())?,
            When::AtMs(ms) => write!(f, "{kind} {node} at {ms} ms")?,
        }
        write!(f, " for {} ms", self.for_ms)
    }
}
