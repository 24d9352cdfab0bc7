//! The binary's wiring: the seven services on local mode or on real servers, behind one HTTP address,
//! and a demo of them. It holds no rule of any service.

pub mod books;
pub mod cli;
pub mod client;
pub mod customers;
pub mod demo;
pub mod gateway_journal;
pub mod groceries;
pub mod http_shell;
pub mod local_mode;
pub mod logging;
mod progress;
pub mod running;
pub mod serve;
pub mod servers;
pub mod shop;

use std::process::ExitCode;

use clap::Parser;

/// The exit code for a wrong command line, as clap's own.
pub const USAGE: u8 = 2;

/// Reads the command line and does it.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let done = match cli.command {
        None => {
            print!("{}", cli::OVERVIEW);
            return ExitCode::SUCCESS;
        }
        Some(cli::Command::Serve(options)) => {
            if let Err(text) = logging::start(&options.log, options.log_format) {
                return usage(&text);
            }
            on_tokio(serve::run(options))
        }
        Some(cli::Command::Demo(options)) => {
            if let Err(text) = logging::start(&options.log, cli::LogFormat::Pretty) {
                return usage(&text);
            }
            on_tokio(demo::run(options))
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn on_tokio(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // What has not ended by now is meant to be dropped.
    runtime.shutdown_background();
    done
}

/// Says what is wrong with the command line.
fn usage(text: &str) -> ExitCode {
    eprintln!("error: {text}\n\nFor more information, try '--help'.");
    ExitCode::from(USAGE)
}
