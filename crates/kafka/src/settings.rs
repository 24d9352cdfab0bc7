//! Every setting of the clients that differs from librdkafka's default or that we rely on, with
//! its reason. Never reads the environment, and never prints an address that may hold a secret.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::address::Address;
use crate::logs::Door;
use crate::topology::Topic;
use crate::watchdog::GivenUp;

/// How a group's leader deals the partitions. All members of a group must use the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignor {
    /// `cooperative-sticky`: only the partitions that move are revoked.
    CooperativeSticky,
    /// `range`, eager: all partitions are revoked from all members.
    Range,
    /// Not the leader but the brokers, by the group protocol of KIP-848 (4.0 and later): only what moves is
    /// revoked. Session and heartbeat are then settings of the brokers (`group.consumer.*`), ours mean nothing.
    Brokers,
}

/// Time-outs and choices that a deployment may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Before the name of every group, as a deployment has a prefix before its topics.
    pub group_prefix: String,
    /// `session.timeout.ms`: a crashed member's partitions move after so long (K24).
    pub session_timeout: Duration,
    /// `heartbeat.interval.ms`.
    pub heartbeat: Duration,
    /// `max.poll.interval.ms` (K23).
    pub max_poll_interval: Duration,
    /// `delivery.timeout.ms`: then a record's outcome is Unknown (K11). Far below the client's default of 5 min,
    /// and below the lease under which a relay sends: while a partition has no leader, a round waits so long for
    /// its records, with all others, and then they are sent again.
    pub delivery_timeout: Duration,
    /// How long a poll waits for the first record.
    pub poll_wait: Duration,
    /// How long a question to the brokers (metadata, watermarks, committed offsets) or a commit may take.
    pub request_timeout: Duration,
    /// How long [`ports::Consumer::close`] waits for the goodbye, which goes on without it.
    pub close_deadline: Duration,
    /// Who deals the partitions, and how.
    pub assignor: Assignor,
    /// How topics are made that do not exist; one that is not among them is as [`Topic::default`] has it.
    pub topics: Vec<Topic>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            group_prefix: String::new(),
            session_timeout: Duration::from_secs(45),
            heartbeat: Duration::from_secs(3),
            max_poll_interval: Duration::from_secs(300),
            delivery_timeout: Duration::from_secs(5),
            poll_wait: Duration::from_millis(250),
            request_timeout: Duration::from_secs(10),
            close_deadline: Duration::from_secs(5),
            assignor: Assignor::CooperativeSticky,
            topics: Vec::new(),
        }
    }
}

/// What all clients of one [`crate::Kafka`] are made from.
#[derive(Clone)]
pub(crate) struct Clients {
    pub address: Address,
    pub name: String,
    pub settings: Settings,
    pub door: Door,
    pub given_up: GivenUp,
}

