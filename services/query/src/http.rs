//! Query's HTTP: orders and products as they are known here, and orders as they change. Never writes.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use chassis::http::{self, InPath, Parameters, Problem};
use chassis::page::{List, Page, list_page, read_row};
use contract::{OrderId, ProductId};
use ports::Store;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::follow::Followers;
use crate::rows::{BY_STATUS, CREATED, OrderRow, PRODUCT};
use crate::rules::{Product, Status};

type Shared = Arc<dyn Store>;

/// The service's routes.
pub fn router(store: Arc<dyn Store>, followers: Followers) -> Router {
    Router::new()
        .route("/orders", get(list_orders))
        .route("/orders/{id}", get(show_order))
        .route("/products", get(list_products))
        .route("/products/{id}", get(show_product))
        .with_state(store)
        .route("/orders/events", get(follow_orders).with_state(followers.clone()))
        .route("/orders/{id}/events", get(follow_order).with_state(followers))
}

/// Changes of all orders, from now or from a cursor.
async fn follow_orders(
    State(followers): State<Followers>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    followers.follow(None, http::after(&headers)?).await
}

/// An order as it is, and its changes; it may not be known yet.
async fn follow_order(
    State(followers): State<Followers>,
    InPath(id): InPath<OrderId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    followers.follow(Some(id), http::after(&headers)?).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrdersPage {
    status: Option<Status>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// Orders, the newest first.
async fn list_orders(
    State(store): State<Shared>,
    Parameters(OrdersPage { status, limit, cursor }): Parameters<OrdersPage>,
) -> Result<Response, Problem> {
    let list = match status {
        None => List::all(CREATED),
        Some(status) => List::between(BY_STATUS, OrderRow::with_status(status)),
    };
    list_page(store.as_ref(), list.descending(), Page { limit, cursor }, order_json).await
}

/// An order, also one whose creation has not come here yet.
async fn show_order(
    State(store): State<Shared>,
    InPath(id): InPath<OrderId>,
) -> Result<Response, Problem> {
    let row = read_row(store.as_ref(), &id.key()).await?;
    let row = row.ok_or_else(|| Problem::not_found("order", id.as_str()))?;
    Ok(http::ok(order_json(&row)))
}

/// Products, by their ids.
async fn list_products(
    State(store): State<Shared>,
    Parameters(page): Parameters<Page>,
) -> Result<Response, Problem> {
    list_page(store.as_ref(), List::all(PRODUCT), page, product_json).await
}

async fn show_product(
    State(store): State<Shared>,
    InPath(id): InPath<ProductId>,
) -> Result<Response, Problem> {
    let row = read_row(store.as_ref(), &id.key()).await?;
    let row = row.ok_or_else(|| Problem::not_found("product", id.as_str()))?;
    Ok(http::ok(product_json(&row)))
}

/// An order as it is shown; `createdAt` and what was ordered are null before they are known.
pub(crate) fn order_json(row: &OrderRow) -> Value {
    let order = &row.order;
    let placed = order.placed.as_ref();
    let says = placed.map(|placed| &placed.says);
    json!({
        "orderId": row.order_id,
        "status": order.status(),
        "createdAt": placed.map(|placed| chassis::Due::at(placed.at)),
        "cartId": says.and_then(|says| says.cart_id.as_ref()),
        "lines": says.map(|says| &says.lines),
        "amount": says.and_then(|says| says.amount),
        "currency": says.and_then(|says| says.currency.as_ref()),
        "paymentMode": says.map(|says| says.payment_mode),
        "stock": order.stock,
        "payment": order.payment,
        "terminal": order.terminal,
    })
}

/// A product as Catalog last said, without the event that said so.
fn product_json(product: &Product) -> Value {
    json!(product.says)
}

#[cfg(test)]
mod tests;
