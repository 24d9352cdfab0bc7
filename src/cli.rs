//! The command line: what can be asked of the binary. Never does anything itself.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Printed when the binary is called without a subcommand.
pub const OVERVIEW: &str = "\
shakedown: an order saga in seven services, and a harness that breaks it on purpose.

  catalog, orders, inventory, payments, query, notifications-api, notifications-worker
  talk through Kafka and RabbitMQ and keep their rows in PostgreSQL. Local mode runs all
  of it in this one process, on files, with nothing to install.

Try
  shakedown demo      a thousand real grocery baskets as orders, followed to the last mail
  shakedown serve     the services on http://127.0.0.1:8080, to play with by curl
  shakedown --help    everything else

From the source tree
  cargo run -- demo
  cargo sim run --seeds 0..100     a hundred worlds with crashes, lost replies and repeats
  cargo test
";

/// An order saga in seven services: run them, or watch a demo.
#[derive(Debug, Parser)]
#[command(
    name = "shakedown",
    version,
    about = "An order saga in seven services: run them, or watch a demo",
    after_help = "Exit codes: 0 done, 1 it failed, 2 the command line is wrong.\n\
                  Start with: shakedown demo"
)]
pub struct Cli {
    /// What to do; nothing prints an overview
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run all seven services behind one HTTP address
    Serve(Serve),
    /// Start everything in this process, place a thousand orders, check the books
    Demo(Demo),
}

/// `shakedown serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without servers it runs in local mode: models of Kafka and RabbitMQ, and SQLite files in the data
folder. That is for demos and development, never for production, and binds loopback only.
With all three of --kafka, --rabbit and --postgres it runs on real servers.

SIGINT or SIGTERM drains and ends; a second one ends at once.")]
pub struct Serve {
    /// Folder for databases and mails in local mode, and for mails on real servers
    #[arg(long, value_name = "DIR", default_value = "shakedown-data")]
    pub data_dir: PathBuf,
    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Which promises the services keep
    #[arg(long, value_enum, default_value_t = ProfileName::Default)]
    pub profile: ProfileName,
    /// What to log: a level (error, warn, info, debug, trace) or a tracing filter
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// How to log
    #[arg(long, value_enum, default_value_t = LogFormat::Pretty)]
    pub log_format: LogFormat,
    /// Real servers instead of local mode
    #[command(flatten)]
    pub servers: ServerAddresses,
}

/// Addresses of the three real servers. All of them or none.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Real servers (all three, or none)")]
pub struct ServerAddresses {
    /// Kafka: kafka://host:port[,host:port]
    #[arg(long, value_name = "URL", env = "SHAKEDOWN_KAFKA", hide_env_values = true)]
    pub kafka: Option<String>,
    /// RabbitMQ: amqp://user:password@host:port/vhost
    #[arg(long, value_name = "URL", env = "SHAKEDOWN_RABBIT", hide_env_values = true)]
    pub rabbit: Option<String>,
    /// PostgreSQL: postgres://user:password@host:port/database
    #[arg(long, value_name = "URL", env = "SHAKEDOWN_POSTGRES", hide_env_values = true)]
    pub postgres: Option<String>,
    /// Before the name of every topic and queue; give the separator with it (test.)
    #[arg(long, value_name = "TEXT", env = "SHAKEDOWN_PREFIX", default_value = "")]
    pub prefix: String,
}

/// `shakedown demo`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Real baskets become orders: most are confirmed, some cards are declined, some shelves are empty.
At the end the books are checked (stock and money); the exit code is 1 if they do not balance.")]
pub struct Demo {
    /// Folder to work in; kept [default: a fresh temporary folder, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Keep the temporary folder, with its databases and mails
    #[arg(long)]
    pub keep: bool,
    /// How many orders to place
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub orders: u32,
    /// Customers who order at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub clients: u32,
    /// Which baskets, in which order, and which shelves are short
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// What to log: a level (error, warn, info, debug, trace) or a tracing filter
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    pub log: String,
}

/// How to log, on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Pretty,
    /// One JSON object a line
    Json,
}

/// Which promises the services keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProfileName {
    /// With this project's additions
    Default,
    /// The event catalog as written: no amounts, payment success is final
    Catalog,
}

impl From<ProfileName> for contract::Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Default => contract::Profile::Default,
            ProfileName::Catalog => contract::Profile::Catalog,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
