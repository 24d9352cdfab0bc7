//! Produces batches with an outcome for each record. Never reorders records of a key, and never
//! sends one twice by itself: resending is the caller's, with the same bytes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ports::{Fault, Outcome, Record};
use rdkafka::error::KafkaError;
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
                Ok(delivery) => match delivery.await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err((error, _))) => {
                        fatal |= is_fatal(&error);
                        Err(fault(Call::Deliver, &error))
                    }
                    Err(_) => Err(Fault::unknown("the producer was dropped")),
                },
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
