//! What the faults that met their step explain: a mail sent again, a service that was gone, or that may have
//! sent twice. Pure.

use std::collections::{BTreeMap, BTreeSet};

use contract::Service;
use sim_engine::{FaultKind, FaultSpec, Server, Site};

#[cfg(doc)]
use crate::facts::Facts;
use crate::workload::Workload;

/// A node that leaves gives up what its database did not take so often, what it sent among it.
const GIVEN_UP: usize = 3;

/// A send that takes so long, milliseconds, may be over the worker's time-out (10 s), the ways included.
const SEND_MS: u64 = 9_900;

/// See [`Facts::mail_doubts`].
pub(crate) fn mail_doubts(met: &[FaultSpec], workload: &Workload) -> u32 {
    const WORKER: Service = Service::NotificationsWorker;
    let of_worker = || met.iter().filter(|fault| service_of(fault) == Some(WORKER));
    // What keeps a result from being written until another one takes the mail up.
    let holds_up = |kind: FaultKind| {
        use FaultKind::{
            Cut, CutReplies, CutRequests, Freeze, Locked, RestartAfter, RestartBefore, SlowLink,
        };
        matches!(
            kind,
            Freeze
                | Cut
                | CutRequests
                | CutReplies
                | SlowLink
                | RestartBefore
                | RestartAfter
                | Locked
        )
    };
    // A slow call outlasts the drain of a node that leaves: what it had sent is then not on record.
    let slow = of_worker().any(|fault| fault.kind == FaultKind::Slow || holds_up(fault.kind));
    let of_store = |fault: &&FaultSpec| {
        fault.when.site().and_then(Site::server).is_some_and(|server| server == Server::Store)
    };
    let given_up = of_worker().filter(of_store).count() > GIVEN_UP;
    let doubts = of_worker().filter(|fault| match (fault.kind, fault.when.site()) {
        (FaultKind::Leave, _) => slow || given_up,
        (FaultKind::KillBefore | FaultKind::KillAfter, _) => true,
        (FaultKind::Duplicated | FaultKind::LateEffect, Some(Site::Outside)) => true,
        (FaultKind::Slow, Some(Site::Outside)) => fault.for_ms >= SEND_MS,
        (kind, _) => holds_up(kind),
    });
    // Those that stood still while the core recovered had sent what another one then sent.
    let broken = broken(workload).filter(|service| *service == WORKER);
    (doubts.count() + broken.count()) as u32
}

/// See [`Facts::gone`].
pub(crate) fn gone(met: &[FaultSpec], workload: &Workload) -> BTreeMap<Service, u32> {
    use FaultKind::{Freeze, KillAfter, KillBefore, Leave};
    let mut gone = BTreeMap::new();
    let goes = |fault: &&FaultSpec| matches!(fault.kind, KillBefore | KillAfter | Leave | Freeze);
    let went = met.iter().filter(goes).filter_map(service_of);
    for service in went.chain(upgraded(workload)).chain(broken(workload)) {
        *gone.entry(service).or_default() += 1;
    }
    gone
}

/// See [`Facts::faulty`]. Leaving is no excuse: it is done in order. A broker that crashes is one for everybody.
pub(crate) fn faulty(met: &[FaultSpec], workload: &Workload) -> BTreeSet<Service> {
    let crashed = |fault: &FaultSpec| {
        let broker = fault.when.site().and_then(Site::server).is_some_and(|it| it != Server::Store);
        broker && matches!(fault.kind, FaultKind::RestartBefore | FaultKind::RestartAfter)
    };
    if met.iter().any(crashed) {
        return Service::ALL.into_iter().collect();
    }
    let met = met.iter().filter(|fault| fault.kind != FaultKind::Leave).filter_map(service_of);
    met.chain(upgraded(workload)).chain(broken(workload)).collect()
}

/// Whose node was upgraded, each time.
fn upgraded(workload: &Workload) -> impl Iterator<Item = Service> {
    workload.upgrades.iter().filter_map(|upgrade| service_on(&upgrade.node))
}

/// Whose node stood still while the core recovered, each.
fn broken(workload: &Workload) -> impl Iterator<Item = Service> {
    workload.broken().filter_map(|node| service_on(&node))
}

/// Whose node a fault met.
fn service_of(fault: &FaultSpec) -> Option<Service> {
    service_on(&fault.node)
}

/// Whose node this is.
pub(crate) fn service_on(node: &str) -> Option<Service> {
    let name = node.split('#').next()?;
    Service::ALL.into_iter().find(|service| service.name() == name)
}
