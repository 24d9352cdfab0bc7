//! `shakedown doctor`: looks at everything that a start needs and says what to do about it. Never changes anything,
//! never prints a secret, and never stops at the first thing that is wrong.

mod databases;
mod finding;
mod folder;
mod servers;

use std::process::ExitCode;

use clap::Args;
use contract::Profile;
use futures_util::future::join3;
use serde_json::json;

pub use databases::{own_tables, tables};
pub use finding::{Finding, Verdict};

use crate::cli::ServerAddresses;
use crate::config::{Config, Origin, Sources};
use crate::serve::{loopback, own_gateway};
use crate::servers::Servers;
use crate::{logging, on_tokio};

/// What to do where the finding says it itself.
const REFUSED: &str = "do as it says; a start is refused until then";

/// `shakedown doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
It looks at the configuration that `serve` would have with the same flags, variables and file. A server has five
seconds to answer; when one does not, the others are looked at all the same.

Exit codes: 0 nothing fails (there may be warnings), 1 something does.

Examples
  shakedown doctor
  shakedown doctor --config shop.toml --json")]
pub struct Doctor {
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
    /// Folder for databases and mails [default: shakedown-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Real servers instead of local mode
    #[command(flatten)]
    pub servers: ServerAddresses,
    /// Everything else
    #[command(flatten)]
    pub sources: Sources,
}

impl Doctor {
    /// The configuration to look at. It logs nothing, unless told otherwise: what matters is in the findings.
    pub fn configuration(&self) -> Result<Config, String> {
        let mut flags = self.servers.flags().to_vec();
        flags.push(("data_dir", "--data-dir", &self.data_dir));
        Config::load(&self.sources, &flags, &[("log.filter", "off")])
    }
}

/// Does it. A configuration that is wrong is a finding too.
pub fn main(doctor: Doctor, config: Result<Config, String>) -> anyhow::Result<ExitCode> {
    let findings = match config {
        Err(wrong) => {
            let next = "mend it; `shakedown serve --print-config` shows what is in effect";
            wrong.lines().map(|line| Finding::fail("configuration", line, next)).collect()
        }
        Ok(config) if doctor.sources.print_config => {
            print!("{}", config.to_toml());
            return Ok(ExitCode::SUCCESS);
        }
        Ok(config) => {
            logging::start(&config.log_filter.value, config.log_format.value);
            on_tokio(async { Ok(findings(&config).await) })?
        }
    };
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
    if doctor.json {
        println!("{}", json!({ "ok": !failed, "findings": findings }));
    } else {
        print!("{}", finding::text(&findings));
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = vec![versions(), configuration(config)];
    if let Err(said) = loopback(config) {
        findings.push(Finding::fail("listen", said, REFUSED));
    }
    match Servers::read(config) {
        Ok(None) => {
            findings.push(match own_gateway(config) {
                Ok(()) => Finding::ok("mode", "local mode: no servers, for demos and development"),
                Err(said) => Finding::fail("mode", said, "give all three servers, or no gateway"),
            });
            findings.extend(folder::local(config));
            return findings;
        }
        Ok(Some(_)) => findings.push(Finding::ok("mode", "real servers")),
        Err(said) => {
            let all = [&config.kafka, &config.rabbit, &config.postgres];
            let given = all.iter().all(|address| !address.value.reveal().is_empty());
            let next = if given { REFUSED } else { "give all three, or none" };
            findings.push(Finding::fail("mode", said, next));
        }
    }
    let all = join3(servers::kafka(config), servers::rabbit(config), servers::postgres(config));
    let (kafka, rabbit, postgres) = all.await;
    findings.extend(kafka.into_iter().chain(rabbit).chain(postgres));
    findings.extend(folder::outside(config));
    findings
}

fn versions() -> Finding {
    let (ours, kafka) = (env!("CARGO_PKG_VERSION"), kafka::library_version());
    Finding::ok("versions", format!("shakedown {ours}, librdkafka {kafka}"))
}

/// What is not a default, and who set it.
fn configuration(config: &Config) -> Finding {
    let shown = config.shown();
    let set = shown.iter().filter(|setting| setting.origin != Origin::Default);
    // What a command has another default for is not set by anybody.
    let set: Vec<String> =
        set.map(|setting| format!("{} ({})", setting.key, setting.origin)).collect();
    let profile = match config.profile.value {
        Profile::Default => "",
        Profile::Catalog => {
            "; profile catalog keeps money of cancelled orders, as the catalog has it"
        }
    };
    let said = match set.len() {
        0 => "all defaults".to_owned(),
        some => format!("{some} of {} settings are set: {}", shown.len(), set.join(", ")),
    };
    Finding::ok("configuration", format!("{said}{profile}"))
}
