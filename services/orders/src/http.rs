//! HTTP of Orders: place, look at, cancel. Never writes a row: commands go through the batch.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chassis::http::{Problem, Strict, idempotency_key, ok};
use chassis::{Commands, Context, Due, Input, document};
use contract::{CartId, Line, OrderId, PaymentMode, ProductId, Profile};
use envelope::EventId;
use ports::{Key, Op, Range, Reply, Row, Runtime, Store};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::handler::{Incoming, Order};
use crate::rows::{SAGAS, STUB_SINCE};
use crate::rules::{Fact, Saga, Terminal};

/// Most lines of an order.
pub const LINES_MAX: usize = 100;
/// Most of a product in a line.
pub const QTY_MAX: u32 = 1_000_000;
/// Most items of a page, and how many where nothing is said.
const LIMIT_MAX: usize = 200;
const LIMIT_DEFAULT: usize = 50;

type InPath = Result<Path<String>, PathRejection>;

/// What the routes need.
#[derive(Clone)]
pub struct Shop {
    /// The way to the batch.
    pub commands: Commands<Incoming>,
    /// For reading.
    pub store: Arc<dyn Store>,
    /// With or without the additions.
    pub profile: Profile,
    /// Whether a POST without Idempotency-Key is refused.
    pub key_required: bool,
    /// This instance's name: whose fresh ids they are.
    pub instance: Arc<str>,
}

/// The routes.
pub fn router(shop: Shop) -> Router {
    Router::new()
        .route("/orders", post(place))
        .route("/orders/{id}", get(order))
        .route("/orders/{id}/cancel", post(cancel))
        .route("/stubs", get(stubs))
        .with_state(shop)
}

/// Body of `POST /orders`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlaceOrder {
    /// The cart it comes from.
    #[serde(default)]
    pub cart_id: Option<CartId>,
    /// 1 to [`LINES_MAX`]; a product may stand in several.
    pub lines: Vec<OrderLine>,
    /// Parallel where absent.
    #[serde(default)]
    pub payment_mode: Option<PaymentMode>,
}

/// A line of `POST /orders`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderLine {
    /// Which product.
    pub product_id: ProductId,
    /// 1 to [`QTY_MAX`].
    pub qty: u32,
}

/// The order in a request, under a fresh id.
pub fn order_in(
    request: PlaceOrder,
    order_id: OrderId,
    profile: Profile,
) -> Result<Order, Problem> {
    let PlaceOrder { cart_id, lines, payment_mode } = request;
    if lines.is_empty() || lines.len() > LINES_MAX {
        return Err(Problem::invalid(format!("an order has 1 to {LINES_MAX} lines")));
    }
    if let Some(line) = lines.iter().find(|line| !(1..=QTY_MAX).contains(&line.qty)) {
        let product = &line.product_id;
        return Err(Problem::invalid(format!("qty of {product} must be from 1 to {QTY_MAX}")));
    }
    if profile == Profile::Catalog && payment_mode.is_some() {
        return Err(Problem::invalid("paymentMode does not exist in profile catalog"));
    }
    let lines = lines.into_iter().map(|OrderLine { product_id, qty }| Line {
        product_id,
        qty,
        unit_price: None,
    });
    Ok(Order { order_id, cart_id, lines: lines.collect(), mode: payment_mode.unwrap_or_default() })
}

async fn place(
    State(shop): State<Shop>,
    headers: HeaderMap,
    body: Strict<PlaceOrder>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers, shop.key_required)?;
    let runtime = shop.commands.runtime();
    let order_id = fresh_id(runtime, "orders.order_id", &shop.instance);
    let order_id = OrderId::parse(order_id.as_str()).expect("a uuid is an id");
    let order = order_in(body.value, order_id, shop.profile)?;
    shop.submit("place", key, "/orders", &body.bytes, Incoming::Place(order)).await
}

async fn cancel(
    State(shop): State<Shop>,
    id: InPath,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers, shop.key_required)?;
    if !matches!(body.trim_ascii(), b"" | b"{}") {
        return Err(Problem::invalid("a cancel has no body"));
    }
    let order_id = order_id(id)?;
    let path = format!("/orders/{order_id}/cancel");
    let fact = Incoming::Saga { order_id, fact: Fact::Cancel };
    shop.submit("cancel", key, &path, b"", fact).await
}

async fn order(State(shop): State<Shop>, id: InPath) -> Result<Response, Problem> {
    let key = order_id(id)?.key();
    let keys = BTreeSet::from([key.clone()]);
    let replies = shop.store.read(vec![Op::Read { table: &SAGAS, keys }]).await?;
    let row = match replies.into_iter().next() {
        Some(Reply::Rows(rows)) => rows.get(&key).cloned().unwrap_or_default(),
        other => panic!("a read answered {other:?}"),
    };
    let saga = document::<Saga>(&row).filter(|saga| saga.placed.is_some());
    saga.map(|saga| ok(shown(&saga))).ok_or_else(|| Problem::not_found("order", &key))
}

