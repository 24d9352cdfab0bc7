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

use audit::Audit;
pub use report::{Finding, Findings, Invariant, Report, Row, Totals, Verdict};

use crate::client::{Client, Target};
use crate::http_shell::pause;
use crate::progress::Progress;
use crate::{CANNOT_TELL, local_mode};

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
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u64,
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
    let report = match audit(&client, Duration::from_secs(options.wait), true).await {
        Ok(report) => report,
        Err(error) => {
            eprintln!("error: {error:#}\nso it cannot be told whether the books balance");
            return Ok(ExitCode::from(CANNOT_TELL));
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
    let (words, code) = match verdict {
        Verdict::Balanced => ("the books balance", ExitCode::SUCCESS),
        Verdict::Wrong => ("THE BOOKS DO NOT BALANCE", ExitCode::FAILURE),
        Verdict::CannotTell if report.unsettled.count > 0 => (
            "nothing is wrong so far, and it is not at rest: --wait SECONDS waits for that",
            ExitCode::from(CANNOT_TELL),
        ),
        Verdict::CannotTell => {
            ("nothing is wrong as far as one can look", ExitCode::from(CANNOT_TELL))
        }
    };
    if !options.json {
        println!("{words}");
    }
    Ok(code)
}

/// Audits the services, again and again until nothing is under way or the time is over.
pub async fn audit(client: &Client, wait: Duration, show: bool) -> anyhow::Result<Report> {
    let runtime = local_mode::runtime();
    let until = runtime.elapsed() + wait;
    loop {
        let audit = Audit::new(client, runtime.now()).await?;
        let progress = show.then(|| Progress::counting("orders checked"));
        let report = audit.run(progress.as_ref()).await?;
        if let Some(progress) = progress {
            progress.end();
        }
        if report.unsettled.count == 0 || runtime.elapsed() >= until {
            return Ok(report);
        }
        pause(LOOK).await;
    }
}
