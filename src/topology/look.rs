//! Looks at the topics and queues of the brokers. Never makes or changes one, and never waits long.

use std::time::Duration;

use kafka::Cluster;
use ports::{Fault, Outcome, timeout};
use rabbit::{Queue, Rabbit, Server};

use super::change::Change;
use super::row::{Row, State};
use super::{queues, topics};
use crate::config::Config;
use crate::local_mode;

/// How long a server may take to be reached, and for each answer.
pub const LIMIT: Duration = Duration::from_secs(5);

/// How things stand, and what of it may be changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// In the order in which they are shown.
    pub rows: Vec<Row>,
    /// In the order in which they are to be made.
    pub changes: Vec<Change>,
}

impl Look {
    /// This one and then another.
    pub fn and(mut self, other: Look) -> Look {
        self.rows.extend(other.rows);
        self.changes.extend(other.changes);
        self
    }
}

/// A client of the cluster. `Refused` where its address is wrong.
pub fn cluster(config: &Config) -> Outcome<Cluster> {
    let settings = kafka::Settings { request_timeout: LIMIT, ..kafka::Settings::default() };
    Cluster::connect(config.kafka.value.reveal(), "shakedown-topology", settings)
}

/// A client of the queues' server.
pub async fn rabbit(config: &Config) -> Outcome<Rabbit> {
    within(Rabbit::connect(config.rabbit.value.reveal())).await
}

/// Who the queues' server is.
pub async fn server(config: &Config) -> Outcome<Server> {
    Server::ask(config.rabbit.value.reveal(), LIMIT).await
}

/// All topics of the shop.
pub async fn at_topics(config: &Config) -> Look {
    let wanted = topics::wanted(config);
    let brokers = match cluster(config) {
        Ok(cluster) => cluster.brokers().await.map(|brokers| (cluster, brokers)),
        Err(fault) => Err(fault),
    };
    let mut look = Look::default();
    for topic in &wanted {
        let of_topic = match &brokers {
            Ok((cluster, brokers)) => {
                topics::compare(topic, cluster.find(&topic.name).await, *brokers)
            }
            Err(fault) => topics::compare(topic, Err(fault.clone()), topic.replication),
        };
        look = look.and(of_topic);
    }
    look
}

/// All queues of the shop.
pub async fn at_queues(config: &Config) -> Look {
    let spec = queues::wanted(config);
    let reached = async { Ok((server(config).await?, rabbit(config).await?)) };
    let reached: Outcome<(Server, Rabbit)> = reached.await;
    let mut rows = Vec::new();
    for queue in Queue::of(&spec) {
        let (found, server) = match &reached {
            Ok((server, rabbit)) => (within(rabbit.find(&queue)).await, server.clone()),
            Err(fault) => (Err(fault.clone()), unknown_server()),
        };
        rows.extend(queues::compare(&queue, found, &server));
    }
    let changes = queues::changes(&spec, &rows);
    Look { rows, changes }
}

/// A server that did not answer, of which nothing is said.
fn unknown_server() -> Server {
    Server { product: String::new(), version: String::new() }
}

/// What comes in time.
pub async fn within<T>(asked: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let answer = timeout(&*local_mode::runtime(), LIMIT, asked).await;
    let late = || Err(Fault::retry(format!("no answer within {} s", LIMIT.as_secs())));
    answer.unwrap_or_else(late)
}

/// Says of each topic that exists what is not as wanted, where that is found out in time: a start changes
/// nothing. Queues are refused when they are declared.
pub async fn warn_of_topics(config: &Config) {
    let look = timeout(&*local_mode::runtime(), LIMIT, at_topics(config)).await;
    let rows = look.unwrap_or_default().rows;
    for row in rows.iter().filter(|row| row.state == State::Differs) {
        let Row { object, setting, wanted, found, .. } = row;
        tracing::warn!(
            "{object}: {setting} is {found}, and {wanted} is wanted; nothing was changed: see \
             `shakedown topology check`"
        );
    }
}
