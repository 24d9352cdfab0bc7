//! A change of the topology, shown before it is made. There is none that deletes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kafka::Topic;
use ports::{JobQueue, Outcome, QueueSpec};

use super::look;
use super::topics::{shown, summary};
use crate::config::Config;

/// A change that can lose nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A topic that does not exist, with so many copies.
    CreateTopic(Topic, i32),
    /// Settings of a topic: from, to.
    SetTopic {
        /// Whose.
        topic: Arc<str>,
        /// By name.
        values: BTreeMap<String, (String, String)>,
    },
    /// A queue and its dead-letter queue; the one that exists is left as it is.
    Declare(QueueSpec),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::CreateTopic(topic, copies) => {
                write!(f, "create topic {}: {}", topic.name, summary(topic, *copies))
            }
            Change::SetTopic { topic, values } => {
                let each = values.iter().map(|(name, (from, to))| {
                    format!("{name} {} → {}", shown(name, from), shown(name, to))
                });
                write!(f, "set topic {topic}: {}", each.collect::<Vec<_>>().join(", "))
            }
            Change::Declare(spec) => {
                write!(f, "create queue {}", spec.name)?;
                match &spec.dead_letters {
                    Some(dead) => {
                        write!(f, " and its dead letters {dead}, what of them is missing")
                    }
                    None => Ok(()),
                }
            }
        }
    }
}

impl Change {
    /// Makes it.
    pub async fn make(&self, config: &Config) -> Outcome<()> {
        match self {
            Change::CreateTopic(topic, _) => look::cluster(config)?.create(topic).await,
            Change::SetTopic { topic, values } => {
                let to = values.iter().map(|(name, (_, to))| (name.clone(), to.clone()));
                look::cluster(config)?.set(topic, &to.collect()).await
            }
            Change::Declare(spec) => look::rabbit(config).await?.declare(spec).await,
        }
    }
}
