//! Tells a stalled member from an idle one: records are there and none comes. Pure; the member's thread
//! asks the brokers.
//!
//! Clients have stalled after rebalances and reconnections with only a line in their log (librdkafka #433,
//! #3306, #4783): whoever notices joins anew.

use std::collections::BTreeMap;
use std::time::Duration;

use ports::{Offsets, Partition};

/// How long nothing may come before the first look, and between two looks.
pub(crate) const QUIET: Duration = Duration::from_secs(20);

/// What was seen of a member that reads nothing.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    /// When something last came, or was last looked for.
    since: Duration,
    /// Where the partitions stood that had more to read, at the last look.
    behind: Offsets,
}

impl Watchdog {
    /// Something came, or what is read changed.
    pub fn moved(&mut self, now: Duration) {
        *self = Watchdog { since: now, behind: Offsets::new() };
    }

    /// Whether it is time to look.
    pub fn due(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= QUIET
    }

    /// Judges a look: the next offset of each partition that is read, and the end of its log. The first
    /// partition that had more at the last look too, and has not moved.
    pub fn look(
        &mut self,
        now: Duration,
        read: &BTreeMap<Partition, (i64, i64)>,
    ) -> Option<Partition> {
        let more = read.iter().filter(|(_, (next, end))| next < end);
        let behind: Offsets =
            more.map(|(partition, (next, _))| (partition.clone(), *next)).collect();
        let stalled =
            behind.iter().find(|(partition, next)| self.behind.get(*partition) == Some(next));
        let stalled = stalled.map(|(partition, _)| partition.clone());
        *self = Watchdog { since: now, behind };
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: i32, next: i64, end: i64) -> (Partition, (i64, i64)) {
        (Partition { topic: "t".into(), index }, (next, end))
    }

    #[test]
    fn idle_is_not_stalled_and_one_look_is_not_enough() {
        let mut dog = Watchdog::default();
        assert!(!dog.due(QUIET - Duration::from_millis(1)));
        assert!(dog.due(QUIET));
        let idle = BTreeMap::from([at(0, 5, 5), at(1, 0, 0)]);
        assert_eq!(dog.look(QUIET, &idle), None);
        assert!(!dog.due(QUIET + Duration::from_secs(1)));
        assert_eq!(dog.look(QUIET * 2, &idle), None);
        let behind = BTreeMap::from([at(0, 5, 9), at(1, 0, 0)]);
        assert_eq!(dog.look(QUIET * 3, &behind), None);
        assert_eq!(dog.look(QUIET * 4, &behind), Some(Partition { topic: "t".into(), index: 0 }));
    }

    #[test]
    fn what_moves_is_not_stalled() {
        let mut dog = Watchdog::default();
        assert_eq!(dog.look(QUIET, &BTreeMap::from([at(0, 5, 9)])), None);
        assert_eq!(dog.look(QUIET * 2, &BTreeMap::from([at(0, 6, 9)])), None);
        dog.moved(QUIET * 3);
        assert_eq!(dog.look(QUIET * 4, &BTreeMap::from([at(0, 6, 9)])), None);
    }
}
