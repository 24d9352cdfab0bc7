//! Those who run the shop while customers order: they change products and adjust stock, by HTTP, again
//! with the same key until they are answered for good. And what they were told. Never judged here.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::Service;
use serde_json::{Value, json};

use crate::customers::{Customers, many, one};
use crate::visitor::Listed;
use crate::walk_ins::WalkIn;
use crate::workload::{CATEGORY, Import, PriceChange, PriceList, SOON_MS, WriteOff};

/// What somebody was told who is no customer.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Of changes of products.
    pub changes: Vec<ChangeTold>,
    /// Of new prices of many: status and body, `None` where never answered for good.
    pub price_lists: Vec<(PriceList, Option<(u16, Value)>)>,
    /// Of pieces that were to be written off.
    pub write_offs: Vec<WriteOffTold>,
    /// Of stock that was adjusted in bulk, each time: status and body, `None` where never answered for good.
    pub imports: Vec<(Import, Option<(u16, Value)>)>,
    /// Of letters that were to be settled.
    pub settled: Vec<SettledTold>,
    /// Of bulk requests under a key that was used: its name and the status.
    pub imports_reused: Vec<(String, Option<u16>)>,
    /// Of a stream from behind the last change.
    pub ahead: Option<u16>,
    /// Of orders without a key.
    pub walk_ins: Vec<WalkIn>,
    /// By lists.
    pub lists: Vec<Listed>,
    /// Revisions of an order's notifications, by order, where one was promised once more.
    pub notified: BTreeMap<String, Vec<u64>>,
    /// Who asked for orders that nobody placed, and the status.
    pub strays: Vec<(String, Option<u16>)>,
    /// Orders that were accepted with a Location where they are not.
    pub astray: Vec<String>,
}

/// The answer to a change of a product.
#[derive(Debug, Clone)]
pub struct ChangeTold {
    /// The change.
    pub change: PriceChange,
    /// The version that it was for; `None`: for any.
    pub seen: Option<u64>,
    /// Status and body; `None`: never answered for good.
    pub answer: Option<(u16, Value)>,
    /// What was answered to the same content for another version under its key; `None` where nobody asked.
    pub reused: Option<Option<u16>>,
}

/// The answer to pieces that were to be written off.
#[derive(Debug, Clone)]
pub struct WriteOffTold {
    /// The pieces.
    pub write_off: WriteOff,
    /// Status and body; `None`: never answered for good.
    pub answer: Option<(u16, Value)>,
    /// Whether it was answered the same once more; `None` where nobody asked.
    pub repeated: Option<bool>,
    /// What was answered to more pieces under its key; `None` where nobody asked.
    pub reused: Option<Option<u16>>,
}

/// The answer to an operator who would have a letter settled.
#[derive(Debug, Clone)]
pub struct SettledTold {
    /// Whose letter.
    pub service: Service,
    /// Its id.
    pub letter: String,
    /// What was asked: `redrive` or `discard`.
    pub verb: &'static str,
    /// HTTP status.
    pub status: u16,
    /// How the letter stands, where it was settled.
    pub state: Option<String>,
}

impl Customers {
    /// Gives a product another price or category, at its time. Who looks first thinks before the change:
    /// somebody else may have changed it meanwhile.
    pub async fn reprice(self, change: PriceChange) {
        let PriceChange { product, at_ms, price, category, looks, creates, reuses_key } = &change;
        madsim::time::sleep(Duration::from_millis(*at_ms)).await;
        let (path, key) = (format!("/products/{product}"), format!("price-{product}-{at_ms}"));
        let mut seen = None;
        if *looks {
            let answer = self.until_answered(Service::Catalog, "GET", &path, &key, None).await;
            seen = answer.and_then(|(_, body)| body["productVersion"].as_u64());
            let thinks_ms = self.world().cluster.choices().below("keeper thinks", &key, 60);
            madsim::time::sleep(Duration::from_millis(thinks_ms)).await;
        }
        let category = category.as_deref().unwrap_or(CATEGORY);
        let mut body = json!({ "name": product, "categoryId": category });
        if let Some(price) = price {
            body["price"] = json!(price);
        }
        let sent = Some(one(&body).only(seen).never(*creates));
        let answer = self.until_answered(Service::Catalog, "PUT", &path, &key, sent).await;
        let done = answer.as_ref().filter(|(status, _)| matches!(status, 200 | 201) && *reuses_key);
        let mut reused = None;
        if let Some(now) = done.and_then(|(_, body)| body["productVersion"].as_u64()) {
            let sent = Some(one(&body).only(Some(now)));
            let again = self.until_answered(Service::Catalog, "PUT", &path, &key, sent).await;
            reused = Some(again.map(|(status, _)| status)).filter(|_| seen != Some(now));
        }
        self.note_told(|told| told.changes.push(ChangeTold { change, seen, answer, reused }));
    }

