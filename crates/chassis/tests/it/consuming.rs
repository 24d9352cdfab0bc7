//! Positions, epochs and offsets: nothing twice, nothing lost, whoever owns the partition.

use ports::{Fault, Op, Row, Rows};
use shakedown_chassis::{Document, POSITIONS, Position};

use crate::faults::{Act, Call, retry};
use crate::world::{World, add, partition, run};

async fn set_position(world: &World, topic: &str, position: Position) {
    let key: ports::Key = format!("{topic}|0").into();
    let version = world.store.with(|db| db.row(&POSITIONS, &key).map_or(0, |row| row.version));
    let body = serde_json::to_string(&position).unwrap();
    let row = Row { version, index: position.index(), body };
    world.transact(vec![Op::Put { table: &POSITIONS, rows: Rows::from_iter([(key, row)]) }]).await;
}

/// Somebody else claims a partition: its epoch rises.
pub async fn claimed_elsewhere(world: &World, topic: &str) {
    let position = world.row::<Position>(&format!("{topic}|0")).unwrap_or_default();
    let (epoch, claims) = (position.epoch + 1, position.claims + 1);
    set_position(world, topic, Position { epoch, claims, ..position }).await;
}

fn claims(call: &Call) -> bool {
    matches!(call, Call::Begin(ops)
        if matches!(*ops, [Op::Lock { table, .. }] if *table == &POSITIONS))
}

#[test]
fn a_rightful_owner_fenced_by_a_late_claim_claims_again_and_goes_on() {
    run(|world| async move {
        let _node = world.consumer("c-0").await;
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.sleep(10).await;
        claimed_elsewhere(&world, "in").await;
        // The last record for a long time: nothing that comes later may be needed.
        world.produce(vec![add("in", "e-2", "a", 1)]).await;
        world.sleep(60).await;
        assert_eq!(world.trail("a"), ["e-1", "e-2"]);
        assert_eq!((world.position("in"), world.offset("in")), ((3, Some(2)), Some(2)));
    });
}

#[test]
fn a_fence_before_the_first_record_loses_nothing() {
    run(|world| async move {
        let _node = world.consumer("c-0").await;
        world.sleep(10).await;
        assert_eq!(world.position("in"), (1, None));
        claimed_elsewhere(&world, "in").await;
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.sleep(10).await;
        world.produce(vec![add("in", "e-2", "a", 1)]).await;
        world.sleep(60).await;
        assert_eq!(world.trail("a"), ["e-1", "e-2"]);
    });
}

#[test]
fn fenced_records_leave_no_inbox_rows_beside_others() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        world.sleep(10).await;
        claimed_elsewhere(&world, "in").await;
        // The claim that would follow waits, so that only the batch itself is seen.
        node.faults.set(|call| if claims(call) { Act::Hang } else { Act::Pass });
        world.produce(vec![add("in", "e-1", "a", 1), add("other", "e-2", "b", 1)]).await;
        world.sleep(10).await;
        assert_eq!(world.trail("b"), ["e-2"]);
        assert_eq!(world.trail("a"), Vec::<String>::new());
        assert_eq!(world.inbox_rows(), ["e-2"], "a fenced record was not handled");
    });
}

#[test]
fn a_zombie_is_fenced_and_its_records_are_applied_by_the_new_owner() {
    run(|world| async move {
        let zombie = world.consumer("c-0").await;
        world.sleep(10).await;
        // Its batches wait longer than the group does.
        let mut once = true;
        zombie.faults.set(move |call| match call {
            Call::Begin(ops) if once && ops.len() > 2 => {
                once = false;
                Act::Slow(std::time::Duration::from_secs(400))
            }
            _ => Act::Pass,
        });
        world.produce(vec![add("in", "e-1", "a", 1), add("other", "e-2", "b", 1)]).await;
        world.sleep(1).await;
        let _heir = world.consumer("c-1").await;
        world.sleep(350).await;
        assert_eq!((world.trail("a"), world.trail("b")), (vec!["e-1".into()], vec!["e-2".into()]));
        let positions = (world.position("in"), world.position("other"));
        assert_eq!(positions, ((2, Some(1)), (2, Some(1))));
        world.sleep(600).await;
        assert_eq!((world.trail("a"), world.trail("b")), (vec!["e-1".into()], vec!["e-2".into()]));
        world.produce(vec![add("in", "e-3", "a", 1), add("other", "e-4", "b", 1)]).await;
        world.sleep(60).await;
        assert_eq!(world.counter("a").value + world.counter("b").value, 4);
        assert_eq!((world.offset("in"), world.offset("other")), (Some(2), Some(2)));
    });
}

