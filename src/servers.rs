//! Ports on real servers: Kafka, RabbitMQ and PostgreSQL, one schema a service. Never prints an
//! address, which may hold a password.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chassis::Ports;
use contract::Service;
use kafka::Kafka;
use ports::{EventLog, Fault, JobQueue, Outcome, Runtime};
use postgres::PostgresStore;
use rabbit::Rabbit;

use crate::config::{Config, variable};
use crate::http_shell::pause;
use crate::topology;

/// Between two attempts to reach a server.
const PAUSE: Duration = Duration::from_secs(1);

/// Addresses of all three servers.
#[derive(Clone)]
pub struct Servers {
    kafka: String,
    rabbit: String,
    postgres: String,
}

impl Servers {
    /// All three or none; an error names what is missing.
    pub fn read(config: &Config) -> Result<Option<Servers>, String> {
        let all =
            [("kafka", &config.kafka), ("rabbit", &config.rabbit), ("postgres", &config.postgres)];
        let absent = all.iter().filter(|(_, address)| address.value.reveal().is_empty());
        let missing: Vec<String> =
            absent.map(|(name, _)| format!("--{name} ({})", variable(name))).collect();
        if missing.len() == all.len() {
            return Ok(None);
        }
        if !missing.is_empty() {
            let given = all.iter().filter(|(_, address)| !address.value.reveal().is_empty());
            let given: Vec<String> =
                given.map(|(name, address)| format!("{name} ({})", address.origin)).collect();
            return Err(format!(
                "real servers need all three addresses, and there is only {}; give {}, or none",
                given.join(" and "),
                missing.join(" and ")
            ));
        }
        let [kafka, rabbit, postgres] = all.map(|(_, address)| address.value.reveal().to_owned());
        let checked = [
            kafka::Address::parse(&kafka).err(),
            rabbit::Address::parse(&rabbit).err(),
            postgres::Address::parse(&postgres).err(),
        ];
        for ((name, address), fault) in all.iter().zip(checked) {
            if let Some(fault) = fault {
                return Err(format!("--{name} ({}): {fault}", address.origin));
            }
        }
        Ok(Some(Servers { kafka, rabbit, postgres }))
    }

    /// Connects. The services of this process share its clients of the brokers; each has its own
    /// schema in the database.
    pub async fn connect(
        &self,
        config: &Config,
        services: &[Service],
        runtime: &Arc<dyn Runtime>,
    ) -> anyhow::Result<BTreeMap<Service, Ports>> {
        let session_timeout = config.session_timeout.value;
        let usual = kafka::Settings::default();
        let settings = kafka::Settings {
            group_prefix: config.prefix.value.clone(),
            session_timeout,
            assignor: config.group_protocol.value,
            // A third at most, as Kafka advises: one lost beat must not cost a membership.
            heartbeat: (session_timeout / 3).min(usual.heartbeat),
            // The client takes no longer session than this.
            max_poll_interval: usual.max_poll_interval.max(session_timeout),
            topics: topology::topics_wanted(config),
            ..usual
        };
        let log = Kafka::connect(&self.kafka, "shakedown", settings);
        let log: Arc<dyn EventLog> = Arc::new(log.context("Kafka: check --kafka")?);
        let queue = until_there("RabbitMQ", || Rabbit::connect(&self.rabbit)).await;
        let queue = queue.context("RabbitMQ: check --rabbit, and that it runs")?;
        let queue: Arc<dyn JobQueue> = Arc::new(queue);
        let mut all = BTreeMap::new();
        for service in services.iter().copied() {
            let schema = schema(&config.prefix.value, service);
            let store = || PostgresStore::connect(&self.postgres, &schema);
            let store = until_there("PostgreSQL", store).await;
            let store = store.context("PostgreSQL: check --postgres, and that it runs")?;
            let (log, queue, runtime) = (log.clone(), queue.clone(), runtime.clone());
            all.insert(service, Ports { log, queue, store: Arc::new(store), runtime });
        }
        Ok(all)
    }
}

/// Tries again for as long as a server may still come: a process that starts beside its servers waits for
/// them. Returns what is refused.
pub async fn until_there<T, F: Future<Output = Outcome<T>>>(
    whom: &str,
    attempt: impl Fn() -> F,
) -> Outcome<T> {
    let mut said = None;
    loop {
        match attempt().await {
            Err(fault @ (Fault::Retry(_) | Fault::Unknown(_))) => {
                // Each reason once.
                if said.as_ref() != Some(&fault) {
                    tracing::warn!(%fault, "waiting for {whom}");
                    said = Some(fault);
                }
                pause(PAUSE).await;
            }
            done => return done,
        }
    }
}

/// The schema of a service, behind the prefix of topics and queues: in small letters, and with `_` for what a
/// schema's name cannot have.
pub fn schema(prefix: &str, service: Service) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = prefix.chars().chain(service.name().chars()).map(plain).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn given(set: &[&str]) -> Config {
        let set = set.iter().map(|pair| (*pair).to_owned()).collect();
        // No file of the folder that the test runs in.
        Config::load(
            &Sources { set, config: Some("/dev/null".into()), ..Sources::default() },
            &[],
            &[],
        )
        .unwrap()
    }

    #[test]
    fn a_schema_is_behind_the_prefix_and_has_a_plain_name() {
        assert_eq!(schema("", Service::NotificationsApi), "notifications_api");
        assert_eq!(schema("Test-2.", Service::Orders), "test_2_orders");
        assert_eq!(schema("2.", Service::Orders), "_2_orders");
    }

    #[test]
    fn all_three_addresses_or_none() {
        let empty = ["kafka=", "rabbit=", "postgres="];
        assert!(Servers::read(&given(&empty)).unwrap().is_none());
        let one = [&empty[..], &["kafka=kafka://localhost:9092"]].concat();
        let error = Servers::read(&given(&one)).err().unwrap();
        for words in ["--rabbit", "--postgres", "only kafka (--set kafka)"] {
            assert!(error.contains(words), "{error}");
        }
        let all =
            [&one[..], &["rabbit=amqp://localhost", "postgres=postgres://localhost"]].concat();
        assert!(Servers::read(&given(&all)).unwrap().is_some());
    }

    #[test]
    fn an_address_is_read_before_anything_connects_and_not_shown() {
        let good = ["kafka=kafka://h:1", "rabbit=amqp://h", "postgres=postgres://h"];
        for (at, bad) in [
            "kafka=kafka://h:1?sasl.password=geheim",
            "rabbit=amqp://u:geheim@h?cacertfile=/ca",
            "postgres=postgres://u:geheim@h?sslmode=prefer",
        ]
        .into_iter()
        .enumerate()
        {
            let mut set = good;
            set[at] = bad;
            let error = Servers::read(&given(&set)).err().unwrap();
            let name = bad.split('=').next().unwrap();
            assert!(error.starts_with(&format!("--{name} (--set {name})")), "{error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }
}
