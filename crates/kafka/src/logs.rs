//! Hands the client library's own log and errors to tracing, and keeps the one error that no waiting
//! mends: that we are not let in. Never decides anything by a text.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel as Level;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// The context of clients that need no other.
pub(crate) struct Logs;

impl ClientContext for Logs {
    fn log(&self, level: Level, facility: &str, text: &str) {
        match level {
            Level::Emerg | Level::Alert | Level::Critical | Level::Error => {
                tracing::error!("{facility}: {text}")
            }
            Level::Warning => tracing::warn!("{facility}: {text}"),
            Level::Notice | Level::Info | Level::Debug => tracing::debug!("{facility}: {text}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, "{reason}");
    }
}

/// Why the brokers last turned a client down, or it them: TLS or SASL failed. The library tries again
/// for good. Shared by the clients of one [`crate::Kafka`].
#[derive(Clone, Default)]
pub(crate) struct Door(Arc<Mutex<Option<String>>>);

impl Door {
    /// The reason, until [`Door::opened`].
    pub fn closed(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A broker answered.
    pub fn opened(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The context of the producer, whose client is always polled and so hears of errors first.
pub(crate) struct Doorkeeper(pub Door);

impl ClientContext for Doorkeeper {
    fn log(&self, level: Level, facility: &str, text: &str) {
        Logs.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(Code::SSL | Code::Authentication) = error.rdkafka_error_code() {
            *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
        Logs.error(error, reason);
    }
}