#[test]
fn a_log_that_lost_what_was_handled_is_read_from_its_beginning() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        // Of the log that was: its records are gone, its positions are not.
        set_position(&world, "in", Position { next: Some(500), ..Default::default() }).await;
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        node.app.consume(vec!["in".into()]);
        world.sleep(10).await;
        assert_eq!((world.trail("a"), world.position("in")), (vec!["e-1".into()], (1, Some(1))));
        world.produce(vec![add("in", "e-2", "a", 1), add("in", "e-1", "a", 1)]).await;
        world.sleep(10).await;
        assert_eq!(world.trail("a"), ["e-1", "e-2"], "what the inbox knows has no second effect");
        assert_eq!((world.position("in"), world.offset("in")), ((1, Some(3)), Some(3)));
    });
}

#[test]
fn what_is_read_anew_waits_until_its_position_is_put_back() {
    run(|world| async move {
        let node = world.bare("c-0", |_| ()).await;
        set_position(&world, "in", Position { next: Some(500), ..Default::default() }).await;
        node.app.consume(vec!["in".into()]);
        world.sleep(10).await;
        node.faults.set(|call| match call {
            Call::Commit(ops) if matches!(*ops, [Op::Put { table, .. }] if *table == &POSITIONS) => retry(),
            _ => Act::Pass,
        });
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.sleep(100).await;
        assert_eq!(world.trail("a"), Vec::<String>::new());
        node.faults.clear();
        world.sleep(60).await;
        assert_eq!((world.trail("a"), world.offset("in")), (vec!["e-1".into()], Some(1)));
    });
}

#[test]
fn a_claim_that_fails_for_long_loses_no_record() {
    run(|world| async move {
        world.produce(vec![add("in", "e-1", "a", 1), add("other", "e-2", "b", 1)]).await;
        let node = world.bare("c-0", |_| ()).await;
        node.faults.set(|call| if claims(call) { retry() } else { Act::Pass });
        node.app.consume(vec!["in".into(), "other".into()]);
        world.sleep(100).await;
        node.faults.clear();
        // No new record comes to wake anybody.
        world.sleep(60).await;
        assert_eq!((world.trail("a"), world.trail("b")), (vec!["e-1".into()], vec!["e-2".into()]));
        assert_eq!((world.offset("in"), world.offset("other")), (Some(1), Some(1)));
    });
}

#[test]
fn a_claim_of_one_partition_keeps_the_records_of_the_other() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        world.sleep(10).await;
        claimed_elsewhere(&world, "in").await;
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        // While the claim fails, `other`, which has no position yet, goes on.
        node.faults.set(|call| if claims(call) { retry() } else { Act::Pass });
        world.sleep(1).await;
        world.produce(vec![add("in", "e-2", "a", 1), add("other", "e-3", "b", 1)]).await;
        world.sleep(100).await;
        assert_eq!(world.trail("b"), ["e-3"]);
        node.faults.clear();
        world.sleep(60).await;
        assert_eq!(
            (world.trail("a"), world.trail("b")),
            (vec!["e-1".into(), "e-2".into()], vec!["e-3".into()])
        );
    });
}

#[test]
fn a_seek_that_fails_loses_no_record() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        world.sleep(10).await;
        claimed_elsewhere(&world, "in").await;
        let mut left = 2;
        node.faults.set(move |call| match call {
            Call::Seek if left > 0 => {
                left -= 1;
                retry()
            }
            _ => Act::Pass,
        });
        for (at, id) in ["e-1", "e-2", "e-3"].into_iter().enumerate() {
            world.produce(vec![add("in", id, "a", 1)]).await;
            world.sleep(1 + at as u64).await;
        }
        world.sleep(60).await;
        assert_eq!(world.trail("a"), ["e-1", "e-2", "e-3"]);
    });
}

