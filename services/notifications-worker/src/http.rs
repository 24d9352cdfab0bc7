//! The Notifications Worker's HTTP: mails, and how their sending stands. Never writes.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State as Shared};
use axum::http::Uri;
use axum::response::Response;
use axum::routing::get;
use chassis::http::{self, Problem};
use chassis::{Document, document};
use contract::OrderId;
use ports::{Op, Range, Reply, Store};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::mail::Mail;
use crate::rows::{BY_STATE, MAIL, MailRow};
use crate::rules::State;

/// Most mails on a page.
const LIMIT_MAX: usize = 200;
/// Mails on a page, where the caller does not say.
const LIMIT_DEFAULT: usize = 50;
/// Behind every key and index value: they are ASCII without control characters.
const BEHIND_ALL: &str = "\u{7f}";

/// The service's routes.
pub fn router(store: Arc<dyn Store>) -> Router {
    Router::new()
        .route("/mails", get(list))
        .route("/mails/{order}", get(list_of_order))
        .with_state(store)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    state: Option<State>,
    limit: Option<usize>,
    cursor: Option<String>,
}

fn page(uri: &Uri) -> Result<Page, Problem> {
    Ok(Query::try_from_uri(uri).map_err(|e| Problem::invalid(e.body_text()))?.0)
}

/// All mails by order, or those in one state.
async fn list(Shared(store): Shared<Arc<dyn Store>>, uri: Uri) -> Result<Response, Problem> {
    let page = page(&uri)?;
    let (column, range) = match page.state {
        None => (MAIL, (String::new(), BEHIND_ALL.to_owned())),
        Some(state) => (BY_STATE, MailRow::in_state(state)),
    };
    read(store.as_ref(), column, range, page).await
}

/// An order's mails; none, where no job for it came yet.
async fn list_of_order(
    Shared(store): Shared<Arc<dyn Store>>,
    Path(order): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let order = OrderId::parse(&order).map_err(|e| Problem::invalid(format!("orderId: {e}")))?;
    let page = page(&uri)?;
    if page.state.is_some() {
        return Err(Problem::invalid("the mails of one order are not filtered by state"));
    }
    read(store.as_ref(), MAIL, MailRow::of_order(&order), page).await
}

async fn read(
    store: &dyn Store,
    column: usize,
    (from, to): (String, String),
    page: Page,
) -> Result<Response, Problem> {
    let limit = page.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::invalid(format!("limit is from 1 to {LIMIT_MAX}")));
    }
    let after = match page.cursor.as_deref().map(decode) {
        None => None,
        // Each value belongs to one mail.
        Some(Some(value)) if from <= value && value < to => Some((value, BEHIND_ALL.into())),
        Some(_) => return Err(Problem::invalid("the cursor is not one of this list")),
    };
    let range = Range { column, from, to, after, descending: false, limit: limit + 1 };
    let list = Op::List { table: MailRow::TABLE, range };
    let Some(Reply::Listed(mut rows)) = store.read(vec![list]).await?.pop() else {
        return Err(Problem::unavailable("the store did not answer; try again"));
    };
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().filter(|_| more).and_then(|(_, row)| row.index[column].as_deref());
    let next = last.map(encode);
    let items: Vec<Value> = rows.iter().filter_map(|(_, row)| document(row)).map(shown).collect();
    Ok(http::ok(json!({ "items": items, "next": next })))
}

fn shown(row: MailRow) -> Value {
    let mail = Mail::new(&row.wanted, row.sending.wanted_at);
    let mut value = json!(row);
    value["messageId"] = json!(mail.message_id);
    value
}

/// The value's bytes in hexadecimal.
fn encode(value: &str) -> String {
    value.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(cursor: &str) -> Option<String> {
    let digits = cursor.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok().filter(|byte| (0x20..0x7f).contains(byte))
    });
    String::from_utf8(digits.collect::<Option<Vec<u8>>>()?).ok()
}

#[cfg(test)]
mod tests;
