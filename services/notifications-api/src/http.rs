//! The Notifications API's HTTP: look at an order's notifications, ask for one more. Never writes
//! but by command.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use chassis::http::{self, Problem, idempotency_key};
use chassis::{Commands, Context, Document, Input, Reply, document};
use contract::{OrderId, Profile};
use envelope::EventId;
use ports::{Op, Range, Store};
use serde::Deserialize;
use serde_json::json;

use crate::handler::Fact;
use crate::rows::NotificationRow;
use crate::rules::OrderFact;

/// Most notifications on a page.
const LIMIT_MAX: usize = 200;
/// Notifications on a page, where the caller does not say.
const LIMIT_DEFAULT: usize = 50;

/// What the routes work with.
#[derive(Clone)]
pub struct Api {
    /// The way to the rules.
    pub commands: Commands<Fact>,
    /// For reading.
    pub store: Arc<dyn Store>,
    /// In profile `catalog` a job has no revision: nothing can be sent again.
    pub profile: Profile,
}

/// The service's routes.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/notifications/{order}", get(list))
        .route("/notifications/{order}/resend", post(resend))
        .with_state(api)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<usize>,
    /// The last revision shown.
    cursor: Option<u32>,
}

/// An order's notifications by revision; none, where it has not ended or its end has not come here.
async fn list(
    State(api): State<Api>,
    Path(order): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let order = order_id(&order)?;
    let page = Query::<Page>::try_from_uri(&uri).map_err(|e| Problem::invalid(e.body_text()))?.0;
    let limit = page.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::invalid(format!("limit is from 1 to {LIMIT_MAX}")));
    }
    let range = Range {
        column: 0,
        from: format!("{order} "),
        to: format!("{order}!"),
        // Behind every key with this value: keys are visible ASCII.
        after: page.cursor.map(|n| (NotificationRow::told(&order, n), "\u{7f}".into())),
        descending: false,
        limit: limit + 1,
    };
    let list = Op::List { table: NotificationRow::TABLE, range };
    let Some(ports::Reply::Listed(rows)) = api.store.read(vec![list]).await?.pop() else {
        return Err(Problem::unavailable("the store did not answer; try again"));
    };
    let shown = rows.iter().filter_map(|(_, row)| document::<NotificationRow>(row));
    let items: Vec<NotificationRow> = shown.take(limit).collect();
    let last = items.last().filter(|_| rows.len() > limit);
    let next = last.map(|row| row.told.revision.to_string());
    Ok(http::ok(json!({ "items": items, "next": next })))
}

async fn resend(
    State(api): State<Api>,
    Path(order): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Reply, Problem> {
    let order_id = order_id(&order)?;
    if !body.is_empty() {
        return Err(Problem::invalid("a resend has no body"));
    }
    let Some(given) = idempotency_key(&headers, true)? else {
        return Err(Problem::invalid("an Idempotency-Key is required"));
    };
    match api.profile {
        Profile::Default => {}
        Profile::Catalog => {
            let detail = "in this profile a job has no revision to tell a resend by";
            let title = "The notification cannot be sent again";
            return Err(Problem::new(409, "resend-refused", title, detail));
        }
    }
    let said = format!("{method} {}\n", uri.path());
    let input = Input {
        id: Some(format!("resend:{given}").into()),
        fingerprint: envelope::fingerprint(said.as_bytes()),
        context: Context { cause: EventId::parse(&given).ok(), correlation: None },
        fact: Fact { order_id, fact: OrderFact::Resend },
    };
    Ok(api.commands.submit(input).await?)
}

fn order_id(text: &str) -> Result<OrderId, Problem> {
    OrderId::parse(text).map_err(|e| Problem::invalid(format!("orderId: {e}")))
}
