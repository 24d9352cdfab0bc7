//! Streams of changes: what they begin with, how they go on elsewhere, and when they end.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use contract::{Event, Line, OrderCreated, OrderId, ProductId, StockReserved};
use futures_util::StreamExt;
use model::virtual_time::VirtualTime;
use ports::{Runtime, timeout};
use serde_json::Value;
use shakedown_query::{Config, Follow};
use tower::ServiceExt;

use super::{World, story};

/// A client of a stream.
struct Client {
    runtime: VirtualTime,
    body: BodyDataStream,
    /// As a browser keeps it.
    last_id: Option<u64>,
}

impl Client {
    async fn open(world: &World, path: &str, after: Option<u64>) -> Result<Client, u16> {
        let mut request = Request::get(path);
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = world.router.clone().oneshot(request).await.unwrap();
        match response.status().as_u16() {
            200 => {
                let body = response.into_body().into_data_stream();
                Ok(Client { runtime: world.runtime.clone(), body, last_id: None })
            }
            status => Err(status),
        }
    }

    /// What comes within three seconds, as `order status`, or `:` for a heartbeat. `None`: its end.
    async fn next(&mut self) -> Option<Vec<String>> {
        let mut said = Vec::new();
        loop {
            let chunk = timeout(&self.runtime, Duration::from_secs(3), self.body.next()).await;
            let chunk = match chunk {
                None => return Some(said),
                Some(None) => return None,
                Some(Some(chunk)) => String::from_utf8(chunk.unwrap().to_vec()).unwrap(),
            };
            for block in chunk.split_terminator("\n\n") {
                for line in block.lines() {
                    match line.split_once(": ").unwrap_or((line, "")) {
                        ("id", id) => {
                            let id = id.parse().unwrap();
                            assert!(self.last_id.is_none_or(|last| last < id), "{block}");
                            self.last_id = Some(id);
                        }
                        ("data", json) => {
                            let json: Value = serde_json::from_str(json).unwrap();
                            let text = |name: &str| json[name].as_str().unwrap().to_owned();
                            said.push(format!("{} {}", text("orderId"), text("status")));
                        }
                        (":", _) => said.push(":".to_owned()),
                        _ => {}
                    }
                }
            }
        }
    }
}

fn run<F: Future<Output = ()> + Send + 'static>(
    config: Config,
    test: impl FnOnce(Vec<World>) -> F + Send + 'static,
) {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move { test(World::instances(runtime, config, 2).await).await });
}

fn placed(order: &str) -> Event {
    let order_id = OrderId::parse(order).unwrap();
    let product_id = ProductId::parse("p1").unwrap();
    let lines = vec![Line { product_id, qty: 1, unit_price: None }];
    let (cart_id, amount, currency, payment_mode) = (None, None, None, None);
    let created = OrderCreated { order_id, cart_id, lines, amount, currency, payment_mode };
    Event::OrderCreated(created)
}

fn reserved(order: &str) -> Event {
    Event::StockReserved(StockReserved { order_id: OrderId::parse(order).unwrap() })
}

#[test]
fn an_order_is_followed_from_before_it_is_known_to_its_end() {
    run(Config::default(), |worlds| async move {
        let mut client = Client::open(&worlds[0], "/orders/o1/events", None).await.unwrap();
        assert_eq!(client.next().await.unwrap(), [""; 0]);
        let mut seen = Vec::new();
        for event in story() {
            worlds[0].say(&event).await;
            seen.extend(client.next().await.unwrap().into_iter().filter(|said| said != ":"));
        }
        assert_eq!(seen, ["o1 placed", "o1 failing", "o1 failing", "o1 cancelled"]);
        let mut late = Client::open(&worlds[1], "/orders/o1/events", None).await.unwrap();
        assert_eq!(late.next().await.unwrap(), ["o1 cancelled"], "it begins with what is");
        let mut other = Client::open(&worlds[1], "/orders/o2/events", None).await.unwrap();
        assert_eq!(other.next().await.unwrap(), [""; 0]);
    });
}

