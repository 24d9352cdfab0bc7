//! Inventory's HTTP: adjust stock, look at stock and reservations. Never writes but by command.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use chassis::http::{
    self, InPath, Parameters, Problem, Strict, idempotency_key, request_fingerprint,
};
use chassis::page::{List, Page, list_page, read_row};
use chassis::{Commands, Context, Input, Reply};
use contract::{OrderId, ProductId};
use ports::{Key, Store};
use serde::Deserialize;
use serde_json::json;

use crate::handler::{Adjust, Fact};
use crate::rows::{PRODUCT, ReservationRow, StockRow};

/// Longest reason of an adjustment, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// What the routes work with.
#[derive(Clone)]
pub struct Api {
    /// The way to the rules.
    pub commands: Commands<Fact>,
    /// For reading.
    pub store: Arc<dyn Store>,
}

/// The service's routes.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/stock", get(list_stock))
        .route("/stock/{product}", get(show_stock))
        .route("/stock/{product}/adjust", post(adjust))
        .route("/reservations/{order}", get(show_reservation))
        .with_state(api)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdjustBody {
    delta: i64,
    #[serde(default)]
    reason: Option<String>,
}

async fn adjust(
    State(api): State<Api>,
    InPath(product_id): InPath<ProductId>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Strict<AdjustBody>,
) -> Result<Reply, Problem> {
    let AdjustBody { delta, reason } = body.value;
    if reason.as_ref().is_some_and(|text| text.len() > REASON_BYTES_MAX) {
        return Err(Problem::invalid(format!("reason has at most {REASON_BYTES_MAX} bytes")));
    }
    let Some(given) = idempotency_key(&headers, true)? else {
        return Err(Problem::invalid("an Idempotency-Key is required"));
    };
    let id: Key = format!("adjust:{given}").into();
    let input = Input {
        id: Some(id.clone()),
        fingerprint: request_fingerprint(method.as_str(), uri.path(), &body.bytes),
        context: Context::of_request(None, &headers),
        fact: Fact::Adjust(Adjust { id, product_id, delta, reason }),
    };
    Ok(api.commands.submit(input).await?)
}

async fn show_stock(
    State(api): State<Api>,
    InPath(product): InPath<ProductId>,
) -> Result<Response, Problem> {
    let row = read_row::<StockRow>(api.store.as_ref(), &product.key()).await?;
    let row = row.ok_or_else(|| Problem::not_found("stock of product", product.as_str()))?;
    Ok(http::ok(json!(row)))
}

async fn show_reservation(
    State(api): State<Api>,
    InPath(order): InPath<OrderId>,
) -> Result<Response, Problem> {
    let row = read_row::<ReservationRow>(api.store.as_ref(), &order.key()).await?;
    let row = row.ok_or_else(|| Problem::not_found("reservation of order", order.as_str()))?;
    Ok(http::ok(json!(row)))
}

/// Products in the order of their ids.
async fn list_stock(
    State(api): State<Api>,
    Parameters(page): Parameters<Page>,
) -> Result<Response, Problem> {
    let shown = |row: &StockRow| json!(row);
    list_page(api.store.as_ref(), List::all(PRODUCT), page, shown).await
}
