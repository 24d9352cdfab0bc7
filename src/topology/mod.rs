//! `shakedown topology`: the topics and queues that the shop wants, against those that are there. A difference is
//! shown, never changed in silence; nothing here deletes.

mod change;
mod look;
mod queues;
mod row;
mod topics;

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use futures_util::future::join;
use serde_json::json;

pub use change::Change;
pub use look::{
    LIMIT, Look, at_queues, at_topics, cluster, rabbit, server, warn_of_topics, within,
};
pub use row::{Row, State, verdict};
pub use topics::wanted as topics_wanted;

use crate::cli::ServerAddresses;
use crate::config::{Config, Sources, variable};
use crate::{CANNOT_TELL, usage};

/// `shakedown topology`.
#[derive(Debug, Args)]
#[command(after_help = "\
What is wanted follows from the configuration: partitions, topology.replication, topology.retention, prefix. A start of
the services creates what is missing in the same way, and changes nothing that is there.

Exit codes: 0 all agrees, 1 something differs or is missing, 2 the command line or the configuration
is wrong, 3 it could not be told: a server does not answer, or there is no right to look.

Examples
  shakedown topology check
  shakedown topology check --json --kafka kafka://k:9092 --rabbit amqp://shop:secret@r:5672/%2f
  shakedown topology apply --yes")]
pub struct Topology {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done about the topology.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what is wanted and what is there; needs no right to change anything
    Check(Check),
    /// Create what is missing and set what can be set without losing anything, each change shown first
    Apply(Apply),
}

/// `shakedown topology check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Print the rows as JSON
    #[arg(long)]
    pub json: bool,
    /// Where to look
    #[command(flatten)]
    pub servers: ServerAddresses,
    /// Everything else
    #[command(flatten)]
    pub sources: Sources,
}

/// `shakedown topology apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// Make the changes without asking
    #[arg(long)]
    pub yes: bool,
    /// Where to change it
    #[command(flatten)]
    pub servers: ServerAddresses,
    /// Everything else
    #[command(flatten)]
    pub sources: Sources,
}

impl Topology {
    /// The configuration. It logs nothing, unless told otherwise: what matters is in the table.
    pub fn configuration(&self) -> Result<Config, String> {
        let servers = match &self.command {
            Command::Check(check) => &check.servers,
            Command::Apply(apply) => &apply.servers,
        };
        Config::load(self.sources(), &servers.flags(), &[("log.filter", "off")])
    }

    /// Where it comes from.
    pub fn sources(&self) -> &Sources {
        match &self.command {
            Command::Check(check) => &check.sources,
            Command::Apply(apply) => &apply.sources,
        }
    }
}

/// Does it.
pub async fn run(topology: Topology, config: Config) -> anyhow::Result<ExitCode> {
    for (key, address) in [("kafka", &config.kafka), ("rabbit", &config.rabbit)] {
        if address.value.reveal().is_empty() {
            return Ok(usage(&format!(
                "there is no topology without servers (local mode has none): give --{key} ({})",
                variable(key)
            )));
        }
    }
    // Where it cannot be read, nobody has to wait for a server.
    if let Err(fault) = cluster(&config) {
        return Ok(usage(&format!("kafka ({}): {fault}", config.kafka.origin)));
    }
    match topology.command {
        Command::Check(check) => {
            let Look { rows, .. } = whole(&config).await;
            let state = verdict(&rows);
            if check.json {
                println!("{}", json!({ "verdict": state, "rows": rows }));
            } else {
                println!("{}{}", row::table(&rows), words(state));
            }
            Ok(code(state))
        }
        Command::Apply(apply) => changed(&config, apply.yes).await,
    }
}

/// Shows, asks, changes, and looks again.
async fn changed(config: &Config, yes: bool) -> anyhow::Result<ExitCode> {
    let Look { rows, changes } = whole(config).await;
    print!("{}", row::table(&rows));
    if changes.is_empty() {
        let state = verdict(&rows);
        match state {
            State::Agrees => println!("all agrees; there is nothing to change"),
            _ => println!("nothing can be changed here; see above for each what to do"),
        }
        return Ok(code(state));
    }
    println!("to be changed");
    for change in &changes {
        println!("  {change}");
    }
    if !yes && !confirmed()? {
        return Ok(usage("nothing was changed; --yes makes these changes"));
    }
    for change in &changes {
        match change.make(config).await {
            Ok(()) => println!("done: {change}"),
            Err(fault) => {
                eprintln!("error: {change}: {fault}");
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    let state = verdict(&whole(config).await.rows);
    println!("{}", words(state));
    Ok(code(state))
}

async fn whole(config: &Config) -> Look {
    let (topics, queues) = join(at_topics(config), at_queues(config)).await;
    topics.and(queues)
}

/// What somebody at the terminal says; without one, no.
fn confirmed() -> std::io::Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(false);
    }
    print!("make these changes? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn words(state: State) -> &'static str {
    match state {
        State::Agrees | State::Ignored => "all agrees",
        State::Differs | State::Missing => {
            "something differs; nothing of it is changed but by `shakedown topology apply`"
        }
        State::Unknown => "something could not be told",
    }
}

fn code(state: State) -> ExitCode {
    match state {
        State::Agrees | State::Ignored => ExitCode::SUCCESS,
        State::Differs | State::Missing => ExitCode::FAILURE,
        State::Unknown => ExitCode::from(CANNOT_TELL),
    }
}
