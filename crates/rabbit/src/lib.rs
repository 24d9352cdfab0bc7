//! JobQueue on RabbitMQ through lapin.
