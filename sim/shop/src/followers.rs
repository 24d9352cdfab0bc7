//! Those who follow orders by Query's streams: a customer its own order, an auditor all of them. They
//! come again with the cursor that they have, to any instance. Never ask for the same thing in
//! another way: what they know is what the streams said.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use contract::Service;
use futures_util::StreamExt;
use serde_json::Value;
use tower::ServiceExt;

use crate::nodes::World;
use crate::workload::Workload;

/// What somebody learned by following.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Followed {
    /// The order; empty: all of them.
    pub order_id: String,
    /// Order, and the cursor and status that came last for it.
    pub last: BTreeMap<String, (u64, String)>,
    /// The cursor of the last event.
    pub cursor: u64,
    /// Events that were not ahead of the one before, and streams that were refused.
    pub disorder: Vec<String>,
}

/// Everybody who follows in one world.
#[derive(Clone)]
pub struct Followers {
    world: World,
    nodes: Vec<String>,
    all: Arc<Mutex<Vec<Arc<Mutex<Followed>>>>>,
}

impl Followers {
    /// Nobody follows yet.
    pub fn new(world: World, workload: &Workload) -> Self {
        Followers { world, nodes: workload.nodes(Service::Query), all: Arc::default() }
    }

    /// What they know now, in the order in which they began.
    pub fn known(&self) -> Vec<Followed> {
        lock(&self.all).iter().map(|followed| lock(followed).clone()).collect()
    }

    /// Follows an order, or all, to the end of the world.
    pub fn follow(&self, order_id: Option<&str>) {
        let order_id = order_id.unwrap_or_default().to_owned();
        let path = match order_id.as_str() {
            "" => "/orders/events".to_owned(),
            order_id => format!("/orders/{order_id}/events"),
        };
        let followed = Arc::new(Mutex::new(Followed { order_id, ..Followed::default() }));
        lock(&self.all).push(followed.clone());
        let followers = self.clone();
        self.world.cluster.aside(async move {
            loop {
                followers.listen(&path, &followed).await;
            }
        });
    }

    /// What is answered to a cursor that is ahead of every change, as of another database.
    pub async fn ask_ahead(&self) -> Option<u16> {
        let nodes = self.world.reached(self.nodes.clone());
        let node = self.world.cluster.choices().of("follower", "ahead", &nodes);
        let router = self.world.router(node)?;
        let request = Request::get("/orders/events").header("last-event-id", u32::MAX);
        let request = request.body(Body::empty()).expect("a plain request");
        let asking = async move {
            let Ok(response) = router.oneshot(request).await;
            response.status().as_u16()
        };
        self.world.cluster.request(node, asking).await.ok()
    }

    /// One connection, to whichever instance: until the stream ends, its node dies, or some seconds
    /// have passed; then a pause.
    async fn listen(&self, path: &str, followed: &Arc<Mutex<Followed>>) {
        let choices = self.world.cluster.choices();
        let nodes = self.world.reached(self.nodes.clone());
        let node = choices.of("follower", path, &nodes);
        let patience = Duration::from_millis(1_000 + choices.below("follower stays", path, 4_000));
        if let Some(router) = self.world.router(node) {
            let heard = hear(router, path.to_owned(), followed.clone());
            let listening = async move {
                // Where it runs out, the connection is dropped in the middle.
                let _ = madsim::time::timeout(patience, heard).await;
            };
            // Whatever became of the connection: the cursor says how to go on.
            let _ = self.world.cluster.request(node, listening).await;
        }
        let pause_ms = 50 + choices.below("follower pause", path, 400);
        madsim::time::sleep(Duration::from_millis(pause_ms)).await;
    }
}

/// Takes in what a stream says, from the cursor on.
async fn hear(router: Router, path: String, followed: Arc<Mutex<Followed>>) {
    let cursor = lock(&followed).cursor;
    let mut request = Request::get(&path);
    // Who follows an order begins with the order as it is; who follows all wants every change.
    if cursor > 0 || lock(&followed).order_id.is_empty() {
        request = request.header("last-event-id", cursor);
    }
    let request = request.body(Body::empty());
    let Ok(response) = router.oneshot(request.expect("a plain request")).await;
    match response.status().as_u16() {
        200 => {}
        // It starts, it leaves, or its database is away.
        503 => return,
        status => {
            lock(&followed).disorder.push(format!("{status} to the cursor {cursor}"));
            return;
        }
    }
    let mut chunks = response.into_body().into_data_stream();
    while let Some(Ok(chunk)) = chunks.next().await {
        let text = String::from_utf8_lossy(&chunk);
        let mut followed = lock(&followed);
        text.split("\n\n").for_each(|block| followed.take(block));
    }
}

impl Followed {
    /// Takes in an event. What has no data is none, and says all the same where to go on, as a browser takes it.
    fn take(&mut self, block: &str) {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        let Some(id) = field("id: ") else { return };
        let id = id.parse().unwrap_or(0);
        let Some(data) = field("data: ") else {
            self.cursor = self.cursor.max(id);
            return;
        };
        let order: Value = serde_json::from_str(data).unwrap_or_default();
        let text = |name: &str| order[name].as_str().unwrap_or("unreadable").to_owned();
        if id <= self.cursor {
            self.disorder.push(format!("{id} behind {}", self.cursor));
        }
        self.cursor = id;
        self.last.insert(text("orderId"), (id, text("status")));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
