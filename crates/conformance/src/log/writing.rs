//! Cases on what becomes of a batch: K2, K4 to K8, K11 and K13.

use std::time::Duration;

use futures_util::future::{Either, select};
use ports::{Fault, Record, TopicSpec};

use super::{
    Appended, HOMES, LogBackend, Lost, Sent, assigned, join_group, produce, read, record,
    watermarks,
};
use crate::Observed;

/// Long enough for a client to try again more than once.
const TRIES: Duration = Duration::from_secs(1);

pub(super) async fn the_count_stays(backend: &dyn LogBackend) -> Observed {
    let (six, four) = (backend.topic(6).await, backend.topic(4).await);
    let log = backend.client("one").await;
    let spec = |partitions| TopicSpec { name: six.clone(), partitions };
    assert_eq!(log.declare(&[spec(6)]).await, Ok(()), "as it is");
    for other in [5, 7] {
        let refused = log.declare(&[spec(other)]).await;
        assert!(matches!(refused, Err(Fault::Refused(_))), "{other}: {refused:?}");
    }
    assert_eq!(watermarks(&*log, &six).await.len(), 6, "nothing has changed");
    // The same keys in both: of four partitions another one is a key's.
    for topic in [&six, &four] {
        produce(&*log, HOMES.iter().map(|(key, _)| record(topic, key, 0)).collect()).await;
    }
    let mut consumer = join_group(&*log, &format!("{four}.readers"), &four).await;
    assigned(&mut consumer).await;
    let moved = read(&mut consumer, HOMES.len()).await.into_iter().filter(|fetched| {
        HOMES
            .iter()
            .any(|(key, of_six)| **key == *fetched.record.key && *of_six != fetched.partition.index)
    });
    assert!(moved.count() > HOMES.len() / 2, "most keys are elsewhere");
    consumer.close().await;
    Ok(())
}

/// The records of a topic of one partition, from the first to the last.
async fn all(backend: &dyn LogBackend, topic: &std::sync::Arc<str>) -> Vec<(i64, Record)> {
    let log = backend.client("reader").await;
    let high = watermarks(&*log, topic).await.into_values().next().unwrap().1;
    let mut consumer = join_group(&*log, &format!("{topic}.readers"), topic).await;
    assigned(&mut consumer).await;
    let found = read(&mut consumer, high as usize).await;
    consumer.close().await;
    found.into_iter().map(|fetched| (fetched.offset, fetched.record)).collect()
}

pub(super) async fn the_leader_is_lost(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let log = backend.client("one").await;
    let records: Vec<Record> = (0..20).map(|n| record(&topic, "order-0", n)).collect();
    produce(&*log, records[..10].to_vec()).await;
    backend.kill_the_leader(&topic).await?;
    for after in &records[10..] {
        produce(&*log, vec![after.clone()]).await;
    }
    let found: Vec<Record> = all(backend, &topic).await.into_iter().map(|it| it.1).collect();
    assert_eq!(found, records, "all that was confirmed, once, in order");
    Ok(())
}

pub(super) async fn without_idempotence_twice(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let sent = record(&topic, "order-0", 1);
    backend.resend_without_idempotence(vec![sent.clone()]).await?;
    assert_eq!(
        all(backend, &topic).await,
        [(0, sent.clone()), (1, sent)],
        "at offsets of their own"
    );
    Ok(())
}

pub(super) async fn sent_again_it_is_there_once(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let batch: Vec<Record> = (0..5).map(|n| record(&topic, "order-0", n)).collect();
    let outcomes = backend.break_before_the_answer(batch.clone()).await?;
    assert_eq!(outcomes, vec![Ok(()); 5], "it heard in the end");
    let found: Vec<Record> = all(backend, &topic).await.into_iter().map(|it| it.1).collect();
    assert_eq!(found, batch, "each once, in their order");
    Ok(())
}

