//! Statements of the broker contract on the pure log, and random programs of group members.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use ports::{Fault, Fetched, Offsets, Partition, Polled, Record, TopicSpec};
use proptest::prelude::*;

use super::{AppendError, Assignor, CommitError, DeclareError, Log, Reader, Settings, Step};

pub(super) const TOPIC: &str = "orders.events";
pub(super) const GROUP: &str = "payments";

pub(super) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(super) fn record(key: &str, payload: &str) -> Record {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    Record { to: TOPIC.into(), key: key.into(), headers: Vec::new(), payload }
}

pub(super) fn partition(index: i32) -> Partition {
    Partition { topic: TOPIC.into(), index }
}

fn log(partitions: i32) -> Log {
    log_with(Assignor::Range, partitions)
}

pub(super) fn log_with(assignor: Assignor, partitions: i32) -> Log {
    let mut log = Log::new(Settings { assignor, ..Settings::default() });
    let spec = TopicSpec { name: TOPIC.into(), partitions };
    log.declare(Duration::ZERO, &spec).expect("a new topic");
    log
}

pub(super) fn append(log: &mut Log, key: &str) -> (Partition, i64) {
    log.append(record(key, "x"), DateTime::UNIX_EPOCH).expect("a known topic")
}

pub(super) fn join(log: &mut Log, now: Duration, name: &str) -> Reader {
    Reader::join(log, now, GROUP, &name.into(), &[TOPIC.into()])
}

pub(super) fn offsets(index: i32, next: i64) -> Offsets {
    Offsets::from([(partition(index), next)])
}

pub(super) fn seen(polled: Option<Polled>) -> Vec<i64> {
    match polled {
        Some(Polled::Records(records)) => records.iter().map(|record| record.offset).collect(),
        other => panic!("expected records, got {other:?}"),
    }
}

#[test]
fn k1_one_key_stays_in_its_partition_and_keyless_records_take_turns() {
    let mut log = log(3);
    let (first, _) = append(&mut log, "order-1");
    assert_eq!(append(&mut log, "order-1"), (first, 1));
    let turns: Vec<i32> = (0..4).map(|_| append(&mut log, "").0.index).collect();
    assert_eq!(turns, [0, 1, 2, 0]);
}

#[test]
fn k2_a_topic_keeps_its_partition_count() {
    let mut log = log(3);
    let spec = |partitions| TopicSpec { name: TOPIC.into(), partitions };
    assert_eq!(log.declare(Duration::ZERO, &spec(3)), Ok(()));
    assert_eq!(log.declare(Duration::ZERO, &spec(4)), Err(DeclareError::OtherCount(3)));
    assert_eq!(log.declare(Duration::ZERO, &spec(0)), Err(DeclareError::NoPartitions));
}

#[test]
fn k3_offsets_rise_with_gaps_and_gaps_are_no_lag() {
    let mut log = log(1);
    append(&mut log, "a");
    log.skip(&partition(0), 3);
    assert_eq!(append(&mut log, "a").1, 4);
    log.skip(&partition(0), 2);
    assert_eq!(log.watermarks(&partition(0)), Some((0, 7)));
    let taken = log.append_at(&partition(0), 6, record("a", "x"), DateTime::UNIX_EPOCH);
    assert_eq!(taken, Err(AppendError::OffsetTaken));
    let mut reader = join(&mut log, Duration::ZERO, "one");
    reader.poll(&mut log, Duration::ZERO, 10);
    assert_eq!(seen(reader.poll(&mut log, Duration::ZERO, 10)), [0, 4]);
    assert_eq!(log.lag(GROUP, TOPIC), 2);
    reader.commit(&mut log, Duration::ZERO, &offsets(0, 5)).expect("the only member");
    assert_eq!(log.lag(GROUP, TOPIC), 0);
}

#[test]
fn k12_a_record_over_the_limit_is_refused_and_its_neighbours_are_not() {
    let mut log = log(1);
    let large = record("a", &"x".repeat(1_000_001));
    assert_eq!(log.append(large, DateTime::UNIX_EPOCH), Err(AppendError::TooLarge));
    assert_eq!(append(&mut log, "a").1, 0);
}