#[test]
fn an_unknown_claim_is_repeated_under_a_higher_epoch() {
    run(|world| async move {
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        let node = world.bare("c-0", |_| ()).await;
        let mut left = 1;
        node.faults.set(move |call| match call {
            Call::Commit(_) if left > 0 => {
                left -= 1;
                Act::Lost
            }
            _ => Act::Pass,
        });
        node.app.consume(vec!["in".into()]);
        world.sleep(10).await;
        assert_eq!(world.position("in"), (2, Some(1)));
        assert_eq!(world.trail("a"), ["e-1"]);
    });
}

#[test]
fn records_below_the_position_are_skipped() {
    run(|world| async move {
        let _node = world.consumer("c-0").await;
        world.sleep(10).await;
        set_position(&world, "in", Position { epoch: 1, next: Some(2), ..Default::default() })
            .await;
        world.produce((1..=3).map(|n| add("in", &format!("e-{n}"), "a", 1)).collect()).await;
        world.sleep(10).await;
        assert_eq!(world.trail("a"), ["e-3"]);
        assert_eq!(world.inbox_rows(), ["e-3"]);
        assert_eq!((world.position("in"), world.offset("in")), ((1, Some(3)), Some(3)));
    });
}

#[test]
fn the_offset_is_committed_on_claim() {
    run(|world| async move {
        let first = world.consumer("c-0").await;
        world.sleep(5).await;
        // It dies between its transaction and its offset.
        first.faults.set(|call| match call {
            Call::Offsets => Act::Hang,
            _ => Act::Pass,
        });
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.sleep(5).await;
        assert_eq!((world.position("in"), world.offset("in")), ((1, Some(1)), None));
        let _heir = world.consumer("c-1").await;
        world.sleep(400).await;
        assert_eq!(world.offset("in"), Some(1));
        assert_eq!(world.trail("a"), ["e-1"]);
    });
}

#[test]
fn an_offset_commit_that_fails_is_made_later() {
    for act in [retry(), Act::Fail(Fault::unknown("lost")), Act::Lost] {
        run(move |world| async move {
            let node = world.consumer("c-0").await;
            world.sleep(5).await;
            let mut left = 3;
            node.faults.set(move |call| match call {
                Call::Offsets if left > 0 => {
                    left -= 1;
                    act.clone()
                }
                _ => Act::Pass,
            });
            world.produce(vec![add("in", "e-1", "a", 1)]).await;
            world.sleep(10).await;
            assert_eq!(world.offset("in"), Some(1));
        });
    }
}

#[test]
fn a_refused_offset_commit_is_made_with_the_next_record() {
    run(|world| async move {
        let node = world.consumer("c-0").await;
        world.sleep(5).await;
        let mut left = 1;
        node.faults.set(move |call| match call {
            Call::Offsets if left > 0 => {
                left -= 1;
                Act::Fail(Fault::refused("ILLEGAL_GENERATION"))
            }
            _ => Act::Pass,
        });
        world.produce(vec![add("in", "e-1", "a", 1)]).await;
        world.sleep(10).await;
        assert_eq!(world.trail("a"), ["e-1"]);
        world.produce(vec![add("in", "e-2", "a", 1)]).await;
        world.sleep(10).await;
        assert_eq!(world.offset("in"), Some(2));
    });
}

#[test]
fn two_members_hand_partitions_over_without_loss_or_repeat() {
    run(|world| async move {
        let _one = world.consumer("c-0").await;
        for n in 0..20 {
            let (to, key) = if n % 2 == 0 { ("in", "a") } else { ("other", "b") };
            world.produce(vec![add(to, &format!("e-{n}"), key, 1)]).await;
            if n == 7 {
                let two = world.consumer("c-1").await;
                let leave = async move {
                    let (commands, stop) = (two.commands.clone(), two.stop());
                    commands.runtime().sleep(std::time::Duration::from_secs(8)).await;
                    stop.ask();
                    stop.ended().await;
                };
                ports::Runtime::spawn(&world.runtime, "leave", Box::pin(leave));
            }
            world.sleep(1).await;
        }
        world.sleep(60).await;
        let even: Vec<_> = (0..20).step_by(2).map(|n| format!("e-{n}")).collect();
        let odd: Vec<_> = (1..20).step_by(2).map(|n| format!("e-{n}")).collect();
        assert_eq!((world.trail("a"), world.trail("b")), (even, odd));
        let owners = world.log.with(|log| log.owners(crate::world::GROUP));
        assert_eq!(&*owners[&partition("in")].1, "c-0");
        assert_eq!((world.offset("in"), world.offset("other")), (Some(10), Some(10)));
    });
}
