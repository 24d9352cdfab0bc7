//! The ledger's worlds on a command line of their own. Never more than the engine's verbs.

use std::process::ExitCode;

use clap::Parser;
use sim_ledger::LedgerSystem;

/// Runs the ledger in simulated worlds.
#[derive(Parser)]
#[command(arg_required_else_help = true)]
struct Cli {
    /// With the planted bug: it acks before it commits.
    #[arg(long)]
    ack_first: bool,
    #[command(subcommand)]
    command: sim_engine::Command,
}

fn main() -> ExitCode {
    let Cli { ack_first, command } = Cli::parse();
    command.run(&LedgerSystem { ack_first })
}
