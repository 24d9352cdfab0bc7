//! Customers and the operator: they use HTTP, retry with the same key until they are answered for
//! good, and remember what they were told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use contract::{PaymentMode, Profile, Service};
use futures_util::future::join_all;
use http_body_util::BodyExt;
use madsim::task::JoinHandle;
use ports::Fault;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::excuses::service_on;
use crate::followers::Followers;
use crate::keeper::Told;
use crate::nodes::World;
use crate::poison::{Planted, Poison};
use crate::workload::{CATEGORY, Order, Product, Upgrade, Workload, nobodys};

/// Most attempts of one request: a customer who needs more has met a service that does not answer.
pub(crate) const ATTEMPTS_MAX: u32 = 400;

/// What a customer was told in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The order's name in the workload.
    pub name: String,
    /// HTTP status of the last answer; `None`: never answered for good.
    pub status: Option<u16>,
    /// The order's id, where it was accepted.
    pub order_id: Option<String>,
    /// The amount, where it was accepted and has one.
    pub amount: Option<i64>,
    /// When it was first asked for, from the beginning of the world.
    pub asked_at: Duration,
    /// What was answered to the wish to cancel it: `None` where nobody wished it, or nobody answered.
    pub cancel: Option<u16>,
    /// What was answered to each wish for its mail once more.
    pub resends: Vec<Option<u16>>,
    /// What was answered to another order under its key; as for [`Answered::cancel`].
    pub reused: Option<u16>,
    /// What was answered to the cancel of another order under the key of its cancel; as above.
    pub cancel_reused: Option<u16>,
    /// What was answered to the wish for another order's mail under the key of a promised one; as above.
    pub resend_reused: Option<u16>,
    /// Whether the same order was answered the same once more; `None` where nobody asked.
    pub repeated: Option<bool>,
}

impl Answered {
    /// How often its mail was promised once more.
    pub fn promised(&self) -> usize {
        self.resends.iter().filter(|status| **status == Some(202)).count()
    }
}

