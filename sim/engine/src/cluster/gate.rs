//! The gate that every port call passes, on its way there and back. Faults happen here and nowhere
//! else. Never knows what a call carries.

use std::future::pending;
use std::time::Duration;

use ports::{Fault, Outcome};

use super::links::Way;
use super::{Node, Place};
use crate::fault::{FaultKind, FaultSpec, Site, When};

/// How long a client waits for an answer before it gives the connection up.
pub(crate) const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);

/// A port call that passed the gate on its way there.
pub(crate) struct Call {
    site: Site,
    fault: Option<FaultSpec>,
    /// It never gets to its server, though its fault does not say so: the link is cut.
    stuck: bool,
    /// How often its server had crashed before.
    crashes: u32,
}

impl Call {
    fn is(&self, kind: FaultKind) -> bool {
        self.fault.as_ref().is_some_and(|fault| fault.kind == kind)
    }

    /// How long the fault lasts, where it is of this kind.
    pub(crate) fn lasting(&self, kind: FaultKind) -> Option<Duration> {
        let fault = self.fault.as_ref().filter(|fault| fault.kind == kind);
        fault.map(|fault| Duration::from_millis(fault.for_ms))
    }

    /// Notes that its fault did something, of those that may do nothing.
    pub(crate) fn meet(&self, node: &Node) {
        if let Some(fault) = &self.fault {
            node.cluster.meet(fault);
        }
    }

    /// Whether its caller never learns how it ended, though it goes on.
    pub(crate) fn unanswered(&self) -> bool {
        let fault = [FaultKind::LostReply, FaultKind::LateEffect, FaultKind::RestartAfter];
        self.lost() || fault.into_iter().any(|kind| self.is(kind))
    }

    /// How late its effect comes, where it does not come at once.
    pub(crate) fn late(&self) -> Option<Duration> {
        self.lasting(FaultKind::LateEffect)
    }

    /// Whether its effect is to happen twice.
    pub(crate) fn duplicated(&self) -> bool {
        self.is(FaultKind::Duplicated)
    }

    /// What the server says where it takes nothing of it, or not all of it.
    pub(crate) fn rejection(&self, node: &Node) -> Option<Fault> {
        self.is(FaultKind::Rejected).then(|| node.rejection(self.site))
    }

    /// Whether nothing at all of it reaches the server: the link is cut, or the server was down when it came.
    pub(crate) fn nothing_arrives(&self) -> bool {
        self.stuck || self.is(FaultKind::RestartBefore)
    }

    /// Whether it never reaches the server.
    pub(crate) fn lost(&self) -> bool {
        self.stuck || self.is(FaultKind::LostRequest) || self.is(FaultKind::RestartBefore)
    }
}

impl Node {
    /// The way there: a delay, then whatever the plan has for this call, and the state of the link.
    /// What never gets there and leaves no doubt ends here.
    pub(crate) async fn enter(&self, site: Site, about: impl FnOnce() -> String) -> Outcome<Call> {
        self.stop_if_cut().await;
        let about = about();
        let fault = self.fault_for(site, what(&about));
        self.delay(site).await;
        self.cluster.note(self.name.clone(), site.name(), about);
        let fault = match fault {
            None => None,
            Some(fault) => self.suffer(fault, site).await?,
        };
        if site == Site::Commit && self.cluster.state().soon.remove(&*self.name) {
            self.stand_still(Duration::MAX).await;
            self.stop_if_cut().await;
        }
        let crashes = self.crashes(site);
        let mut call = Call { site, fault, stuck: false, crashes };
        if !call.lost() {
            call.stuck = !self.passes(site, Way::There).await?;
        }
        // A node is killed behind its call wherever that ends.
        let acts = |fault: &&FaultSpec| {
            fault.kind.acts_there(site) && (!call.stuck || fault.kind == FaultKind::KillAfter)
        };
        if let Some(fault) = call.fault.as_ref().filter(acts)
            && !fault.kind.may_do_nothing()
        {
            self.cluster.meet(fault);
        }
        if call.lost() && !site.leaves_doubt() {
            self.delay(site).await;
            return Err(Fault::retry("injected: no answer"));
        }
        Ok(call)
    }

    /// What the plan has for a call, up to its effect. What is left of it for later.
    async fn suffer(&self, fault: FaultSpec, site: Site) -> Outcome<Option<FaultSpec>> {
        let cluster = &self.cluster;
        let long = Duration::from_millis(fault.for_ms);
        // A node that is leaving already is not asked twice.
        if fault.kind == FaultKind::Leave {
            if cluster.leave(&self.name, long) {
                cluster.meet(&fault);
            }
            // The call itself goes on: what is in hand is to be finished.
            self.stop_if_cut().await;
            return Ok(None);
        }
        let meets = match fault.kind {
            FaultKind::Rebalance => cluster.crowd(self, long),
            kind => !kind.acts_there(site),
        };
        if meets {
            cluster.meet(&fault);
        }
        match fault.kind {
            FaultKind::KillBefore => {
                cluster.kill(&self.name, long);
            }
            FaultKind::Rejected if !site.sends() => return Err(self.rejection(site)),
            FaultKind::Slow => madsim::time::sleep(long).await,
            FaultKind::Freeze => self.stand_still(long).await,
            FaultKind::ClockAhead | FaultKind::ClockBack => {
                cluster.jump(&fault);
            }
            FaultKind::Cut
            | FaultKind::CutRequests
            | FaultKind::CutReplies
            | FaultKind::SlowLink => {
                cluster.disturb(self, site, fault.kind, long);
            }
            FaultKind::RestartBefore => cluster.crash(self, site, long),
            FaultKind::ChannelLost => {
                cluster.shared.queue.disconnect(&self.client);
            }
            FaultKind::Leave
            | FaultKind::KillAfter
            | FaultKind::LostReply
            | FaultKind::LostRequest
            | FaultKind::LateEffect
            | FaultKind::Rejected
            | FaultKind::Rebalance
            | FaultKind::Duplicated
            | FaultKind::RestartAfter
            | FaultKind::LeaderChange
            | FaultKind::Hidden
            | FaultKind::Locked
            | FaultKind::Deadlock => {}
        }
        self.stop_if_cut().await;
        Ok(Some(fault))
    }

