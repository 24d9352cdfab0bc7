//! The demo's customers: so many at a time, each with a request in hand, each following its order to
//! the end. They know nothing but HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::{Method, StatusCode};
use futures_util::{StreamExt, TryStreamExt, stream};
use ports::Runtime;
use serde_json::{Value, json};

use super::fixtures::{Basket, Product};
use super::plan::Plan;
use super::progress::Progress;
use crate::client::Client;
use crate::http_shell::pause;

/// Writes of products and stock at the same time: they share commits.
const LOADERS: usize = 128;

/// How long an order may take to its end.
const FINAL_MAX: Duration = Duration::from_secs(30);

/// The pause between two looks at an order.
const LOOK: Duration = Duration::from_millis(3);

/// Who orders.
pub struct Customers {
    /// The way to the shop.
    pub client: Client,
    /// For the time.
    pub runtime: Arc<dyn Runtime>,
    /// How many at a time.
    pub clients: usize,
    /// In every Idempotency-Key of this run.
    pub run: String,
}

/// An order that ended.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Its id.
    pub order_id: String,
    /// From the POST to the final state in the read model.
    pub took: Duration,
    /// As Query shows it.
    pub order: Value,
}

impl Placed {
    /// `confirmed`, or the reason of its cancellation.
    pub fn end(&self) -> &str {
        match self.order["status"].as_str() {
            Some("cancelled") => self.order["terminal"]["reason"].as_str().unwrap_or("cancelled"),
            Some(status) => status,
            None => "unknown",
        }
    }
}

impl Customers {
    /// Products with their prices, and what lies on the shelves.
    pub async fn stock_up(&self, plan: &Plan, progress: &Progress) -> anyhow::Result<()> {
        let products = stream::iter(&plan.products).map(|(product, pieces)| async move {
            self.product(product).await?;
            progress.step();
            self.shelf(product, *pieces).await?;
            progress.step();
            anyhow::Ok(())
        });
        products.buffer_unordered(LOADERS).try_collect::<()>().await
    }

    async fn product(&self, product: &Product) -> anyhow::Result<()> {
        let Product { product_id, name, category_id, price } = product;
        let visible = |c: char| if c.is_ascii_graphic() { c } else { '-' };
        let category: String = category_id.chars().map(visible).collect();
        let body = json!({ "name": name, "categoryId": category, "price": price });
        let path = format!("/catalog/products/{product_id}");
        let key = format!("{}-product-{product_id}", self.run);
        let answer = self.client.write(Method::PUT, &path, &key, &body).await?;
        if !answer.status.is_success() {
            bail!("PUT {path} answered {}: {}", answer.status, answer.body);
        }
        Ok(())
    }

    async fn shelf(&self, product: &Product, pieces: u32) -> anyhow::Result<()> {
        let id = &product.product_id;
        let path = format!("/inventory/stock/{id}/adjust");
        let key = format!("{}-stock-{id}", self.run);
        let body = json!({ "delta": pieces, "reason": "demo" });
        let answer = self.client.write(Method::POST, &path, &key, &body).await?;
        answer.expect(StatusCode::OK).with_context(|| format!("POST {path}")).map(drop)
    }

    /// Places every basket and follows each order to its end.
    pub async fn order(&self, plan: &Plan, progress: &Progress) -> anyhow::Result<Vec<Placed>> {
        // How long an order takes, learnt on the way, so that nobody looks much too early.
        let usual_us = AtomicU64::new(0);
        let usual_us = &usual_us;
        let baskets = plan.baskets.iter().enumerate();
        let placed = stream::iter(baskets).map(|(number, basket)| async move {
            let placed = self.place(number, basket, usual_us).await?;
            progress.step();
            anyhow::Ok(placed)
        });
        placed.buffer_unordered(self.clients).try_collect().await
    }

    async fn place(
        &self,
        number: usize,
        basket: &Basket,
        usual_us: &AtomicU64,
    ) -> anyhow::Result<Placed> {
        let lines: Vec<Value> = basket
            .lines
            .iter()
            .map(|(product, qty)| json!({ "productId": product, "qty": qty }))
            .collect();
        let body = json!({ "cartId": basket.basket_id, "lines": lines });
        let key = format!("{}-order-{number}", self.run);
        let deadline = self.runtime.elapsed() + FINAL_MAX;
        let (begun, answer) = loop {
            let begun = self.runtime.elapsed();
            let answer = self.client.write(Method::POST, "/orders", &key, &body).await?;
            // The price has not come to Orders yet; nothing was stored.
            let early = answer.status == StatusCode::UNPROCESSABLE_ENTITY
                && answer.body["type"] == "urn:shakedown:problem:price-unavailable";
            if !early || self.runtime.elapsed() > deadline {
                break (begun, answer);
            }
            pause(Duration::from_millis(50)).await;
        };
        let created = answer.expect(StatusCode::CREATED).context("POST /orders")?;
        let order_id = created["orderId"].as_str().context("an orderId in the answer")?.to_owned();
        pause(Duration::from_micros(usual_us.load(Ordering::Relaxed) * 3 / 4)).await;
        let order = self.follow(&order_id, deadline).await?;
        let took = self.runtime.elapsed() - begun;
        let before = usual_us.load(Ordering::Relaxed);
        let now = (before * 15 + took.as_micros() as u64) / 16;
        usual_us.store(now, Ordering::Relaxed);
        Ok(Placed { order_id, took, order })
    }

    /// Looks at the order in the read model until it is final.
    async fn follow(&self, order_id: &str, deadline: Duration) -> anyhow::Result<Value> {
        let path = format!("/query/orders/{order_id}");
        loop {
            let answer = self.client.get(&path).await?;
            let known = answer.status == StatusCode::OK;
            if known && !answer.body["terminal"].is_null() && !answer.body["createdAt"].is_null() {
                return Ok(answer.body);
            }
            if self.runtime.elapsed() > deadline {
                bail!("order {order_id} did not end within {FINAL_MAX:?}: {}", answer.body);
            }
            pause(LOOK).await;
        }
    }
}
