//! Topics: what the shop wants of them, and what may be changed of one that exists. Never asks a server.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::{Stream, Streams};
use kafka::{FoundTopic, Keep, Topic};
use ports::{Fault, Outcome};

use super::change::Change;
use super::look::Look;
use super::row::{Row, State};
use crate::config::Config;

/// What to do where a topic or queue does not exist.
pub const CREATED: &str =
    "`shakedown topology apply` creates it, and so does the next start of a service";

/// All topics of the shop, as they should be.
pub fn wanted(config: &Config) -> Vec<Topic> {
    let streams = Streams::prefixed(&config.prefix.value);
    let topics = Stream::ALL.into_iter().filter(|stream| stream.is_topic());
    topics
        .map(|stream| Topic {
            name: streams.name(stream),
            partitions: config.partitions.value,
            replication: config.replication.value,
            keep: match stream.is_compacted() {
                true => Keep::LastOfKey,
                false => Keep::For(config.topic_retention.value),
            },
        })
        .collect()
}

/// How a topic stands in a cluster of so many brokers, and what may be changed.
pub fn compare(topic: &Topic, found: Outcome<Option<FoundTopic>>, brokers: i32) -> Look {
    let object = format!("topic {}", topic.name);
    let row = |setting: &str, wanted: String, found: String, state: State| Row {
        object: object.clone(),
        setting: setting.to_owned(),
        wanted,
        found,
        state,
        next: None,
    };
    let found = match found {
        Ok(Some(found)) => found,
        Ok(None) => {
            let copies = topic.copies(brokers);
            let missing = row("", summary(topic, copies), String::new(), State::Missing);
            let row = Row { next: Some(CREATED.to_owned()), ..missing };
            let change = Change::CreateTopic(topic.clone(), copies);
            return Look { rows: vec![row], changes: vec![change] };
        }
        Err(fault) => {
            let next = Some(unseen(&fault));
            let unknown = row("", summary(topic, topic.replication), String::new(), State::Unknown);
            return Look { rows: vec![Row { next, ..unknown }], changes: Vec::new() };
        }
    };
    let mut rows = Vec::new();
    let mut compared = |setting: &str, wanted: String, is: String, agrees: bool, next: &str| {
        let state = if agrees { State::Agrees } else { State::Differs };
        let next = (!agrees).then(|| next.to_owned());
        rows.push(Row { next, ..row(setting, wanted, is, state) });
    };
    let FoundTopic { partitions, replication, settings } = found;
    let (want, is) = (topic.partitions, partitions);
    compared("partitions", want.to_string(), is.to_string(), want == is, &partitions_next(is));
    let copies = topic.copies(brokers);
    // All that were asked for count as well while a broker is away.
    let agrees = replication == copies || replication == topic.replication;
    let copies = if agrees { replication } else { copies };
    let next = "it is never changed here: `kafka-reassign-partitions.sh` moves replicas";
    compared("replication", copies.to_string(), replication.to_string(), agrees, next);
    let wanted = topic.settings(replication);
    let Some(settings) = settings else {
        let next = "they may not be read: grant DescribeConfigs on the topic, or let somebody check \
                    who has the right";
        let unread = row("settings", wanted.len().to_string(), String::new(), State::Unknown);
        rows.push(Row { next: Some(next.to_owned()), ..unread });
        return Look { rows, changes: Vec::new() };
    };
    let mut safe = BTreeMap::new();
    for (setting, wanted) in wanted {
        let found = settings.get(setting).map_or("", String::as_str);
        let agrees = found == wanted;
        let next = match safety(setting, found, &wanted) {
            Ok(()) => "`shakedown topology apply` sets it".to_owned(),
            Err(why) => format!(
                "{setting} is not changed here, for {why}. If it is meant: kafka-configs.sh --alter \
                 --entity-type topics --entity-name {} --add-config {setting}={wanted}",
                topic.name
            ),
        };
        if !agrees && safety(setting, found, &wanted).is_ok() {
            safe.insert(setting.to_owned(), (found.to_owned(), wanted.clone()));
        }
        compared(setting, shown(setting, &wanted), shown(setting, found), agrees, &next);
    }
    let set = |values| Change::SetTopic { topic: topic.name.clone(), values };
    let changes = Some(safe).filter(|safe| !safe.is_empty()).map(set);
    Look { rows, changes: changes.into_iter().collect() }
}

/// Whether a change can lose nothing; else what it would lose.
fn safety(setting: &str, found: &str, wanted: &str) -> Result<(), &'static str> {
    // A retention of -1 is without end.
    let number = |text: &str| text.parse::<i64>().map(|n| if n < 0 { i64::MAX } else { n });
    let rises = matches!((number(found), number(wanted)), (Ok(old), Ok(new)) if new > old);
    match (setting, wanted) {
        ("retention.ms", _) if rises => Ok(()),
        ("retention.ms", _) => Err("it deletes records"),
        ("min.insync.replicas", _) if rises => Ok(()),
        ("min.insync.replicas", _) => {
            Err("what is confirmed then is in fewer places, and lost with them")
        }
        // What it removes has a later one of its key, and the last of a key no longer goes with age.
        ("cleanup.policy", "compact") => Ok(()),
        ("cleanup.policy", _) => Err("it deletes records"),
        ("unclean.leader.election.enable", "false") => Ok(()),
        _ => Err("nobody here knows what it does"),
    }
}

fn partitions_next(found: i32) -> String {
    format!(
        "it is never changed here: keys would move to other partitions, and events of one key out of \
         their order. Set partitions = {found}, or begin with fresh topics under another prefix"
    )
}

/// What to do where a topic could not be looked at.
fn unseen(fault: &Fault) -> String {
    match fault {
        Fault::Refused(cause) => {
            format!("it may not be seen ({cause}): grant Describe on the topic")
        }
        other => format!("{other}; check --kafka, and that it runs"),
    }
}

/// A new topic in one line.
pub fn summary(topic: &Topic, copies: i32) -> String {
    let keep = match topic.keep {
        Keep::For(age) => format!("keeps {}", span(age)),
        Keep::LastOfKey => "compacted".to_owned(),
    };
    let copies = crate::words::count(copies.unsigned_abs().into(), "copy", "copies");
    format!("{} partitions, {copies}, {keep}", topic.partitions)
}

/// A value as people read it.
pub fn shown(setting: &str, value: &str) -> String {
    match (setting, value.parse::<i64>()) {
        ("retention.ms", Ok(ms)) => u64::try_from(ms)
            .map_or_else(|_| "without end".to_owned(), |ms| span(Duration::from_millis(ms))),
        _ if value.is_empty() => "not set".to_owned(),
        _ => value.to_owned(),
    }
}

fn span(time: Duration) -> String {
    const DAY_S: u64 = 24 * 60 * 60;
    match time.as_secs() {
        s if s >= DAY_S && time == Duration::from_secs(s / DAY_S * DAY_S) => {
            crate::words::count(s / DAY_S, "day", "days")
        }
        _ => humantime::format_duration(time).to_string(),
    }
}

#[cfg(test)]
#[path = "topics_tests.rs"]
mod tests;
