//! Queues on a real server, at SHAKEDOWN_RABBIT. Without that address the tests say so and pass, unless
//! SHAKEDOWN_REQUIRE_SERVERS=1. Their queues stay behind, empty: nothing here deletes one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ports::{JobQueue, QueueSpec};
use shakedown_rabbit::{FoundQueue, Queue, Rabbit, Server};

fn url() -> Option<String> {
    let url = std::env::var("SHAKEDOWN_RABBIT").ok().filter(|url| !url.is_empty());
    if url.is_none() {
        let required = std::env::var("SHAKEDOWN_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
        assert!(!required, "SHAKEDOWN_REQUIRE_SERVERS=1 wants SHAKEDOWN_RABBIT");
        eprintln!("not run: SHAKEDOWN_RABBIT is not set");
    }
    url
}

#[expect(clippy::disallowed_methods, reason = "a name that no other run has")]
fn spec() -> QueueSpec {
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    let name = format!("topology.{now_us}");
    let dead_letters = Some(format!("{name}.dead").into());
    QueueSpec { name: name.into(), delivery_limit: 10, dead_letters }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_looked_at_and_never_made() {
    let Some(url) = url() else { return };
    let rabbit = Rabbit::connect(&url).await.unwrap();
    let spec = spec();
    let queues = Queue::of(&spec);
    for _ in 0..2 {
        for queue in &queues {
            assert_eq!(rabbit.find(queue).await, Ok(FoundQueue::Missing));
        }
    }
    rabbit.declare(&spec).await.unwrap();
    for queue in &queues {
        assert_eq!(rabbit.find(queue).await, Ok(FoundQueue::Exists(vec![])));
    }
    let other = QueueSpec { delivery_limit: 7, dead_letters: Some("elsewhere".into()), ..spec };
    let Ok(FoundQueue::Exists(found)) = rabbit.find(&Queue::of(&other)[1]).await else {
        panic!("it exists")
    };
    let mut said: Vec<String> = found
        .iter()
        .map(|difference| {
            format!("{} {} {}", difference.argument, difference.wanted, difference.found)
        })
        .collect();
    said.sort();
    let dead = format!("x-dead-letter-routing-key elsewhere {}.dead", other.name);
    assert_eq!(said, [dead.as_str(), "x-delivery-limit 7 10"], "all of them, not the first alone");
    // And looking has changed nothing.
    assert_eq!(rabbit.find(&queues[1]).await, Ok(FoundQueue::Exists(vec![])));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_says_who_it_is() {
    let Some(url) = url() else { return };
    let limit = Duration::from_secs(5);
    let server = Server::ask(&url, limit).await.unwrap();
    assert_eq!(server.product, "RabbitMQ");
    assert!(server.release().is_some_and(|release| release >= (3, 10)), "{server:?}");
    assert!(Server::ask("amqp://127.0.0.1:9", limit).await.is_err());
}
