//! Cases on who is a member and what moves: K22, K23, K25 and K27.

use ports::{Fault, Offsets, Partition, Polled};

use super::{
    Apart, Groups, LogBackend, assigned, join_group, poll, produce, produce_orders, read, record,
};
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
    // Its next polls tell it, one after the other; or that only a new member helps.
    let mut gone = Vec::new();
    while gone.len() < held.len() {
        match one.poll(100).await {
            Ok(Polled::Revoked(revoked)) => {
                one.release(revoked.clone()).await;
                gone.extend(revoked);
            }
            Ok(Polled::Lost(lost)) => gone.extend(lost),
            Ok(Polled::Records(none)) => assert_eq!(none, []),
            Ok(Polled::Assigned(again)) => panic!("it has {again:?} before it lost {held:?}"),
            Err(Fault::Retry(_)) => {}
            Err(_) => {
                one = join_group(&*log, &group, &topic).await;
                break;
            }
        }
    }
    assert_eq!(assigned(&mut one).await, held, "and it is a member again");
    assert_eq!(read(&mut one, 16).await.len(), 16, "from where the group stands");
    one.close().await;
    Ok(())
}

/// A link that is silent, so that nobody says that it is gone.
pub(super) async fn without_the_coordinator(backend: &dyn LogBackend) -> Observed {
    let Apart { client, group, topic, coordinator } = backend.apart().await?;
    let (runtime, session) = (backend.runtime(), backend.session_timeout());
    let other = backend.client("other").await;
    let mut one = join_group(&*client, &group, &topic).await;
    let held = assigned(&mut one).await;
    produce_orders(&*other, &topic, 1).await;
    read(&mut one, 1).await;
    let first = Offsets::from([(held[0].clone(), 1)]);
    assert_eq!(one.commit(&first).await, Ok(()), "as long as it is there");
    coordinator.silence();
    let begun = runtime.elapsed();
    let (mut written, mut found, mut lost) = (1, 1, false);
    let by_members = backend.groups() == Groups::LedByMembers;
    while !lost && runtime.elapsed() - begun < 2 * session {
        runtime.sleep(backend.heartbeat() / 10).await;
        if found == written {
            produce(&*other, vec![record(&topic, "order-0", written)]).await;
            written += 1;
        }
        match one.poll(100).await {
            Ok(Polled::Records(records)) => found += records.len(),
            Ok(Polled::Lost(all)) => {
                assert_eq!(all, held);
                lost = true;
            }
            Ok(other) => panic!("nobody told it {other:?}"),
            Err(Fault::Retry(_)) => {}
            Err(fault) => panic!("a poll failed: {fault}"),
        }
    }
    assert!(written > 2, "it read on");
    assert_eq!(lost, by_members, "led by the brokers, it reads on also behind its session");
    let late = Offsets::from([(held[0].clone(), 2)]);
    assert!(one.commit(&late).await.is_err(), "nobody took it");
    let committed = other.committed(&group, std::slice::from_ref(&topic)).await;
    assert_eq!(committed, Ok(first), "unchanged");
    one.close().await;
    Ok(())
}
