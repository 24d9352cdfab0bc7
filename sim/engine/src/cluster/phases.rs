//! A world's phases: faults, then a core recovers while the rest stays broken, then all recovers.

use std::time::Duration;

use super::Cluster;
use crate::fault::Server;

/// How far a world has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Faults happen as planned.
    Faults,
    /// No new ones do; the core's nodes, their links and clocks and all servers are well.
    Core,
    /// Everything is well.
    Healed,
}

impl Cluster {
    /// From now on nothing fails any more, all servers are up, and these nodes are well: they run, at
    /// the right time, and their links are whole. All others stand still, stay down or have no way to
    /// their database, with what they hold, until [`Cluster::heal`].
    pub fn recover(&self, core: &[String]) {
        self.state().phase = Phase::Core;
        self.state().core = core.iter().cloned().collect();
        self.note("world", "core recovers", core.join(" "));
        self.mend(Some(core));
        let names: Vec<String> = self.state().places.keys().cloned().collect();
        for name in names {
            if core.contains(&name) {
                self.make_well(&name);
            } else if self.choices().one_in("cut off", &name, 4) {
                self.cut_off(&name, Server::Store);
            } else if self.choices().one_in("stands still", &name, 2) {
                self.freeze(&name, Duration::MAX);
            } else {
                self.freeze_soon(&name);
            }
        }
    }

    /// From now on nothing fails any more, and every node that is down starts.
    pub fn heal(&self) {
        self.state().phase = Phase::Healed;
        self.state().soon.clear();
        self.note("world", "healed", String::new());
        self.mend(None);
        let names: Vec<String> = self.state().places.keys().cloned().collect();
        names.iter().for_each(|name| self.make_well(name));
    }

    /// The node runs, at the right time.
    fn make_well(&self, name: &str) {
        self.thaw(name);
        self.set_right(name);
        self.start(name);
    }

    /// Whether no new faults happen.
    pub fn is_over(&self) -> bool {
        self.state().phase != Phase::Faults
    }

    /// Whether only a core is well.
    pub fn is_recovering(&self) -> bool {
        self.state().phase == Phase::Core
    }

    /// Whether the faults are over and everything is well.
    pub fn is_healed(&self) -> bool {
        self.state().phase == Phase::Healed
    }
}
