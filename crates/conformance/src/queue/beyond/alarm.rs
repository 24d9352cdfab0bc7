//! R30: a server that is short of memory.

use ports::timeout;

use crate::Observed;
use crate::queue::{
    PATIENCE, QUIET, QueueBackend, batch, declared, keys, publish, ready, tags, take,
};

pub(in crate::queue) async fn an_alarm_stalls_publishers_alone(
    backend: &dyn QueueBackend,
) -> Observed {
    let (queue, client) = declared(backend).await;
    publish(&*client, batch(&queue, 2)).await;
    let mut channel = client.consume(&queue, 1).await.unwrap();
    let first = take(backend, &mut channel, 1).await;
    backend.alarm(true).await?;
    // The server stops to read behind the first publish that it meets.
    let early = client.publish(batch(&queue, 1));
    let early = timeout(backend.runtime(), QUIET * 3, early).await;
    let mut late = client.publish(batch(&queue, 1));
    let answer = timeout(backend.runtime(), QUIET * 3, late.as_mut()).await;
    // Whoever consumes goes on, or the server would stay short.
    channel.settle(&tags(&first), &[]).await.unwrap();
    let second = take(backend, &mut channel, 1).await;
    backend.alarm(false).await?;
    assert!(early.is_none_or(|outcomes| outcomes == [Ok(())]));
    assert_eq!(answer, None, "neither confirmed nor failed");
    assert_eq!(keys(&second).len(), 1);
    assert_eq!(timeout(backend.runtime(), PATIENCE, late).await, Some(vec![Ok(())]), "once over");
    channel.settle(&tags(&second), &[]).await.unwrap();
    drop(channel);
    ready(backend, &*client, &queue, 2).await;
    Ok(())
}