#[test]
fn a_stream_goes_on_behind_its_cursor_on_another_instance() {
    run(Config::default(), |worlds| async move {
        worlds[0].say(&placed("a")).await;
        let mut client = Client::open(&worlds[0], "/orders/events", None).await.unwrap();
        assert_eq!(client.next().await.unwrap(), [""; 0], "it begins with the next change");
        assert_eq!(client.last_id, Some(1), "and has a cursor before that");
        worlds[0].say(&placed("b")).await;
        worlds[0].say(&placed("c")).await;
        assert_eq!(client.next().await.unwrap(), ["b placed", "c placed"]);
        let cursor = client.last_id;
        drop(client);
        worlds[0].say(&reserved("a")).await;
        worlds[0].say(&placed("d")).await;
        worlds[0].say(&reserved("d")).await;
        let mut client = Client::open(&worlds[1], "/orders/events", cursor).await.unwrap();
        let missed = ["a reserved", "d reserved"];
        assert_eq!(client.next().await.unwrap(), missed, "each as it is now");
        let mut all = Client::open(&worlds[1], "/orders/events", Some(0)).await.unwrap();
        let everything = ["b placed", "c placed", "a reserved", "d reserved"];
        assert_eq!(all.next().await.unwrap(), everything);
        let mut one = Client::open(&worlds[0], "/orders/a/events", cursor).await.unwrap();
        assert_eq!(one.next().await.unwrap(), ["a reserved"]);
        let mut none = Client::open(&worlds[0], "/orders/b/events", cursor).await.unwrap();
        assert_eq!(none.next().await.unwrap(), [""; 0]);
        for path in ["/orders/events", "/orders/a/events"] {
            let ahead = Client::open(&worlds[0], path, Some(1_000)).await;
            assert_eq!(ahead.err(), Some(422), "a cursor of another database");
        }
    });
}

#[test]
fn silence_is_broken_by_heartbeats() {
    run(Config::default(), |worlds| async move {
        let mut client = Client::open(&worlds[0], "/orders/events", None).await.unwrap();
        let (mut beats, begun) = (Vec::new(), worlds[0].runtime.elapsed());
        while beats.len() < 4 {
            beats.extend(client.next().await.unwrap());
        }
        assert_eq!(beats, [":"; 4]);
        let took = worlds[0].runtime.elapsed() - begun;
        assert!(took < Duration::from_secs(4 * 15 + 6), "{took:?} of virtual time");
    });
}

#[test]
fn streams_are_bounded_and_end_with_their_service() {
    let follow = Follow { streams_max: 2, ..Follow::default() };
    run(Config { follow, ..Config::default() }, |worlds| async move {
        let mut first = Client::open(&worlds[0], "/orders/events", None).await.unwrap();
        let second = Client::open(&worlds[0], "/orders/o1/events", None).await.unwrap();
        let third = Client::open(&worlds[0], "/orders/events", None).await;
        assert_eq!(third.err(), Some(503));
        drop(second);
        let mut third = Client::open(&worlds[0], "/orders/o1/events", None).await.unwrap();
        worlds[0].stop.ask();
        assert_eq!((first.next().await, third.next().await), (None, None));
        worlds[0].stop.ended().await;
        let mut elsewhere = Client::open(&worlds[1], "/orders/events", None).await.unwrap();
        assert_eq!(elsewhere.next().await, Some(Vec::new()));
    });
}

/// Many orders, written by two instances side by side: whoever looks all the time, from anywhere,
/// sees the last state of each.
#[test]
fn whatever_two_instances_write_side_by_side_is_seen() {
    run(Config::default(), |worlds| async move {
        let mut clients = Vec::new();
        for world in &worlds {
            clients.push(Client::open(world, "/orders/events", Some(0)).await.unwrap());
        }
        let names: Vec<String> = (0..40).map(|n| format!("o{n}")).collect();
        let events: Vec<Event> = names.iter().flat_map(|o| [placed(o), reserved(o)]).collect();
        worlds[0].say_all(&events).await;
        let expected: Vec<String> = names.iter().map(|name| format!("{name} reserved")).collect();
        for client in &mut clients {
            let seen = client.next().await.unwrap();
            let mut last: Vec<String> = Vec::new();
            for name in &names {
                let of = seen.iter().rev().find(|said| said.starts_with(&format!("{name} ")));
                last.extend(of.cloned());
            }
            assert_eq!(last, expected);
        }
    });
}
