//! Every setting, once: its key, default, what it takes and what it means. The rest is made of it:
//! the typed struct, the environment variables, `--print-config`, docs/configuration.md.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::layers::{Layers, Origin, Setting};
use super::rule::{
    Filter, Folder, Http, Kind, Listen, Rule, Secret, Server, Span, Switch, Text, Whole, Word,
};
use crate::client::BaseUrl;
use contract::Profile;
use kafka::Assignor;

/// How to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// A setting as it is shown.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its key.
    pub key: &'static str,
    /// What it means.
    pub about: String,
    /// What it takes.
    pub allowed: String,
    /// Its default.
    pub default: &'static str,
    /// How it stands in a file.
    pub kind: Kind,
    /// Its effective value, without secrets.
    pub value: String,
    /// Who set it.
    pub origin: Origin,
}

macro_rules! settings {
    ($( $(#[doc = $about:literal])+ $key:literal $field:ident: $type:ty = $default:literal, $rule:expr; )+) => {
        /// The configuration: typed values, and who set each.
        #[derive(Debug, Clone)]
        pub struct Config {
            $( $(#[doc = $about])+ pub $field: Setting<$type>, )+
        }

        /// The keys of all settings, in the order in which they are shown.
        pub const KEYS: &[&str] = &[$( $key ),+];

        impl Config {
            /// The settings of these layers; an error is a list of all that is wrong.
            pub(super) fn read(layers: &Layers) -> Result<Config, Vec<String>> {
                let mut wrong = Vec::new();
                $( let $field = layers.take($key, $default, &$rule).map_err(|e| wrong.push(e)).ok(); )+
                match ($( $field, )+) {
                    ($( Some($field), )+) => Ok(Config { $( $field, )+ }),
                    _ => Err(wrong),
                }
            }

            /// All settings as they are shown.
            pub fn shown(&self) -> Vec<Shown> {
                vec![$({
                    let rule = $rule;
                    Shown {
                        key: $key,
                        about: [$( $about ),+].concat().trim().to_owned(),
                        allowed: rule.allowed(),
                        default: $default,
                        kind: kind_of(&rule),
                        value: rule.show(&self.$field.value),
                        origin: self.$field.origin.clone(),
                    }
                }),+]
            }
        }
    };
}

fn kind_of<R: Rule>(_: &R) -> Kind {
    R::KIND
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

const DAY: u64 = 24 * 60 * 60;

const PROFILES: Word<Profile> =
    Word(&[("default", Profile::Default), ("catalog", Profile::Catalog)]);

const GROUP_PROTOCOLS: Word<Assignor> =
    Word(&[("classic", Assignor::CooperativeSticky), ("consumer", Assignor::Brokers)]);
const FORMATS: Word<LogFormat> = Word(&[("pretty", LogFormat::Pretty), ("json", LogFormat::Json)]);

const PREFIX: Text = Text {
    least: 0,
    // With a service's name behind it, it is the name of a schema: PostgreSQL cuts those at 63 bytes.
    most: 40,
    // Queues of RabbitMQ that begin with `amq.` are the server's own, and so are schemas of PostgreSQL with `pg_`,
    // which is what becomes of `PG.` and `pg-` too.
    of: |text| {
        let names = text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        let schema = text.to_ascii_lowercase().replace(['.', '-'], "_");
        names && !text.starts_with("amq.") && !schema.starts_with("pg_")
    },
    words: "at most 40 letters, digits, dots, dashes and underscores, and neither pg_ nor amq. in front",
};

const CURRENCY: Text = Text {
    least: 3,
    most: 3,
    of: |text| text.chars().all(|c| c.is_ascii_uppercase()),
    words: "three capital letters (ISO 4217), such as EUR",
};

settings! {
    /// Address to listen on. Loopback only, until there is authentication.
    "listen" listen: SocketAddr = "127.0.0.1:8080", Listen;
    /// Folder for the databases of local mode, the simulated gateway's journal and the mails.
    "data_dir" data_dir: PathBuf = "shakedown-data", Folder;
    /// Which promises the services keep: with this project's additions, or the event catalog as written.
    "profile" profile: Profile = "default", PROFILES;
    /// Kafka. All three servers or none: without them it is local mode.
    "kafka" kafka: Secret = "", Server { form: "kafka://host:port[,host:port]" };
    /// RabbitMQ.
    "rabbit" rabbit: Secret = "", Server { form: "amqp://user:password@host:port/vhost" };
    /// PostgreSQL.
    "postgres" postgres: Secret = "", Server { form: "postgres://user:password@host:port/database" };
    /// Before the name of every topic, queue, group and schema, with its separator (`test.`). Real servers only.
    "prefix" prefix: String = "", PREFIX;
    /// Partitions of each topic. Fixed when the topics are made.
    "partitions" partitions: i32 = "6", Whole(1, 1000);
    /// How long leaving may take: first for open requests, then for the services.
    "drain" drain: Duration = "5s", Span(ms(100), s(600));

    /// How long a process of a consumer group may be silent before others get its partitions: after a crash
    /// they rest so long. The broker bounds it.
    "consumers.session_timeout" session_timeout: Duration = "45s", Span(s(1), s(1800));

    /// How groups are led: classic, or by the brokers (KIP-848, Kafka 4.0 and later), which then bound the session
    /// themselves.
    "consumers.protocol" group_protocol: Assignor = "classic", GROUP_PROTOCOLS;

    /// Copies of each topic, as far as there are brokers. From three on, two must have a record before it counts.
    "topology.replication" replication: i32 = "3", Whole(1, 9);
    /// How long topics keep events. `catalog.events` keeps the last of each product instead.
    "topology.retention" topic_retention: Duration = "30days", Span(s(3600), s(3650 * DAY));

    /// What to log.
    "log.filter" log_filter: String = "info", Filter;
    /// How to log: lines for people, or one JSON object a line.
    "log.format" log_format: LogFormat = "pretty", FORMATS;

    /// From an order to its deadline, when it is cancelled.
    "orders.deadline" deadline: Duration = "15m", Span(s(1), s(30 * DAY));
    /// Currency of every amount.
    "orders.currency" currency: String = "EUR", CURRENCY;
    /// Whether every POST to /orders needs an Idempotency-Key; relative writes always do.
    "orders.idempotency_key_required" key_required: bool = "false", Switch;

    /// The payment gateway: nothing for a simulated one in this process, else where it answers over HTTP, as
    /// `shakedown gateway` does.
    "payments.gateway" gateway: Option<BaseUrl> = "", Http;
    /// After this a call to the payment gateway counts as unknown, and is made again.
    "payments.timeout" gateway_timeout: Duration = "2s", Span(ms(10), s(60));
    /// Pause after the first unknown answer of the gateway; it doubles.
    "payments.retry_first" gateway_retry_first: Duration = "500ms", Span(ms(10), s(3600));
    /// Longest pause between two calls for one payment.
    "payments.retry_max" gateway_retry_max: Duration = "1m", Span(ms(10), s(DAY));
    /// Calls to the gateway at the same time.
    "payments.parallel" gateway_parallel: usize = "64", Whole(1, 1000);

    /// After this a sending counts as unknown, and the mail is sent again with its Message-ID.
    "mail.timeout" mail_timeout: Duration = "2s", Span(ms(10), s(600));
    /// Pause after the first unknown answer of the mail sink; it doubles.
    "mail.retry_first" mail_retry_first: Duration = "1s", Span(ms(10), s(3600));
    /// Longest pause between two sendings of one mail.
    "mail.retry_max" mail_retry_max: Duration = "5m", Span(ms(10), s(DAY));
    /// Mails sent at the same time.
    "mail.parallel" mail_parallel: usize = "64", Whole(1, 1000);

    /// Most inputs in one transaction: large enough to share a commit, small enough to lock briefly.
    "chassis.batch_max" batch_max: usize = "256", Whole(1, 10_000);
    /// Requests that may wait in each service; more are answered 503.
    "chassis.commands_max" commands_max: usize = "1024", Whole(1, 100_000);
    /// How long a request waits for its reply.
    "chassis.reply_timeout" reply_timeout: Duration = "10s", Span(ms(100), s(14));
    /// How long the twin of a request in flight waits for its reply; then it is answered 409.
    "chassis.twin_wait" twin_wait: Duration = "5s", Span(ms(100), s(14));
    /// Bulk requests at a time in each service.
    "chassis.bulks_max" bulks_max: usize = "4", Whole(1, 100);
    /// Shards of each outbox. Fixed for a database's life: another number is refused at start.
    "chassis.shards" shards: u16 = "4", Whole(1, chassis::SHARDS_MAX);
    /// How long a shard's lease lasts without renewal: a dead holder's events rest this long.
    "chassis.lease" lease: Duration = "10s", Span(s(1), s(600));
    /// How long relay and workers wait where nothing wakes them. At most a third of the lease.
    "chassis.idle" idle: Duration = "500ms", Span(ms(10), s(60));
    /// Pause between two commits of offsets to Kafka: its copy of the positions, for whoever looks from outside.
    "chassis.offsets_every" offsets_every: Duration = "1s", Span(Duration::ZERO, s(60));
    /// Most outbox rows in one sending.
    "chassis.relay_max" relay_max: usize = "512", Whole(1, 10_000);
    /// Pause after a failed attempt of a loop; it doubles, with jitter.
    "chassis.backoff" backoff: Duration = "20ms", Span(ms(1), s(60));
    /// Longest pause after failed attempts.
    "chassis.backoff_max" backoff_max: Duration = "2s", Span(ms(1), s(600));

    /// How long an event's outcome is known: longer than a producer may repeat it.
    "retention.events" keep_events: Duration = "7days", Span(s(3600), s(365 * DAY));
    /// How long a request's reply is known under its Idempotency-Key.
    "retention.idempotency_keys" keep_commands: Duration = "1day", Span(s(60), s(365 * DAY));
    /// How long a settled dead letter can be looked at. Open ones stay.
    "retention.letters" keep_letters: Duration = "90days", Span(s(3600), s(3650 * DAY));
}
