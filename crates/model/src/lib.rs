//! Pure models of Kafka's log and groups, RabbitMQ's queues and a transactional store.

pub mod log;
pub mod queue;
pub mod store;