/// The customers of one world.
#[derive(Clone)]
pub struct Customers {
    world: World,
    nodes: Arc<Workload>,
    followers: Followers,
    answered: Arc<Mutex<Vec<Answered>>>,
    /// Ids of accepted orders, by name.
    ids: Arc<Mutex<BTreeMap<String, String>>>,
    /// Jobs that strangers published: they leave no trace in their queue.
    jobs: Arc<Mutex<Vec<Planted>>>,
    /// What those were told who run the shop, and the visitor.
    told: Arc<Mutex<Told>>,
    /// What is still to be asked: see [`Customers::later`].
    later: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Customers {
    /// Nobody has ordered yet.
    pub fn new(world: World, workload: &Workload) -> Self {
        let nodes = Arc::new(workload.clone());
        let followers = Followers::new(world.clone(), workload);
        let (answered, ids, jobs, told, later) = Default::default();
        Customers { world, nodes, followers, answered, ids, jobs, told, later }
    }

    /// Those among them who follow orders.
    pub fn followers(&self) -> &Followers {
        &self.followers
    }

    /// The world they live in.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// What strangers plant in it.
    pub fn poisons(&self) -> &[Poison] {
        &self.nodes.poisons
    }

    /// What the services they use keep to.
    pub fn profile(&self) -> Profile {
        self.nodes.profile()
    }

    /// The id of an order, by its name, once it is accepted.
    pub fn order_id(&self, name: &str) -> Option<String> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The jobs that were planted.
    pub fn planted_jobs(&self) -> Vec<Planted> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers a job that was planted.
    pub fn note_job(&self, job: Planted) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).push(job);
    }

    /// What those were told who run the shop, and the visitor.
    pub fn told(&self) -> Told {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers what somebody was told.
    pub fn note_told(&self, note: impl FnOnce(&mut Told)) {
        note(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Any node of a service, as a request reaches one: of those that are well, where others stay
    /// broken.
    pub fn node_of(&self, service: Service, whose: &str) -> String {
        let nodes = self.world.reached(self.nodes.nodes(service));
        self.world.cluster.choices().of("customer", whose, &nodes).clone()
    }

    /// What they were told, in the order of the workload.
    pub fn answered(&self) -> Vec<Answered> {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        answered.sort_by_key(|a| self.nodes.orders.iter().position(|o| o.name == a.name));
        answered
    }

    /// The operator puts up products and stock, before anything fails.
    pub async fn set_up(&self) {
        if self.nodes.put_up_in_bulk {
            return self.set_up_in_bulk().await;
        }
        for product in &self.nodes.products {
            let path = format!("/products/{}", product.id);
            let (key, body) = (format!("put-{}", product.id), Some(one(&self.content(product))));
            self.until_answered(Service::Catalog, "PUT", &path, &key, body).await;
            if let Some(stock) = product.stock {
                let path = format!("/stock/{}/adjust", product.id);
                let key = format!("stock-{}", product.id);
                let body = Some(one(&json!({ "delta": stock })));
                self.until_answered(Service::Inventory, "POST", &path, &key, body).await;
            }
        }
    }

    async fn set_up_in_bulk(&self) {
        let product = |product: &Product| {
            let mut line = self.content(product);
            line["productId"] = json!(product.id);
            line
        };
        let body = Some(many(self.nodes.products.iter().map(product)));
        self.until_answered(Service::Catalog, "POST", "/products", "products", body).await;
        let stock = |Product { id, stock, .. }: &Product| {
            stock.map(|delta| json!({ "productId": id, "delta": delta }))
        };
        let body = Some(many(self.nodes.products.iter().filter_map(stock)));
        self.until_answered(Service::Inventory, "POST", "/stock", "stock", body).await;
    }

    /// What Catalog is told of a product.
    fn content(&self, product: &Product) -> Value {
        let mut content = json!({ "name": product.id, "categoryId": CATEGORY });
        if !self.nodes.as_written {
            content["price"] = json!(product.price);
        }
        content
    }

    /// Places one order at its time, and cancels it where its customer wants that.
    pub async fn order(self, order: Order) {
        madsim::time::sleep(Duration::from_millis(order.at_ms)).await;
        let lines: Vec<Value> = order
            .lines
            .iter()
            .map(|(product, qty)| json!({ "productId": product, "qty": qty }))
            .collect();
        let mut body = json!({ "lines": lines });
        if order.mode != PaymentMode::Parallel {
            body["paymentMode"] = json!(order.mode);
        }
        if order.from_cart {
            body["cartId"] = json!(order.cart());
        }
        let (service, name) = (Service::Orders, &order.name);
        let asked_at = self.world.cluster.elapsed();
        let answer = self.until_answered(service, "POST", "/orders", name, Some(one(&body))).await;
        let status = answer.as_ref().map(|(status, _)| *status);
        let accepted = answer.clone().filter(|(status, _)| *status == 201).map(|(_, body)| body);
        let amount = accepted.as_ref().and_then(|body| body["amount"].as_i64());
        let order_id = accepted.and_then(|body| body["orderId"].as_str().map(str::to_owned));
        if let Some(id) = &order_id {
            let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            ids.insert(name.clone(), id.clone());
        }
        if let (true, Some(id)) = (order.hold_is_stuck, &order_id) {
            self.world.hold_stuck(id);
        }
        self.world.cluster.note("customers", "answered", format!("{name}: {status:?}"));
        let mut answered = Answered {
            name: name.clone(),
            status,
            order_id,
            amount,
            asked_at,
            cancel: None,
            resends: Vec::new(),
            reused: None,
            cancel_reused: None,
            resend_reused: None,
            repeated: None,
        };
        if order.reuses_key {
            let body = json!({ "lines": [{ "productId": "p0", "qty": 4 }] });
            let answer = self.until_answered(service, "POST", "/orders", name, Some(one(&body)));
            answered.reused = answer.await.map(|(status, _)| status);
        }
        if let (true, Some(order_id)) = (order.followed, &answered.order_id) {
            self.followers.follow(Some(order_id));
        }
        if let (Some(after_ms), Some(order_id)) = (order.cancel_after_ms, &answered.order_id) {
            madsim::time::sleep(Duration::from_millis(after_ms)).await;
            let path = format!("/orders/{order_id}/cancel");
            let key = order.key("cancel");
            let answer = self.until_answered(service, "POST", &path, &key, None).await;
            answered.cancel = answer.map(|(status, _)| status);
            if order.reuses_key && answered.cancel.is_some() {
                let another = "/orders/another/cancel";
                let answer = self.until_answered(service, "POST", another, &key, None).await;
                answered.cancel_reused = answer.map(|(status, _)| status);
            }
        }
        let order_id = answered.order_id.clone();
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).push(answered);
        if order.resend_after_ms.is_some() || order.again_after_ms.is_some() {
            let (customers, place) = (self.clone(), one(&body));
            self.later(async move { customers.once_more(order, order_id, place, answer).await });
        }
    }

    /// What a customer of an order wants once more: its mail, as soon as there is one, and to place it.
    async fn once_more(
        self,
        order: Order,
        order_id: Option<String>,
        place: Sent,
        answer: Option<(u16, Value)>,
    ) {
        let name = &order.name;
        let (mut resends, mut repeated, mut resend_reused) = (Vec::new(), None, None);
        if let (Some(after_ms), Some(order_id)) = (order.resend_after_ms, order_id) {
            madsim::time::sleep(Duration::from_millis(after_ms)).await;
            let path = format!("/notifications/{order_id}/resend");
            let service = Service::NotificationsApi;
            for number in 0..order.resends() {
                let key = match number {
                    0 => order.key("resend"),
                    _ => format!("{}-{number}", order.key("resend")),
                };
                let answer = self.until_answered(service, "POST", &path, &key, None).await;
                resends.push(answer.map(|(status, _)| status));
            }
            if order.reuses_key && resends.first() == Some(&Some(202)) {
                let (another, key) = ("/notifications/another/resend", order.key("resend"));
                let answer = self.until_answered(service, "POST", another, &key, None).await;
                resend_reused = answer.map(|(status, _)| status);
            }
        }
        if let Some(after_ms) = order.again_after_ms {
            madsim::time::sleep(Duration::from_millis(after_ms)).await;
            let again = self.until_answered(Service::Orders, "POST", "/orders", name, Some(place));
            repeated = Some(again.await == answer);
        }
        let mut all = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answered) = all.iter_mut().find(|it| it.name == *name) {
            (answered.resends, answered.repeated) = (resends, repeated);
            answered.resend_reused = resend_reused;
        }
    }

    /// Something that somebody does after all that a world is to come to rest from: it may wait for that.
    pub(crate) fn later(&self, what: impl Future<Output = ()> + Send + 'static) {
        let task = madsim::task::spawn(what);
        self.later.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// Until nobody wants anything any more.
    pub async fn done(&self) {
        let later: Vec<_> =
            self.later.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        join_all(later).await;
    }

    /// Asks for an order that nobody placed: to see it, and to cancel it.
    pub async fn stray(self, number: u32) {
        let at_ms = self.world.cluster.choices().below("stray", "at", 4_000);
        madsim::time::sleep(Duration::from_millis(at_ms)).await;
        self.ask_astray(number, 0).await;
        // By then somebody else may have said something of it.
        let stray = self.clone();
        self.later(async move {
            madsim::time::sleep(Duration::from_secs(10)).await;
            stray.ask_astray(number, 1).await;
        });
    }

    async fn ask_astray(&self, number: u32, time: u32) {
        let (order, key) = (nobodys(number), format!("stray-{number}-{time}"));
        for (method, path) in
            [("GET", format!("/orders/{order}")), ("POST", format!("/orders/{order}/cancel"))]
        {
            let answer = self.until_answered(Service::Orders, method, &path, &key, None).await;
            let status = answer.map(|(status, _)| status);
            self.note_told(|told| told.strays.push((path, status)));
        }
    }

    /// Somebody replaces a node's release by the next one, at its time.
    pub async fn upgrade(self, upgrade: Upgrade) {
        madsim::time::sleep(Duration::from_millis(upgrade.at_ms)).await;
        self.world.upgrade(&upgrade.node);
    }

    /// Repeats a request with the same key until the answer is for good: not a lost reply, not a
    /// refused connection, not a 503, and not what time may mend.
    pub async fn until_answered(
        &self,
        service: Service,
        method: &str,
        path: &str,
        key: &str,
        body: Option<Sent>,
    ) -> Option<(u16, Value)> {
        let choices = self.world.cluster.choices();
        for attempt in 0..ATTEMPTS_MAX {
            let node = self.node_of(service, key);
            match self.request(&node, method, path, key, body.clone()).await {
                Ok((status, answer)) if status != 503 && !passing(&answer) => {
                    return Some((status, answer));
                }
                Ok(_) | Err(Fault::Retry(_) | Fault::Unknown(_) | Fault::Refused(_)) => {
                    let pause_ms = 100 + choices.below("customer pause", key, 400);
                    // As those who read Retry-After: not all of them again and again while a node is down.
                    let pauses = 1 << attempt.min(2);
                    madsim::time::sleep(Duration::from_millis(pause_ms) * pauses).await;
                }
            }
        }
        None
    }

    /// One request to a node.
    pub async fn request(
        &self,
        node: &str,
        method: &str,
        path: &str,
        key: &str,
        body: Option<Sent>,
    ) -> Result<(u16, Value), Fault> {
        let service = service_on(node);
        let router = self.world.router(node).ok_or_else(|| Fault::retry("connection refused"))?;
        let sort = body.as_ref().map_or("application/json", |sent| sent.sort);
        let mut request =
            Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, sort);
        if !body.as_ref().is_some_and(|sent| sent.keyless) {
            request = request.header("idempotency-key", key);
        }
        if let Some(version) = body.as_ref().and_then(|sent| sent.only) {
            request = request.header(header::IF_MATCH, format!("\"{version}\""));
        }
        if body.as_ref().is_some_and(|sent| sent.never) {
            request = request.header(header::IF_NONE_MATCH, "*");
        }
        let body = body.map_or_else(Body::empty, |sent| Body::from(sent.text));
        let request = request.body(body).map_err(|e| Fault::refused(e.to_string()))?;
        let customers = self.clone();
        let serve = async move {
            let Ok(response) = router.oneshot(request).await;
            let status = response.status().as_u16();
            let [location, tag] =
                [header::LOCATION, header::ETAG].map(|name| response.headers().get(name).cloned());
            let bytes = response.into_body().collect().await.map(|b| b.to_bytes());
            let body: Option<Value> = bytes.ok().and_then(|b| serde_json::from_slice(&b).ok());
            let body = body.unwrap_or(Value::Null);
            // From `/orders`: where the order is.
            let place = body["orderId"].as_str().map(|id| format!("orders/{id}"));
            let location = location.as_ref().and_then(|value| value.to_str().ok());
            if status == 201 && place.is_some() && location != place.as_deref() {
                customers.note_told(|told| told.astray.push(format!("{location:?}: {body}")));
            }
            // What a condition takes is the entity tag as it was said.
            let version =
                body["productVersion"].as_u64().filter(|_| service == Some(Service::Catalog));
            let wanted = version.map(|version| format!("\"{version}\""));
            let tag = tag.as_ref().and_then(|value| value.to_str().ok());
            if wanted.is_some() && tag != wanted.as_deref() {
                customers.note_told(|told| told.astray.push(format!("ETag {tag:?}: {body}")));
            }
            (status, body)
        };
        let about = format!("{method} {path} {key}");
        self.world.cluster.request_about(node, about, serve).await
    }
}

