//! Tells a stalled member from an idle one: records are there and none comes. Pure; the member's thread
//! asks the brokers.
//!
//! Clients have stalled after rebalances and reconnections with only a line in their log (librdkafka #433,
//! #3306, #4783): whoever notices joins anew. That helps or it does not: where a new member reads no more, the
//! log ends with what nobody reads (a transaction's marker, K3), and it stays.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ports::{Offsets, Partition};

/// How long nothing may come before the first look, and between two looks.
pub(crate) const QUIET: Duration = Duration::from_secs(20);

/// By group and partition the next offset and the end of the log.
type Stood = BTreeMap<(String, Partition), (i64, i64)>;

/// Where members of each group were given up.
#[derive(Debug, Clone, Default)]
pub(crate) struct GivenUp(Arc<Mutex<Stood>>);

impl GivenUp {
    /// Whether nobody was given up yet who stood there; from now on somebody was.
    fn is_first(&self, group: &str, partition: &Partition, at: (i64, i64)) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((group.to_owned(), partition.clone()), at) != Some(at)
    }
}

/// What was seen of a member that reads nothing.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    group: String,
    given_up: GivenUp,
    /// When something last came, or was last looked for.
    since: Duration,
    /// Where the partitions stood that had more to read, at the last look.
    behind: Offsets,
}

impl Watchdog {
    /// Of a new member of the group.
    pub fn new(group: &str, given_up: &GivenUp) -> Self {
        let (group, given_up) = (group.to_owned(), given_up.clone());
        Watchdog { group, given_up, ..Watchdog::default() }
    }

    /// Something came, or what is read changed.
    pub fn moved(&mut self, now: Duration) {
        (self.since, self.behind) = (now, Offsets::new());
    }

    /// Whether it is time to look.
    pub fn due(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= QUIET
    }

    /// Judges a look: the next offset of each partition that is read, and the end of its log. The first
    /// partition that had more at the last look too, and has not moved; not one over which an earlier member
    /// was given up in vain.
    pub fn look(
        &mut self,
        now: Duration,
        read: &BTreeMap<Partition, (i64, i64)>,
    ) -> Option<Partition> {
        let more = read.iter().filter(|(_, (next, end))| next < end);
        let behind: Offsets =
            more.map(|(partition, (next, _))| (partition.clone(), *next)).collect();
        let stands = |partition: &Partition| self.behind.get(partition) == behind.get(partition);
        let mut still = behind.keys().filter(|partition| stands(partition));
        let first = |partition: &&Partition| {
            self.given_up.is_first(&self.group, partition, read[*partition])
        };
        let stalled = still.find(first).cloned();
        (self.since, self.behind) = (now, behind);
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

    /// As of a topic that a stranger's transaction ends: its marker has an offset, and is no record.
    #[test]
    fn a_member_is_given_up_once_where_it_did_not_help() {
        let given_up = GivenUp::default();
        let stalls = |group: &str, read: (Partition, (i64, i64))| {
            let mut dog = Watchdog::new(group, &given_up);
            let read = BTreeMap::from([read]);
            assert_eq!(dog.look(QUIET, &read), None);
            dog.look(QUIET * 2, &read).is_some()
        };
        assert!(stalls("a", at(0, 5, 6)));
        assert!(!stalls("a", at(0, 5, 6)), "the same again");
        assert!(stalls("b", at(0, 5, 6)), "another group");
        assert!(stalls("a", at(0, 5, 7)), "something came");
        assert!(stalls("a", at(1, 5, 7)), "another partition");
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
