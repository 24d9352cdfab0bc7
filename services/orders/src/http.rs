//! HTTP of Orders: place, look at, cancel. Never writes a row: commands go through the batch.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chassis::http::{
    InPath, NoBody, Parameters, Problem, Strict, command_id, idempotency_key, ok,
    request_fingerprint,
};
use chassis::page::{List, Page, list_page, read_row};
use chassis::{Commands, Context, Due, Input, fresh_id};
use contract::{CartId, Line, OrderId, PaymentMode, ProductId, Profile};
use envelope::CorrelationId;
use ports::{Key, Store};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::handler::{Incoming, Order};
use crate::rows::{CREATED, STUB_SINCE};
use crate::rules::{Fact, Saga};

/// Most lines of an order.
pub const LINES_MAX: usize = 100;
/// Most of a product in a line.
pub const QTY_MAX: u32 = 1_000_000;

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
        .route("/orders", post(place).get(list))
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
    #[serde(deserialize_with = "envelope::objects")]
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
    let asked = Asked { route: "place", path: "/orders", order: &order.order_id.clone(), key };
    shop.submit(asked, &headers, &body.bytes, Incoming::Place(order)).await
}

async fn cancel(
    State(shop): State<Shop>,
    InPath(order_id): InPath<OrderId>,
    headers: HeaderMap,
    NoBody: NoBody,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers, shop.key_required)?;
    let path = format!("/orders/{order_id}/cancel");
    let asked = Asked { route: "cancel", path: &path, order: &order_id, key };
    let fact = Incoming::Saga { order_id: order_id.clone(), fact: Fact::Cancel };
    shop.submit(asked, &headers, b"", fact).await
}

async fn order(State(shop): State<Shop>, InPath(id): InPath<OrderId>) -> Result<Response, Problem> {
    let saga = read_row::<Saga>(shop.store.as_ref(), &id.key()).await?;
    let saga = saga.filter(|saga| saga.placed.is_some());
    saga.map(|saga| ok(shown(&saga))).ok_or_else(|| Problem::not_found("order", id.as_str()))
}

/// Orders, the newest first.
async fn list(
    State(shop): State<Shop>,
    Parameters(page): Parameters<Page>,
) -> Result<Response, Problem> {
    list_page(shop.store.as_ref(), List::all(CREATED).descending(), page, shown).await
}

/// Facts whose order was never placed here, the oldest first: for an operator.
async fn stubs(
    State(shop): State<Shop>,
    Parameters(page): Parameters<Page>,
) -> Result<Response, Problem> {
    list_page(shop.store.as_ref(), List::all(STUB_SINCE), page, stub).await
}

fn stub(saga: &Saga) -> Value {
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
        "status": saga.status(),
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

/// A POST.
struct Asked<'a> {
    route: &'static str,
    /// The route's own, whatever prefix it is mounted under.
    path: &'a str,
    order: &'a OrderId,
    key: Option<Key>,
}

impl Shop {
    /// Hands it in.
    async fn submit(
        &self,
        asked: Asked<'_>,
        headers: &HeaderMap,
        body: &[u8],
        fact: Incoming,
    ) -> Result<Response, Problem> {
        let request = fresh_id(self.commands.runtime(), "orders.request_id", &self.instance);
        let Asked { route, path, order, key } = asked;
        let id = command_id(route, key.as_ref(), &request);
        let correlation = CorrelationId::parse(order.as_str()).ok();
        let context = Context { correlation, ..Context::of_request(Some(request), headers) };
        let fingerprint = request_fingerprint("POST", path, body);
        let input = Input { id: Some(id), fingerprint, context, fact };
        Ok(self.commands.submit(input).await?.into_response())
    }
}
