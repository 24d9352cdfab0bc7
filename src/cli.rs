//! The command line: what can be asked of the binary. Never does anything itself.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use contract::Service;

use crate::config::{Config, Sources};
use crate::dlq::Dlq;
use crate::doctor::Doctor;
use crate::gateway::Gateway;
use crate::load::Load;
use crate::reconcile::Reconcile;
use crate::saga::Saga;
use crate::topology::Topology;

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
    about = "An order saga in seven services: run them, look into them, or watch a demo",
    after_help = "Exit codes: 0 done, 1 it failed, 2 the command line or the configuration is \
                  wrong, 3 it could not be told.\nStart with: shakedown demo"
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
    /// Run the simulated payment gateway in a process of its own
    Gateway(Gateway),
    /// Start everything in this process, place a thousand orders, check the books
    Demo(Demo),
    /// Place orders at a running shop, in a closed and an open loop, and report what it takes
    Load(Load),
    /// Check the books of running services: stock, money, orders, mails
    Reconcile(Reconcile),
    /// Look into single orders
    Saga(Saga),
    /// Dead letters of running services: list, show, redrive, discard
    Dlq(Dlq),
    /// Topics and queues: what the shop wants against what is there
    Topology(Topology),
    /// Look at configuration, servers, topology, databases and versions, and say what to do next
    Doctor(Doctor),
}

/// `shakedown serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without servers it runs in local mode: models of Kafka and RabbitMQ, and SQLite files in the data
folder. That is for demos and development, never for production.
With all three of --kafka, --rabbit and --postgres it runs on real servers, and any number of
processes share the work: all services in each, or with --only some of them. Then give them one
payments.gateway (`shakedown gateway` is a simulated one) and, for the mails, one --data-dir.
Either listens on loopback only, until there is authentication.

SIGINT, SIGTERM or SIGHUP drains and ends; a second one ends at once.

Examples
  shakedown serve
  shakedown serve --set orders.deadline=1m --log info,shakedown_chassis=debug
  shakedown serve --only orders,inventory --listen 127.0.0.1:8081
  SHAKEDOWN_KAFKA=kafka://k:9092 shakedown serve --config shop.toml --print-config")]
pub struct Serve {
    /// Folder for databases and mails in local mode, and for mails on real servers
    /// [default: shakedown-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Address to listen on; port 0 picks a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Which promises the services keep: default (with this project's additions) or catalog (the
    /// event catalog as written)
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// Run only these services: names with commas between. On real servers [default: all]
    #[arg(long, value_name = "SERVICE", value_delimiter = ',', value_parser = service)]
    pub only: Vec<Service>,
    /// Real servers instead of local mode
    #[command(flatten)]
    pub servers: ServerAddresses,
    /// Everything else
    #[command(flatten)]
    pub sources: Sources,
}

/// A service by its name.
pub fn service(name: &str) -> Result<Service, String> {
    Service::named(name).ok_or_else(|| {
        let names = Service::ALL.map(Service::name).join(", ");
        format!("there is no such service; there are {names}")
    })
}

/// Addresses of the three real servers. All of them or none.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Real servers (all three, or none)")]
pub struct ServerAddresses {
    /// Kafka: kafka://host:port[,host:port] [env: SHAKEDOWN_KAFKA]
    #[arg(long, value_name = "URL")]
    pub kafka: Option<String>,
    /// RabbitMQ: amqp://user:password@host:port/vhost [env: SHAKEDOWN_RABBIT]
    #[arg(long, value_name = "URL")]
    pub rabbit: Option<String>,
    /// PostgreSQL: postgres://user:password@host:port/database [env: SHAKEDOWN_POSTGRES]
    #[arg(long, value_name = "URL")]
    pub postgres: Option<String>,
    /// Before the name of every topic, queue, group and schema; give the separator with it (test.)
    /// [env: SHAKEDOWN_PREFIX]
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,
}

impl Serve {
    /// The configuration to serve with.
    pub fn configuration(&self) -> Result<Config, String> {
        let mut flags = self.servers.flags().to_vec();
        flags.extend([
            ("data_dir", "--data-dir", &self.data_dir),
            ("listen", "--listen", &self.listen),
            ("profile", "--profile", &self.profile),
        ]);
        Config::load(&self.sources, &flags, &[])
    }
}

impl ServerAddresses {
    /// As [`Config::load`] takes them.
    pub fn flags(&self) -> [(&'static str, &'static str, &Option<String>); 4] {
        [
            ("kafka", "--kafka", &self.kafka),
            ("rabbit", "--rabbit", &self.rabbit),
            ("postgres", "--postgres", &self.postgres),
            ("prefix", "--prefix", &self.prefix),
        ]
    }
}

/// `shakedown demo`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Real baskets become orders: most are confirmed, some cards are declined, some shelves are empty.
At the end the books are checked (stock and money); the exit code is 1 if they do not balance, 3 if
that cannot be told.
Of the configuration it takes what concerns the services: it always runs in local mode, in a folder
and on a port of its own.

Examples
  shakedown demo --orders 200 --seed 7
  shakedown demo --keep                    to look at databases and mails afterwards")]
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
    /// The services' configuration
    #[command(flatten)]
    pub sources: Sources,
}

impl Demo {
    /// The configuration of the demo's services. It logs warnings only, unless told otherwise.
    pub fn configuration(&self) -> Result<Config, String> {
        Config::load(&self.sources, &[], &[("log.filter", "warn")])
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
