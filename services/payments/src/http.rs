//! Payments' HTTP: look at payments. Never changes anything.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use chassis::Due;
use chassis::http::{self, InPath, Parameters, Problem};
use chassis::page::{List, Page, list_page, read_row};
use contract::OrderId;
use ports::Store;
use serde_json::{Value, json};

use crate::rows::CREATED;
use crate::rules::{Outcome, Payment};

/// What the routes work with.
#[derive(Clone)]
pub struct Api {
    /// For reading.
    pub store: Arc<dyn Store>,
}

/// The service's routes.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/payments", get(list))
        .route("/payments/{order}", get(show))
        .with_state(api)
}

async fn show(State(api): State<Api>, InPath(order): InPath<OrderId>) -> Result<Response, Problem> {
    let payment = read_row(api.store.as_ref(), &order.key()).await?;
    let payment = payment.ok_or_else(|| Problem::not_found("payment of order", order.as_str()))?;
    Ok(http::ok(view(&payment)))
}

/// Payments, the newest first.
async fn list(
    State(api): State<Api>,
    Parameters(page): Parameters<Page>,
) -> Result<Response, Problem> {
    list_page(api.store.as_ref(), List::all(CREATED).descending(), page, view).await
}

fn view(payment: &Payment) -> Value {
    let (status, reason) = match &payment.outcome {
        None => (None, None),
        Some(Outcome::Success) => (Some("success"), None),
        Some(Outcome::Failure(reason)) => (Some("failure"), Some(reason)),
    };
    json!({
        "orderId": payment.order_id,
        "state": payment.state,
        "status": status,
        "reason": reason,
        "amount": payment.amount(),
        "paymentMode": payment.order.as_ref().map(|order| order.mode),
        "terminal": payment.terminal,
        "refused": payment.refused,
        "openItem": payment.is_open_item(),
        "attempts": payment.attempts,
        "due": payment.due.map(Due::at),
        "createdAt": Due::at(payment.created_at),
    })
}
