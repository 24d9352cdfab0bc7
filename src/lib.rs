//! The binary's wiring: the seven services on local mode or on real servers, behind one HTTP address,
//! and a demo of them. It holds no rule of any service.

#[macro_use]
mod say;

mod backlog;
pub mod cli;
pub mod client;
pub mod config;
pub mod customers;
pub mod demo;
pub mod dlq;
pub mod doctor;
pub mod gateway;
pub mod gateway_journal;
pub mod groceries;
pub mod http_shell;
pub mod load;
pub mod local_mode;
pub mod logging;
mod outside_http;
mod progress;
pub mod reconcile;
pub mod running;
pub mod saga;
pub mod serve;
pub mod servers;
pub mod shop;
pub mod topology;
mod usage;
mod words;

use std::process::ExitCode;

use clap::Parser;
use config::{Config, Sources};

/// The exit code for a wrong command line, as clap's own.
pub const USAGE: u8 = 2;

/// The exit code where what was asked could not be found out.
pub const CANNOT_TELL: u8 = 3;

/// Reads the command line and does it.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let done = match cli.command {
        None => {
            say!("{}", cli::OVERVIEW.trim_end());
            return ExitCode::SUCCESS;
        }
        Some(cli::Command::Serve(options)) => {
            let config = options.configuration();
            configured(config, &options.sources, |config| serve::run(config, &options.only))
        }
        Some(cli::Command::Gateway(options)) => {
            let config = options.configuration();
            configured(config, &options.sources, gateway::run)
        }
        Some(cli::Command::Demo(options)) => {
            let config = options.configuration();
            let sources = options.sources.clone();
            configured(config, &sources, |config| demo::run(options, config))
        }
        Some(cli::Command::Doctor(options)) => {
            let config = options.configuration();
            doctor::main(options, config)
        }
        Some(cli::Command::Topology(options)) => {
            let (config, sources) = (options.configuration(), options.sources().clone());
            configured(config, &sources, |config| topology::run(options, config))
        }
        Some(cli::Command::Dlq(options)) => on_tokio(dlq::run(options)),
        Some(cli::Command::Load(options)) => on_tokio(load::run(options)),
        Some(cli::Command::Reconcile(options)) => on_tokio(reconcile::run(options)),
        Some(cli::Command::Saga(options)) => on_tokio(saga::run(options)),
    };
    done.unwrap_or_else(|error| {
        note!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Does the work with its configuration, or prints that.
fn configured<W: Future<Output = anyhow::Result<ExitCode>>>(
    config: Result<Config, String>,
    sources: &Sources,
    work: impl FnOnce(Config) -> W,
) -> anyhow::Result<ExitCode> {
    let config = match config {
        Ok(config) => config,
        Err(text) => return Ok(usage(&text)),
    };
    if sources.print_config {
        say!("{}", config.to_toml().trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    logging::start(&config.log_filter.value, config.log_format.value);
    on_tokio(work(config))
}

fn on_tokio<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // What has not ended by now is meant to be dropped.
    runtime.shutdown_background();
    done
}

/// Says why what was asked could not be found out.
fn cannot_tell(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(CANNOT_TELL)
}

/// Says what is wrong with the command line or the configuration.
fn usage(text: &str) -> ExitCode {
    eprintln!("error: {text}\n\nFor more information, try '--help'.");
    ExitCode::from(USAGE)
}
