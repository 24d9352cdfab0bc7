//! The adapters under fire: whatever is done to link and server, each call
//! ends, nothing confirmed is lost, and all goes on within ten seconds after it is over. Never about what
//! a server means by an answer; that is in the statements.

mod kafka;
mod postgres;
mod rabbit;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join3;
use ports::Runtime;
use shakedown_conformance::{Section, run};

use crate::kafka::RealKafka;

/// How soon all must go on.
const SOON: Duration = Duration::from_secs(10);

/// For one case: some wait for an adapter's own limit of 20 s.
const LIMIT: Duration = Duration::from_secs(60);

/// The cases of the adapters of Kafka, RabbitMQ and PostgreSQL; none where a server has no address.
pub async fn sections(
    [kafka, rabbit, postgres]: [Option<&str>; 3],
    run_name: &str,
    runtime: &Arc<dyn Runtime>,
) -> Vec<Section> {
    let on_kafka = async {
        let (cases, url) = (kafka::cases(), kafka?);
        let mut columns = Vec::new();
        for (name, protocol) in [("Kafka", "classic"), ("Kafka, KIP-848", "consumer")] {
            let run_name = format!("{run_name}-fire");
            let backend = RealKafka::at(url, protocol, &run_name, runtime.clone()).await;
            columns.push(run(&cases, name, &backend, &**runtime, LIMIT).await);
        }
        Some(Section::new("The adapter of Kafka", &cases, columns))
    };
    let on_rabbit = async {
        let (cases, url) = (rabbit::cases(), rabbit?);
        let fire = rabbit::Fire::at(url, run_name, runtime.clone());
        let column = run(&cases, "RabbitMQ", &fire, &**runtime, LIMIT).await;
        Some(Section::new("The adapter of RabbitMQ", &cases, vec![column]))
    };
    let on_postgres = async {
        let (cases, url) = (postgres::cases(), postgres?);
        let fire = postgres::Fire::at(url, run_name, runtime.clone());
        let column = run(&cases, "PostgreSQL", &fire, &**runtime, LIMIT).await;
        Some(Section::new("The adapter of PostgreSQL", &cases, vec![column]))
    };
    let (kafka, rabbit, postgres) = join3(on_kafka, on_rabbit, on_postgres).await;
    kafka.into_iter().chain(rabbit).chain(postgres).collect()
}

/// The call, which must end soon.
async fn soon<F: Future>(runtime: &dyn Runtime, what: &str, call: F) -> F::Output {
    let ended = ports::timeout(runtime, SOON, call).await;
    ended.unwrap_or_else(|| panic!("{what}: not within {} s", SOON.as_secs()))
}