    /// For now, or, of what is sent, for as long as somebody does not mend it: a right that is missing, a
    /// queue that is not there.
    fn rejection(&self, site: Site) -> Fault {
        match site.sends() && self.cluster.shared.choices.below("rejection", &self.name, 2) == 0 {
            true => Fault::refused("injected"),
            false => Fault::retry("injected"),
        }
    }

    async fn stand_still(&self, long: Duration) {
        self.cluster.freeze(&self.name, long);
        // It stands still here.
        madsim::time::sleep(Duration::from_millis(1)).await;
    }

    /// The way back: after the effect, before the caller knows.
    pub(crate) async fn leave<T>(&self, call: Call, answer: Outcome<T>) -> Outcome<T> {
        if let Some(long) = call.lasting(FaultKind::KillAfter) {
            self.cluster.kill(&self.name, long);
            pending::<()>().await;
        }
        if let Some(long) = call.lasting(FaultKind::RestartAfter) {
            self.cluster.crash(self, call.site, long);
        }
        // What was waited for has come by now, and is only late.
        let answered =
            call.site.waits() || !call.unanswered() && call.crashes == self.crashes(call.site);
        let whole = answered && self.passes(call.site, Way::Back).await?;
        self.delay(call.site).await;
        match whole {
            true => answer,
            false if call.site.leaves_doubt() => {
                Err(Fault::unknown("injected: the reply was lost"))
            }
            false => Err(Fault::retry("injected: the connection was lost")),
        }
    }

    /// Waits for the link, as long as its client does: forever where it waits for something to come
    /// anyway. Whether it got through; `Retry` where the server is down.
    async fn passes(&self, site: Site, way: Way) -> Outcome<bool> {
        let Some(server) = site.server() else { return Ok(true) };
        let mut patience = CLIENT_TIMEOUT;
        loop {
            self.stop_if_cut().await;
            let hindrance = self.cluster.hindrance(self, server, way);
            if hindrance.down && way == Way::There && !site.waits() {
                return Err(Fault::retry("injected: connection refused"));
            }
            if hindrance.cut.is_zero() {
                if !hindrance.slow.is_zero() {
                    madsim::time::sleep(hindrance.slow).await;
                    self.stop_if_cut().await;
                }
                return Ok(true);
            }
            let wait = if site.waits() { hindrance.cut } else { hindrance.cut.min(patience) };
            madsim::time::sleep(wait).await;
            patience -= wait.min(patience);
            if patience.is_zero() && !site.waits() {
                self.stop_if_cut().await;
                return Ok(false);
            }
        }
    }

    /// Ends here for ever where the node is gone.
    pub(super) async fn stop_if_cut(&self) {
        if self.is_cut() {
            pending::<()>().await;
        }
    }

    async fn delay(&self, site: Site) {
        let shared = &self.cluster.shared;
        let spread_us = shared.settings.delay_ms * 1_000 + 1;
        let extra = shared.choices.below(site.name(), &self.name, spread_us);
        madsim::time::sleep(Duration::from_micros(1_000 + extra)).await;
        self.stop_if_cut().await;
    }

    /// Whether the plan still has such a fault for a call of this node.
    pub(crate) fn awaits(&self, kind: FaultKind) -> bool {
        let state = self.cluster.state();
        let place = state.places.get(&*self.name);
        place.is_some_and(|place| place.armed.iter().any(|fault| fault.kind == kind))
    }

    /// Counts the call, and takes what the plan has for it.
    fn fault_for(&self, site: Site, what: &str) -> Option<FaultSpec> {
        let mut state = self.cluster.state();
        let over = state.phase != super::Phase::Faults;
        let Place { calls, calls_for, armed, .. } = state.places.get_mut(&*self.name)?;
        let all = calls.entry(site).or_insert(0);
        *all += 1;
        let all = *all;
        if armed.is_empty() {
            return None;
        }
        // Counted only where a fault asks for it.
        let named = |fault: &FaultSpec| matches!(&fault.when, When::CallFor { .. });
        let of_what = match armed.iter().any(named) {
            true => {
                let nth = calls_for.entry((site, what.to_owned())).or_insert(0);
                *nth += 1;
                *nth
            }
            false => 0,
        };
        if over {
            return None;
        }
        let meets = |fault: &FaultSpec| match &fault.when {
            When::Call { site: at, nth } => (*at, *nth) == (site, all),
            When::CallFor { site: at, what: of, nth } => {
                (*at, of.as_str(), *nth) == (site, what, of_what)
            }
            When::AtMs(_) => false,
        };
        armed.iter().position(meets).map(|at| armed.remove(at))
    }
}

/// What a call is for, by the words that the trace has of it: see [`When::CallFor`].
///
/// [`When::CallFor`]: crate::When::CallFor
fn what(about: &str) -> &str {
    about.split([' ', '[', '/', '=', ':', '@']).next().unwrap_or("")
}
