//! Three orders told as stories, by what the services say of them over HTTP.

use std::path::{Path, PathBuf};

use anyhow::Context;
use chrono::DateTime;
use contract::reason;
use serde_json::Value;

use super::place::Placed;
use crate::client::Client;
use crate::words::money;

/// Tells one order of each end that the demo provokes.
pub async fn tell(client: &Client, placed: &[Placed], mails: &Path) -> anyhow::Result<()> {
    for (end, title) in [
        ("confirmed", "One order went through"),
        (reason::DECLINED, "One card was declined"),
        (reason::INSUFFICIENT_STOCK, "One shelf was empty"),
    ] {
        // The first, by the time of its creation, that has a few lines to it.
        let of_end = placed.iter().filter(|order| order.end() == end);
        let chosen =
            of_end.min_by_key(|order| order.order["createdAt"].as_str().map(str::to_owned));
        let Some(chosen) = chosen else { continue };
        say!("\n{title}: {}", chosen.order_id);
        for (at_ms, line) in story(client, chosen, mails).await? {
            match at_ms {
                Some(at_ms) => say!("  {at_ms:>6} ms  {line}"),
                None => say!("             {line}"),
            }
        }
    }
    Ok(())
}

/// Lines with their time after the order's creation, in order.
async fn story(
    client: &Client,
    placed: &Placed,
    mails: &Path,
) -> anyhow::Result<Vec<(Option<i64>, String)>> {
    let id = &placed.order_id;
    let order = client.get(&format!("/query/orders/{id}")).await?.body;
    let payment = client.get(&format!("/payments/{id}")).await?.body;
    let created_ms = at_ms(&order["createdAt"]).context("createdAt of the order")?;
    let since = |time: &Value| at_ms(time).map(|ms| ms - created_ms);
    let lines = order["lines"].as_array().map_or(0, Vec::len);
    let amount = order["amount"].as_i64().unwrap_or(0);
    let mut told = vec![(Some(0), format!("placed: {lines} products for {}", money(amount)))];
    told.push((since(&order["stock"]["at"]), said("stock", &order["stock"])));
    told.push((since(&order["payment"]["at"]), said("payment", &order["payment"])));
    told.push((since(&order["terminal"]["at"]), said("order", &order["terminal"])));
    told.retain(|(at_ms, _)| at_ms.is_some());
    told.sort_by_key(|(at_ms, _)| *at_ms);
    let state = payment["state"].as_str().unwrap_or("unknown");
    told.push((None, format!("the money in the end: {state}")));
    if let Some(mail) = mail_of(mails, id)? {
        told.push((None, format!("mail: {}", mail.display())));
    }
    Ok(told)
}

fn said(what: &str, facet: &Value) -> String {
    let state = facet["state"].as_str().unwrap_or("unknown");
    match facet["reason"].as_str() {
        Some(reason) => format!("{what} {state}: {reason}"),
        None => format!("{what} {state}"),
    }
}

fn at_ms(time: &Value) -> Option<i64> {
    Some(DateTime::parse_from_rfc3339(time.as_str()?).ok()?.timestamp_millis())
}

/// The mail's file: its name starts with the order's id.
fn mail_of(mails: &Path, order_id: &str) -> anyhow::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(mails).context("the folder of mails")? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let eml = path.extension().is_some_and(|extension| extension == "eml");
        if eml && name.is_some_and(|name| name.starts_with(order_id)) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
