//! The gate that every port call passes, on its way there and back. Faults happen here and nowhere
//! else.

use std::future::pending;
use std::time::Duration;

use ports::{Fault, Outcome};

use super::Node;
use crate::fault::{FaultKind, FaultSpec, Site};

/// A port call that passed the gate on its way there.
pub(crate) struct Call {
    site: Site,
    fault: Option<FaultSpec>,
}

impl Call {
    /// A call that nothing happens to.
    pub(crate) fn clean(site: Site) -> Self {
        Call { site, fault: None }
    }

    /// Whether its caller never learns how it ended, though it goes on.
    pub(crate) fn unanswered(&self) -> bool {
        let kind = self.fault.as_ref().map(|fault| fault.kind);
        matches!(kind, Some(FaultKind::LostReply | FaultKind::LostRequest | FaultKind::LateEffect))
    }

    /// How late its effect comes, where it does not come at once.
    pub(crate) fn late(&self) -> Option<Duration> {
        let late = self.fault.as_ref().filter(|fault| fault.kind == FaultKind::LateEffect);
        late.map(|fault| Duration::from_millis(fault.for_ms))
    }

    /// Whether its effect is to happen twice.
    pub(crate) fn duplicated(&self) -> bool {
        self.fault.as_ref().is_some_and(|f| f.kind == FaultKind::Duplicated)
    }

    /// Whether it never reaches the server.
    pub(crate) fn lost(&self) -> bool {
        self.fault.as_ref().is_some_and(|f| f.kind == FaultKind::LostRequest)
    }
}

impl Node {
    /// The way there: a delay, then whatever the plan has for this call. Faults without effect end
    /// here.
    pub(crate) async fn enter(&self, site: Site, about: impl FnOnce() -> String) -> Outcome<Call> {
        self.stop_if_cut().await;
        let fault = self.fault_for(site);
        self.delay(site).await;
        let Some(fault) = fault else {
            self.cluster.note(&self.name, site.name(), about());
            return Ok(Call { site, fault: None });
        };
        let long = Duration::from_millis(fault.for_ms);
        // The call itself goes on: what is in hand is to be finished.
        if fault.kind == FaultKind::Leave {
            if self.cluster.leave(&self.name, long) {
                self.cluster.meet(&fault);
            }
            self.stop_if_cut().await;
            self.cluster.note(&self.name, site.name(), about());
            return Ok(Call { site, fault: None });
        }
        self.cluster.meet(&fault);
        self.cluster.note(&self.name, site.name(), about());
        match fault.kind {
            FaultKind::KillBefore => {
                self.cluster.kill(&self.name, long);
                pending::<()>().await;
            }
            FaultKind::Rejected => return Err(Fault::retry("injected")),
            FaultKind::Slow => {
                madsim::time::sleep(long).await;
                self.stop_if_cut().await;
            }
            FaultKind::Leave
            | FaultKind::KillAfter
            | FaultKind::LostReply
            | FaultKind::LostRequest
            | FaultKind::LateEffect
            | FaultKind::Duplicated => {}
        }
        Ok(Call { site, fault: Some(fault) })
    }

    /// The way back: after the effect, before the caller knows.
    pub(crate) async fn leave<T>(&self, call: Call, answer: Outcome<T>) -> Outcome<T> {
        if let Some(fault) = &call.fault {
            match fault.kind {
                FaultKind::KillAfter => {
                    self.cluster.kill(&self.name, Duration::from_millis(fault.for_ms));
                    pending::<()>().await;
                }
                FaultKind::LostReply | FaultKind::LostRequest | FaultKind::LateEffect => {
                    self.delay(call.site).await;
                    return Err(Fault::unknown("injected: the reply was lost"));
                }
                FaultKind::Leave
                | FaultKind::KillBefore
                | FaultKind::Rejected
                | FaultKind::Duplicated
                | FaultKind::Slow => {}
            }
        }
        self.delay(call.site).await;
        answer
    }

    async fn stop_if_cut(&self) {
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

    /// Counts the call, and takes what the plan has for it.
    fn fault_for(&self, site: Site) -> Option<FaultSpec> {
        let mut state = self.cluster.state();
        let calls = &mut state.places.get_mut(&*self.name)?.calls;
        let nth = calls.entry(site).or_insert(0);
        *nth += 1;
        let nth = *nth;
        if state.healed || state.armed.is_empty() {
            return None;
        }
        state.armed.get_mut(&(self.name.to_string(), site))?.remove(&nth)
    }
}
