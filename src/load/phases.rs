//! The phases of a load: warm-up, closed loop, open loop. A customer never waits for anything but the
//! answer to its POST, and whoever measures asks as little as it can: the last orders of a closed loop
//! are followed, the others looked at when those have ended.

use std::time::Duration;

use anyhow::Context;
use futures_util::{StreamExt, stream};
use ports::Runtime;
use serde_json::Value;

use super::Load;
use super::measure::{Quantiles, Reading, Report};
use super::orders::Orders;
use crate::client::escaped;
use crate::customers::{Customers, Posted, Usual};
use crate::groceries::Basket;
use crate::http_shell::pause;
use crate::progress::Progress;
use crate::usage::Usage;

/// Orders that are looked at at the same time.
const LANES: usize = 8;

/// The last orders of a closed loop, as many as may be under way in one batch.
const LAST: usize = 64;

/// The pause between two looks for a mail.
const LOOK: Duration = Duration::from_millis(10);

/// Orders named in the report that did not end.
const NAMED: usize = 5;

/// A load's phases.
pub struct Phases<'a> {
    /// What is wanted.
    pub options: &'a Load,
    /// What is ordered.
    pub orders: &'a Orders,
    /// Who orders.
    pub customers: &'a Customers,
}

/// What a loop came to.
#[derive(Default)]
struct Looped {
    times: Vec<Duration>,
    not_ended: Vec<String>,
}