pub(super) async fn the_last_five_are_known(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let producer = backend.producer_id().await?;
    let sent = |sequence| Sent { producer, epoch: 0, sequence };
    let payload = |sequence: i32| record(&topic, "order-0", sequence as usize);
    for sequence in 0..7 {
        let answer = backend.send(sent(sequence), payload(sequence)).await?;
        assert_eq!(answer, Appended::At(sequence.into()));
    }
    for again in 2..7 {
        let answer = backend.send(sent(again), payload(again)).await?;
        assert_eq!(answer, Appended::At(again.into()), "where it stands, once more");
    }
    for forgotten in 0..2 {
        let answer = backend.send(sent(forgotten), payload(forgotten)).await?;
        assert_eq!(answer, Appended::OutOfOrder, "older, it is not known and not written either");
    }
    let log = backend.client("reader").await;
    assert_eq!(watermarks(&*log, &topic).await.into_values().next(), Some((0, 7)));
    Ok(())
}

pub(super) async fn a_duplicate_is_confirmed(backend: &dyn LogBackend) -> Observed {
    let (log, topic) = backend.answers_as_a_duplicate().await?;
    assert_eq!(log.produce(vec![record(&topic, "order-0", 0)]).await, [Ok(())]);
    // Whether that was the answer shows in that nothing is there.
    assert_eq!(watermarks(&*log, &topic).await.into_values().next(), Some((0, 0)));
    Ok(())
}

pub(super) async fn a_gap_is_refused(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic(1).await;
    let producer = backend.producer_id().await?;
    let sent = |epoch, sequence| Sent { producer, epoch, sequence };
    let send = |sent| backend.send(sent, record(&topic, "order-0", 0));
    assert_eq!(send(sent(0, 0)).await?, Appended::At(0));
    assert_eq!(send(sent(0, 2)).await?, Appended::OutOfOrder, "1 is missing");
    assert_eq!(send(sent(0, 1)).await?, Appended::At(1), "it was not written");
    assert_eq!(send(sent(1, 2)).await?, Appended::OutOfOrder, "a new epoch begins at 0");
    assert_eq!(send(sent(1, 0)).await?, Appended::At(2));
    Ok(())
}

pub(super) async fn late_is_unknown(backend: &dyn LogBackend) -> Observed {
    for (lost, there) in [(Lost::Replies, true), (Lost::Requests, false)] {
        let topic = backend.topic(1).await;
        let batch = |range: std::ops::Range<usize>| -> Vec<Record> {
            range.map(|n| record(&topic, "order-0", n)).collect()
        };
        let outcomes = backend.lose_until_late(lost, batch(0..3), batch(3..5)).await?;
        for outcome in &outcomes[0] {
            assert!(matches!(outcome, Err(Fault::Unknown(_))), "{lost:?} lost: {outcome:?}");
        }
        assert_eq!(outcomes[1], [Ok(()), Ok(())], "{lost:?} lost: what follows goes");
        let found: Vec<Record> = all(backend, &topic).await.into_iter().map(|it| it.1).collect();
        let expected = if there { batch(0..5) } else { batch(3..5) };
        assert_eq!(found, expected, "{lost:?} lost");
    }
    Ok(())
}

pub(super) async fn short_of_replicas(backend: &dyn LogBackend) -> Observed {
    let topic = backend.topic_short_of_replicas().await?;
    let log = backend.client("one").await;
    let refused = record(&topic, "order-0", 0);
    let meanwhile = async {
        backend.runtime().sleep(TRIES).await;
        backend.produce_to_the_leader(record(&topic, "order-1", 0)).await
    };
    let producing = log.produce(vec![refused.clone()]);
    let outcomes = match select(producing, Box::pin(meanwhile)).await {
        Either::Left((outcomes, _)) => panic!("short of replicas, and yet {outcomes:?}"),
        Either::Right((by_the_leader, producing)) => {
            assert_eq!(by_the_leader?, Ok(()), "the leader alone takes it");
            backend.enough_replicas(&topic).await?;
            producing.await
        }
    };
    assert_eq!(outcomes, [Ok(())], "the client's own tries get there");
    let found = all(backend, &topic).await;
    assert_eq!(found.iter().filter(|(_, record)| *record == refused).count(), 1, "{found:?}");
    assert_eq!(found.len(), 2);
    Ok(())
}
