//! Inventory's HTTP: adjust stock, look at stock and reservations. Never writes but by command.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use chassis::http::{
    self, Bulk, InPath, Lines, Parameters, Problem, Strict, keyed_id, request_fingerprint,
    required_key,
};
use chassis::page::{List, Page, list_page, read_row};
use chassis::{Commands, Context, Document, Input, Reply};
use contract::{OrderId, ProductId};
use ports::{Store, Table};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::handler::{Adjust, Fact};
use crate::rows::{ADJUSTED, AdjustmentRow, PRODUCT, ReservationRow, STATE, STOCK, StockRow};
use crate::rules::State as Standing;

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
        .route("/stock", get(list_stock).post(import))
        .route("/stock/{product}", get(show_stock))
        .route("/stock/{product}/adjust", post(adjust))
        .route("/adjustments", get(list_adjustments))
        .route("/reservations", get(list_reservations))
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

/// A line of `POST /stock`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ImportLine {
    product_id: ProductId,
    delta: i64,
    #[serde(default)]
    reason: Option<String>,
}

fn check(reason: Option<&String>) -> Result<(), Problem> {
    match reason {
        Some(text) if text.len() > REASON_BYTES_MAX || text.chars().any(char::is_control) => {
            let text = format!("reason: at most {REASON_BYTES_MAX} bytes, no control characters");
            Err(Problem::invalid(text))
        }
        Some(_) | None => Ok(()),
    }
}

async fn adjust(
    State(api): State<Api>,
    InPath(product_id): InPath<ProductId>,
    headers: HeaderMap,
    body: Strict<AdjustBody>,
) -> Result<Reply, Problem> {
    let AdjustBody { delta, reason } = body.value;
    check(reason.as_ref())?;
    let id = keyed_id("adjust", &required_key(&headers)?);
    let path = format!("/stock/{product_id}/adjust");
    let input = Input {
        id: Some(id.clone()),
        fingerprint: request_fingerprint("POST", &path, &body.bytes),
        context: Context::of_request(None, &headers),
        fact: Fact::Adjust(Adjust { id, product_id, delta, reason }),
    };
    Ok(api.commands.submit(input).await?)
}

/// Many adjustments in one request, one a line, each once.
async fn import(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Lines<ImportLine>,
) -> Result<Response, Problem> {
    let key = required_key(&headers)?;
    let bulk = Bulk::new("import", "/stock", &key, body, Fact::Import, |line, id| {
        let ImportLine { product_id, delta, reason } = line;
        check(reason.as_ref())?;
        Ok(Fact::Adjust(Adjust { id: id.clone(), product_id, delta, reason }))
    });
    bulk.within(&Context::of_request(None, &headers)).carry_out(&api.commands).await
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

/// Products in the order of their ids, as they are stored: whoever audits must also see books that
/// the rules would refuse to work with.
async fn list_stock(
    State(api): State<Api>,
    Parameters(page): Parameters<Page>,
) -> Result<Response, Problem> {
    let shown = |row: &StoredStock| row.0.clone();
    list_page(api.store.as_ref(), List::all(PRODUCT), page, shown).await
}

/// Accepted adjustments in the order of their products' ids.
async fn list_adjustments(
    State(api): State<Api>,
    Parameters(page): Parameters<Page>,
) -> Result<Response, Problem> {
    let shown = |row: &AdjustmentRow| json!(row);
    list_page(api.store.as_ref(), List::all(ADJUSTED), page, shown).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReservationsPage {
    state: Option<Standing>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// Reservations by their states, or those in one.
async fn list_reservations(
    State(api): State<Api>,
    Parameters(ReservationsPage { state, limit, cursor }): Parameters<ReservationsPage>,
) -> Result<Response, Problem> {
    let list = match state {
        None => List::all(STATE),
        Some(state) => List::between(STATE, ReservationRow::in_state(state)),
    };
    let shown = |row: &ReservationRow| json!(row);
    list_page(api.store.as_ref(), list, Page { limit, cursor }, shown).await
}

/// A row of stock as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredStock(Value);

impl Document for StoredStock {
    const TABLE: &'static Table = &STOCK;
    fn index(&self) -> Vec<Option<String>> {
        vec![self.0["productId"].as_str().map(str::to_owned)]
    }
}