#[test]
fn k15_k32_reading_out_of_range_starts_at_the_first_record() {
    let mut log = log(1);
    (0..5).for_each(|_| drop(append(&mut log, "a")));
    let mut reader = join(&mut log, Duration::ZERO, "one");
    reader.poll(&mut log, Duration::ZERO, 10);
    log.trim(&partition(0), 2);
    assert_eq!(log.watermarks(&partition(0)), Some((2, 5)));
    assert_eq!(seen(reader.poll(&mut log, Duration::ZERO, 10)), [2, 3, 4]);
    assert!(matches!(reader.seek(&offsets(0, -1)), Err(Fault::Refused(_))));
    reader.seek(&offsets(0, 99)).expect("held");
    assert_eq!(seen(reader.poll(&mut log, Duration::ZERO, 2)), [2, 3]);
}

#[test]
fn k16_a_new_owner_reads_from_the_committed_offset() {
    let mut log = log(1);
    (0..4).for_each(|_| drop(append(&mut log, "a")));
    let mut one = join(&mut log, Duration::ZERO, "one");
    one.poll(&mut log, Duration::ZERO, 10);
    assert_eq!(seen(one.poll(&mut log, Duration::ZERO, 10)), [0, 1, 2, 3]);
    one.commit(&mut log, Duration::ZERO, &offsets(0, 2)).expect("the only member");
    one.leave(&mut log, Duration::ZERO);
    let mut two = join(&mut log, Duration::ZERO, "two");
    assert_eq!(two.poll(&mut log, Duration::ZERO, 10), Some(Polled::Assigned(vec![partition(0)])));
    assert_eq!(seen(two.poll(&mut log, Duration::ZERO, 10)), [2, 3]);
    assert_eq!(log.committed(GROUP), offsets(0, 2));
}

#[test]
fn k19_commits_of_old_generations_and_strangers_change_nothing() {
    let mut log = log(2);
    let now = Duration::ZERO;
    let topics: [Arc<str>; 1] = [TOPIC.into()];
    let one = log.join(now, GROUP, &"one".into(), &topics);
    let commit =
        |log: &mut Log, id, generation| log.commit(now, GROUP, id, generation, &offsets(0, 1));
    assert_eq!(commit(&mut log, one, 1), Err(CommitError::RebalanceInProgress));
    assert!(matches!(log.poll(now, GROUP, one), Step::Assigned(1, _)));
    assert_eq!(commit(&mut log, one, 0), Err(CommitError::IllegalGeneration));
    assert_eq!(commit(&mut log, one + 1, 1), Err(CommitError::UnknownMember));
    let nowhere = Offsets::from([(partition(7), 1)]);
    let refused = log.commit(now, GROUP, one, 1, &nowhere);
    assert_eq!(refused, Err(CommitError::UnknownPartition));
    assert_eq!(log.committed(GROUP), Offsets::new());
    log.join(now, GROUP, &"two".into(), &topics);
    assert_eq!(log.poll(now, GROUP, one), Step::Revoke(1, vec![partition(0), partition(1)]));
    assert_eq!(commit(&mut log, one, 1), Ok(()), "revoked, not yet released");
    log.release(now, GROUP, one);
    assert_eq!(commit(&mut log, one, 1), Err(CommitError::IllegalGeneration));
    assert_eq!(log.committed(GROUP), offsets(0, 1));
}

#[test]
fn k22_eager_every_member_gives_up_all_and_ranges_are_dealt_by_age() {
    let mut log = log(3);
    let now = Duration::ZERO;
    let mut one = join(&mut log, now, "one");
    let all: Vec<_> = (0..3).map(partition).collect();
    assert_eq!(one.poll(&mut log, now, 1), Some(Polled::Assigned(all.clone())));
    let mut two = join(&mut log, now, "two");
    assert_eq!(one.poll(&mut log, now, 1), Some(Polled::Revoked(all.clone())));
    assert_eq!(two.poll(&mut log, now, 1), None);
    append(&mut log, "a");
    assert_eq!(one.poll(&mut log, now, 1), None, "revoked partitions are not read");
    one.release(&mut log, now, &all[..1]);
    assert_eq!(one.held(), all[1..]);
    assert_eq!(log.generation(GROUP), 1);
    one.release(&mut log, now, &all);
    assert_eq!(log.generation(GROUP), 2);
    assert_eq!(one.poll(&mut log, now, 1), Some(Polled::Assigned(all[..2].to_vec())));
    assert_eq!(two.poll(&mut log, now, 1), Some(Polled::Assigned(all[2..].to_vec())));
    let refused = two.commit(&mut log, now, &offsets(0, 1));
    assert!(matches!(refused, Err(Fault::Refused(_))), "not its partition: {refused:?}");
}

