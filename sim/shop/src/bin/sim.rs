//! `cargo sim`: the order saga in simulated worlds. Never more than the engine's command line on the shop.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use sim_shop::Shop;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Runs the order saga in simulated worlds. A seed is a world: the same seed, the same world.
#[derive(Parser)]
#[command(name = "cargo sim", bin_name = "cargo sim", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    #[command(flatten)]
    Engine(sim_engine::Command),
    /// Watch the harness bite: a small ledger with a planted bug, then the same ledger without it.
    Demo(sim_ledger::Demo),
}

fn main() -> ExitCode {
    match Cli::parse().verb {
        Verb::Engine(command) => command.run(&Shop),
        Verb::Demo(demo) => demo.run(),
    }
}