    /// Gives many products another price at once, and again with the same key until every line is done.
    pub async fn reprice_many(self, list: PriceList) {
        madsim::time::sleep(Duration::from_millis(list.at_ms)).await;
        let line = |(product, price): &(String, i64)| json!({ "productId": product, "name": product, "categoryId": CATEGORY, "price": price });
        let body = Some(many(list.lines.iter().map(line)));
        let answer =
            self.until_answered(Service::Catalog, "POST", "/products", &list.name, body).await;
        self.note_told(|told| told.price_lists.push((list, answer)));
    }

    /// Adjusts stock in bulk, and again with the same key until every line is done; and once more long
    /// after that, where the workload says so.
    pub async fn import(self, import: Import) {
        madsim::time::sleep(Duration::from_millis(import.at_ms)).await;
        self.send(&import).await;
        if import.reuses_key {
            let more = Import { lines: import.lines + 1, ..import.clone() };
            let status = self.post(&more).await.map(|(status, _)| status);
            self.note_told(|told| told.imports_reused.push((import.name.clone(), status)));
        }
        if let Some(after_ms) = import.again_after_ms {
            let keeper = self.clone();
            self.later(async move {
                madsim::time::sleep(Duration::from_millis(after_ms)).await;
                keeper.send(&import).await;
            });
        }
    }

    async fn send(&self, import: &Import) {
        let answer = self.post(import).await;
        let failed = answer.as_ref().map(|(status, body)| (status, body["failed"].clone()));
        self.world().cluster.note("customers", "imported", format!("{}: {failed:?}", import.name));
        self.note_told(|told| told.imports.push((import.clone(), answer)));
    }

    async fn post(&self, import: &Import) -> Option<(u16, Value)> {
        let line = |(product, delta)| json!({ "productId": product, "delta": delta, "reason": import.name });
        let mut lines: Vec<Value> = import.lines().map(line).collect();
        if let Some(at) = import.spoilt {
            // Of no product.
            lines.insert(at as usize, json!({ "delta": 1 }));
        }
        let body = Some(many(lines.into_iter()));
        let (service, key) = (Service::Inventory, &import.name);
        self.until_answered(service, "POST", "/stock", key, body).await
    }

    /// Writes pieces off, at their time; and once more long after that, where the workload says so.
    pub async fn write_off(self, write_off: WriteOff) {
        madsim::time::sleep(Duration::from_millis(write_off.at_ms)).await;
        let answer = self.take_off(&write_off).await;
        let keeper = self.clone();
        self.later(async move {
            let (mut repeated, mut reused) = (None, None);
            let done = answer.as_ref().is_some_and(|(status, _)| *status == 200);
            let again = write_off.again_after_ms.filter(|after_ms| done || *after_ms < SOON_MS);
            madsim::time::sleep(Duration::from_millis(again.unwrap_or(0))).await;
            // First: a repeat would bring back what the inbox had forgotten.
            if write_off.reuses_key && done {
                let more = WriteOff { pieces: write_off.pieces + 1, ..write_off.clone() };
                reused = Some(keeper.take_off(&more).await.map(|(status, _)| status));
            }
            if again.is_some() {
                repeated = Some(keeper.take_off(&write_off).await == answer);
            }
            let told = WriteOffTold { write_off, answer, repeated, reused };
            keeper.note_told(|all| all.write_offs.push(told));
        });
    }

    async fn take_off(&self, write_off: &WriteOff) -> Option<(u16, Value)> {
        let WriteOff { name, product, pieces, .. } = write_off;
        let path = format!("/stock/{product}/adjust");
        let body = Some(one(&json!({ "delta": -pieces, "reason": name })));
        self.until_answered(Service::Inventory, "POST", &path, name, body).await
    }
}
