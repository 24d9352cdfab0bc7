//! Inventory's HTTP: adjust stock, look at stock and reservations. Never writes but by command.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use chassis::http::{self, Problem, Strict, idempotency_key};
use chassis::{Commands, Context, Document, Input, Reply, document};
use contract::{OrderId, ProductId};
use ports::{Key, Op, Range, Row, Store};
use serde::Deserialize;
use serde_json::json;

use crate::handler::{Adjust, Fact};
use crate::rows::{ReservationRow, StockRow};

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
    product: InPath,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Strict<AdjustBody>,
) -> Result<Reply, Problem> {
    let product_id = product_id(&in_path(product)?)?;
    let AdjustBody { delta, reason } = body.value;
    if reason.as_ref().is_some_and(|text| text.len() > REASON_BYTES_MAX) {
        return Err(Problem::invalid(format!("reason has at most {REASON_BYTES_MAX} bytes")));
    }
    let Some(given) = idempotency_key(&headers, true)? else {
        return Err(Problem::invalid("an Idempotency-Key is required"));
    };
    let id: Key = format!("adjust:{given}").into();
    let mut said = format!("{method} {}\n", uri.path()).into_bytes();
    said.extend_from_slice(&body.bytes);
    let input = Input {
        id: Some(id.clone()),
        fingerprint: envelope::fingerprint(&said),
        context: Context::default(),
        fact: Fact::Adjust(Adjust { id, product_id, delta, reason }),
    };
    Ok(api.commands.submit(input).await?)
}

async fn show_stock(State(api): State<Api>, product: InPath) -> Result<Response, Problem> {
    let product = product_id(&in_path(product)?)?;
    let row = read::<StockRow>(&api, product.key()).await?;
    let row = row.ok_or_else(|| Problem::not_found("stock of product", product.as_str()))?;
    Ok(http::ok(json!(row)))
}

async fn show_reservation(State(api): State<Api>, order: InPath) -> Result<Response, Problem> {
    let order =
        OrderId::parse(in_path(order)?).map_err(|e| Problem::invalid(format!("orderId: {e}")))?;
    let row = read::<ReservationRow>(&api, order.key()).await?;
    let row = row.ok_or_else(|| Problem::not_found("reservation of order", order.as_str()))?;
    Ok(http::ok(json!(row)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default = "limit_default")]
    limit: usize,
    #[serde(default)]
    cursor: Option<String>,
}

fn limit_default() -> usize {
    50
}

/// Products in the order of their ids. The cursor is the last id shown.
async fn list_stock(State(api): State<Api>, uri: Uri) -> Result<Response, Problem> {
    let page = Query::<Page>::try_from_uri(&uri).map_err(|e| Problem::invalid(e.body_text()))?.0;
    if !(1..=200).contains(&page.limit) {
        return Err(Problem::invalid("limit is from 1 to 200"));
    }
    let after = page.cursor.as_deref().map(product_id).transpose()?;
    let range = Range {
        column: 0,
        from: String::new(),
        // Behind every visible ASCII character.
        to: "\u{7f}".to_owned(),
        after: after.map(|id| (id.to_string(), id.key())),
        descending: false,
        limit: page.limit + 1,
    };
    let mut replies = api.store.read(vec![Op::List { table: StockRow::TABLE, range }]).await?;
    let Some(ports::Reply::Listed(rows)) = replies.pop() else {
        return Err(Problem::unavailable("the store did not answer; try again"));
    };
    let shown = rows.iter().filter_map(|(_, row)| document::<StockRow>(row));
    let items: Vec<StockRow> = shown.take(page.limit).collect();
    let more = rows.len() > page.limit;
    let next = items.last().filter(|_| more).map(|row| row.product_id.clone());
    Ok(http::ok(json!({ "items": items, "next": next })))
}

async fn read<D: Document>(api: &Api, key: Key) -> Result<Option<D>, Problem> {
    let keys = BTreeSet::from([key.clone()]);
    let mut replies = api.store.read(vec![Op::Read { table: D::TABLE, keys }]).await?;
    let row: Option<Row> = match replies.pop() {
        Some(ports::Reply::Rows(mut rows)) => rows.remove(&key),
        _ => return Err(Problem::unavailable("the store did not answer; try again")),
    };
    Ok(row.as_ref().and_then(document))
}

/// A part of the path, which may be no text.
type InPath = Result<Path<String>, PathRejection>;

fn in_path(part: InPath) -> Result<String, Problem> {
    part.map(|Path(text)| text).map_err(|e| Problem::invalid(e.body_text()))
}

fn product_id(text: &str) -> Result<ProductId, Problem> {
    ProductId::parse(text).map_err(|e| Problem::invalid(format!("productId: {e}")))
}
