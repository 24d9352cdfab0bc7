//! `shakedown serve`: the services behind one address until a signal comes. Never listens beyond
//! loopback: there is no authentication yet.

use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;

use contract::{Profile, Service, Streams};
use futures_util::future::{Either, select, select_all};
use payments::simulated::{SimulatedGateway, Steering};
use ports::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Config, Setting};
use crate::gateway::HttpGateway;
use crate::http_shell::Shell;
use crate::local_mode::{self, LocalMode};
use crate::running::Running;
use crate::servers::Servers;
use crate::shop::{Setup, Shop, run_all};
use crate::{topology, usage};

/// Amounts that end in these two digits are declined by the simulated gateway.
pub const DECLINED_ENDING: i64 = 13;

/// Runs until a signal of [`Signals`]; a second one ends at once.
pub async fn run(config: Config, only: &[Service]) -> anyhow::Result<ExitCode> {
    let (servers, listen) = match Servers::read(&config).and_then(|it| Ok((it, loopback(&config)?)))
    {
        Ok(read) => read,
        Err(text) => return Ok(usage(&text)),
    };
    if servers.is_none() && !only.is_empty() {
        return Ok(usage(
            "local mode is one process with all services in it; --only wants real servers \
             (--kafka, --rabbit and --postgres)",
        ));
    }
    if servers.is_none()
        && let Err(text) = own_gateway(&config)
    {
        return Ok(usage(&text));
    }
    let mut signals = Signals::new()?;
    let shell = Shell::bind(listen).await?;
    let on_servers = servers.is_some();
    let starting = async {
        match &servers {
            None => start_local(&config).await,
            Some(servers) => start_on(servers, &config, only).await,
        }
    };
    let shop = match select(pin!(starting), pin!(signals.next())).await {
        Either::Left((shop, _)) => shop?,
        Either::Right(_) => return Ok(ExitCode::SUCCESS),
    };
    let running = Running::start(shell, shop, config.drain.value).await?;
    let url = format!("http://{}", running.address);
    say!("listening on {url}");
    match only {
        [] => invite(&url, config.profile.value),
        some => {
            let names: Vec<&str> = some.iter().map(|service| service.name()).collect();
            say!("for {}; GET /health/ready says how it is", names.join(", "));
        }
    }
    // What somebody may want to know, and nobody has to wait for.
    let warn = async {
        if on_servers {
            topology::warn_of_topics(&config).await;
        }
        std::future::pending::<()>().await
    };
    select(pin!(warn), pin!(signals.next())).await;
    note!("leaving: finishing what is in hand; a second signal ends at once");
    let (stopping, impatient) = (pin!(running.stop()), pin!(signals.next()));
    let in_time = match select(stopping, impatient).await {
        Either::Left((in_time, _)) => in_time?,
        Either::Right(_) => return Ok(ExitCode::FAILURE),
    };
    if !in_time {
        note!("some work was not finished in time; it goes on after the next start");
    }
    Ok(ExitCode::SUCCESS)
}

/// Where to listen; an error where others could reach it.
pub(crate) fn loopback(config: &Config) -> Result<SocketAddr, String> {
    let Setting { value: listen, origin } = &config.listen;
    match listen.ip().is_loopback() {
        true => Ok(*listen),
        false => Err(format!(
            "there is no authentication yet, so it listens on loopback only, not on {listen} \
             ({origin}); use --listen 127.0.0.1:{}, and for other machines a proxy that \
             authenticates",
            listen.port()
        )),
    }
}

/// An error where local mode is given another gateway than its own.
pub(crate) fn own_gateway(config: &Config) -> Result<(), String> {
    let Setting { value: gateway, origin } = &config.gateway;
    match gateway {
        None => Ok(()),
        Some(_) => Err(format!(
            "local mode has a gateway of its own; payments.gateway ({origin}) wants real servers"
        )),
    }
}

/// The simulated gateway of a process that is served.
pub(crate) fn steering() -> Steering {
    Steering { declined_ending: Some(DECLINED_ENDING), ..Steering::default() }
}

async fn start_local(config: &Config) -> anyhow::Result<Shop> {
    let folder = &config.data_dir.value;
    say!("{}", local_mode::NOTICE);
    say!("data and mails in {}", folder.display());
    Ok(LocalMode::start(folder, config, steering()).await?.shop)
}

async fn start_on(servers: &Servers, config: &Config, only: &[Service]) -> anyhow::Result<Shop> {
    let folder = &config.data_dir.value;
    say!("on Kafka, RabbitMQ and PostgreSQL; mails in {}", folder.display());
    let runtime = local_mode::runtime();
    let mut services = Service::ALL.to_vec();
    services.retain(|service| only.is_empty() || only.contains(service));
    let ports = servers.connect(config, &services, &runtime).await?;
    let outside = match &config.gateway.value {
        Some(base) => local_mode::with_gateway(folder, HttpGateway::at(base.clone()))?,
        None if services.contains(&Service::Payments) => local_mode::outside(folder, steering())?.0,
        // Nobody calls it.
        None => local_mode::with_gateway(folder, SimulatedGateway::new(steering()))?,
    };
    let instance = instance(&*runtime);
    let streams = Streams::prefixed(&config.prefix.value);
    run_all(&ports, &outside, &Setup { instance, streams, config: config.clone() }).await
}

/// A name that no other instance has.
fn instance(runtime: &dyn Runtime) -> String {
    let pid = std::process::id();
    format!("{pid}-{:016x}", runtime.choose("instance", "shakedown", u64::MAX))
}

/// Three things to try where all services are.
fn invite(url: &str, profile: Profile) {
    let json = "-H 'content-type: application/json'";
    let price = match profile {
        Profile::Default => ",\"price\":250",
        Profile::Catalog => "",
    };
    say!("\nTry");
    say!(
        "  curl -X PUT {url}/catalog/products/tea {json} \
         -d '{{\"name\":\"Tea\",\"categoryId\":\"drinks\"{price}}}'"
    );
    say!(
        "  curl -X POST {url}/inventory/stock/tea/adjust {json} -H 'idempotency-key: first-tea' \
         -d '{{\"delta\":10}}'"
    );
    say!(
        "  curl -X POST {url}/orders {json} -H 'idempotency-key: order-1' \
         -d '{{\"lines\":[{{\"productId\":\"tea\",\"qty\":2}}]}}'"
    );
    say!(
        "\nand then {url}/query/orders in a browser. Amounts that end in {DECLINED_ENDING} \
              are declined. Ctrl-C ends."
    );
}

/// SIGINT, SIGTERM, and SIGHUP where it would end the process.
pub(crate) struct Signals(Vec<Signal>);

impl Signals {
    pub(crate) fn new() -> std::io::Result<Signals> {
        let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
        if !hangups_ignored() {
            kinds.push(SignalKind::hangup());
        }
        Ok(Signals(kinds.into_iter().map(signal).collect::<std::io::Result<_>>()?))
    }

    pub(crate) async fn next(&mut self) {
        select_all(self.0.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
    }
}

/// Whether this process was started to outlive its terminal (`nohup`), as far as the system says.
fn hangups_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    // SIGHUP is the first one.
    ignored.is_some_and(|bits| bits & 1 == 1)
}
