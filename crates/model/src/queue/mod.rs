//! RabbitMQ's quorum queues: the state machine ([`Queues`]), and a `JobQueue` in this process on it
//! ([`QueueServer`], [`QueueClient`]). Never does IO and never reads a clock of its own.

mod client;
mod machine;
mod message;
#[cfg(test)]
mod program;
#[cfg(test)]
mod tests;

pub use client::{QueueClient, QueueServer};
pub use machine::Queues;
pub use message::{
    ChannelId, Effect, FIRST_DEATH_QUEUE, FIRST_DEATH_REASON, Message, Settings, Version, X_DEATH,
};
