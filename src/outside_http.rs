//! The simulated gateway's books and the folder of mails over HTTP, for auditors: what the outside
//! world has, whatever the services believe. Never changes anything, and is no part of the shop.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router, response::IntoResponse};
use chassis::http::{InPath, Parameters, Problem};
use chassis::page::{LIMIT_DEFAULT, LIMIT_MAX, Page};
use contract::OrderId;
use payments::rules::Operation;
use payments::simulated::{Account, Ledger};
use serde_json::{Value, json};

use crate::gateway_journal::JournaledGateway;

/// Numbers of copies that may be missing before one looks no further: a crash leaves some unused.
const GAP_MAX: usize = 3;

/// The gateway's books: `/gateway/accounts` by order, `/gateway/accounts/{order}` with what was asked for
/// it.
pub fn gateway(gateway: Arc<JournaledGateway>) -> Router {
    Router::new()
        .route("/gateway/accounts", get(accounts))
        .route("/gateway/accounts/{order}", get(account))
        .with_state(gateway)
}

/// The mails: `/mailbox/mails` by file name, `/mailbox/mails/{messageId}` with how many copies there are.
pub fn mailbox(mails: PathBuf) -> Router {
    Router::new()
        .route("/mailbox/mails", get(mails_by_name))
        .route("/mailbox/mails/{id}", get(mail))
        .with_state(Mails(mails.into()))
}

#[derive(Clone)]
struct Mails(Arc<Path>);

/// A page of what comes behind the cursor, which is the last name of the page before.
fn page<T>(
    page: Page,
    behind: impl FnOnce(Option<&str>, usize) -> Vec<T>,
    shown: impl Fn(&T) -> (String, Value),
) -> Result<Response, Problem> {
    let limit = page.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::invalid(format!("limit is from 1 to {LIMIT_MAX}")));
    }
    let found = behind(page.cursor.as_deref(), limit + 1);
    let more = found.len() > limit;
    let items: Vec<(String, Value)> = found.iter().take(limit).map(shown).collect();
    let next = items.last().filter(|_| more).map(|(name, _)| name.clone());
    let items: Vec<Value> = items.into_iter().map(|(_, item)| item).collect();
    Ok(Json(json!({ "items": items, "next": next })).into_response())
}

async fn accounts(
    State(gateway): State<Arc<JournaledGateway>>,
    Parameters(asked): Parameters<Page>,
) -> Result<Response, Problem> {
    let behind = |cursor: Option<&str>, limit: usize| {
        let from = cursor.and_then(|text| OrderId::parse(text).ok());
        let from = from.map_or(Bound::Unbounded, Bound::Excluded);
        gateway.look(|ledger| {
            let accounts = ledger.accounts.range((from, Bound::Unbounded)).take(limit);
            accounts.map(|(order, account)| (order.clone(), account.clone())).collect()
        })
    };
    page(asked, behind, |(order, account)| (order.to_string(), shown(order, account)))
}

fn shown(order: &OrderId, account: &Account) -> Value {
    let mut shown = json!(account);
    shown["orderId"] = json!(order);
    shown["held"] = json!(account.held());
    shown
}

async fn account(
    State(gateway): State<Arc<JournaledGateway>>,
    InPath(order): InPath<OrderId>,
) -> Result<Response, Problem> {
    let found = gateway.look(|ledger| {
        let account = ledger.accounts.get(&order).cloned();
        let operations = operations(ledger, &order);
        let known = account.is_some() || !operations.is_empty();
        known.then(|| (account.unwrap_or_default(), operations))
    });
    let (account, operations) = found.ok_or_else(|| {
        Problem::not_found("account of order at the simulated gateway", order.as_str())
    })?;
    let mut shown = shown(&order, &account);
    shown["operations"] = json!(operations);
    Ok(Json(shown).into_response())
}

/// What was asked for an order, and how often: calls are counted since this process started.
fn operations(ledger: &Ledger, order: &OrderId) -> Vec<Value> {
    let all = [Operation::Authorise, Operation::Capture, Operation::Void, Operation::Charge];
    let asked = all.into_iter().filter_map(|operation| {
        let key = operation.key(order);
        let (settled, calls) = (ledger.settled.get(&key), ledger.calls.get(&key));
        (settled.is_some() || calls.is_some()).then(|| {
            json!({
                "operation": operation,
                "amount": settled.map(|settled| settled.amount),
                "answer": settled.map(|settled| &settled.answer),
                "calls": calls.copied().unwrap_or(0),
            })
        })
    });
    asked.collect()
}

async fn mails_by_name(
    State(Mails(mails)): State<Mails>,
    Parameters(asked): Parameters<Page>,
) -> Result<Response, Problem> {
    let mut names = names(&mails).map_err(|error| {
        Problem::unavailable(format!("the folder of mails cannot be read: {error}"))
    })?;
    names.sort_unstable();
    let behind = |cursor: Option<&str>, limit: usize| {
        let from = names.partition_point(|name| Some(name.as_str()) <= cursor);
        names[from..].iter().take(limit).cloned().collect::<Vec<String>>()
    };
    page(asked, behind, |name| {
        let stem = name.trim_end_matches(".eml").rsplit_once('.').map_or("", |(stem, _)| stem);
        (name.clone(), json!({ "name": name, "stem": stem }))
    })
}

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".eml") && !name.starts_with('.') {
            names.push(name);
        }
    }
    Ok(names)
}

async fn mail(
    State(Mails(mails)): State<Mails>,
    InPath(id): InPath<String>,
) -> Result<Response, Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.%@".contains(c);
    let stem = id.split('@').next().unwrap_or_default();
    if stem.is_empty() || stem.starts_with('.') || !id.chars().all(plain) {
        return Err(Problem::invalid("that is no Message-ID of this mailbox"));
    }
    let (mut copies, mut missing) = (Vec::new(), 0);
    for number in 1_u32.. {
        let name = format!("{stem}.{number}.eml");
        if mails.join(&name).exists() {
            copies.push(name);
            missing = 0;
            continue;
        }
        missing += 1;
        if missing > GAP_MAX {
            break;
        }
    }
    if copies.is_empty() {
        return Err(Problem::not_found("mail with the Message-ID", &id));
    }
    Ok(Json(json!({ "messageId": id, "copies": copies })).into_response())
}
