//! `shakedown demo`: the services in this process, real baskets as orders over HTTP, and the books at
//! the end. It asks only what anybody could ask over HTTP.

mod place;
mod plan;
mod report;
mod stories;

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use futures_util::future::{Either, select};
use payments::simulated::Steering;

use crate::cli::Demo;
use crate::client::Client;
use crate::config::Config;
use crate::customers::Customers;
use crate::http_shell::Shell;
use crate::local_mode::{self, LocalMode};
use crate::progress::Progress;
use crate::reconcile::{self, Verdict};
use crate::running::Running;
use crate::serve::Signals;

use plan::Plan;

/// How long an order may take to its end.
const FINAL_MAX: Duration = Duration::from_secs(30);

/// How long the last mails, captures and releases may take after the last order ended.
const REST: Duration = Duration::from_secs(10);

/// Runs the demo. The exit code is that of `reconcile`.
pub async fn run(options: Demo, config: Config) -> anyhow::Result<ExitCode> {
    // Before there is a folder: a signal must not leave it behind.
    let mut signals = Signals::new()?;
    let runtime = local_mode::runtime();
    let begun = runtime.elapsed();
    let folder = Folder::open(&options)?;
    say!("{}", local_mode::NOTICE);
    say!("data and mails in {}", folder.path.display());
    let plan = Plan::draw(options.orders as usize, options.seed);
    let steering = Steering { limit: Some(plan.card_limit), ..Steering::default() };
    // Nothing waits for long here: a signal that comes meanwhile is heard below.
    let local = LocalMode::start(&folder.path, &config, steering).await?;
    let mails = local.mails;
    let shell = Shell::bind(([127, 0, 0, 1], 0).into()).await?;
    let running = Running::start(shell, local.shop, config.drain.value).await?;
    let ready_ms = (runtime.elapsed() - begun).as_millis();
    say!("seven services ready on http://{} after {ready_ms} ms\n", running.address);

    let client = Client::new(running.address);
    let shown = show(&options, &plan, &client, &mails);
    let shown = match select(pin!(shown), pin!(signals.next())).await {
        Either::Left((shown, _)) => shown,
        Either::Right(_) => Err(anyhow!("interrupted")),
    };
    // Nobody writes to the folder any more when it goes away.
    let in_time = match select(pin!(running.stop()), pin!(signals.next())).await {
        Either::Left((in_time, _)) => in_time?,
        Either::Right(_) => bail!("interrupted"),
    };
    let verdict = shown?;
    if !in_time {
        say!("\nsome work was not finished in time");
    }
    report::farewell(&folder, (runtime.elapsed() - begun).as_secs_f64());
    Ok(verdict.code())
}

/// What there is to see, and how it ended.
async fn show(
    options: &Demo,
    plan: &Plan,
    client: &Client,
    mails: &Path,
) -> anyhow::Result<Verdict> {
    let runtime = local_mode::runtime();
    let customers = Customers::new(client.clone(), runtime.clone(), "demo", FINAL_MAX);
    let progress = Progress::start("products and stock", plan.products.len() as u64 * 2);
    customers.stock_up(&plan.products, &progress).await?;
    progress.end();
    let progress = Progress::start("orders", plan.baskets.len() as u64);
    let ordering = runtime.elapsed();
    let placed = place::order(&customers, plan, options.clients as usize, &progress).await?;
    let took = runtime.elapsed() - ordering;
    progress.end();

    let books = reconcile::audit(client, REST, false).await?;
    report::table(&placed, took, &books);
    stories::tell(client, &placed, mails).await?;
    Ok(books.verdict())
}

/// Where the demo works.
struct Folder {
    path: PathBuf,
    /// Whether it goes away with this.
    temporary: bool,
}

impl Folder {
    fn open(options: &Demo) -> anyhow::Result<Folder> {
        if let Some(path) = &options.data_dir {
            return Ok(Folder { path: path.clone(), temporary: false });
        }
        let made = tempfile::Builder::new().prefix("shakedown-demo-").tempdir();
        let made = made.context("cannot make a temporary folder; choose one with --data-dir")?;
        Ok(Folder { path: made.keep(), temporary: !options.keep })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            note!("could not remove {}: {error}", self.path.display());
        }
    }
}