/// What goes with a request.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The body's media type.
    sort: &'static str,
    /// The body.
    text: String,
    /// The only version that it is meant for (If-Match).
    only: Option<u64>,
    /// Whether it is meant for none that is there (If-None-Match).
    never: bool,
    /// Whether it goes without an Idempotency-Key.
    keyless: bool,
}

impl Sent {
    /// Without an Idempotency-Key.
    pub(crate) fn keyless(self) -> Self {
        Sent { keyless: true, ..self }
    }

    /// For nothing that is there already, if so.
    pub(crate) fn never(self, never: bool) -> Self {
        Sent { never, ..self }
    }

    /// For this version only, if for one.
    pub(crate) fn only(self, version: Option<u64>) -> Self {
        Sent { only: version, ..self }
    }
}

/// A body of one JSON value.
pub(crate) fn one(body: &Value) -> Sent {
    sent("application/json", body.to_string())
}

/// A body of one JSON value a line.
pub(crate) fn many(lines: impl Iterator<Item = Value>) -> Sent {
    let lines: Vec<String> = lines.map(|line| line.to_string()).collect();
    sent("application/x-ndjson", lines.join("\n"))
}

fn sent(sort: &'static str, text: String) -> Sent {
    Sent { sort, text, only: None, never: false, keyless: false }
}

fn is_not_tried(line: &Value) -> bool {
    line["status"] == 503
}

/// A refusal that time may mend: the price replica lags, the order has not ended, the first request with
/// this key is still in flight, or some lines of many were not tried.
fn passing(answer: &Value) -> bool {
    let kind = answer["type"].as_str().unwrap_or("");
    kind.ends_with("price-unavailable")
        || kind.ends_with("order-not-final")
        || kind.ends_with("request-in-flight")
        || answer["lines"].as_array().is_some_and(|lines| lines.iter().any(is_not_tried))
}
