//! One supervised connection: made anew by the call that finds it gone, after a jittered back-off.
//! Never replays anything on the new one.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use ports::{Fault, Outcome};
use tokio::sync::Mutex;

use crate::address::Address;
use crate::fault::{OPEN_LIMIT, Stage, limited, limited_to};
use crate::message::short;

/// Seconds. A dead peer is noticed after two of them; the server proposes 60, the lower one counts.
const HEARTBEAT: u16 = 20;
/// The first wait after a failed attempt; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A connection that is there when it can be.
pub(crate) struct Link {
    address: Address,
    name: &'static str,
    /// Finished attempts to connect: who waited for a failed one does not make the next.
    attempts: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Arc<Connection>>,
    failures: u32,
    last: Option<Fault>,
}

impl Link {
    pub(crate) fn new(mut address: Address, name: &'static str) -> Self {
        address.uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Link { address, name, attempts: AtomicU64::new(0), state: Mutex::default() }
    }

    /// The first connection.
    pub(crate) async fn log_in(&self) -> Outcome<()> {
        self.connection(Stage::Login).await.map(|_| ())
    }

    /// A new channel, on a new connection if need be.
    pub(crate) async fn channel(&self) -> Outcome<Channel> {
        let connection = self.connection(Stage::Connect).await?;
        let opening = connection.create_channel();
        limited_to(OPEN_LIMIT, Stage::Ask, "channel.open", opening).await
    }

    /// How many messages of a queue are ready.
    pub(crate) async fn ready(&self, queue: &str) -> Outcome<u32> {
        let name = short(queue)?;
        // A channel of its own: a refusal closes it (broker-contract R5).
        let channel = self.channel().await?;
        let options = QueueDeclareOptions::durable().passive();
        let asked = channel.queue_declare(name, options, FieldTable::default());
        let queue = limited(Stage::Ask, "queue.declare (passive)", asked).await?;
        Ok(queue.message_count())
    }

    /// Whether the server lets this connection send nothing.
    pub(crate) async fn blocked(&self) -> bool {
        let state = self.state.lock().await;
        state.connection.as_ref().is_some_and(|connection| connection.status().blocked())
    }

    #[allow(clippy::disallowed_methods)] // An adapter: real time.
    async fn connection(&self, stage: Stage) -> Outcome<Arc<Connection>> {
        let seen = self.attempts.load(Ordering::Acquire);
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection
            && connection.status().connected()
        {
            return Ok(connection.clone());
        }
        if let Some(last) = &state.last
            && self.attempts.load(Ordering::Acquire) != seen
        {
            return Err(last.clone());
        }
        state.connection = None;
        tokio::time::sleep(backoff(state.failures, RandomState::new().hash_one(seen))).await;
        let properties = ConnectionProperties::default().with_connection_name(self.name.into());
        let connect = self.address.connect(properties);
        let result = limited(stage, "connect", connect).await;
        self.attempts.fetch_add(1, Ordering::Release);
        match result {
            Ok(connection) => {
                let connection = Arc::new(connection);
                *state = State { connection: Some(connection.clone()), failures: 0, last: None };
                Ok(connection)
            }
            Err(fault) => {
                tracing::warn!(link = self.name, %fault, "cannot connect to RabbitMQ");
                state.failures += 1;
                state.last = Some(fault.clone());
                Err(fault)
            }
        }
    }
}

/// How long to wait before the next attempt: at once at first, then between the half and the whole
/// of a doubling time, so that clients do not come back together.
fn backoff(failures: u32, random: u64) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
    let whole = BACKOFF_MIN.saturating_mul(1 << doublings.min(16)).min(BACKOFF_MAX);
    whole / 2 + (whole / 2).mul_f64((random % 1_000) as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_starts_at_once_doubles_and_is_bounded() {
        assert_eq!(backoff(0, 999), Duration::ZERO);
        assert_eq!(backoff(1, 0), BACKOFF_MIN / 2);
        assert_eq!(backoff(2, 0), BACKOFF_MIN);
        for failures in [7, 40, u32::MAX] {
            let wait = backoff(failures, 999);
            assert!(BACKOFF_MAX / 2 < wait && wait <= BACKOFF_MAX, "{wait:?}");
        }
    }
}