#[test]
fn k23_a_member_that_does_not_poll_is_a_zombie_although_it_beats() {
    let mut log = log(1);
    let mut one = join(&mut log, Duration::ZERO, "one");
    one.poll(&mut log, Duration::ZERO, 1);
    let mut two = join(&mut log, secs(1), "two");
    assert_eq!(one.poll(&mut log, secs(1), 1), Some(Polled::Revoked(vec![partition(0)])));
    one.release(&mut log, secs(1), &[partition(0)]);
    assert_eq!(one.poll(&mut log, secs(1), 1), Some(Polled::Assigned(vec![partition(0)])));
    for now in (1..=301).step_by(3) {
        assert_eq!(log.heartbeat(secs(now), GROUP, one.id()), now < 301, "at {now} s");
        log.heartbeat(secs(now), GROUP, two.id());
        assert_eq!(two.poll(&mut log, secs(now), 1).is_some(), now >= 301, "at {now} s");
    }
    assert_eq!(two.held(), [partition(0)]);
    let late = one.commit(&mut log, secs(302), &offsets(0, 1));
    assert_eq!(late, Err(Fault::refused("UNKNOWN_MEMBER_ID")));
    assert_eq!(one.poll(&mut log, secs(302), 1), Some(Polled::Lost(vec![partition(0)])));
    assert_eq!(log.members(GROUP).len(), 2, "it joined anew");
}

#[test]
fn k23_a_rebalance_goes_on_without_a_member_that_never_releases() {
    let mut log = log(1);
    let mut one = join(&mut log, Duration::ZERO, "one");
    one.poll(&mut log, Duration::ZERO, 1);
    let mut two = join(&mut log, secs(1), "two");
    one.poll(&mut log, secs(1), 1);
    for now in (1..=300).step_by(10) {
        for reader in [&mut one, &mut two] {
            log.heartbeat(secs(now), GROUP, reader.id());
            assert_eq!(reader.poll(&mut log, secs(now), 1), None);
        }
    }
    let assigned = two.poll(&mut log, secs(301), 1);
    assert_eq!(assigned, Some(Polled::Assigned(vec![partition(0)])));
    assert_eq!(one.poll(&mut log, secs(301), 1), Some(Polled::Lost(vec![partition(0)])));
}

#[test]
fn k24_a_crash_frees_partitions_after_the_session_and_a_goodbye_at_once() {
    let mut log = log(1);
    let mut one = join(&mut log, Duration::ZERO, "one");
    one.poll(&mut log, Duration::ZERO, 1);
    let mut two = join(&mut log, secs(1), "two");
    for now in 1..45 {
        log.heartbeat(secs(now), GROUP, two.id());
        assert_eq!(two.poll(&mut log, secs(now), 1), None, "at {now} s");
    }
    assert!(matches!(two.poll(&mut log, secs(45), 1), Some(Polled::Assigned(_))));
    let mut three = join(&mut log, secs(45), "three");
    assert_eq!(three.poll(&mut log, secs(45), 1), None);
    two.leave(&mut log, secs(46));
    assert!(matches!(three.poll(&mut log, secs(46), 1), Some(Polled::Assigned(_))));
}

#[test]
fn a_topic_declared_later_reaches_the_group_that_waits_for_it() {
    let mut log = Log::new(Settings::default());
    let mut one = join(&mut log, Duration::ZERO, "one");
    assert_eq!(one.poll(&mut log, Duration::ZERO, 1), None);
    let spec = TopicSpec { name: TOPIC.into(), partitions: 1 };
    log.declare(Duration::ZERO, &spec).expect("a new topic");
    let assigned = one.poll(&mut log, Duration::ZERO, 1);
    assert_eq!(assigned, Some(Polled::Assigned(vec![partition(0)])));
}