impl Clients {
    fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Warning);
        config.set("bootstrap.servers", &self.address.brokers);
        config.set("client.id", &self.name);
        // Default false: a silent peer behind a firewall would be noticed at the next request only.
        config.set("socket.keepalive.enable", "true");
        // Default false: requests are small and pipelined, and Nagle's algorithm holds the second one back until
        // the first is acknowledged.
        config.set("socket.nagle.disable", "true");
        // Default true for producers: a misspelt topic must be an error, not a new topic.
        config.set("allow.auto.create.topics", "false");
        for (name, value) in &self.address.access {
            config.set(name, value);
        }
        config
    }

    /// A group's name on the brokers.
    pub fn group(&self, group: &str) -> String {
        format!("{}{group}", self.settings.group_prefix)
    }

    /// For the one producer of a service.
    pub fn producer(&self) -> ClientConfig {
        let mut config = self.common();
        // A success must survive the loss of a leader (K4); topics want min.insync.replicas=2.
        config.set("acks", "all");
        // Default false: without it a lost reply writes twice (K5) and retries reorder (K10).
        config.set("enable.idempotence", "true");
        // The most that idempotence keeps in order.
        config.set("max.in.flight", "5");
        // enable.gapless.guarantee stays at its default, false: it is experimental (naming it is a warning in
        // the log), and the relay holds later rows of a key back itself.
        // When it has passed, the record may be in the log all the same: Unknown, not failed (K11).
        config.set("delivery.timeout.ms", millis(self.settings.delivery_timeout));
        // Default 5: the relay hands over what there is as one batch and sends no more until that is confirmed,
        // so that nothing would join a request that waits.
        config.set("linger.ms", "0");
        // Default none; JSON shrinks well, and lz4 is built in.
        config.set("compression.type", "lz4");
        // Default CRC32: Java's tools would put the same key elsewhere (K1).
        config.set("partitioner", "murmur2_random");
        // Bounded, so that a lost cluster shows as Retry and not as memory.
        config.set("queue.buffering.max.messages", "10000");
        config.set("queue.buffering.max.kbytes", "65536");
        // The default, written out: a larger record is refused here, its neighbours are not (K12).
        config.set("message.max.bytes", "1000000");
        // transactional.id stays unset: Kafka's transactions don't cover the SQL transaction.
        config
    }

    /// For topics, watermarks and metadata.
    pub fn admin(&self) -> ClientConfig {
        self.common()
    }

    /// For reading a group's committed offsets, without joining it.
    pub fn reader(&self, group: &str) -> ClientConfig {
        let mut config = self.common();
        config.set("group.id", group);
        config.set("enable.auto.commit", "false");
        config
    }

    /// For a member of a group.
    pub fn consumer(&self, group: &str) -> ClientConfig {
        let settings = &self.settings;
        let mut config = self.reader(group);
        // Offsets are committed after the transaction, never in the background (K18), and from the
        // port's calls only: nothing is stored either. enable.auto.commit is off in `reader`.
        config.set("enable.auto.offset.store", "false");
        // Default largest: it skips what was written before the first commit (K15).
        config.set("auto.offset.reset", "earliest");
        // The default, written out (K28).
        config.set("isolation.level", "read_committed");
        let classic = match settings.assignor {
            Assignor::CooperativeSticky => Some("cooperative-sticky"),
            Assignor::Range => Some("range"),
            Assignor::Brokers => None,
        };
        match classic {
            Some(assignor) => {
                config.set("group.protocol", "classic");
                // Default range,roundrobin. Eager and cooperative ones must never meet in a group.
                config.set("partition.assignment.strategy", assignor);
                config.set("session.timeout.ms", millis(settings.session_timeout));
                config.set("heartbeat.interval.ms", millis(settings.heartbeat));
            }
            // It rejects those settings.
            None => drop(config.set("group.protocol", "consumer")),
        }
        config.set("max.poll.interval.ms", millis(settings.max_poll_interval));
        // The defaults (100,000 and 64 MiB) are far too much for a transaction per batch.
        config.set("queued.min.messages", "1000");
        config.set("queued.max.messages.kbytes", "16384");
        // How long a broker holds an empty fetch: the default of 500 ms, lower for a quiet topic's
        // rebalance and seek.
        config.set("fetch.wait.max.ms", "100");
        config
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(url: &str) -> Clients {
        let address = Address::parse(url).expect("a good address");
        Clients {
            address,
            name: "orders".into(),
            given_up: GivenUp::default(),
            settings: Settings::default(),
            door: Door::default(),
        }
    }

    #[test]
    fn where_the_brokers_deal_the_client_says_nothing_of_it() {
        let settings = Settings { assignor: Assignor::Brokers, ..Settings::default() };
        let config = Clients { settings, ..clients("kafka://a:9092") }.consumer("g");
        assert_eq!(config.get("group.protocol"), Some("consumer"));
        for name in ["partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms"]
        {
            assert_eq!(config.get(name), None);
        }
        assert!(config.create_native_config().is_ok());
    }

    #[test]
    fn no_client_commits_in_the_background_or_creates_topics() {
        let clients = clients("kafka://a:9092");
        for config in [clients.reader("g"), clients.consumer("g")] {
            assert_eq!(config.get("enable.auto.commit"), Some("false"));
        }
        assert_eq!(clients.consumer("g").get("auto.offset.reset"), Some("earliest"));
        for config in [clients.producer(), clients.admin(), clients.consumer("g")] {
            assert_eq!(config.get("allow.auto.create.topics"), Some("false"));
            assert!(config.create_native_config().is_ok(), "the client library knows them all");
        }
    }
}
