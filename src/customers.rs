//! Customers of the shop: they fill the shelves, place orders and follow each to its end, for the
//! demo and for `load`. They know nothing but HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::{Method, StatusCode};
use futures_util::{StreamExt, TryStreamExt, stream};
use ports::Runtime;
use serde_json::{Value, json};

use crate::client::{Answer, Client, escaped};
use crate::groceries::{Basket, Product};
use crate::http_shell::pause;
use crate::progress::Progress;

/// Writes of products and stock at the same time: they share commits.
const LOADERS: usize = 128;

/// The pause between two looks at an order.
const LOOK: Duration = Duration::from_millis(3);

/// Who orders. Cloning shares the connections.
#[derive(Clone)]
pub struct Customers {
    /// The way to the shop.
    pub client: Client,
    /// For the time.
    pub runtime: Arc<dyn Runtime>,
    /// In every Idempotency-Key of this run.
    pub run: String,
    /// How long an order may take to its end.
    pub patience: Duration,
}

/// An order that was accepted.
#[derive(Debug, Clone)]
pub struct Posted {
    /// Its id.
    pub order_id: String,
    /// How long the POST took that was accepted.
    pub took: Duration,
}

/// How long an order usually takes, learnt on the way, so that nobody looks much too early.
#[derive(Default)]
pub struct Usual {
    us: AtomicU64,
}

impl Usual {
    fn learn(&self, took: Duration) {
        let before = self.us.load(Ordering::Relaxed);
        let now = (before * 15 + took.as_micros() as u64) / 16;
        self.us.store(now, Ordering::Relaxed);
    }

    fn first_look(&self) -> Duration {
        Duration::from_micros(self.us.load(Ordering::Relaxed) * 3 / 4)
    }
}

impl Customers {
    /// Customers of the shop behind this client. `what` is in their Idempotency-Keys, with a number
    /// that is new with each run, so that a second run places new orders.
    pub fn new(
        client: Client,
        runtime: Arc<dyn Runtime>,
        what: &'static str,
        patience: Duration,
    ) -> Customers {
        let run = format!("{what}-{:08x}", runtime.choose(what, "run", 1 << 32));
        Customers { client, runtime, run, patience }
    }

    /// Products with their prices, and how many pieces are added to their shelves.
    pub async fn stock_up(
        &self,
        products: &[(Product, u32)],
        progress: &Progress,
    ) -> anyhow::Result<()> {
        let products = stream::iter(products).map(|(product, pieces)| async move {
            self.product(product).await?;
            progress.step();
            if *pieces > 0 {
                self.shelf(product, *pieces).await?;
            }
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
        let path = format!("/catalog/products/{}", escaped(product_id));
        let key = format!("{}-product-{product_id}", self.run);
        let answer = self.client.write(Method::PUT, &path, &key, &body).await?;
        if !answer.status.is_success() {
            bail!("PUT {path} answered {}: {}", answer.status, answer.body);
        }
        Ok(())
    }

    async fn shelf(&self, product: &Product, pieces: u32) -> anyhow::Result<()> {
        let id = &product.product_id;
        let path = format!("/inventory/stock/{}/adjust", escaped(id));
        let key = format!("{}-stock-{id}", self.run);
        let body = json!({ "delta": pieces, "reason": self.run });
        let answer = self.client.write(Method::POST, &path, &key, &body).await?;
        answer.expect(StatusCode::OK).with_context(|| format!("POST {path}")).map(drop)
    }

    /// Places the order with this number of the run. Waits for a price that has not come to Orders
    /// yet: nothing is stored then.
    pub async fn place(&self, number: usize, basket: &Basket) -> anyhow::Result<Posted> {
        let lines: Vec<Value> = basket
            .lines
            .iter()
            .map(|(product, qty)| json!({ "productId": product, "qty": qty }))
            .collect();
        let body = json!({ "cartId": basket.basket_id, "lines": lines });
        let key = format!("{}-order-{number}", self.run);
        let deadline = self.runtime.elapsed() + self.patience;
        let (answer, took) = loop {
            let begun = self.runtime.elapsed();
            let answer = self.client.write(Method::POST, "/orders", &key, &body).await?;
            let now = self.runtime.elapsed();
            let early = answer.status == StatusCode::UNPROCESSABLE_ENTITY
                && answer.body["type"] == "urn:shakedown:problem:price-unavailable";
            if !early || now > deadline {
                break (answer, now - begun);
            }
            pause(Duration::from_millis(50)).await;
        };
        let created = answer.expect(StatusCode::CREATED).context("POST /orders")?;
        let order_id = created["orderId"].as_str().context("an orderId in the answer")?.to_owned();
        Ok(Posted { order_id, took })
    }

    /// Whether an order is final in the read model.
    pub async fn is_final(&self, order_id: &str) -> anyhow::Result<bool> {
        let answer = self.client.get(&format!("/query/orders/{}", escaped(order_id))).await?;
        Ok(is_final(&answer))
    }

    /// Looks at the order in the read model until it is final. `begun` is when it was wanted, by the
    /// runtime's monotonic clock; returned is how long it took from then, and the order.
    pub async fn follow(
        &self,
        order_id: &str,
        begun: Duration,
        usual: &Usual,
    ) -> anyhow::Result<(Duration, Value)> {
        let path = format!("/query/orders/{}", escaped(order_id));
        let deadline = self.runtime.elapsed() + self.patience;
        let so_far = self.runtime.elapsed().saturating_sub(begun);
        pause(usual.first_look().saturating_sub(so_far)).await;
        loop {
            let answer = self.client.get(&path).await?;
            if is_final(&answer) {
                let took = self.runtime.elapsed().saturating_sub(begun);
                usual.learn(took);
                return Ok((took, answer.body));
            }
            if self.runtime.elapsed() > deadline {
                bail!(
                    "order {order_id} did not end within {:?}; `shakedown saga show {order_id} \
                     --url {}` says what it waits for",
                    self.patience,
                    self.client.whom()
                );
            }
            pause(LOOK).await;
        }
    }
}

fn is_final(answer: &Answer) -> bool {
    let Answer { status, body, .. } = answer;
    *status == StatusCode::OK && !body["terminal"].is_null() && !body["createdAt"].is_null()
}
