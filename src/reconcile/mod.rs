//! `shakedown reconcile`: the invariants that can be checked on live services, over HTTP, as a table.
//! Never changes anything, and never calls wrong what is only under way.

mod audit;
mod judge;
mod report;
mod stock;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use audit::{Audit, under_way};
pub use report::{Finding, Findings, Invariant, Report, Row, Totals, Verdict};

use crate::client::{Client, Target};
use crate::http_shell::pause;
use crate::progress::Progress;
use crate::{cannot_tell, local_mode};

/// The pause between two looks while waiting for rest.
const LOOK: Duration = Duration::from_millis(200);

/// `shakedown reconcile`.
#[derive(Debug, Args)]
#[command(after_help = "\
It reads every order and asks every service about it; stock and money are added up, the gateway's
own ledger and the mails at the sink are held against what the services believe. Best at rest: what
is under way is told apart from what is wrong, and --wait waits for it.

Exit codes: 0 the books balance, 1 they do not, 3 it cannot be told: a service does not answer,
something is still under way, or there is nothing to look into (a real gateway).

Examples
  shakedown reconcile
  shakedown reconcile --wait 60 --json")]
pub struct Reconcile {
    /// Wait up to so long until nothing is under way
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub wait: u32,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Whom to ask
    #[command(flatten)]
    pub target: Target,
}

/// Does it.
pub async fn run(options: Reconcile) -> anyhow::Result<ExitCode> {
    let client = Client::of(options.target);
    let report = match audit(&client, Duration::from_secs(options.wait.into()), true).await {
        Ok(report) => report,
        Err(error) => {
            let code = cannot_tell(&error);
            eprintln!("so it cannot be told whether the books balance");
            return Ok(code);
        }
    };
    let verdict = report.verdict();
    if options.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
        println!();
    }
    let words = match verdict {
        Verdict::Balanced => "the books balance",
        Verdict::Wrong => "THE BOOKS DO NOT BALANCE",
        Verdict::CannotTell if report.unsettled.count > 0 => {
            "nothing is wrong so far, and it is not at rest: --wait SECONDS waits for that"
        }
        Verdict::CannotTell => "nothing is wrong as far as one can look",
    };
    if !options.json {
        println!("{words}");
    }
    Ok(verdict.code())
}

