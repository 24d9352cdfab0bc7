//! Pure models of Kafka's log and groups, RabbitMQ's queues and a transactional store; and virtual
//! time for tests that need no simulator.

pub mod log;
pub mod queue;
pub mod store;
pub mod virtual_time;
