//! HTTP of Catalog: put, look at, list. Never writes a row: commands go through the batch.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chassis::http::{
    InPath, Parameters, Problem, Strict, command_id, idempotency_key, ok, request_fingerprint,
};
use chassis::page::{List, Page, list_page, read_row};
use chassis::{Commands, Context, Input, fresh_id};
use contract::{CategoryId, ProductId};
use envelope::CorrelationId;
use ports::Store;
use serde::Deserialize;
use serde_json::json;

use crate::rows::PRODUCT;
use crate::rules::{Content, Fact, Product};

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
    InPath(product_id): InPath<ProductId>,
    headers: HeaderMap,
    body: Strict<PutProduct>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers, false)?;
    let PutProduct { name, category_id, price } = body.value;
    let content = Content { name, category_id, price };
    content.check().map_err(Problem::invalid)?;
    let request = fresh_id(shelf.commands.runtime(), "catalog.request_id", &shelf.instance);
    let path = format!("/products/{product_id}");
    let correlation = CorrelationId::parse(request.as_str()).ok();
    let input = Input {
        id: Some(command_id("put", key.as_ref(), &request)),
        fingerprint: request_fingerprint("PUT", &path, &body.bytes),
        context: Context { correlation, ..Context::of_request(Some(request), &headers) },
        fact: Fact::Put { product_id, content },
    };
    Ok(shelf.commands.submit(input).await?.into_response())
}

async fn product(
    State(shelf): State<Shelf>,
    InPath(id): InPath<ProductId>,
) -> Result<Response, Problem> {
    let product = read_row::<Product>(shelf.store.as_ref(), &id.key()).await?;
    let product = product.ok_or_else(|| Problem::not_found("product", id.as_str()))?;
    Ok(ok(json!(product)))
}

/// Products in the order of their ids.
async fn list(
    State(shelf): State<Shelf>,
    Parameters(page): Parameters<Page>,
) -> Result<Response, Problem> {
    let shown = |product: &Product| json!(product);
    list_page(shelf.store.as_ref(), List::all(PRODUCT), page, shown).await
}
