//! The books of the whole shop, read by HTTP and from the gateway: whether stock and money are where
//! the orders' ends say. Never changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use payments::simulated::Ledger;
use serde_json::Value;

use crate::client::Client;

/// Stock of all products, in pieces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stock {
    /// Σ adjustments.
    pub on_hand: i64,
    /// Free.
    pub available: i64,
    /// Held for open orders: none at rest.
    pub reserved: i64,
    /// Sold.
    pub committed: i64,
}

/// What is where.
#[derive(Debug, Clone)]
pub struct Books {
    /// Stock.
    pub stock: Stock,
    /// Pieces in confirmed orders.
    pub sold: i64,
    /// Σ amounts of confirmed orders, minor units.
    pub earned: i64,
    /// What the gateway took.
    pub captured: i64,
    /// What the gateway still holds: nothing at rest.
    pub held: i64,
    /// Mails with an id of their own.
    pub mails: usize,
    /// What does not balance, for people; empty where all does.
    pub wrong: Vec<String>,
}

impl Books {
    /// Reads them all: by HTTP, from the gateway, and from the folder of mails. Every one of these
    /// orders is final.
    pub async fn read(
        client: &Client,
        gateway: &Ledger,
        mails: &Path,
        orders: &BTreeSet<String>,
    ) -> anyhow::Result<Books> {
        let confirmed = client.list("/query/orders?status=confirmed").await?;
        let shelves = client.list("/inventory/stock").await?;
        let payments = client.list("/payments").await?;
        let mut wrong = Vec::new();
        let stock = count_stock(&shelves, &mut wrong)?;
        let sold = compare_sold(&shelves, &confirmed, &mut wrong)?;
        let (earned, captured, held) = compare_money(gateway, &confirmed, &mut wrong)?;
        let open = payments.iter().filter(|payment| payment["openItem"] == true).count();
        if open > 0 {
            wrong.push(format!("{open} payments are open items"));
        }
        let mails = count_mails(mails)?;
        let off = orders.iter().filter(|order| mails.get(*order) != Some(&1)).count();
        if off > 0 {
            wrong.push(format!("{off} orders without their one mail"));
        }
        let mails = mails.values().sum();
        Ok(Books { stock, sold, earned, captured, held, mails, wrong })
    }

    /// Whether everything is where it should be.
    pub fn balance(&self) -> bool {
        self.wrong.is_empty()
    }
}

fn number(value: &Value, field: &str) -> anyhow::Result<i64> {
    value[field].as_i64().with_context(|| format!("{field} in {value}"))
}

fn text<'a>(value: &'a Value, field: &str) -> anyhow::Result<&'a str> {
    value[field].as_str().with_context(|| format!("{field} in {value}"))
}

fn count_stock(shelves: &[Value], wrong: &mut Vec<String>) -> anyhow::Result<Stock> {
    let mut sum = Stock::default();
    for shelf in shelves {
        let one = Stock {
            on_hand: number(shelf, "onHand")?,
            available: number(shelf, "available")?,
            reserved: number(shelf, "reserved")?,
            committed: number(shelf, "committed")?,
        };
        if one.on_hand != one.available + one.reserved + one.committed
            || one.available.min(one.reserved).min(one.committed) < 0
        {
            wrong.push(format!("stock of {}: {one:?}", shelf["productId"]));
        }
        sum.on_hand += one.on_hand;
        sum.available += one.available;
        sum.reserved += one.reserved;
        sum.committed += one.committed;
    }
    if sum.reserved != 0 {
        wrong.push(format!("{} pieces are still reserved", sum.reserved));
    }
    Ok(sum)
}

/// Each product's committed pieces against the lines of confirmed orders. Returns their sum.
fn compare_sold(
    shelves: &[Value],
    confirmed: &[Value],
    wrong: &mut Vec<String>,
) -> anyhow::Result<i64> {
    let mut sold: BTreeMap<&str, i64> = BTreeMap::new();
    for order in confirmed {
        for line in order["lines"].as_array().with_context(|| format!("lines in {order}"))? {
            *sold.entry(text(line, "productId")?).or_default() += number(line, "qty")?;
        }
    }
    let sum = sold.values().sum();
    for shelf in shelves {
        let product = text(shelf, "productId")?;
        let (committed, sold) = (number(shelf, "committed")?, sold.remove(product).unwrap_or(0));
        if committed != sold {
            wrong.push(format!("product {product}: {committed} committed, {sold} sold"));
        }
    }
    wrong.extend(sold.keys().map(|product| format!("product {product}: sold and not known")));
    Ok(sum)
}

/// The gateway's books of each order against what confirmed orders cost. Returns what was earned,
/// captured and is held.
fn compare_money(
    gateway: &Ledger,
    confirmed: &[Value],
    wrong: &mut Vec<String>,
) -> anyhow::Result<(i64, i64, i64)> {
    let mut due = BTreeMap::new();
    for order in confirmed {
        due.insert(text(order, "orderId")?, number(order, "amount")?);
    }
    let earned = due.values().sum();
    let (mut captured, mut held) = (0, 0);
    for (order, account) in &gateway.accounts {
        captured += account.captured;
        held += account.held();
        let due = due.remove(order.as_str()).unwrap_or(0);
        if account.captured != due || account.held() != 0 || account.charges > 1 {
            wrong.push(format!("order {order} owes {due}, the gateway has {account:?}"));
        }
    }
    due.retain(|_, amount| *amount != 0);
    wrong.extend(due.iter().map(|(order, due)| format!("order {order} owes {due}: never asked")));
    Ok((earned, captured, held))
}

/// For each order how many different Message-IDs were sent.
pub fn count_mails(folder: &Path) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut mails: BTreeMap<String, usize> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(folder).context("the folder of mails")? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "eml") {
            continue;
        }
        let mail = std::fs::read_to_string(&path)?;
        let id = mail.lines().find_map(|line| line.strip_prefix("Message-ID: "));
        let id = id.with_context(|| format!("a Message-ID in {}", path.display()))?;
        if seen.insert(id.to_owned()) {
            let order = id.trim_start_matches('<').split('.').next().unwrap_or(id);
            *mails.entry(order.to_owned()).or_default() += 1;
        }
    }
    Ok(mails)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shelf(available: i64, reserved: i64, committed: i64) -> Value {
        json!({ "productId": "p", "onHand": 10, "available": available, "reserved": reserved,
            "committed": committed })
    }

    #[test]
    fn stock_that_is_off_shows() {
        let mut wrong = Vec::new();
        count_stock(&[shelf(7, 0, 3)], &mut wrong).unwrap();
        let sold = [json!({ "lines": [{ "productId": "p", "qty": 3 }] })];
        assert_eq!(compare_sold(&[shelf(7, 0, 3)], &sold, &mut wrong).unwrap(), 3);
        assert_eq!(wrong, Vec::<String>::new());
        count_stock(&[shelf(7, 1, 2), shelf(8, 0, 3)], &mut wrong).unwrap();
        compare_sold(&[shelf(8, 0, 2)], &sold, &mut wrong).unwrap();
        compare_sold(&[], &sold, &mut wrong).unwrap();
        assert_eq!(wrong.len(), 4, "{wrong:?}");
    }
}
