//! HTTP of Catalog: put, look at, list, import. Never writes a row: commands go through the batch.
//! A product's entity tag is its version; conditions are decided in the batch, on the locked row.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chassis::http::{
    Bulk, InPath, Lines, Parameters, Problem, Strict, Tags, command_id, idempotency_key,
    request_fingerprint, required_key,
};
use chassis::page::{List, Page, list_page, read_row};
use chassis::{Commands, Context, Input, Reply, fresh_id};
use contract::{CategoryId, ProductId};
use envelope::CorrelationId;
use ports::Store;
use serde::Deserialize;
use serde_json::json;

use crate::handler::unmet;
use crate::rows::PRODUCT;
use crate::rules::{Condition, Content, Fact, Product, Versions};

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
        .route("/products", get(list).post(import))
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

/// A line of `POST /products`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ImportLine {
    product_id: ProductId,
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
    let condition = condition(&headers)?;
    // With another condition it is another request. None leaves nothing in the fingerprint.
    let mut path = format!("/products/{product_id}");
    for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
        for value in headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()) {
            path.push_str(&format!(" {name}: {value}"));
        }
    }
    let correlation = CorrelationId::parse(request.as_str()).ok();
    let input = Input {
        id: Some(command_id("put", key.as_ref(), &request)),
        fingerprint: request_fingerprint("PUT", &path, &body.bytes),
        context: Context { correlation, ..Context::of_request(Some(request), &headers) },
        fact: Fact::Put { product_id, content, condition },
    };
    Ok(tagged(shelf.commands.submit(input).await?))
}

/// Many products in one request, one a line.
async fn import(
    State(shelf): State<Shelf>,
    headers: HeaderMap,
    body: Lines<ImportLine>,
) -> Result<Response, Problem> {
    let key = required_key(&headers)?;
    let bulk = Bulk::new("import", "/products", &key, body, Fact::Import, |line, _| {
        let ImportLine { product_id, name, category_id, price } = line;
        let content = Content { name, category_id, price };
        content.check().map_err(Problem::invalid)?;
        Ok(Fact::Put { product_id, content, condition: Condition::default() })
    });
    bulk.within(&Context::of_request(None, &headers)).carry_out(&shelf.commands).await
}

/// What If-Match and If-None-Match ask for.
fn condition(headers: &HeaderMap) -> Result<Condition, Problem> {
    let only = Tags::if_match(headers)?.map(versions);
    let never = Tags::if_none_match(headers)?.map(versions);
    Ok(Condition { only, never })
}

/// The versions behind entity tags. A tag of another form is that of no version.
fn versions(tags: Tags) -> Versions {
    match tags {
        Tags::Any => Versions::Any,
        Tags::These(tags) => {
            let version = |opaque: String| {
                opaque.parse().ok().filter(|version: &u64| version.to_string() == opaque)
            };
            Versions::These(tags.into_iter().filter_map(|tag| version(tag.opaque)).collect())
        }
    }
}

/// The reply with the entity tag of the version that its body names, if it does.
fn tagged(reply: Reply) -> Response {
    let version = reply.body["productVersion"].as_u64();
    let mut response = reply.into_response();
    if let Some(version) = version {
        let tag = HeaderValue::from_str(&format!("\"{version}\"")).expect("digits in quotes");
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

async fn product(
    State(shelf): State<Shelf>,
    InPath(id): InPath<ProductId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Condition { only, never } = condition(&headers)?;
    let product = read_row::<Product>(shelf.store.as_ref(), &id.key()).await?;
    let version = product.as_ref().map(|product| product.product_version);
    if only.is_some_and(|only| !only.include(version)) {
        return Ok(tagged(unmet(&id, version)));
    }
    let product = product.ok_or_else(|| Problem::not_found("product", id.as_str()))?;
    let mut response = tagged(Reply::kept(200, json!(product)));
    if never.is_some_and(|never| never.include(version)) {
        // The headers of a 200, without its body.
        *response.body_mut() = Body::empty();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    Ok(response)
}

/// Products in the order of their ids.
async fn list(
    State(shelf): State<Shelf>,
    Parameters(page): Parameters<Page>,
) -> Result<Response, Problem> {
    let shown = |product: &Product| json!(product);
    list_page(shelf.store.as_ref(), List::all(PRODUCT), page, shown).await
}
