//! Produces batches with an outcome for each record. Never reorders records of a key, and never
//! sends one twice by itself: resending is the caller's, with the same bytes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ports::{Fault, Outcome, Record};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use crate::detached::Detached;
use crate::faults::{Call, fault, is_fatal, not_created};
use crate::logs::Doorkeeper;
use crate::settings::Clients;

type Client = Arc<Detached<FutureProducer<Doorkeeper>>>;

/// The one producer of a service; a new one takes its place after a fatal error (K8).
pub(crate) struct Producer {
    clients: Clients,
    current: Mutex<Client>,
}

impl Producer {
    pub fn new(clients: &Clients) -> Outcome<Self> {
        let current = Mutex::new(create(clients)?);
        Ok(Producer { clients: clients.clone(), current })
    }

    /// Queues all, in order, then waits for each, in order.
    pub async fn produce(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        let client = self.current();
        let mut full = false;
        let mut fatal = false;
        let queued: Vec<_> = batch
            .iter()
            .map(|record| {
                if full {
                    return Err(Fault::retry("behind a record that was not queued"));
                }
                enqueue(&client, record).map_err(|error| {
                    let fault = fault(Call::Enqueue, &error);
                    // What comes behind must not overtake a record that may be sent again.
                    full = matches!(fault, Fault::Retry(_));
                    fatal |= is_fatal(&error);
                    fault
                })
            })
            .collect();
        let mut outcomes = Vec::with_capacity(queued.len());
        for queued in queued {
            outcomes.push(match queued {
                Err(fault) => Err(fault),
                Ok(delivery) => delivered(delivery).await.map_err(|error| {
                    fatal |= is_fatal(&error);
                    fault(Call::Deliver, &error)
                }),
            });
        }
        if fatal || client.client().fatal_error().is_some() {
            self.replace(&client);
        }
        outcomes
    }

    pub async fn flush(&self, deadline: Duration) -> Outcome<()> {
        let client = self.current();
        let flushed = tokio::task::spawn_blocking(move || client.flush(deadline)).await;
        match flushed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(fault(Call::Deliver, &error)),
            Err(_) => Err(Fault::unknown("flush was cut short")),
        }
    }

    fn current(&self) -> Client {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A new producer in place of a broken one, unless that was done already.
    fn replace(&self, broken: &Client) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, broken) {
            tracing::error!("the producer failed for good and is replaced");
            match create(&self.clients) {
                Ok(client) => *current = client,
                Err(fault) => tracing::error!(%fault, "no new producer"),
            }
        }
    }
}

/// What became of a record that was queued.
async fn delivered(delivery: DeliveryFuture) -> KafkaResult<()> {
    match delivery.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err((error, _))) => Err(error),
        // The producer was dropped before it said.
        Err(_) => Err(KafkaError::Canceled),
    }
}

fn create(clients: &Clients) -> Outcome<Client> {
    let context = Doorkeeper(clients.door.clone());
    let producer: Result<FutureProducer<Doorkeeper>, _> =
        clients.producer().create_with_context(context);
    let producer = producer.map_err(not_created)?;
    Ok(Arc::new(Detached::new(producer)))
}

fn enqueue(
    client: &FutureProducer<Doorkeeper>,
    record: &Record,
) -> Result<DeliveryFuture, KafkaError> {
    let headers =
        record.headers.iter().fold(
            OwnedHeaders::new_with_capacity(record.headers.len()),
            |headers, (name, value)| headers.insert(Header { key: name, value: Some(&value[..]) }),
        );
    let mut message = FutureRecord::to(&record.to).payload(&record.payload[..]).headers(headers);
    // Without a key the partition is chosen at random; an empty key would have a hash (K1).
    if !record.key.is_empty() {
        message = message.key(record.key.as_bytes());
    }
    client.send_result(message).map_err(|(error, _)| error)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // A real client's time.
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;

    use super::*;
    use crate::address::Address;
    use crate::logs::Door;
    use crate::settings::Settings;

    const TOPIC: &str = "orders.events";

    fn producer(brokers: &str) -> Producer {
        let address = Address::parse(&format!("kafka://{brokers}")).unwrap();
        let (settings, door) = (Settings::default(), Door::default());
        Producer::new(&Clients {
            address,
            name: "orders".into(),
            settings,
            door,
            given_up: Default::default(),
        })
        .unwrap()
    }

    fn record() -> Record {
        Record { to: TOPIC.into(), key: "order-0".into(), headers: vec![], payload: "p".into() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn dropped_with_records_in_flight_or_queued_their_outcome_is_unknown() {
        let mock: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
        mock.create_topic(TOPIC, 1, 1).unwrap();
        let reached = producer(&mock.bootstrap_servers());
        assert_eq!(reached.produce(vec![record()]).await, [Ok(())]);
        mock.broker_round_trip_time(1, Duration::from_secs(20)).unwrap();
        for producer in [reached, producer("127.0.0.1:9")] {
            let client = producer.current();
            let delivery = enqueue(&client, &record()).unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            drop((client, producer));
            let ended = tokio::time::timeout(Duration::from_secs(5), delivered(delivery)).await;
            let error = ended.expect("it ends").unwrap_err();
            assert!(matches!(fault(Call::Deliver, &error), Fault::Unknown(_)), "{error}");
        }
    }

    #[test]
    fn a_flush_that_its_runtime_cuts_short_is_unknown() {
        let producer = producer("127.0.0.1:9");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let _entered = handle.enter();
        let flushed = futures_util::FutureExt::now_or_never(producer.flush(Duration::ZERO));
        assert!(matches!(flushed, Some(Err(Fault::Unknown(_)))), "{flushed:?}");
    }
}
