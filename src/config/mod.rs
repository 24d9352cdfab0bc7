//! The configuration of `serve` and `demo`: flags over environment over a TOML file over defaults, as
//! one typed struct that knows who set what. Never prints a secret, never ignores a key.

mod layers;
mod print;
mod rule;
mod settings;

use std::path::{Path, PathBuf};

use clap::Args;
use contract::Profile;

use layers::Layers;
pub use layers::{Origin, Setting, variable};
pub use rule::{Kind, Secret};
pub use settings::{Config, KEYS, LogFormat, Shown};

/// The file that is read where it exists and no other is named.
pub const FILE: &str = "shakedown.toml";

/// Where to read the configuration from, besides a command's own flags.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Configuration (flags > SHAKEDOWN_* > file > defaults)")]
pub struct Sources {
    /// TOML file to read [default: shakedown.toml, where it exists] [env: SHAKEDOWN_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Any setting by its key, such as orders.deadline=5m; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the effective configuration with the origin of each value, and end
    #[arg(long)]
    pub print_config: bool,
    /// What to log: a level (error, warn, info, debug, trace) or a tracing filter
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// How to log: pretty (lines for people) or json (one object a line)
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl Config {
    /// The configuration from these sources, this command's flags (`(key, flag, value)`), and what
    /// it has other defaults for. The error is for people and says all that is wrong.
    pub fn load(
        sources: &Sources,
        flags: &[(&str, &str, &Option<String>)],
        defaults: &[(&str, &str)],
    ) -> Result<Config, String> {
        // An empty variable is as good as none.
        let named = std::env::var_os("SHAKEDOWN_CONFIG").filter(|path| !path.is_empty());
        let file = match sources.config.clone().or_else(|| named.map(PathBuf::from)) {
            Some(path) => {
                let text = read(&path).map_err(|error| error.to_string())?;
                Some((path, text))
            }
            None => match read(Path::new(FILE)) {
                Ok(text) => Some((FILE.into(), text)),
                Err(Unreadable { missing: true, .. }) => None,
                Err(error) => return Err(error.to_string()),
            },
        };
        let mut layers = Layers::default();
        for (key, value) in defaults {
            layers.add_default(key, value);
        }
        if let Some((path, text)) = file {
            layers.add_file(&path, &text, KEYS).map_err(|wrong| wrong.join("\n"))?;
        }
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            // Others' variables may be anything; what is ours and no text fits no rule.
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        });
        for warning in layers.add_environment(environment, KEYS) {
            eprintln!("warning: {warning}");
        }
        for pair in &sources.set {
            layers.add_set(pair, KEYS)?;
        }
        let common = [
            ("log.filter", "--log", &sources.log),
            ("log.format", "--log-format", &sources.log_format),
        ];
        for (key, flag, value) in flags.iter().chain(&common) {
            if let Some(value) = value {
                layers.add_flag(key, flag, value);
            }
        }
        Config::of(&layers)
    }

    /// The defaults alone.
    pub fn defaults() -> Config {
        Config::of(&Layers::default()).expect("a test reads the defaults")
    }

    fn of(layers: &Layers) -> Result<Config, String> {
        let config = Config::read(layers).map_err(|wrong| wrong.join("\n"))?;
        let wrong = config.contradictions();
        if wrong.is_empty() { Ok(config) } else { Err(wrong.join("\n")) }
    }

    /// The defaults of a profile.
    pub fn of_profile(profile: Profile) -> Config {
        let profile = Setting { value: profile, origin: Origin::Default };
        Config { profile, ..Config::defaults() }
    }

    /// How the loops of a service's instance run.
    pub fn chassis(&self, service: &'static str, instance: &str) -> chassis::Settings {
        chassis::Settings {
            batch_max: self.batch_max.value,
            commands_max: self.commands_max.value,
            reply_timeout: self.reply_timeout.value,
            twin_wait: self.twin_wait.value,
            bulks_max: self.bulks_max.value,
            shards: self.shards.value,
            lease: self.lease.value,
            idle: self.idle.value,
            offsets_every: self.offsets_every.value,
            relay_max: self.relay_max.value,
            backoff: self.backoff.value,
            backoff_max: self.backoff_max.value,
            // The services end before the process does.
            drain: self.drain.value * 4 / 5,
            keep_events: self.keep_events.value,
            keep_commands: self.keep_commands.value,
            keep_letters: self.keep_letters.value,
            ..chassis::Settings::new(service, instance)
        }
    }

    /// What single values allow and together cannot be.
    fn contradictions(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (first, first_key, most, most_key) in [
            (
                &self.gateway_retry_first,
                "payments.retry_first",
                &self.gateway_retry_max,
                "payments.retry_max",
            ),
            (&self.mail_retry_first, "mail.retry_first", &self.mail_retry_max, "mail.retry_max"),
            (&self.backoff, "chassis.backoff", &self.backoff_max, "chassis.backoff_max"),
        ] {
            if first.value > most.value {
                wrong.push(format!(
                    "{first_key} ({}) is longer than {most_key} ({}); make it shorter",
                    first.origin, most.origin
                ));
            }
        }
        if self.idle.value * 3 > self.lease.value {
            wrong.push(format!(
                "chassis.idle ({}) is more than a third of chassis.lease ({}): leases would run \
                 out between two renewals",
                self.idle.origin, self.lease.origin
            ));
        }
        wrong
    }
}

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}; --config names the file to read", path.display())]
struct Unreadable {
    path: PathBuf,
    missing: bool,
    cause: std::io::Error,
}

fn read(path: &Path) -> Result<String, Unreadable> {
    std::fs::read_to_string(path).map_err(|cause| {
        let missing = cause.kind() == std::io::ErrorKind::NotFound;
        Unreadable { path: path.to_owned(), missing, cause }
    })
}

#[cfg(test)]
mod tests;