#[test]
fn paused_partitions_are_not_read_and_reading_takes_turns() {
    let mut log = log(2);
    for index in [0, 0, 0, 1] {
        let (_, next) = log.watermarks(&partition(index)).expect("a known partition");
        let appended =
            log.append_at(&partition(index), next, record("k", "x"), DateTime::UNIX_EPOCH);
        assert_eq!(appended, Ok(()));
    }
    let mut one = join(&mut log, Duration::ZERO, "one");
    one.poll(&mut log, Duration::ZERO, 1);
    one.pause(&[partition(0)], true);
    assert_eq!(seen(one.poll(&mut log, Duration::ZERO, 2)), [0]);
    assert_eq!(one.poll(&mut log, Duration::ZERO, 2), None);
    one.pause(&[partition(0)], false);
    assert_eq!(seen(one.poll(&mut log, Duration::ZERO, 2)), [0, 1]);
    append(&mut log, "k");
    log.append_at(&partition(1), 1, record("k", "x"), DateTime::UNIX_EPOCH).ok();
    let Some(Polled::Records(next)) = one.poll(&mut log, Duration::ZERO, 1) else {
        panic!("there are records")
    };
    assert_eq!(next[0].partition, partition(1), "behind the one that was read last");
}

/// What a member of a random program does next.
#[derive(Debug, Clone)]
enum Act {
    Join,
    Poll(usize),
    Commit,
    Release,
    Seek(i64),
    Leave,
    Crash,
    Append(u8),
    Skip,
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Join),
        10 => (1..5_usize).prop_map(Act::Poll),
        5 => Just(Act::Commit),
        5 => Just(Act::Release),
        1 => (0..9_i64).prop_map(Act::Seek),
        1 => Just(Act::Leave),
        1 => Just(Act::Crash),
        5 => any::<u8>().prop_map(Act::Append),
        1 => Just(Act::Skip),
        4 => (0..60_u64).prop_map(Act::Wait),
    ]
}

/// A member of a random program, and what it has read of each partition since it got it.
struct Slot {
    reader: Reader,
    read: Offsets,
}

impl Slot {
    fn note(&mut self, committed: &Offsets, polled: Option<Polled>) {
        match polled {
            Some(Polled::Assigned(added)) => {
                for partition in added {
                    let next = committed.get(&partition).copied().unwrap_or(0);
                    let before = self.read.insert(partition.clone(), next);
                    assert_eq!(before, None, "{partition} was its own already");
                }
            }
            Some(Polled::Records(records)) => {
                for Fetched { partition, offset, .. } in records {
                    let next = self.read.get_mut(&partition).expect("only what it holds is read");
                    assert!(*next <= offset, "{partition}: {offset} after {next}");
                    *next = offset + 1;
                }
            }
            Some(Polled::Lost(_)) => self.read.clear(),
            Some(Polled::Revoked(_)) | None => {}
        }
    }
}

/// Who is a member, by the coordinator's book, holds what no other member holds.
fn assert_disjoint(log: &Log, slots: &BTreeMap<usize, Slot>) {
    let members = log.members(GROUP);
    let mut holders: BTreeMap<Partition, usize> = BTreeMap::new();
    for (name, slot) in slots.iter().filter(|(_, slot)| members.contains_key(&slot.reader.id())) {
        for partition in slot.reader.held() {
            let other = holders.insert(partition.clone(), *name);
            assert_eq!(other, None, "{partition} is {name}'s too");
        }
    }
}

/// Everybody polls, gives up what it is asked to and beats, until nothing changes any more: then
/// each partition has one owner, and nobody has two more than another.
fn settle(log: &mut Log, now: &mut Duration, slots: &mut BTreeMap<usize, Slot>) {
    // Whoever is in the book and has no slot any more is expelled first.
    for _ in 0..200 {
        *now += secs(2);
        for slot in slots.values_mut() {
            log.heartbeat(*now, GROUP, slot.reader.id());
            slot.reader.poll(log, *now, 1);
            // Gives up what it was asked to, now or before.
            let held = slot.reader.held();
            slot.reader.release(log, *now, &held);
        }
    }
    let generation = log.generation(GROUP);
    assert_disjoint(log, slots);
    let shares: Vec<usize> = slots.values().map(|slot| slot.reader.held().len()).collect();
    assert_eq!(shares.iter().sum::<usize>(), 3, "{shares:?} in generation {generation}");
    let (least, most) = (shares.iter().min(), shares.iter().max());
    assert!(most.unwrap_or(&0) - least.unwrap_or(&0) <= 1, "{shares:?}");
}

