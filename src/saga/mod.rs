//! `shakedown saga show`: one order's story over all services. Asks the services' HTTP and nothing
//! else, so it works beside any running `serve`.

mod facts;
mod print;
mod story;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use contract::OrderId;

use crate::client::{Client, Target};
use crate::{CANNOT_TELL, cannot_tell, local_mode, usage};

/// `shakedown saga`.
#[derive(Debug, Args)]
pub struct Saga {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done about sagas.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// One order over all services: facts, times, attempts, dead letters, mail, what it waits for
    Show(Show),
}

/// `shakedown saga show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 it is told, 1 no service knows the order, 3 a service that must be asked did not answer;
what the others say is told all the same.

Examples
  shakedown saga show 01a20a3c-04ac-78e6-8c04-3ca485515032
  shakedown saga show ORDER --json | jq .waitsFor")]
pub struct Show {
    /// The order's id, as POST /orders answered it
    #[arg(value_name = "ORDER")]
    pub order: String,
    /// Print JSON: the story, and all that the services said
    #[arg(long)]
    pub json: bool,
    /// Whom to ask
    #[command(flatten)]
    pub target: Target,
}

/// Does it.
pub async fn run(options: Saga) -> anyhow::Result<ExitCode> {
    match options.command {
        Command::Show(show) => self::show(show).await,
    }
}

async fn show(Show { order, json, target }: Show) -> anyhow::Result<ExitCode> {
    if let Err(error) = OrderId::parse(&order) {
        return Ok(usage(&format!("{order:?} is no order id: {error}")));
    }
    let client = Client::of(target);
    let facts = match facts::read(&client, &order).await {
        Ok(facts) => facts,
        Err(error) => return Ok(cannot_tell(&error)),
    };
    let story = story::tell(&facts, local_mode::runtime().now());
    let Some(story) = story else {
        eprintln!(
            "no service knows an order {order}. Check the id (POST /orders answers it as orderId), \
             that {} is the right shop (--url), and that its data folder or servers are those \
             that took the order.",
            client.whom()
        );
        return Ok(ExitCode::FAILURE);
    };
    if json {
        println!("{:#}", print::json(&order, &story, &facts));
    } else {
        print!("{}", print::human(&order, &story));
    }
    Ok(if story.silent.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(CANNOT_TELL) })
}
