//! The services against each other on real PostgreSQL, at the address in SHAKEDOWN_POSTGRES: two instances
//! of all seven, whose transactions go statement by statement in an order that a seed chooses. What they
//! committed must be serializable, and the books must balance.
//!
//! SHAKEDOWN_INTERLEAVINGS=FIRST..LAST chooses the seeds. Without the address nothing is run; with
//! SHAKEDOWN_REQUIRE_SERVERS=1 that is a failure.

mod history;
mod rush;
mod turns;

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use chassis::Ports;
use contract::{Service, Streams};
use history::History;
use model::log::LogServer;
use model::queue::QueueServer;
use payments::simulated::Steering;
use postgres::PostgresStore;
use shakedown::client::Client;
use shakedown::config::{Config, Sources};
use shakedown::http_shell::{Shell, pause};
use shakedown::local_mode;
use shakedown::reconcile::{Verdict, audit};
use shakedown::running::Running;
use shakedown::serve::DECLINED_ENDING;
use shakedown::shop::{Setup, Shop, run_all};
use tokio_postgres::NoTls;
use turns::{Counts, Turns};

/// Seeds where none are chosen.
const SEEDS: Range<u64> = 0..8;

/// How long a rush may take to come to rest, with every statement on its own.
const REST: Duration = Duration::from_secs(90);

/// The two instances of each service.
const INSTANCES: [&str; 2] = ["one", "two"];

/// Configuration that makes things meet: short deadlines, few partitions, quick looks.
const SETTINGS: [&str; 5] = [
    "orders.deadline=4s",
    "partitions=3",
    "chassis.shards=2",
    "chassis.idle=50ms",
    "payments.retry_first=50ms",
];

fn main() -> ExitCode {
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let Some(url) = std::env::var("SHAKEDOWN_POSTGRES").ok().filter(|url| !url.is_empty()) else {
        let required = std::env::var("SHAKEDOWN_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
        println!(
            "interleavings: not run, SHAKEDOWN_POSTGRES is not set (scripts/brokers up; eval \
             \"$(scripts/brokers env)\")"
        );
        return if required { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    };
    match tokio.block_on(all(&url)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn all(url: &str) -> anyhow::Result<()> {
    let seeds = match std::env::var("SHAKEDOWN_INTERLEAVINGS") {
        Ok(text) => seeds(&text).context("SHAKEDOWN_INTERLEAVINGS=FIRST..LAST")?,
        Err(_) => SEEDS,
    };
    let mut sum: BTreeMap<Service, (usize, Counts)> = BTreeMap::new();
    for seed in seeds {
        let counts = world(url, seed).await.with_context(|| format!("seed {seed}"))?;
        for (service, (transactions, counts)) in counts {
            let (all, of) = sum.entry(service).or_default();
            *all += transactions;
            of.statements += counts.statements;
            of.choices += counts.choices;
            of.waits += counts.waits;
        }
    }
    println!("service               transactions  statements  choices  waits");
    for (service, (transactions, counts)) in &sum {
        let Counts { statements, choices, waits } = counts;
        let name = service.name();
        println!("{name:<21} {transactions:>12} {statements:>11} {choices:>8} {waits:>6}");
        ensure!(*choices > 0, "{name}: no two statements ever met");
    }
    let met = |service| sum.get(&service).is_some_and(|(_, counts)| counts.waits > 0);
    ensure!(met(Service::Inventory), "nobody waited for the hot product");
    ensure!(met(Service::Orders), "nobody waited for a saga");
    println!("all serializable, and all books balance");
    Ok(())
}

fn seeds(text: &str) -> Option<Range<u64>> {
    let (first, last) = text.split_once("..")?;
    Some(first.parse().ok()?..last.parse().ok()?)
}

/// One rush of customers at two instances of everything.
async fn world(url: &str, seed: u64) -> anyhow::Result<BTreeMap<Service, (usize, Counts)>> {
    let schema = |service: Service| {
        format!("interleaving_{}_{seed}_{}", std::process::id(), service.name().replace('-', "_"))
    };
    let result = in_schemas(url, seed, &schema).await;
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let dropping = async {
        for service in Service::ALL {
            client
                .batch_execute(&format!("DROP SCHEMA IF EXISTS {} CASCADE", schema(service)))
                .await?;
        }
        drop(client);
        Ok::<(), tokio_postgres::Error>(())
    };
    let (dropped, ended) = futures_util::future::join(dropping, connection).await;
    dropped.and(ended)?;
    result
}

async fn in_schemas(
    url: &str,
    seed: u64,
    schema: &dyn Fn(Service) -> String,
) -> anyhow::Result<BTreeMap<Service, (usize, Counts)>> {
    let folder = tempfile::tempdir()?;
    let runtime = local_mode::runtime();
    let log = LogServer::new(model::log::Settings::default());
    let queue = QueueServer::new(model::queue::Settings::default(), runtime.clone());
    let histories: BTreeMap<Service, Arc<History>> = Service::ALL
        .into_iter()
        .zip(0..)
        .map(|(service, number)| (service, History::new(Turns::new(seed * 16 + number))))
        .collect();
    let steering = Steering { declined_ending: Some(DECLINED_ENDING), ..Steering::default() };
    let (outside, _, _) = local_mode::outside(folder.path(), steering)?;
    let sources = Sources {
        set: SETTINGS.map(str::to_owned).to_vec(),
        config: Some("/dev/null".into()),
        ..Sources::default()
    };
    let config = Config::load(&sources, &[], &[]).map_err(|text| anyhow!(text))?;
    let mut shops = Vec::new();
    for name in INSTANCES {
        let mut all = BTreeMap::new();
        for (service, history) in &histories {
            let store = PostgresStore::connect(url, &schema(*service)).await?;
            let ports = Ports {
                log: Arc::new(log.client(name, runtime.clone())),
                queue: Arc::new(queue.client(name, runtime.clone())),
                store: history.of(Arc::new(store)),
                runtime: runtime.clone(),
            };
            all.insert(*service, ports);
        }
        let setup = Setup {
            instance: name.to_owned(),
            streams: Streams::default(),
            config: config.clone(),
        };
        shops.push(run_all(&all, &outside, &setup).await?);
    }
    rush::rush(&shops, seed, &*runtime).await?;
    settle(shops).await?;
    let mut counts = BTreeMap::new();
    for (service, history) in histories {
        let store = PostgresStore::connect(url, &schema(service)).await?;
        let checked = history.check(&store).await;
        let transactions =
            checked.map_err(|text| anyhow!("{} is not serializable: {text}", service.name()))?;
        counts.insert(service, (transactions, history.turns().counts()));
    }
    Ok(counts)
}

/// Waits for rest, reconciles, and ends both.
async fn settle(shops: Vec<Shop>) -> anyhow::Result<()> {
    let drain = Duration::from_secs(10);
    let mut shops = shops.into_iter();
    let first = shops.next().context("two instances")?;
    let running =
        Running::start(Shell::bind(([127, 0, 0, 1], 0).into()).await?, first, drain).await?;
    let client = Client::new(running.address);
    let report = audit(&client, REST, false).await?;
    let balanced = report.verdict() == Verdict::Balanced;
    ensure!(balanced, "the books do not balance:\n{}", report.table());
    for shop in shops {
        ensure!(shop.stop(drain).await, "an instance did not leave in time");
    }
    ensure!(running.stop().await?, "an instance did not leave in time");
    // Rollbacks go on in the background.
    pause(Duration::from_millis(50)).await;
    Ok(())
}
