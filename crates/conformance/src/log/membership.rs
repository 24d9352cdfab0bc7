//! Cases on who is a member and what moves: K22, K23 and K25.

use ports::{Fault, Offsets, Partition, Polled};

use super::{LogBackend, assigned, join_group, poll, produce_orders, read};
use crate::Observed;

pub(super) async fn only_what_is_held_is_committed(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let group = format!("{topic}.group");
    let log = backend.client("one").await;
    produce_orders(&*log, &topic, 4).await;
    let mut consumer = join_group(&*log, &group, &topic).await;
    let held = assigned(&mut consumer).await.remove(0);
    read(&mut consumer, 4).await;
    let foreign = Partition { topic: topic.clone(), index: 7 };
    let both = Offsets::from([(held.clone(), 4), (foreign.clone(), 1)]);
    let refused = consumer.commit(&both).await;
    assert!(matches!(refused, Err(Fault::Refused(_))), "{refused:?}");
    let committed = log.committed(&group, std::slice::from_ref(&topic)).await;
    assert_eq!(committed, Ok(Offsets::new()), "all or nothing");
    let sought = consumer.seek(&Offsets::from([(foreign, 0)])).await;
    assert!(matches!(sought, Err(Fault::Refused(_))), "{sought:?}");
    assert_eq!(consumer.commit(&Offsets::from([(held, 4)])).await, Ok(()), "it is still a member");
    consumer.close().await;
    Ok(())
}

pub(super) async fn only_what_moves_is_revoked(backend: &dyn LogBackend) -> Observed {
    backend.keeps_time()?;
    let topic = backend.topic(4).await;
    let group = format!("{topic}.group");
    let (log, other) = (backend.client("one").await, backend.client("two").await);
    let mut one = join_group(&*log, &group, &topic).await;
    assert_eq!(assigned(&mut one).await.len(), 4);
    let mut two = join_group(&*other, &group, &topic).await;
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    while come.len() < 2 {
        match poll(&mut one).await {
            Polled::Revoked(revoked) => {
                // Until they are released they are not the other's.
                assert!(come.is_empty(), "both own {come:?}");
                one.release(revoked.clone()).await;
                gone.extend(revoked);
            }
            Polled::Records(none) => assert_eq!(none, []),
            other => panic!("nothing else changes for the first member, but {other:?}"),
        }
        match poll(&mut two).await {
            Polled::Assigned(partitions) => come.extend(partitions),
            Polled::Records(none) => assert_eq!(none, []),
            other => panic!("nobody takes anything from the newest, but {other:?}"),
        }
    }
    gone.sort();
    come.sort();
    assert_eq!((gone.len(), &gone), (2, &come), "half of them, and no others");
    // What it lost it cannot commit any more, what it kept it can.
    let late = one.commit(&Offsets::from([(gone[0].clone(), 0)])).await;
    assert!(matches!(late, Err(Fault::Refused(_))), "{late:?}");
    two.close().await;
    one.close().await;
    Ok(())
}

/// Its heartbeats go on meanwhile: the poll interval is longer than the session.
pub(super) async fn who_does_not_poll_is_out(backend: &dyn LogBackend) -> Observed {
    backend.keeps_time()?;
    let topic = backend.topic(2).await;
    let group = format!("{topic}.group");
    let (log, other) = (backend.client("one").await, backend.client("two").await);
    produce_orders(&*log, &topic, 16).await;
    let mut one = join_group(&*log, &group, &topic).await;
    let held = assigned(&mut one).await;
    read(&mut one, 16).await;
    let (begun, limit) = (backend.runtime().elapsed(), backend.max_poll_interval());
    let mut two = join_group(&*other, &group, &topic).await;
    assert_eq!(assigned(&mut two).await, held, "all of it moves, and none before");
    let took = backend.runtime().elapsed() - begun;
    assert!(took + 2 * backend.heartbeat() >= limit, "after {took:?} of {limit:?}");
    assert!(took < limit + backend.session_timeout(), "only after {took:?} of {limit:?}");
    // It has not heard of it, and its commit changes nothing, also where nobody else is left (K20).
    let late: Offsets = held.iter().map(|partition| (partition.clone(), 1)).collect();
    let refused = one.commit(&late).await;
    assert!(matches!(refused, Err(Fault::Refused(_))), "{refused:?}");
    two.close().await;
    let refused = one.commit(&late).await;
    assert!(matches!(refused, Err(Fault::Refused(_))), "{refused:?}");
    let committed = log.committed(&group, std::slice::from_ref(&topic)).await;
    assert_eq!(committed, Ok(Offsets::new()), "unchanged");
    let told = loop {
        match poll(&mut one).await {
            Polled::Records(none) => assert_eq!(none, []),
            told => break told,
        }
    };
    assert_eq!(told, Polled::Lost(held.clone()), "its next poll tells it");
    assert_eq!(assigned(&mut one).await, held, "and it is a member again");
    one.close().await;
    Ok(())
}
