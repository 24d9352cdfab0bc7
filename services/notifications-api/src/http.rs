//! The Notifications API's HTTP: look at an order's notifications, ask for one more. Never writes
//! but by command.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use chassis::http::{
    InPath, NoBody, Parameters, Problem, keyed_id, request_fingerprint, required_key,
};
use chassis::page::{List, Page, list_page};
use chassis::{Commands, Context, Input, Reply};
use contract::{OrderId, Profile};
use envelope::{CorrelationId, EventId};
use ports::Store;
use serde_json::json;

use crate::handler::Fact;
use crate::rows::{NotificationRow, TOLD};
use crate::rules::OrderFact;

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

/// An order's notifications by revision; none, where it has not ended or its end has not come here.
async fn list(
    State(api): State<Api>,
    InPath(order): InPath<OrderId>,
    Parameters(page): Parameters<Page>,
) -> Result<Response, Problem> {
    let list = List::between(TOLD, NotificationRow::of_order(&order));
    list_page(api.store.as_ref(), list, page, |row: &NotificationRow| json!(row)).await
}

async fn resend(
    State(api): State<Api>,
    InPath(order_id): InPath<OrderId>,
    headers: HeaderMap,
    NoBody: NoBody,
) -> Result<Reply, Problem> {
    let given = required_key(&headers)?;
    match api.profile {
        Profile::Default => {}
        Profile::Catalog => {
            let detail = "in this profile a job has no revision to tell a resend by";
            let title = "The notification cannot be sent again";
            return Err(Problem::new(409, "resend-refused", title, detail));
        }
    }
    let input = Input {
        id: Some(keyed_id("resend", &given)),
        fingerprint: request_fingerprint("POST", &format!("/notifications/{order_id}/resend"), b""),
        context: Context {
            correlation: CorrelationId::parse(order_id.as_str()).ok(),
            ..Context::of_request(EventId::parse(&given).ok(), &headers)
        },
        fact: Fact { order_id, fact: OrderFact::Resend },
    };
    Ok(api.commands.submit(input).await?)
}