/// Who could commit for each partition that it believes to hold.
fn assert_one_owner(log: &Log, now: Duration, slots: &BTreeMap<usize, Slot>) {
    let mut owners: BTreeMap<Partition, usize> = BTreeMap::new();
    for (name, slot) in slots {
        for partition in slot.reader.held() {
            let (mut trial, mut reader) = (log.clone(), slot.reader.clone());
            let next = Offsets::from([(partition.clone(), 0)]);
            if reader.commit(&mut trial, now, &next).is_ok() {
                let other = owners.insert(partition.clone(), *name);
                assert_eq!(other, None, "{partition} is {name}'s too");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(300)
    })]

    #[test]
    fn random_groups_keep_one_owner_and_every_commit(
        assignor in prop_oneof![Just(Assignor::Range), Just(Assignor::CooperativeSticky)],
        acts in prop::collection::vec((0..4_usize, act()), 1..120),
    ) {
        let mut log = log_with(assignor, 3);
        let mut slots: BTreeMap<usize, Slot> = BTreeMap::new();
        let mut committed = Offsets::new();
        let mut now = Duration::ZERO;
        for (name, act) in acts {
            for slot in slots.values() {
                log.heartbeat(now, GROUP, slot.reader.id());
            }
            match (act, slots.get_mut(&name)) {
                (Act::Join, None) => {
                    let reader = join(&mut log, now, &format!("m{name}"));
                    slots.insert(name, Slot { reader, read: Offsets::new() });
                }
                (Act::Poll(max), Some(slot)) => {
                    let polled = slot.reader.poll(&mut log, now, max);
                    slot.note(&committed, polled);
                }
                (Act::Commit, Some(slot)) => {
                    let next = slot.read.clone();
                    if slot.reader.commit(&mut log, now, &next).is_ok() {
                        committed.extend(next);
                    }
                }
                (Act::Release, Some(slot)) => {
                    let held = slot.reader.held();
                    slot.reader.release(&mut log, now, &held);
                    let held = slot.reader.held();
                    slot.read.retain(|partition, _| held.contains(partition));
                }
                (Act::Seek(offset), Some(slot)) => {
                    let next: Offsets =
                        slot.reader.held().into_iter().map(|p| (p, offset)).collect();
                    prop_assert_eq!(slot.reader.seek(&next), Ok(()));
                    // Out of range it starts again at the first one, so nothing is known of it.
                    slot.read.extend(next.into_keys().map(|p| (p, 0)));
                }
                (Act::Leave, Some(_)) => {
                    let slot = slots.remove(&name).expect("it was just there");
                    slot.reader.leave(&mut log, now);
                }
                (Act::Crash, Some(_)) => drop(slots.remove(&name)),
                (Act::Append(key), _) => drop(append(&mut log, &format!("k{key}"))),
                (Act::Skip, _) => log.skip(&partition(0), 1),
                (Act::Wait(seconds), _) => now += secs(seconds),
                _ => {}
            }
            prop_assert_eq!(&log.committed(GROUP), &committed);
            assert_one_owner(&log, now, &slots);
            assert_disjoint(&log, &slots);
        }
        if !slots.is_empty() {
            let mut log = log.clone();
            let mut now = now;
            settle(&mut log, &mut now, &mut slots);
            let settled = log.generation(GROUP);
            settle(&mut log, &mut now, &mut slots);
            prop_assert_eq!(log.generation(GROUP), settled, "it never comes to rest");
        }
        // All are gone but one, which then owns all and reads to the end from what was committed.
        now += secs(1_000);
        let mut last = join(&mut log, now, "last");
        let Some(Polled::Assigned(mine)) = last.poll(&mut log, now, 1) else {
            return Err(TestCaseError::fail("the only member gets nothing"));
        };
        prop_assert_eq!(mine.len(), 3);
        let lag = log.lag(GROUP, TOPIC);
        let mut count = 0;
        while let Some(Polled::Records(records)) = last.poll(&mut log, now, 7) {
            count += records.len() as u64;
        }
        prop_assert_eq!(count, lag);
    }
}