impl Phases<'_> {
    /// Runs them all.
    pub async fn run(&self) -> anyhow::Result<Report> {
        let Load { orders, clients, warm_up, label, .. } = self.options;
        let mut report =
            Report { system: label.clone(), n: *orders, clients: *clients, ..Report::default() };
        let products = &self.orders.products;
        let progress = Progress::start("products and stock", products.len() as u64 * 2);
        self.customers.stock_up(products, &progress).await?;
        progress.end();
        let (before, rest) = self.orders.baskets.split_at(*warm_up as usize);
        let (closed, open) = rest.split_at(*orders as usize);
        let warmed = self.closed_loop("warm-up", 0, before, None).await?;
        let mut not_ended = warmed.not_ended;
        if !closed.is_empty() {
            let looped =
                self.closed_loop("closed loop", before.len(), closed, Some(&mut report)).await?;
            report.post_ms = Quantiles::of(looped.times);
            not_ended.extend(looped.not_ended);
        }
        if !open.is_empty() {
            let looped =
                self.measured_open_loop(before.len() + closed.len(), open, &mut report).await?;
            not_ended.extend(looped.not_ended);
        }
        report.peak_rss_mb = Reading::take(self.services().await).peak_rss_mb();
        report.complete = not_ended.is_empty();
        let more = not_ended.len().saturating_sub(NAMED);
        not_ended.truncate(NAMED);
        if more > 0 {
            not_ended.push(format!("and {more} more"));
        }
        report.not_ended = not_ended;
        Ok(report)
    }

    fn runtime(&self) -> &dyn Runtime {
        self.customers.runtime.as_ref()
    }

    /// What the services' processes have used together, where all of them say so.
    async fn services(&self) -> Option<Usage> {
        let mut sum = Usage::default();
        for said in self.customers.client.each("/stats").await {
            let one: Usage = serde_json::from_value(said.ok()?).ok()?;
            sum.cpu_s += one.cpu_s;
            sum.peak_rss_mb += one.peak_rss_mb;
        }
        Some(sum)
    }

    /// Customers place orders, each its next one when the last was accepted. The times are those of the
    /// POSTs.
    async fn closed_loop(
        &self,
        name: &'static str,
        first: usize,
        baskets: &[Basket],
        report: Option<&mut Report>,
    ) -> anyhow::Result<Looped> {
        let reading = Reading::take(self.services().await);
        let begun = self.runtime().elapsed();
        let (ids, times) = self.place_all(name, first, baskets).await?;
        let posted = self.runtime().elapsed() - begun;
        let (rest, last) = ids.split_at(ids.len().saturating_sub(LAST));
        let mut not_ended = Vec::new();
        for id in last.iter().rev() {
            not_ended.extend(self.ended(id).await.err());
        }
        let mut took = self.runtime().elapsed() - begun;
        let mut now = Reading::take(self.services().await);
        let checking = Progress::start("each is final", rest.len() as u64);
        let checking = &checking;
        let mut checked = stream::iter(rest)
            .map(|id| async move {
                let over = self.is_over(id).await;
                let waited = !matches!(over, Ok(true));
                let ended = if waited { self.ended(id).await } else { Ok(()) };
                checking.step();
                (waited, ended)
            })
            .buffer_unordered(LANES);
        while let Some((waited, ended)) = checked.next().await {
            not_ended.extend(ended.err());
            if waited {
                took = self.runtime().elapsed() - begun;
                now = Reading::take(self.services().await);
            }
        }
        checking.end();
        let not_ended: Vec<String> = not_ended.iter().map(|error| format!("{error:#}")).collect();
        if let Some(report) = report {
            report.wall_s = Some(took.as_secs_f64());
            report.post_s = Some(posted.as_secs_f64());
            report.sagas_per_s = Some((times.len() - not_ended.len()) as f64 / took.as_secs_f64());
            now.since(&reading, baskets.len(), took, report);
        }
        Ok(Looped { times, not_ended })
    }

    /// The ids of the orders as they were accepted, and how long each POST took.
    async fn place_all(
        &self,
        name: &'static str,
        first: usize,
        baskets: &[Basket],
    ) -> anyhow::Result<(Vec<String>, Vec<Duration>)> {
        let progress = Progress::start(name, baskets.len() as u64);
        let mut placing = stream::iter(baskets.iter().enumerate())
            .map(|(number, basket)| self.customers.place(first + number, basket))
            .buffer_unordered(self.options.clients as usize);
        let (mut ids, mut times) = (Vec::new(), Vec::new());
        while let Some(placed) = placing.next().await {
            let Posted { order_id, took } =
                placed.context("the load stopped: an order was refused")?;
            ids.push(order_id);
            times.push(took);
            progress.step();
        }
        progress.end();
        Ok((ids, times))
    }

    /// Whether an order is final and told of.
    async fn is_over(&self, id: &str) -> anyhow::Result<bool> {
        Ok(self.customers.is_final(id).await? && self.is_told(id).await?)
    }

    /// Waits until an order is final and told of.
    async fn ended(&self, id: &str) -> anyhow::Result<()> {
        let usual = Usual::default();
        self.customers.follow(id, self.runtime().elapsed(), &usual).await?;
        self.told(id).await
    }

    /// Whether the mail of a final order is sent, or never will be.
    async fn is_told(&self, id: &str) -> anyhow::Result<bool> {
        let mails = self.customers.client.list(&format!("/worker/mails/{}", escaped(id))).await?;
        let over = |mail: &Value| mail["state"] != "pending";
        Ok(!mails.is_empty() && mails.iter().all(over))
    }

    /// Waits for that.
    async fn told(&self, id: &str) -> anyhow::Result<()> {
        let until = self.runtime().elapsed() + self.customers.patience;
        while !self.is_told(id).await? {
            if self.runtime().elapsed() > until {
                anyhow::bail!("order {id} is final, and its mail was not sent in time");
            }
            pause(LOOK).await;
        }
        Ok(())
    }

    async fn measured_open_loop(
        &self,
        first: usize,
        baskets: &[Basket],
        report: &mut Report,
    ) -> anyhow::Result<Looped> {
        let before = Reading::take(self.services().await);
        let begun = self.runtime().elapsed();
        let looped = self.open_loop(first, baskets).await?;
        let took = self.runtime().elapsed() - begun;
        let now = Reading::take(self.services().await);
        report.latency_rate = Some(self.options.rate);
        report.latency_seen = Some(looped.times.len() as u32);
        report.latency_ms = Quantiles::of(looped.times.clone());
        report.cpu_cores_at_latency_rate =
            now.services_since(&before).map(|seconds| seconds / took.as_secs_f64());
        Ok(looped)
    }

    /// Places each order when it is due, whatever became of those before. The times are from then
    /// until the order was seen final in Query.
    async fn open_loop(&self, first: usize, baskets: &[Basket]) -> anyhow::Result<Looped> {
        let progress = Progress::start("open loop", baskets.len() as u64);
        let (usual, start) = (Usual::default(), self.runtime().elapsed());
        let (usual, progress_of) = (&usual, &progress);
        let gap = Duration::from_secs(1) / self.options.rate;
        let mut followed = stream::iter(baskets.iter().enumerate())
            .map(|(number, basket)| async move {
                let due = start + gap * number as u32;
                pause(due.saturating_sub(self.runtime().elapsed())).await;
                let posted = self.customers.place(first + number, basket).await;
                let posted = posted.context("the load stopped: an order was refused")?;
                let ended = self.customers.follow(&posted.order_id, due, usual).await;
                progress_of.step();
                anyhow::Ok((posted.order_id, ended))
            })
            .buffer_unordered(baskets.len());
        let mut looped = Looped::default();
        let mut ids = Vec::new();
        while let Some(one) = followed.next().await {
            match one? {
                (id, Ok((took, _))) => {
                    looped.times.push(took);
                    ids.push(id);
                }
                (_, Err(error)) => looped.not_ended.push(format!("{error:#}")),
            }
        }
        progress.end();
        let told = stream::iter(ids).map(|id| async move { self.told(&id).await.err() });
        let late: Vec<String> = told
            .buffer_unordered(LANES)
            .filter_map(|error| async move { error.map(|error| format!("{error:#}")) })
            .collect()
            .await;
        looped.not_ended.extend(late);
        Ok(looped)
    }
}
