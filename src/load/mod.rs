//! `shakedown load`: orders for a running shop, as fast as so many customers go (closed loop) and at a
//! fixed rate (open loop), with a report. It measures what a customer sees and asks only HTTP.

mod measure;
mod orders;
mod phases;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::client::{Client, Target};
use crate::customers::Customers;
use crate::reconcile::{Verdict, audit};
use crate::{cannot_tell, local_mode, usage};

use measure::Report;
use orders::Orders;
use phases::Phases;

/// How long the books may take to come to rest at the end.
const REST: Duration = Duration::from_secs(60);

/// Most orders of the open loop.
const OPEN_MAX: u32 = 1_000_000;

/// `shakedown load`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Closed loop: --clients customers place --orders orders, each its next one when the last was accepted;
measured until the last of them is final and its mail sent. Open loop: --rate orders a second for
--seconds, whatever becomes of them; the latency of each runs from when it was due until it is final
in Query, so a shop that stalls is not spared its stall. Either is left out with a 0.

Declined cards need the simulated gateway of `serve`. CPU is counted on Linux, where /stats says it;
BROKER_PIDS=kafka=12,postgres=34 in the environment adds that of other processes here.

Exit codes: 0 every order ended and the books balance, 1 not so, 2 the command line is wrong, 3 nobody
answered at the beginning, or it cannot be told whether the books balance.

Examples
  shakedown load
  shakedown load --orders 5000 --clients 32 --rate 0
  shakedown load --orders 0 --rate 200 --seconds 60 --products 1000 --skew 1.1
  shakedown load --baskets groceries --json > report.json")]
pub struct Load {
    /// Orders of the closed loop; 0 for none
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub orders: u32,
    /// Customers of the closed loop
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub clients: u32,
    /// Orders before, not measured
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub warm_up: u32,
    /// Orders a second of the open loop; 0 for none
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub rate: u32,
    /// Seconds of the open loop
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// What is ordered
    #[arg(long, value_enum, default_value_t = Baskets::Synthetic)]
    pub baskets: Baskets,
    /// Synthetic: how many products there are
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub products: u32,
    /// Synthetic: different products in an order
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=90))]
    pub lines: u32,
    /// Synthetic: how hot the hottest products are: the k-th is chosen by weight 1/k^S; 0 is evenly
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    pub skew: f64,
    /// Of a hundred orders so many find no stock
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub fail: u8,
    /// Synthetic: of a hundred orders so many are declined
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub decline: u8,
    /// Which orders, in which order
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// How long a phase, and an order in it, may take
    #[arg(long, value_name = "SECONDS", default_value_t = 240, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub timeout: u32,
    /// Name in the report
    #[arg(long, value_name = "TEXT", default_value = "shakedown")]
    pub label: String,
    /// Do not check the books at the end: it reads every order that the shop has
    #[arg(long)]
    pub no_verify: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Whom to load
    #[command(flatten)]
    pub target: Target,
}

/// What is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Baskets {
    /// Drawn: so many lines of so many products
    Synthetic,
    /// Real baskets, those of the demo
    Groceries,
}

impl Load {
    /// What the parser cannot see.
    fn contradiction(&self) -> Option<&'static str> {
        if self.orders == 0 && self.rate == 0 {
            return Some("--orders 0 and --rate 0 leave nothing to do; give one of them");
        }
        if self.open() > OPEN_MAX {
            return Some(
                "--rate times --seconds is more than a million orders; give less of either",
            );
        }
        if self.lines > self.products {
            return Some(
                "--lines: an order's products differ, so there must be as many --products",
            );
        }
        if !(0.0..=10.0).contains(&self.skew) {
            return Some("--skew is from 0 to 10");
        }
        if u32::from(self.fail) + u32::from(self.decline) > 100 {
            return Some("--fail and --decline are more than 100 percent together");
        }
        if self.decline > 0 && self.baskets == Baskets::Groceries {
            return Some("--decline needs --baskets synthetic: its prices are made for it");
        }
        None
    }

    /// Orders of all phases.
    fn total(&self) -> usize {
        (self.warm_up + self.orders) as usize + self.open() as usize
    }

    /// Orders of the open loop.
    fn open(&self) -> u32 {
        self.rate * self.seconds
    }
}

/// Does it.
pub async fn run(options: Load) -> anyhow::Result<ExitCode> {
    if let Some(text) = options.contradiction() {
        return Ok(usage(text));
    }
    let client = Client::of(options.target.clone());
    // Whoever is not there is better missed now than after a while.
    if let Err(error) = client.get("/health").await {
        return Ok(cannot_tell(&error));
    }
    let patience = Duration::from_secs(options.timeout.into());
    let client = client.patient(patience);
    let orders = Orders::draw(&options);
    let runtime = local_mode::runtime();
    let customers = Customers::new(client.clone(), runtime, "load", patience);
    let mut report =
        Phases { options: &options, orders: &orders, customers: &customers }.run().await?;
    let verified = match options.no_verify {
        true => Ok(()),
        false => verify(&client, &mut report).await,
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.table());
    }
    let well = report.complete && report.correct != Some(false);
    Ok(match verified {
        Ok(()) if well => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => cannot_tell(&error.context("it cannot be told whether the books balance")),
    })
}

/// Checks the books of the whole shop.
async fn verify(client: &Client, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("checking the books");
    let books = audit(client, REST, true).await?;
    report.audited(&books);
    if books.verdict() != Verdict::Balanced {
        eprintln!("{}", books.table());
    }
    // An order that did not end is a failure, whatever else is under way.
    let told = report.correct.is_some() || !report.complete;
    anyhow::ensure!(told, "something is still under way after {REST:?}");
    Ok(())
}
