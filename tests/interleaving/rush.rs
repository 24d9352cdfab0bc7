//! Customers and operators who all want the same at once: one hot product, orders that are cancelled while
//! they are paid for, prices and stock that change under them.

use std::time::Duration;

use anyhow::ensure;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use futures_util::future::try_join_all;
use ports::Runtime;
use serde_json::{Value, json};
use shakedown::http_shell::pause;
use shakedown::shop::Shop;
use tower::ServiceExt;

/// Orders of a rush, more than there is stock for.
const ORDERS: u64 = 14;
const STOCK: i64 = 9;

/// Looks until the price has come to Orders.
const LOOKS: usize = 400;

struct Rush<'a> {
    shops: &'a [Shop],
    seed: u64,
    runtime: &'a dyn Runtime,
}

/// All of it; returns when the last request is answered.
pub async fn rush(shops: &[Shop], seed: u64, runtime: &dyn Runtime) -> anyhow::Result<()> {
    let rush = Rush { shops, seed, runtime };
    rush.price(0, 250).await?;
    rush.price(1, 263).await?;
    for number in 0..2 {
        rush.adjust(number, &format!("first-{number}"), STOCK).await?;
    }
    try_join_all((0..ORDERS).map(|number| rush.customer(number))).await?;
    Ok(())
}

impl Rush<'_> {
    /// One of `bound` ways, by the seed.
    fn choose(&self, what: &str, number: u64, bound: u64) -> u64 {
        let mut mixed = self.seed ^ number.rotate_left(32);
        for byte in what.bytes() {
            mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        (mixed >> 17) % bound
    }

    async fn customer(&self, number: u64) -> anyhow::Result<()> {
        pause(Duration::from_millis(self.choose("when", number, 300))).await;
        match self.choose("besides", number, 5) {
            0 => self.price(0, 250 + number as i64 * 100).await?,
            1 => self.adjust(0, &format!("more-{number}"), 1).await?,
            2 => self.adjust(1, &format!("less-{number}"), -1).await?,
            _ => {}
        }
        let Some(order) = self.order(number).await? else { return Ok(()) };
        match self.choose("then", number, 4) {
            0 => {
                let path = format!("/orders/{order}/cancel");
                // Too late for some of them: both are answers.
                self.ask(number, Method::POST, &path, &format!("c{number}"), &json!({})).await?;
            }
            // Once more under the same key, at the other instance.
            1 => drop(self.order_at(number + 1, number).await?),
            _ => {}
        }
        Ok(())
    }

    async fn price(&self, product: u64, price: i64) -> anyhow::Result<()> {
        let body = json!({ "name": "Tea", "categoryId": "drinks", "price": price });
        let path = format!("/catalog/products/tea-{product}");
        let (status, said) = self
            .ask(price as u64, Method::PUT, &path, &format!("p{product}-{price}"), &body)
            .await?;
        ensure!(status.is_success(), "{said}");
        Ok(())
    }

    async fn adjust(&self, product: u64, key: &str, delta: i64) -> anyhow::Result<()> {
        let path = format!("/inventory/stock/tea-{product}/adjust");
        let body = json!({ "delta": delta });
        let (status, said) = self.ask(delta as u64, Method::POST, &path, key, &body).await?;
        // Nothing can be taken from an empty shelf.
        ensure!(status == StatusCode::OK || delta < 0, "{said}");
        Ok(())
    }

    async fn order(&self, number: u64) -> anyhow::Result<Option<String>> {
        self.order_at(number, number).await
    }

    async fn order_at(&self, instance: u64, number: u64) -> anyhow::Result<Option<String>> {
        let both = self.choose("what", number, 3);
        let mut lines = vec![json!({ "productId": "tea-0", "qty": 1 })];
        if both == 0 {
            lines.push(json!({ "productId": "tea-1", "qty": 1 }));
        }
        let body = json!({ "lines": lines });
        for _ in 0..LOOKS {
            let (status, said) =
                self.ask(instance, Method::POST, "/orders", &format!("o{number}"), &body).await?;
            match status {
                StatusCode::CREATED => return Ok(said["orderId"].as_str().map(str::to_owned)),
                StatusCode::UNPROCESSABLE_ENTITY | StatusCode::CONFLICT => {
                    pause(Duration::from_millis(20)).await;
                }
                other => anyhow::bail!("{other}: {said}"),
            }
        }
        anyhow::bail!("the price of tea never came to Orders")
    }

    /// At one of the instances, repeated while it is busy.
    async fn ask(
        &self,
        instance: u64,
        method: Method,
        path: &str,
        key: &str,
        body: &Value,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let until = self.runtime.elapsed() + Duration::from_secs(60);
        loop {
            let request = Request::builder()
                .method(method.clone())
                .uri(path)
                .header(header::CONTENT_TYPE, "application/json")
                .header("idempotency-key", format!("{key}-{}", self.seed))
                .body(Body::from(body.to_string()))?;
            let shop = &self.shops[(instance % self.shops.len() as u64) as usize];
            let Ok(response) = shop.router.clone().oneshot(request).await;
            let status = response.status();
            let bytes = to_bytes(response.into_body(), 1 << 20).await?;
            let said = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            if status != StatusCode::SERVICE_UNAVAILABLE || self.runtime.elapsed() > until {
                return Ok((status, said));
            }
            pause(Duration::from_millis(20)).await;
        }
    }
}
