//! Generated programs on real servers, many at a time on one server. SHAKEDOWN_PROGRAMS says how many of each
//! port; else as many as a run of the cases can wait for.

use std::sync::Arc;
use std::time::Duration;

use ::rabbit::Server;
use futures_util::future::{join, join_all, join3};
use ports::Runtime;
use shakedown_conformance::log::LogBackend;
use shakedown_conformance::programs::log::LogPrograms;
use shakedown_conformance::programs::queue::{Pace, QueuePrograms};
use shakedown_conformance::programs::store::StorePrograms;
use shakedown_conformance::programs::{Programs, Report, campaign};
use shakedown_conformance::queue::Kind;

use crate::kafka::RealKafka;
use crate::postgres::RealPostgres;
use crate::rabbit::RealRabbit;

/// For one question to a server.
const LIMIT: Duration = Duration::from_secs(10);

/// Says how many programs a port runs.
const VARIABLE: &str = "SHAKEDOWN_PROGRAMS";

fn count(default: u64) -> u64 {
    match std::env::var(VARIABLE) {
        Ok(count) => count.parse().unwrap_or_else(|_| panic!("{VARIABLE}={count} is no number")),
        Err(_) => default,
    }
}

/// Whether they agree. Prints what was met, and what does not.
async fn agree<P: Programs>(
    name: &str,
    runtime: &dyn Runtime,
    programs: &P,
    count: u64,
    lanes: usize,
) -> bool {
    let begun = runtime.elapsed();
    let report = campaign(programs, 0..count, lanes, true).await;
    print!("{name}, {} s: {report}", (runtime.elapsed() - begun).as_secs());
    !report.failed()
}

/// Whether all servers that have an address agree.
pub async fn all(
    [kafka, rabbit, postgres]: [Option<&str>; 3],
    run: &str,
    runtime: &Arc<dyn Runtime>,
) -> bool {
    let logs = async {
        match kafka {
            Some(url) => logs(url, run, runtime).await,
            None => true,
        }
    };
    let queues = async {
        match rabbit {
            Some(url) => queues(url, run, runtime).await,
            None => true,
        }
    };
    let stores = async {
        match postgres {
            Some(url) => stores(url, run, runtime).await,
            None => true,
        }
    };
    let (logs, queues, stores) = join3(logs, queues, stores).await;
    logs && queues && stores
}

/// Whether Kafka agrees.
async fn logs(url: &str, run: &str, runtime: &Arc<dyn Runtime>) -> bool {
    let run = format!("{run}-programs");
    let on = |name: &'static str, protocol, count| {
        let run = &run;
        async move {
            let backend = RealKafka::at(url, protocol, run, runtime.clone()).await;
            // Who takes over from the dead waits for the end of their session.
            let patience = backend.session_timeout() + Duration::from_secs(24);
            agree(name, &**runtime, &LogPrograms::on(&backend, patience), count, 12).await
        }
    };
    let classic = on("EventLog, Kafka", "classic", count(300));
    let by_brokers = on("EventLog, Kafka, KIP-848", "consumer", count(300).div_ceil(5));
    let (classic, by_brokers) = join(classic, by_brokers).await;
    classic && by_brokers
}

/// Whether RabbitMQ agrees.
async fn queues(url: &str, run: &str, runtime: &Arc<dyn Runtime>) -> bool {
    let release = Server::ask(url, LIMIT).await.unwrap().release().expect("a release");
    let run = format!("{run}-programs");
    let backend = RealRabbit::at(url, &run, Kind::Quorum, release, runtime.clone()).await;
    let pace = Pace {
        patience: Duration::from_secs(20),
        quiet: Duration::from_millis(20),
        prompt: false,
        release,
    };
    let programs = QueuePrograms::on(&backend, pace);
    agree("JobQueue, RabbitMQ", &**runtime, &programs, count(1_000), 24).await
}

/// Clients of the server that run programs beside each other: each has a pool, and a program needs a few
/// connections of it at a time.
const POOLS: u64 = 6;

/// Whether PostgreSQL agrees.
async fn stores(url: &str, run: &str, runtime: &Arc<dyn Runtime>) -> bool {
    let (begun, each) = (runtime.elapsed(), count(1_000).div_ceil(POOLS));
    let pools = (0..POOLS).map(|pool| async move {
        let name = format!("{run}-programs-{pool}");
        let backend = RealPostgres::at(url, &name, runtime.clone()).await;
        let backend = backend.unwrap_or_else(|fault| panic!("no store: {fault}"));
        let seeds = pool * each..(pool + 1) * each;
        campaign(&StorePrograms::on(&backend), seeds, 2, true).await
    });
    let report = join_all(pools).await.into_iter().fold(Report::default(), Report::with);
    print!("Store, PostgreSQL, {} s: {report}", (runtime.elapsed() - begun).as_secs());
    !report.failed()
}
