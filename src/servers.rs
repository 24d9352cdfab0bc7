//! Ports on real servers: Kafka, RabbitMQ and PostgreSQL, one schema a service. Never prints an
//! address, which may hold a password.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use chassis::Ports;
use contract::Service;
use kafka::Kafka;
use ports::{EventLog, JobQueue, Runtime};
use postgres::PostgresStore;
use rabbit::Rabbit;

use crate::cli::ServerAddresses;

/// Addresses of all three servers.
#[derive(Clone)]
pub struct Servers {
    kafka: String,
    rabbit: String,
    postgres: String,
}

impl Servers {
    /// All three or none; an error names what is missing.
    pub fn read(addresses: &ServerAddresses) -> Result<Option<Servers>, String> {
        let ServerAddresses { kafka, rabbit, postgres, prefix: _ } = addresses;
        let given = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
        match (given(kafka), given(rabbit), given(postgres)) {
            (None, None, None) => Ok(None),
            (Some(kafka), Some(rabbit), Some(postgres)) => {
                Ok(Some(Servers { kafka, rabbit, postgres }))
            }
            (kafka, rabbit, postgres) => {
                let missing: Vec<&str> = [
                    ("--kafka (SHAKEDOWN_KAFKA)", kafka.is_none()),
                    ("--rabbit (SHAKEDOWN_RABBIT)", rabbit.is_none()),
                    ("--postgres (SHAKEDOWN_POSTGRES)", postgres.is_none()),
                ]
                .into_iter()
                .filter_map(|(name, missing)| missing.then_some(name))
                .collect();
                let missing = missing.join(" and ");
                Err(format!("real servers need all three addresses; give {missing}, or none"))
            }
        }
    }

    /// Connects. The services of this process share its clients of the brokers; each has its own
    /// schema in the database.
    pub async fn connect(
        &self,
        runtime: &Arc<dyn Runtime>,
    ) -> anyhow::Result<BTreeMap<Service, Ports>> {
        let log = Kafka::connect(&self.kafka, "shakedown", kafka::Settings::default());
        let log: Arc<dyn EventLog> = Arc::new(log.context("Kafka: check --kafka")?);
        let queue = Rabbit::connect(&self.rabbit).await;
        let queue = queue.context("RabbitMQ: check --rabbit, and that it runs")?;
        let queue: Arc<dyn JobQueue> = Arc::new(queue);
        let mut all = BTreeMap::new();
        for service in Service::ALL {
            let schema = service.name().replace('-', "_");
            let store = PostgresStore::connect(&self.postgres, &schema).await;
            let store = store.context("PostgreSQL: check --postgres, and that it runs")?;
            let (log, queue, runtime) = (log.clone(), queue.clone(), runtime.clone());
            all.insert(service, Ports { log, queue, store: Arc::new(store), runtime });
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_addresses_or_none() {
        let mut addresses = ServerAddresses::default();
        assert!(Servers::read(&addresses).unwrap().is_none());
        addresses.kafka = Some("kafka://localhost:9092".to_owned());
        addresses.rabbit = Some(String::new());
        let error = Servers::read(&addresses).err().unwrap();
        assert!(error.contains("--rabbit") && error.contains("--postgres"), "{error}");
        assert!(!error.contains("--kafka"), "{error}");
        addresses.rabbit = Some("amqp://localhost".to_owned());
        addresses.postgres = Some("postgres://localhost".to_owned());
        assert!(Servers::read(&addresses).unwrap().is_some());
    }
}
