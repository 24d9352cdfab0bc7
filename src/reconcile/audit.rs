//! Reads everything that the invariants are about, page by page over HTTP, and has it judged. Holds a
//! page of orders, four numbers a product and the ids of doubtful orders at a time. Never changes
//! anything.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use contract::Service;
use futures_util::future::try_join;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value, json};

use super::judge::{Heard, judge};
use super::report::{Finding, Invariant, Report};
use super::stock::{Tallies, number};
use crate::client::{Client, escaped};
use crate::dlq;
use crate::http_shell::pause;
use crate::progress::Progress;

/// Orders that are asked about at the same time.
const ASKED: usize = 16;

/// Open dead letters of a service that are known by their keys.
const LETTERS_MAX: usize = 10_000;

/// The pause before an order is looked at once more: what was under way has come by then.
const AGAIN_AFTER: Duration = Duration::from_millis(300);

/// An audit of the services behind a client.
pub struct Audit<'a> {
    client: &'a Client,
    now: DateTime<Utc>,
    /// Whether there is a simulated gateway to look into.
    gateway: bool,
    /// Whether there is a folder of mails to look into.
    mailbox: bool,
    /// Keys with open dead letters: what they miss waits for an operator.
    held: BTreeSet<String>,
    /// How many open letters each service has.
    letters: BTreeMap<&'static str, usize>,
}

/// Orders that something was wrong with, to be looked at once more, each with the status that it had.
type Doubtful = BTreeMap<String, Value>;

/// How many of each thing were found by asking for orders.
#[derive(Debug, Default)]
struct Found {
    views: u64,
    reservations: u64,
    payments: u64,
    accounts: u64,
    mails: u64,
    stems: u64,
}

