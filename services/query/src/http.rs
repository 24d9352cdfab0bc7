//! Query's HTTP: orders and products as they are known here. Never writes.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::Uri;
use axum::response::Response;
use axum::routing::get;
use chassis::http::{self, Problem};
use chassis::{Document, document};
use contract::{OrderId, ProductId};
use ports::{Key, Op, Reply, Store};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::page::{self, List};
use crate::rows::OrderRow;
use crate::rules::{Product, Status};

/// Behind every index value that is visible ASCII.
const BEHIND_ALL: &str = "\u{7f}";

type Shared = Arc<dyn Store>;

/// The service's routes.
pub fn router(store: Arc<dyn Store>) -> Router {
    Router::new()
        .route("/orders", get(list_orders))
        .route("/orders/{id}", get(show_order))
        .route("/products", get(list_products))
        .route("/products/{id}", get(show_product))
        .with_state(store)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrdersPage {
    status: Option<Status>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProductsPage {
    limit: Option<usize>,
    cursor: Option<String>,
}

fn parameters<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let read = Query::<T>::try_from_uri(uri).map_err(|e| Problem::invalid(e.body_text()))?;
    Ok(read.0)
}

/// Orders, the newest first.
async fn list_orders(State(store): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    let OrdersPage { status, limit, cursor } = parameters(&uri)?;
    let (column, (from, to)) = match status {
        None => (0, (String::new(), BEHIND_ALL.to_owned())),
        Some(status) => (1, OrderRow::with_status(status)),
    };
    let list = List { column, from, to, descending: true };
    let (rows, next) =
        page::read::<OrderRow>(store.as_ref(), list, limit, cursor.as_deref()).await?;
    let items: Vec<Value> = rows.iter().map(order_json).collect();
    Ok(http::ok(json!({ "items": items, "next": next })))
}

/// An order, also one whose creation has not come here yet.
async fn show_order(
    State(store): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = OrderId::parse(&id).map_err(|e| Problem::invalid(format!("orderId: {e}")))?;
    let row = row::<OrderRow>(store.as_ref(), id.key()).await?;
    let row = row.ok_or_else(|| Problem::not_found("order", id.as_str()))?;
    Ok(http::ok(order_json(&row)))
}

/// Products, by their ids.
async fn list_products(State(store): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    let ProductsPage { limit, cursor } = parameters(&uri)?;
    let (from, to) = (String::new(), BEHIND_ALL.to_owned());
    let list = List { column: 0, from, to, descending: false };
    let (rows, next) =
        page::read::<Product>(store.as_ref(), list, limit, cursor.as_deref()).await?;
    let items: Vec<Value> = rows.iter().map(product_json).collect();
    Ok(http::ok(json!({ "items": items, "next": next })))
}

async fn show_product(
    State(store): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = ProductId::parse(&id).map_err(|e| Problem::invalid(format!("productId: {e}")))?;
    let row = row::<Product>(store.as_ref(), id.key()).await?;
    let row = row.ok_or_else(|| Problem::not_found("product", id.as_str()))?;
    Ok(http::ok(product_json(&row)))
}

async fn row<D: Document>(store: &dyn Store, key: Key) -> Result<Option<D>, Problem> {
    let keys = BTreeSet::from([key.clone()]);
    match store.read(vec![Op::Read { table: D::TABLE, keys }]).await?.pop() {
        Some(Reply::Rows(rows)) => Ok(rows.get(&key).and_then(document)),
        _ => Err(Problem::unavailable("the store did not answer; try again")),
    }
}

/// An order as it is shown; `createdAt` and what was ordered are null before they are known.
fn order_json(row: &OrderRow) -> Value {
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
