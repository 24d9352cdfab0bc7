//! Payments' HTTP: look at payments. Never changes anything.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::Uri;
use axum::response::Response;
use axum::routing::get;
use chassis::http::{self, Problem};
use chassis::{Due, document};
use contract::OrderId;
use ports::{Key, Op, Range, Reply, Store};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::rows::{CREATED, PAYMENTS};
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

async fn show(
    State(api): State<Api>,
    order: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(order) = order.map_err(|e| Problem::invalid(e.body_text()))?;
    let order = OrderId::parse(&order).map_err(|e| Problem::invalid(format!("orderId: {e}")))?;
    let keys = BTreeSet::from([order.key()]);
    let mut replies = api.store.read(vec![Op::Read { table: &PAYMENTS, keys }]).await?;
    let Some(Reply::Rows(rows)) = replies.pop() else {
        return Err(Problem::unavailable("the store did not answer; try again"));
    };
    let payment = rows.get(order.as_str()).and_then(document::<Payment>);
    let payment = payment.ok_or_else(|| Problem::not_found("payment of order", order.as_str()))?;
    Ok(http::ok(view(&payment)))
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

/// Payments, the newest first.
async fn list(State(api): State<Api>, uri: Uri) -> Result<Response, Problem> {
    let page = Query::<Page>::try_from_uri(&uri).map_err(|e| Problem::invalid(e.body_text()))?.0;
    if !(1..=200).contains(&page.limit) {
        return Err(Problem::invalid("limit is from 1 to 200"));
    }
    let range = Range {
        column: CREATED,
        from: String::new(),
        // Behind every instant.
        to: "\u{7f}".to_owned(),
        after: page.cursor.as_deref().map(read_cursor).transpose()?,
        descending: true,
        limit: page.limit + 1,
    };
    let mut replies = api.store.read(vec![Op::List { table: &PAYMENTS, range }]).await?;
    let Some(Reply::Listed(rows)) = replies.pop() else {
        return Err(Problem::unavailable("the store did not answer; try again"));
    };
    let payments = rows.iter().filter_map(|(_, row)| document::<Payment>(row));
    let payments: Vec<Payment> = payments.take(page.limit).collect();
    let more = rows.len() > page.limit;
    let next = payments.last().filter(|_| more).map(cursor);
    let items: Vec<Value> = payments.iter().map(view).collect();
    Ok(http::ok(json!({ "items": items, "next": next })))
}

/// The last payment shown: its instant and its order.
fn cursor(payment: &Payment) -> String {
    format!("{}~{}", Due::at(payment.created_at), payment.order_id)
}

fn read_cursor(text: &str) -> Result<(String, Key), Problem> {
    let parts = text.split_once('~');
    let parts = parts.and_then(|(created, order)| Some((created, OrderId::parse(order).ok()?)));
    let (created, order) = parts.ok_or_else(|| Problem::invalid("cursor: not one of ours"))?;
    Ok((created.to_owned(), order.key()))
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
