//! `shakedown reconcile`: the invariants that can be checked on live services, over HTTP, as a table.
//! Never changes anything, and never calls wrong what is only under way.

mod audit;
mod judge;
mod report;
mod stock;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

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
        let whole = json!({ "verdict": verdict, "rows": report.rows, "unsettled": report.unsettled,
            "totals": report.totals });
        println!("{whole:#}");
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

    use axum::http::Uri;
    use axum::{Json, Router};
    use contract::Service;
    use futures_util::future::{Either, select};
    use serde_json::{Map, Value};

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
            let shell = Shell::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
            let client = Client::new(shell.address());
            let router = Router::new().fallback(answer);
            let serving =
                pin!(shell.serve(router, std::future::pending(), Duration::ZERO).unwrap());
            match select(pin!(audit(&client, WAIT, false)), serving).await {
                Either::Left((report, _)) => {
                    let report = report.unwrap();
                    assert_eq!(report.verdict(), Verdict::Balanced, "{begins}: {}", report.table());
                }
                Either::Right(_) => panic!("it is served"),
            }
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