/// `?limit&cursor` of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// Facts whose order was never placed here, the oldest first: for an operator.
async fn stubs(
    State(shop): State<Shop>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = page.map_err(|cause| Problem::invalid(cause.body_text()))?;
    let limit = page.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::invalid(format!("limit must be from 1 to {LIMIT_MAX}")));
    }
    let after = match page.cursor.as_deref().map(behind) {
        None => None,
        Some(Some(after)) => Some(after),
        Some(None) => return Err(Problem::invalid("cursor: use the last page's next")),
    };
    let range = Range {
        column: STUB_SINCE,
        from: String::new(),
        // Behind every instant.
        to: "~".to_owned(),
        after,
        descending: false,
        // One more than is shown tells whether there is a next page.
        limit: limit + 1,
    };
    let replies = shop.store.read(vec![Op::List { table: &SAGAS, range }]).await?;
    let rows = match replies.into_iter().next() {
        Some(Reply::Listed(rows)) => rows,
        other => panic!("a list answered {other:?}"),
    };
    let page = &rows[..rows.len().min(limit)];
    let items: Vec<Value> = page.iter().filter_map(|(_, row)| document(row)).map(stub).collect();
    let next = page.last().filter(|_| rows.len() > limit).and_then(cursor);
    Ok(ok(json!({ "items": items, "next": next })))
}

fn cursor((key, row): &(Key, Row)) -> Option<String> {
    let since = row.index.get(STUB_SINCE)?.as_ref()?;
    Some(format!("{since}|{key}"))
}

fn behind(cursor: &str) -> Option<(String, Key)> {
    let (since, id) = cursor.split_once('|')?;
    let since = envelope::parse_time(since).ok()?;
    Some((Due::at(since), OrderId::parse(id).ok()?.key()))
}

fn stub(saga: Saga) -> Value {
    json!({
        "orderId": saga.order_id,
        "since": Due::at(saga.created_at),
        "stock": saga.stock,
        "payment": saga.payment,
    })
}

/// The saga's state, for its customer.
fn shown(saga: &Saga) -> Value {
    let mut body = json!({
        "orderId": saga.order_id,
        "status": match saga.terminal {
            Terminal::None => "pending",
            Terminal::Confirmed => "confirmed",
            Terminal::Cancelled => "cancelled",
        },
        "stock": saga.stock,
        "payment": saga.payment,
        "cancel": saga.cancel,
        "late": saga.late,
        "createdAt": Due::at(saga.created_at),
        "version": saga.version,
    });
    if let Some(deadline) = saga.deadline {
        body["deadline"] = json!(Due::at(deadline));
    }
    if let Some(reason) = &saga.reason {
        body["reason"] = json!(reason);
    }
    if let Some(placed) = &saga.placed {
        body["lines"] = json!(placed.lines);
        body["paymentMode"] = json!(placed.mode);
        if let Some(cart_id) = &placed.cart_id {
            body["cartId"] = json!(cart_id);
        }
        if let (Some(amount), Some(currency)) = (placed.amount, &placed.currency) {
            body["amount"] = json!(amount);
            body["currency"] = json!(currency);
        }
    }
    body
}

fn order_id(id: InPath) -> Result<OrderId, Problem> {
    let Path(id) = id.map_err(|cause| Problem::invalid(cause.body_text()))?;
    OrderId::parse(&id).map_err(|cause| Problem::invalid(format!("orderId: {cause}")))
}

impl Shop {
    /// Hands in a POST. `path` is the route's own, whatever prefix it is mounted under.
    async fn submit(
        &self,
        route: &'static str,
        key: Option<Key>,
        path: &str,
        body: &[u8],
        fact: Incoming,
    ) -> Result<Response, Problem> {
        let request = fresh_id(self.commands.runtime(), "orders.request_id", &self.instance);
        let id = match key {
            Some(key) => format!("{route}:{key}"),
            None => format!("req:{request}"),
        };
        let mut said = format!("POST {path}\n").into_bytes();
        said.extend_from_slice(body);
        let context = Context { cause: Some(request), correlation: None };
        let fingerprint = envelope::fingerprint(&said);
        let input = Input { id: Some(id.into()), fingerprint, context, fact };
        Ok(self.commands.submit(input).await?.into_response())
    }
}

/// A uuid v7 of this node's clock and 74 random bits: new ids stand together in an index.
fn fresh_id(runtime: &dyn Runtime, site: &'static str, instance: &str) -> EventId {
    let random = [(); 2].map(|()| runtime.choose(site, instance, u64::MAX).to_be_bytes());
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&random[0]);
    bytes[8..].copy_from_slice(&random[1][6..]);
    let ms = u64::try_from(runtime.now().timestamp_millis()).unwrap_or(0);
    let id = uuid::Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid();
    EventId::parse(id.to_string()).expect("a uuid is an id")
}
