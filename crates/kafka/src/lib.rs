//! EventLog on Kafka through librdkafka.
