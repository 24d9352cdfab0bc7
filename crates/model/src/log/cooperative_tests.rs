//! Cooperative rebalances step by step: what moves, what stays, and what a commit meets meanwhile.

use std::time::Duration;

use ports::{Fault, Partition, Polled};

use super::group_tests::{GROUP, TOPIC, join, log_with, offsets, partition, record, secs, seen};
use super::{Assignor, Log, Reader};

const NOW: Duration = Duration::ZERO;

fn cooperative(partitions: i32) -> Log {
    log_with(Assignor::CooperativeSticky, partitions)
}

fn partitions(indexes: impl IntoIterator<Item = i32>) -> Vec<Partition> {
    indexes.into_iter().map(partition).collect()
}

/// A member that was told all it gets.
fn settled(log: &mut Log, name: &str, expected: Vec<Partition>) -> Reader {
    let mut reader = join(log, NOW, name);
    assert_eq!(reader.poll(log, NOW, 1), Some(Polled::Assigned(expected)));
    reader
}

#[test]
fn k22_cooperative_only_what_moves_is_given_up_and_comes_in_a_second_round() {
    let mut log = cooperative(3);
    let mut one = settled(&mut log, "one", partitions(0..3));
    let mut two = join(&mut log, NOW, "two");
    assert_eq!(two.poll(&mut log, NOW, 1), None);
    assert_eq!(one.poll(&mut log, NOW, 1), None, "it joins with what it holds");
    assert_eq!(one.held(), partitions(0..3));
    assert_eq!(log.generation(GROUP), 2);
    assert_eq!(one.poll(&mut log, NOW, 1), Some(Polled::Revoked(partitions([2]))));
    assert_eq!(two.poll(&mut log, NOW, 1), None, "what moves is nobody's to get yet");
    one.release(&mut log, NOW, &partitions([2]));
    assert_eq!(one.held(), partitions(0..2));
    assert_eq!(log.generation(GROUP), 2);
    let _ = one.poll(&mut log, NOW, 1);
    assert_eq!(two.poll(&mut log, NOW, 1), None);
    assert_eq!(log.generation(GROUP), 3, "it joined once more, and so did the other one");
    let _ = one.poll(&mut log, NOW, 1);
    assert_eq!(two.poll(&mut log, NOW, 1), Some(Polled::Assigned(partitions([2]))));
    assert_eq!((one.held(), two.held()), (partitions(0..2), partitions([2])));
    for _ in 0..5 {
        let _ = (one.poll(&mut log, NOW, 9), two.poll(&mut log, NOW, 9));
    }
    assert_eq!(log.generation(GROUP), 3, "and then it rests");
}

#[test]
fn what_stays_is_read_and_what_goes_is_not() {
    let mut log = cooperative(2);
    let mut one = settled(&mut log, "one", partitions(0..2));
    let _two = join(&mut log, NOW, "two");
    for index in 0..2 {
        let appended = log.append_at(&partition(index), 0, record("k", "x"), Default::default());
        appended.expect("a free offset");
    }
    let Some(Polled::Records(records)) = one.poll(&mut log, NOW, 1) else { panic!("no records") };
    assert_eq!(records[0].partition, partition(0), "it reads on while the group rebalances");
    assert_eq!(one.poll(&mut log, NOW, 9), Some(Polled::Revoked(partitions([1]))));
    assert_eq!(one.poll(&mut log, NOW, 9), None);
    let appended = log.append_at(&partition(0), 1, record("k", "x"), Default::default());
    appended.expect("a free offset");
    assert_eq!(seen(one.poll(&mut log, NOW, 9)), [1], "of what stays, between the two rounds");
    one.commit(&mut log, NOW, &offsets(1, 0)).expect("still its own until the release");
}

#[test]
fn k19_a_commit_in_a_rebalance_is_refused_by_its_generation_and_taken_after_the_next_poll() {
    let mut log = cooperative(2);
    let mut one = settled(&mut log, "one", partitions(0..2));
    let mut two = join(&mut log, NOW, "two");
    one.commit(&mut log, NOW, &offsets(0, 1)).expect("nobody has joined but the new one");
    log.heartbeat(NOW, GROUP, one.id());
    assert_eq!(log.generation(GROUP), 2, "its client joined for it");
    // It has not heard of the generation yet: still a member, still the owner, and refused.
    let refused = one.commit(&mut log, NOW, &offsets(0, 2));
    assert_eq!(refused, Err(Fault::refused("ILLEGAL_GENERATION")));
    let mut three = join(&mut log, NOW, "three");
    assert_eq!(two.poll(&mut log, NOW, 1), None);
    assert_eq!(one.poll(&mut log, NOW, 1), Some(Polled::Revoked(partitions([1]))));
    one.commit(&mut log, NOW, &offsets(0, 2)).expect("the group waits for its members");
    one.commit(&mut log, NOW, &offsets(1, 3)).expect("revoked, not yet released");
    one.release(&mut log, NOW, &partitions([1]));
    let late = one.commit(&mut log, NOW, &offsets(1, 4));
    assert!(matches!(late, Err(Fault::Refused(_))), "{late:?}");
    let _ = (one.poll(&mut log, NOW, 1), two.poll(&mut log, NOW, 1), three.poll(&mut log, NOW, 1));
    let _ = (one.poll(&mut log, NOW, 1), two.poll(&mut log, NOW, 1), three.poll(&mut log, NOW, 1));
    let _ = one.poll(&mut log, NOW, 1);
    one.commit(&mut log, NOW, &offsets(0, 5)).expect("it kept this one all the time");
    assert_eq!(two.held(), partitions([1]));
    assert_eq!(three.held(), []);
    assert_eq!(log.committed_at(GROUP, &partition(1)), Some(3));
}