/// Audits the services once nothing is unsent, unread or waiting in a queue, and again while anything is
/// under way. When the time is over one more audit begins, however long it takes, and counts.
pub async fn audit(client: &Client, wait: Duration, show: bool) -> anyhow::Result<Report> {
    let runtime = local_mode::runtime();
    let until = runtime.elapsed() + wait;
    loop {
        while runtime.elapsed() < until && under_way(client).await?.is_some() {
            pause(LOOK).await;
        }
        let begun = runtime.elapsed();
        let audit = Audit::new(client, runtime.now()).await?;
        let progress = show.then(|| Progress::counting("orders checked"));
        let report = audit.run(progress.as_ref()).await?;
        if let Some(progress) = progress {
            progress.end();
        }
        if report.unsettled.count == 0 || begun >= until {
            return Ok(report);
        }
        pause(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::http::{StatusCode, Uri};
    use axum::{Json, Router};
    use contract::Service;
    use futures_util::future::{Either, select};
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::http_shell::Shell;

    const WAIT: Duration = Duration::from_millis(400);

    /// Longer than the wait.
    const AUDIT: Duration = Duration::from_millis(500);

    /// What a shop without orders says. Something is under way where it is `open`.
    async fn said(path: &str, open: bool) -> Json<Value> {
        if path == "/backlog" {
            let one = json!({ "outbox": u32::from(open), "more": false, "lag": {} });
            let all = Service::ALL.map(|service| (service.name().to_owned(), one.clone()));
            return Json(json!({ "services": Map::from_iter(all), "queues": {} }));
        }
        if path == "/orders" {
            pause(AUDIT).await;
        }
        Json(json!({ "items": if open { vec![json!({ "key": "o" })] } else { Vec::new() } }))
    }

    /// What `audit` finds in a shop that answers by these rules.
    async fn audited(router: Router, wait: Duration) -> Report {
        let shell = Shell::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let client = Client::new(shell.address());
        let serving = pin!(shell.serve(router, std::future::pending(), Duration::ZERO).unwrap());
        match select(pin!(audit(&client, wait, false)), serving).await {
            Either::Left((report, _)) => report.unwrap(),
            Either::Right(_) => panic!("it is served"),
        }
    }

    /// Orders of a shop that is audited too early: at the first look Query does not know that they are
    /// confirmed, and of the last one Orders does not say so itself.
    const LATE: usize = 450;

    /// What that shop says. `looks` counts how often an order was asked for by its id.
    fn late(uri: &Uri, looks: &AtomicUsize) -> (StatusCode, Json<Value>) {
        let path: Vec<&str> = uri.path().split('/').skip(1).collect();
        let first = looks.load(Ordering::Relaxed) == 0;
        let is_last = |id: &str| id == (LATE - 1).to_string();
        let order = |id: &str| {
            let open = first && is_last(id);
            json!({ "orderId": id, "status": if open { "pending" } else { "confirmed" },
                "paymentMode": "none", "lines": [{ "productId": "tea", "qty": 1 }] })
        };
        let whole = |items: Value| json!({ "items": items, "next": null });
        let number = LATE as i64;
        let said = match path[..] {
            ["backlog"] => {
                let none = json!({ "outbox": 0, "more": false, "lag": {} });
                let all = Service::ALL.map(|service| (service.name().to_owned(), none.clone()));
                json!({ "services": Map::from_iter(all), "queues": {} })
            }
            ["gateway" | "mailbox", ..] | ["payments", _] => {
                return (StatusCode::NOT_FOUND, Json(Value::Null));
            }
            ["orders"] => {
                let cursor = uri.query().unwrap().split("cursor=").nth(1);
                let from: usize = cursor.map_or(0, |at| at.parse().unwrap());
                let to = LATE.min(from + 200);
                let items: Vec<Value> = (from..to).map(|n| order(&n.to_string())).collect();
                json!({ "items": items, "next": (to < LATE).then(|| to.to_string()) })
            }
            ["orders", id] => {
                looks.fetch_add(1, Ordering::Relaxed);
                order(id)
            }
            ["query", "orders", id] => {
                let known = !first || is_last(id);
                json!({ "createdAt": "a", "status": if known { "confirmed" } else { "pending" } })
            }
            ["inventory", "reservations", _] => json!({ "state": "committed" }),
            ["notifications", _] => whole(json!([{ "type": "confirmed", "revision": 1 }])),
            ["worker", "mails", _] => {
                whole(json!([{ "type": "confirmed", "revision": 1, "state": "sent" }]))
            }
            ["inventory", "adjustments"] => whole(json!([{ "productId": "tea", "delta": number }])),
            ["inventory", "stock"] => whole(json!([{ "productId": "tea", "onHand": number,
                "available": 0, "reserved": 0, "committed": number }])),
            _ => whole(json!([])),
        };
        (StatusCode::OK, Json(said))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_under_way_is_not_wrong_however_much_it_is() {
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = looks.clone();
        let answer = async move |uri: Uri| late(&uri, &counted);
        let report = audited(Router::new().fallback(answer), Duration::ZERO).await;
        assert_eq!(report.wrong().count(), 0, "{}", report.table());
        assert_eq!(report.totals.orders, LATE as u64);
        assert_eq!(looks.load(Ordering::Relaxed), LATE, "each of them is looked at again");
        // The last one's pieces were counted before it was confirmed.
        assert_eq!(report.unsettled.count, 1, "{}", report.table());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_audit_that_counts_begins_at_rest_however_long_one_takes() {
        // Unsent at the first look; an open letter at the first look.
        for begins in ["/backlog", "/services/payments/dead-letters"] {
            let looks = Arc::new(AtomicUsize::new(0));
            let answer = move |uri: Uri| {
                let looks = looks.clone();
                async move {
                    let open = uri.path() == begins && looks.fetch_add(1, Ordering::Relaxed) == 0;
                    said(uri.path(), open).await
                }
            };
            let report = audited(Router::new().fallback(answer), WAIT).await;
            assert_eq!(report.verdict(), Verdict::Balanced, "{begins}: {}", report.table());
        }
    }

    #[test]
    fn what_cannot_be_told_is_not_wrong() {
        let code = |report: &Report| report.verdict().code();
        let mut report = Report::default();
        assert_eq!(code(&report), ExitCode::SUCCESS);
        report.add(Finding::Unsettled("1 unsent at orders".to_owned()));
        assert_eq!(code(&report), ExitCode::from(3));
        report.add(Finding::Wrong(Invariant::ChargedOnce, "charged 2 times".to_owned()));
        assert_eq!(code(&report), ExitCode::FAILURE);
    }
}
