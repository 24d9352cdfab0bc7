//! Hands the client library's own log and errors to tracing. Never decides anything by them.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel as Level;
use rdkafka::error::KafkaError;

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