#[test]
fn k19_a_commit_while_the_group_waits_for_its_leader_is_to_be_repeated() {
    let mut log = cooperative(2);
    let mut one = settled(&mut log, "one", partitions(0..2));
    let mut two = join(&mut log, NOW, "two");
    let mut round = |log: &mut Log| {
        for _ in 0..4 {
            if let Some(Polled::Revoked(revoked)) = one.poll(log, NOW, 1) {
                one.release(log, NOW, &revoked);
            }
            let _ = two.poll(log, NOW, 1);
        }
    };
    round(&mut log);
    assert_eq!(two.held(), partitions([1]));
    // A third one comes and goes: the group has a new generation, and its leader was not there yet.
    let three = join(&mut log, NOW, "three");
    log.heartbeat(NOW, GROUP, one.id());
    let _ = two.poll(&mut log, NOW, 1);
    let refused = two.commit(&mut log, NOW, &offsets(1, 1));
    assert_eq!(refused, Err(Fault::retry("REBALANCE_IN_PROGRESS")));
    three.leave(&mut log, NOW);
    for _ in 0..3 {
        let _ = (one.poll(&mut log, NOW, 1), two.poll(&mut log, NOW, 1));
    }
    two.commit(&mut log, NOW, &offsets(1, 1)).expect("it was its own all the time");
    assert_eq!((one.held(), two.held()), (partitions([0]), partitions([1])));
}

#[test]
fn a_member_that_leaves_or_dies_moves_nothing_of_the_others() {
    let mut log = cooperative(4);
    let mut one = settled(&mut log, "one", partitions(0..4));
    let mut two = join(&mut log, NOW, "two");
    for _ in 0..4 {
        if let Some(Polled::Revoked(revoked)) = one.poll(&mut log, NOW, 1) {
            one.release(&mut log, NOW, &revoked);
        }
        let _ = two.poll(&mut log, NOW, 1);
    }
    assert_eq!((one.held(), two.held()), (partitions(0..2), partitions(2..4)));
    one.leave(&mut log, NOW);
    let mut told = Vec::new();
    for _ in 0..3 {
        told.extend(two.poll(&mut log, NOW, 1));
    }
    assert_eq!(told, [Polled::Assigned(partitions(0..2))], "added, and nothing revoked");
    assert_eq!(two.held(), partitions(0..4));
}

#[test]
fn k23_a_member_that_never_releases_is_left_behind_and_its_partitions_move() {
    let mut log = cooperative(2);
    let mut one = settled(&mut log, "one", partitions(0..2));
    let mut two = join(&mut log, secs(1), "two");
    assert_eq!(one.poll(&mut log, secs(1), 1), None);
    assert_eq!(one.poll(&mut log, secs(1), 1), Some(Polled::Revoked(partitions([1]))));
    let mut three = join(&mut log, secs(2), "three");
    for now in (2..302).step_by(10) {
        for reader in [&mut one, &mut two, &mut three] {
            log.heartbeat(secs(now), GROUP, reader.id());
            assert_eq!(reader.poll(&mut log, secs(now), 1), None, "at {now} s");
        }
    }
    let mut told = Vec::new();
    for _ in 0..4 {
        for reader in [&mut two, &mut three] {
            log.heartbeat(secs(302), GROUP, reader.id());
            told.extend(reader.poll(&mut log, secs(302), 1));
        }
    }
    assert_eq!(told, [Polled::Assigned(partitions([0])), Polled::Assigned(partitions([1]))]);
    assert_eq!(one.poll(&mut log, secs(302), 1), Some(Polled::Lost(partitions(0..2))));
}

#[test]
fn a_new_topic_is_dealt_without_moving_the_old_one() {
    let mut log = cooperative(2);
    let topics = [TOPIC.into(), "later".into()];
    let mut one = Reader::join(&mut log, NOW, GROUP, &"one".into(), &topics);
    assert_eq!(one.poll(&mut log, NOW, 1), Some(Polled::Assigned(partitions(0..2))));
    let spec = ports::TopicSpec { name: "later".into(), partitions: 1 };
    log.declare(NOW, &spec).expect("a new topic");
    let later = Partition { topic: "later".into(), index: 0 };
    assert_eq!(one.poll(&mut log, NOW, 1), None);
    assert_eq!(one.poll(&mut log, NOW, 1), Some(Polled::Assigned(vec![later])));
    assert_eq!(one.held().len(), 3);
}
