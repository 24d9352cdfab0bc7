//! HTTP of Catalog: put, look at, list. Never writes a row: commands go through the batch.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chassis::http::{Problem, Strict, idempotency_key, ok};
use chassis::{Commands, Context, Input, document};
use contract::{CategoryId, ProductId};
use envelope::{CorrelationId, EventId};
use ports::{Op, Range, Reply, Runtime, Store};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::rows::{PRODUCT, PRODUCTS};
use crate::rules::{Content, Fact, Product};

/// Most items of a page, and how many where nothing is said.
const LIMIT_MAX: usize = 200;
const LIMIT_DEFAULT: usize = 50;
/// Behind every id: ids are visible ASCII.
const BEHIND_ALL: &str = "\u{7f}";

type InPath = Result<Path<String>, PathRejection>;

/// What the routes need.
#[derive(Clone)]
pub struct Shelf {
    /// The way to the batch.
    pub commands: Commands<Fact>,
    /// For reading.
    pub store: Arc<dyn Store>,
    /// This instance's name: whose fresh ids they are.
    pub instance: Arc<str>,
}

/// The routes.
pub fn router(shelf: Shelf) -> Router {
    Router::new()
        .route("/products", get(list))
        .route("/products/{id}", get(product).put(put))
        .with_state(shelf)
}

/// Body of `PUT /products/{id}`: full state.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PutProduct {
    name: String,
    category_id: CategoryId,
    #[serde(default)]
    price: Option<i64>,
}

async fn put(
    State(shelf): State<Shelf>,
    id: InPath,
    headers: HeaderMap,
    body: Strict<PutProduct>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers, false)?;
    let product_id = product_id(id)?;
    let PutProduct { name, category_id, price } = body.value;
    let content = Content { name, category_id, price };
    content.check().map_err(Problem::invalid)?;
    let request = fresh_id(shelf.commands.runtime(), "catalog.request_id", &shelf.instance);
    let id = match key {
        Some(key) => format!("put:{key}"),
        None => format!("req:{request}"),
    };
    // The route's own path, whatever prefix it is mounted under.
    let mut said = format!("PUT /products/{product_id}\n").into_bytes();
    said.extend_from_slice(&body.bytes);
    let correlation = CorrelationId::parse(request.as_str()).ok();
    let input = Input {
        id: Some(id.into()),
        fingerprint: envelope::fingerprint(&said),
        context: Context { cause: Some(request), correlation },
        fact: Fact::Put { product_id, content },
    };
    Ok(shelf.commands.submit(input).await?.into_response())
}

async fn product(State(shelf): State<Shelf>, id: InPath) -> Result<Response, Problem> {
    let key = product_id(id)?.key();
    let keys = BTreeSet::from([key.clone()]);
    let replies = shelf.store.read(vec![Op::Read { table: &PRODUCTS, keys }]).await?;
    let row = match replies.into_iter().next() {
        Some(Reply::Rows(rows)) => rows.get(&key).cloned().unwrap_or_default(),
        other => panic!("a read answered {other:?}"),
    };
    let product: Option<Product> = document(&row);
    product.map(|product| ok(json!(product))).ok_or_else(|| Problem::not_found("product", &key))
}

/// `?limit&cursor` of the list; the cursor is the last page's last id.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<usize>,
    cursor: Option<String>,
}

async fn list(
    State(shelf): State<Shelf>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = page.map_err(|cause| Problem::invalid(cause.body_text()))?;
    let limit = page.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::invalid(format!("limit must be from 1 to {LIMIT_MAX}")));
    }
    let after = page.cursor.map(ProductId::parse).transpose();
    let after = after.map_err(|cause| Problem::invalid(format!("cursor: {cause}")))?;
    let range = Range {
        column: PRODUCT,
        from: String::new(),
        to: BEHIND_ALL.to_owned(),
        after: after.map(|id| (id.as_str().to_owned(), id.key())),
        descending: false,
        // One more than is shown tells whether there is a next page.
        limit: limit + 1,
    };
    let replies = shelf.store.read(vec![Op::List { table: &PRODUCTS, range }]).await?;
    let rows = match replies.into_iter().next() {
        Some(Reply::Listed(rows)) => rows,
        other => panic!("a list answered {other:?}"),
    };
    let page = &rows[..rows.len().min(limit)];
    let next = page.last().filter(|_| rows.len() > limit).map(|(key, _)| key);
    let items = page.iter().filter_map(|(_, row)| document::<Product>(row));
    let items: Vec<Value> = items.map(|product| json!(product)).collect();
    Ok(ok(json!({ "items": items, "next": next.map(|key| &**key) })))
}

fn product_id(id: InPath) -> Result<ProductId, Problem> {
    let Path(id) = id.map_err(|cause| Problem::invalid(cause.body_text()))?;
    ProductId::parse(&id).map_err(|cause| Problem::invalid(format!("productId: {cause}")))
}

/// A uuid of 122 random bits, as version 4 has them.
fn fresh_id(runtime: &dyn Runtime, site: &'static str, instance: &str) -> EventId {
    let [high, low] = [(); 2].map(|()| u128::from(runtime.choose(site, instance, u64::MAX)));
    let bytes = (high << 64 | low).to_be_bytes();
    let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
    EventId::parse(id.to_string()).expect("a uuid is an id")
}
