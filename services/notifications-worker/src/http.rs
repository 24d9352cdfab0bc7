//! The Notifications Worker's HTTP: mails, and how their sending stands. Never writes.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Shared;
use axum::response::Response;
use axum::routing::get;
use chassis::http::{InPath, Parameters, Problem};
use chassis::page::{List, Page, list_page};
use contract::OrderId;
use ports::Store;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::mail::Mail;
use crate::rows::{BY_STATE, MAIL, MailRow};
use crate::rules::State;

/// The service's routes.
pub fn router(store: Arc<dyn Store>) -> Router {
    Router::new()
        .route("/mails", get(list))
        .route("/mails/{order}", get(list_of_order))
        .with_state(store)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MailsPage {
    state: Option<State>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// All mails by order, or those in one state.
async fn list(
    Shared(store): Shared<Arc<dyn Store>>,
    Parameters(MailsPage { state, limit, cursor }): Parameters<MailsPage>,
) -> Result<Response, Problem> {
    let list = match state {
        None => List::all(MAIL),
        Some(state) => List::between(BY_STATE, MailRow::in_state(state)),
    };
    list_page(store.as_ref(), list, Page { limit, cursor }, shown).await
}

/// An order's mails; none, where no job for it came yet.
async fn list_of_order(
    Shared(store): Shared<Arc<dyn Store>>,
    InPath(order): InPath<OrderId>,
    Parameters(page): Parameters<Page>,
) -> Result<Response, Problem> {
    list_page(store.as_ref(), List::between(MAIL, MailRow::of_order(&order)), page, shown).await
}

fn shown(row: &MailRow) -> Value {
    let mail = Mail::new(&row.wanted, row.sending.wanted_at);
    let mut value = json!(row);
    value["messageId"] = json!(mail.message_id);
    value
}

#[cfg(test)]
mod tests;