impl<'a> Audit<'a> {
    /// Looks whom there is to ask. `now` is for deadlines.
    pub async fn new(client: &'a Client, now: DateTime<Utc>) -> anyhow::Result<Audit<'a>> {
        let gateway = client.find("/gateway/accounts?limit=1").await?.is_some();
        let mailbox = client.find("/mailbox/mails?limit=1").await?.is_some();
        let (mut held, mut letters) = (BTreeSet::new(), BTreeMap::new());
        for service in Service::ALL {
            let open = dlq::open(client, service, LETTERS_MAX).await?;
            letters.insert(service.name(), open.len());
            let belongs = |letter: &Value| {
                ["key", "correlationId"].map(|field| letter[field].as_str().map(str::to_owned))
            };
            held.extend(open.iter().flat_map(belongs).flatten());
        }
        Ok(Audit { client, now, gateway, mailbox, held, letters })
    }

    /// Audits everything once.
    pub async fn run(&self, progress: Option<&Progress>) -> anyhow::Result<Report> {
        let mut report = Report::default();
        if !self.gateway {
            let why = "there is no simulated gateway here to look into";
            report.untold(Invariant::GatewayAgrees, why);
            report.untold(Invariant::ChargedOnce, why);
        }
        if !self.mailbox {
            report.untold(Invariant::MailSent, "there is no folder of mails here to look into");
        }
        let flowing = under_way(self.client).await?;
        let mut tallies = Tallies::default();
        let mut found = Found::default();
        let doubtful =
            self.orders(&mut report, &mut tallies, &mut found, flowing.is_some(), progress).await?;
        // What came meanwhile may be what was missing.
        let flowing = match under_way(self.client).await? {
            Some(flow) => Some(flow),
            None => flowing,
        };
        let moved = self.again(doubtful, flowing.is_some(), &mut report).await?;
        self.stock(&mut report, tallies, flowing.is_some() || moved).await?;
        self.strange(&mut report, &found).await?;
        self.dead_jobs(&mut report).await?;
        if let Some(flow) = flowing {
            report.add(Finding::Unsettled(flow));
        }
        for (service, open) in self.letters.iter().filter(|(_, open)| **open > 0) {
            let text = format!("{open} open dead letters at {service}: `shakedown dlq list`");
            report.add(Finding::Unsettled(text));
        }
        Ok(report)
    }

    /// Whether an open dead letter may be what this order misses.
    fn is_held(&self, order: &Value) -> bool {
        order["orderId"].as_str().is_some_and(|id| self.held.contains(id))
    }

    /// Judges every order. The doubtful ones are not in the report yet.
    async fn orders(
        &self,
        report: &mut Report,
        tallies: &mut Tallies,
        found: &mut Found,
        flowing: bool,
        progress: Option<&Progress>,
    ) -> anyhow::Result<Doubtful> {
        let mut doubtful = Doubtful::new();
        let mut pages = self.client.pages("/orders");
        while let Some(page) = pages.next().await? {
            let heard = stream::iter(page).map(|order| self.hear(order)).buffered(ASKED);
            let heard: Vec<Heard> = heard.try_collect().await?;
            for one in &heard {
                self.count(one, report, tallies, found);
                let findings = judge(one, flowing || self.is_held(&one.order), self.now);
                let wrong = findings.iter().any(|finding| matches!(finding, Finding::Wrong(..)));
                if wrong {
                    let id = one.order["orderId"].as_str().unwrap_or_default();
                    doubtful.insert(id.to_owned(), one.order["status"].clone());
                } else {
                    findings.into_iter().for_each(|finding| report.add(finding));
                }
                if let Some(progress) = progress {
                    progress.step();
                }
            }
        }
        Ok(doubtful)
    }

    /// All that is said of an order. Orders was asked first: what the others say is not older.
    async fn hear(&self, order: Value) -> anyhow::Result<Heard> {
        let id = escaped(order["orderId"].as_str().context("an orderId of /orders")?);
        let one = |path: String| async move {
            anyhow::Ok(self.client.find(&path).await?.unwrap_or_default())
        };
        let books = try_join(
            one(format!("/query/orders/{id}")),
            one(format!("/inventory/reservations/{id}")),
        );
        let (view, reservation) = books.await?;
        // The gateway before Payments: a payment is never older than its account.
        let account = match self.gateway {
            true => Some(one(format!("/gateway/accounts/{id}")).await?),
            false => None,
        };
        let payment = one(format!("/payments/{id}")).await?;
        let notifications = self.client.list(&format!("/notifications/{id}")).await?;
        let mut mails = Vec::new();
        for mail in self.client.list(&format!("/worker/mails/{id}")).await? {
            let copies = self.copies(&mail).await?;
            mails.push((mail, copies));
        }
        Ok(Heard { order, view, reservation, payment, account, notifications, mails })
    }

    /// How many copies of a mail are at the sink; `None` where nobody can look.
    async fn copies(&self, mail: &Value) -> anyhow::Result<Option<usize>> {
        if !self.mailbox {
            return Ok(None);
        }
        let id = mail["messageId"].as_str().context("a messageId of /worker/mails")?;
        let kept = self.client.find(&format!("/mailbox/mails/{}", escaped(id))).await?;
        let copies = kept.and_then(|kept| kept["copies"].as_array().map(Vec::len));
        Ok(Some(copies.unwrap_or(0)))
    }

    fn count(&self, heard: &Heard, report: &mut Report, tallies: &mut Tallies, found: &mut Found) {
        report.totals.orders += 1;
        for invariant in [Invariant::EndsOnce, Invariant::MoneyFollowsOrders, Invariant::MailSent] {
            report.checked(invariant);
        }
        if let Some(account) = &heard.account {
            report.checked(Invariant::GatewayAgrees);
            report.checked(Invariant::ChargedOnce);
            report.totals.captured += number(&account["captured"]);
            report.totals.held += number(&account["held"]);
            found.accounts += u64::from(!account.is_null());
        }
        if heard.order["status"] == "confirmed" {
            report.totals.confirmed += 1;
            report.totals.sold += tallies.sold(&heard.order);
            if heard.order["paymentMode"] != "none" {
                report.totals.earned += number(&heard.order["amount"]);
            }
        }
        report.totals.cancelled += u64::from(heard.order["status"] == "cancelled");
        found.views += u64::from(!heard.view["createdAt"].is_null());
        found.reservations += u64::from(!heard.reservation.is_null());
        found.payments += u64::from(!heard.payment.is_null());
        found.mails += heard.mails.len() as u64;
        let at_the_sink = heard.mails.iter().filter(|(_, copies)| copies.is_some_and(|n| n > 0));
        found.stems += at_the_sink.count() as u64;
    }

    /// Looks at doubtful orders once more: what was on its way between two of our questions has come.
    /// Whether one of them has another status by now: its pieces were counted as they were.
    async fn again(
        &self,
        doubtful: Doubtful,
        flowing: bool,
        report: &mut Report,
    ) -> anyhow::Result<bool> {
        if doubtful.is_empty() {
            return Ok(false);
        }
        pause(AGAIN_AFTER).await;
        let flowing = flowing || under_way(self.client).await?.is_some();
        let again = stream::iter(&doubtful).map(|(id, status)| async move {
            let order = self.client.find(&format!("/orders/{}", escaped(id))).await?;
            let order = order.with_context(|| format!("order {id} was there a moment ago"))?;
            let moved = order["status"] != *status;
            anyhow::Ok((self.hear(order).await?, moved))
        });
        let mut again = pin!(again.buffered(ASKED));
        let mut any_moved = false;
        while let Some((heard, moved)) = again.try_next().await? {
            any_moved |= moved;
            let findings = judge(&heard, flowing || self.is_held(&heard.order), self.now);
            findings.into_iter().for_each(|finding| report.add(finding));
        }
        Ok(any_moved)
    }

    async fn stock(
        &self,
        report: &mut Report,
        mut tallies: Tallies,
        flowing: bool,
    ) -> anyhow::Result<()> {
        let mut pages = self.client.pages("/inventory/adjustments");
        while let Some(page) = pages.next().await? {
            page.iter().for_each(|row| tallies.adjusted(row));
        }
        let mut pages = self.client.pages("/inventory/reservations?state=reserved");
        while let Some(page) = pages.next().await? {
            page.iter().for_each(|row| tallies.reserved(row));
        }
        let unsettled = flowing || report.unsettled.count > 0;
        let mut pages = self.client.pages("/inventory/stock");
        while let Some(page) = pages.next().await? {
            page.iter().for_each(|row| tallies.shelf(row, unsettled, report));
        }
        tallies.finish(report);
        Ok(())
    }

    /// Whatever is somewhere and was not found by asking for orders: is there an order to it?
    async fn strange(&self, report: &mut Report, found: &Found) -> anyhow::Result<()> {
        for (what, path, count) in [
            ("row in Query", "/query/orders", found.views),
            ("reservation", "/inventory/reservations", found.reservations),
            ("payment", "/payments", found.payments),
            ("account at the gateway", "/gateway/accounts", found.accounts),
            ("mail", "/worker/mails", found.mails),
        ] {
            if path == "/gateway/accounts" && !self.gateway {
                continue;
            }
            let listed = self.listed(path).await?;
            report.checked(Invariant::NothingStrange);
            if listed > count {
                self.name_strange(what, path, report).await?;
            }
        }
        let mut pages = self.client.pages("/stubs");
        while let Some(page) = pages.next().await? {
            for stub in page {
                let text =
                    format!("facts of order {}, which was never placed here", stub["orderId"]);
                report.add(Finding::Wrong(Invariant::NothingStrange, text));
            }
        }
        if self.mailbox {
            self.strange_mails(report, found.stems).await?;
        }
        Ok(())
    }

    async fn listed(&self, path: &str) -> anyhow::Result<u64> {
        let (mut count, mut pages) = (0, self.client.pages(path));
        while let Some(page) = pages.next().await? {
            count += page.len() as u64;
        }
        Ok(count)
    }

    async fn name_strange(
        &self,
        what: &str,
        path: &str,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let mut pages = self.client.pages(path);
        while let Some(page) = pages.next().await? {
            let ids = page.iter().filter_map(|item| item["orderId"].as_str());
            let unknown = stream::iter(ids).map(|id| async move {
                let order = self.client.find(&format!("/orders/{}", escaped(id))).await?;
                anyhow::Ok(order.is_none().then(|| id.to_owned()))
            });
            let unknown: Vec<Option<String>> = unknown.buffered(ASKED).try_collect().await?;
            for id in unknown.into_iter().flatten() {
                let text = format!("a {what} of order {id}, which Orders does not know");
                report.add(Finding::Wrong(Invariant::NothingStrange, text));
            }
        }
        Ok(())
    }

    /// Mails at the sink that the worker does not know. The names come sorted: copies stand together.
    async fn strange_mails(&self, report: &mut Report, known: u64) -> anyhow::Result<()> {
        report.checked(Invariant::NothingStrange);
        let (mut stems, mut last) = (0, String::new());
        let mut pages = self.client.pages("/mailbox/mails");
        while let Some(page) = pages.next().await? {
            for mail in page {
                let stem = mail["stem"].as_str().unwrap_or_default();
                if stem != last {
                    stems += 1;
                    stem.clone_into(&mut last);
                }
            }
        }
        report.totals.mails = stems;
        if stems > known {
            self.name_strange_mails(report).await?;
        }
        Ok(())
    }

    async fn name_strange_mails(&self, report: &mut Report) -> anyhow::Result<()> {
        let mut pages = self.client.pages("/mailbox/mails");
        while let Some(page) = pages.next().await? {
            for mail in page {
                let stem = mail["stem"].as_str().unwrap_or_default();
                // order.type.revision, the order percent-encoded as in a path already
                let order = stem.rsplitn(3, '.').nth(2).unwrap_or_default();
                let mails = match order {
                    "" => Vec::new(),
                    order => self.client.list(&format!("/worker/mails/{order}")).await?,
                };
                let known = mails.iter().filter_map(|mail| mail["messageId"].as_str());
                if !known.into_iter().any(|id| id.split('@').next() == Some(stem)) {
                    let text =
                        format!("the mail {} at the sink, unknown to the worker", mail["name"]);
                    report.add(Finding::Wrong(Invariant::NothingStrange, text));
                }
            }
        }
        Ok(())
    }

    async fn dead_jobs(&self, report: &mut Report) -> anyhow::Result<()> {
        let backlog = backlog(self.client).await?;
        for (queue, ready) in backlog["queues"].as_object().into_iter().flatten() {
            if !queue.ends_with(".dead") {
                continue;
            }
            report.checked(Invariant::JobsAlive);
            if ready.as_u64() != Some(0) {
                let text = format!("{ready} dead jobs in {queue}");
                report.add(Finding::Wrong(Invariant::JobsAlive, text));
            }
        }
        Ok(())
    }
}

/// What is under way between the services, `None` where nothing is.
pub async fn under_way(client: &Client) -> anyhow::Result<Option<String>> {
    let backlog = backlog(client).await?;
    let mut found = Vec::new();
    for (service, one) in backlog["services"].as_object().into_iter().flatten() {
        let unsent = one["outbox"].as_u64().unwrap_or(0);
        if unsent > 0 {
            let more = if one["more"] == true { "at least " } else { "" };
            found.push(format!("{more}{unsent} unsent at {service}"));
        }
        for (topic, lag) in one["lag"].as_object().into_iter().flatten() {
            if lag.as_i64() != Some(0) {
                found.push(format!("{service} is {lag} records behind on {topic}"));
            }
        }
    }
    for (queue, ready) in backlog["queues"].as_object().into_iter().flatten() {
        if !queue.ends_with(".dead") && ready.as_u64() != Some(0) {
            found.push(format!("{ready} jobs wait in {queue}"));
        }
    }
    Ok((!found.is_empty()).then(|| found.join(", ")))
}

/// The backlogs of all processes together.
async fn backlog(client: &Client) -> anyhow::Result<Value> {
    let (mut services, mut queues) = (Map::new(), Map::new());
    let mut silent = None;
    for said in client.each("/backlog").await {
        match said {
            Ok(mut said) => {
                for (part, whole) in [("services", &mut services), ("queues", &mut queues)] {
                    if let Value::Object(part) = said[part].take() {
                        whole.extend(part);
                    }
                }
            }
            Err(error) => silent = Some(error),
        }
    }
    let missing = Service::ALL.iter().find(|service| !services.contains_key(service.name()));
    match (missing, silent) {
        (None, _) => Ok(json!({ "services": services, "queues": queues })),
        (Some(_), Some(error)) => Err(error),
        (Some(service), None) => {
            bail!("nobody that was asked runs {}; see --url", service.name())
        }
    }
}
