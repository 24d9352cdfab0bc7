//! Cases on which commits count: K17 to K21.

use std::time::Duration;

use ports::{EventLog, Offsets, Partition};

use super::{Committed, Groups, LogBackend, Who, assigned, join_group, produce_orders, read};
use crate::{NotApplicable, Observed};

/// More than the time between two commits of the client library in the background.
const BACKGROUND: Duration = Duration::from_millis(5_500);

/// What the group has committed for the topic's partition 0.
async fn committed(log: &dyn EventLog, group: &str, first: &Partition) -> Option<i64> {
    let found = log.committed(group, std::slice::from_ref(&first.topic)).await.unwrap();
    found.get(first).copied()
}

pub(super) async fn stored_below_is_not_committed(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let group = format!("{topic}.group");
    let log = backend.client("one").await;
    produce_orders(&*log, &topic, 10).await;
    let first = Partition { topic: topic.clone(), index: 0 };
    let rounds: [&[i64]; 4] = [&[6], &[3], &[9, 7], &[8, 7]];
    let found = backend.store_offsets(&group, &first, &rounds).await?;
    // Of several between two commits the last one counts.
    assert_eq!(found, [Some(6), Some(6), Some(7), Some(7)]);
    Ok(())
}

pub(super) async fn reading_commits_nothing(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let group = format!("{topic}.group");
    let log = backend.client("one").await;
    produce_orders(&*log, &topic, 10).await;
    let first = Partition { topic: topic.clone(), index: 0 };
    let mut one = join_group(&*log, &group, &topic).await;
    assigned(&mut one).await;
    read(&mut one, 10).await;
    backend.runtime().sleep(BACKGROUND).await;
    assert_eq!(committed(&*log, &group, &first).await, None, "none in the background");
    one.close().await;
    assert_eq!(committed(&*log, &group, &first).await, None, "none with the goodbye");
    let mut two = join_group(&*log, &group, &topic).await;
    assigned(&mut two).await;
    assert_eq!(read(&mut two, 10).await[0].offset, 0, "all of it is read again");
    two.close().await;
    Ok(())
}

pub(super) async fn defaults_commit(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let group = format!("{topic}.group");
    let log = backend.client("one").await;
    produce_orders(&*log, &topic, 10).await;
    backend.read_by_default(&group, &topic, 10).await?;
    let first = Partition { topic: topic.clone(), index: 0 };
    // Nobody said that they were handled.
    assert_eq!(committed(&*log, &group, &first).await, Some(10));
    Ok(())
}

/// Offsets to commit, one after the other, each with who commits it and the answer; only what is taken
/// changes anything.
async fn answers(
    backend: &dyn LogBackend,
    synced: &[(Who, Committed)],
    joining: &[(Who, Committed)],
    left: &[(Who, Committed)],
) -> Observed {
    let topic = backend.topic(1).await;
    let group = format!("{topic}.group");
    let log = backend.client("one").await;
    produce_orders(&*log, &topic, 20).await;
    let mut member = backend.bare_member(&group, &topic).await?;
    let first = Partition { topic: topic.clone(), index: 0 };
    let (mut next, mut taken) = (0, None);
    for (state, expected) in [("joining", joining), ("synced", synced), ("left", left)] {
        match state {
            "synced" => member.sync().await,
            "left" => member.leave().await,
            _ => {}
        }
        for (who, expected) in expected {
            next += 1;
            let answer = member.commit(*who, &Offsets::from([(first.clone(), next)])).await;
            assert_eq!(answer, *expected, "{who:?}, {state}");
            if answer == Committed::Taken {
                taken = Some(next);
            }
            assert_eq!(committed(&*log, &group, &first).await, taken, "{who:?}, {state}");
        }
    }
    Ok(())
}

pub(super) async fn fenced_by_generation(backend: &dyn LogBackend) -> Observed {
    if backend.groups() == Groups::LedByBrokers {
        return Err(NotApplicable("its groups have epochs (K21)").into());
    }
    let joining = [(Who::Member, Committed::RebalanceInProgress)];
    let synced = [
        (Who::Member, Committed::Taken),
        (Who::MemberBefore, Committed::IllegalGeneration),
        (Who::Stranger, Committed::UnknownMember),
        (Who::Member, Committed::Taken),
    ];
    let left = [(Who::Member, Committed::UnknownMember)];
    answers(backend, &synced, &joining, &left).await
}

pub(super) async fn fenced_by_epoch(backend: &dyn LogBackend) -> Observed {
    if backend.groups() == Groups::LedByMembers {
        return Err(NotApplicable("its groups have generations (K19)").into());
    }
    let synced = [
        (Who::Member, Committed::Taken),
        (Who::MemberBefore, Committed::StaleEpoch),
        (Who::Stranger, Committed::UnknownMember),
        (Who::Member, Committed::Taken),
    ];
    let left = [(Who::Member, Committed::UnknownMember)];
    answers(backend, &synced, &[], &left).await
}

pub(super) async fn nobody_commits(backend: &dyn LogBackend) -> Observed {
    backend.knows_nobody()?;
    let synced = [(Who::Member, Committed::Taken), (Who::Nobody, Committed::UnknownMember)];
    let left = [(Who::Nobody, Committed::Taken)];
    answers(backend, &synced, &[], &left).await
}
