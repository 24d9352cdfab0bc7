//! Follows records through a world by what they are: the same bytes in an outbox, on a topic and in a
//! poll are one record, and an id that one record brought and another names joins them. Never knows what
//! a record means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ports::{Partition, Record};
use xxhash_rust::xxh3::xxh3_128;

use crate::touch::{Detail, Touch};
use crate::trace::TraceEvent;

/// What an event is to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Request,
    Outbox,
    Sent,
    Read,
    Inbox,
    Effect,
    Outside,
    Offset,
    Acked,
    Rejected,
}

impl Step {
    pub(super) const ALL: [Step; 10] = [
        Step::Request,
        Step::Outbox,
        Step::Sent,
        Step::Read,
        Step::Inbox,
        Step::Effect,
        Step::Outside,
        Step::Offset,
        Step::Acked,
        Step::Rejected,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Step::Request => "request",
            Step::Outbox => "row, outbox",
            Step::Sent => "sent",
            Step::Read => "read",
            Step::Inbox => "inbox",
            Step::Effect => "effect",
            Step::Outside => "outside",
            Step::Offset => "offset",
            Step::Acked => "acked",
            Step::Rejected => "given back",
        }
    }
}

/// A record, and where it was.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) record: Record,
    /// Events by their number, in order.
    pub(super) steps: BTreeSet<(usize, Step)>,
    /// Records that it follows from.
    pub(super) parents: BTreeSet<usize>,
}

/// All records of a world, in the order in which they were first seen.
#[derive(Debug, Default)]
pub(super) struct Ways {
    pub(super) ways: Vec<Way>,
    by_content: BTreeMap<(Arc<str>, Arc<str>, u128), usize>,
}

impl Ways {
    pub(super) fn new(trace: &[TraceEvent], detail: &Detail) -> Self {
        let mut all = Ways::default();
        let mut batches = Batches::default();
        for (event, touches) in &detail.touches {
            let Some(TraceEvent { node, .. }) = trace.get(*event) else { continue };
            batches.see(*event, touches);
            all.see(*event, node, touches, &mut batches);
        }
        let own = all.own_ids(&batches);
        all.join(&own);
        all.handled(&own, &batches, trace);
        all.requested(&batches, trace);
        all
    }

    /// The number of a record.
    pub(super) fn find(&self, record: &Record) -> Option<usize> {
        self.by_content.get(&content(record)).copied()
    }

    /// The events that sent a record, in order.
    pub(super) fn sent(&self, number: usize) -> impl Iterator<Item = usize> + Clone {
        let steps = self.ways[number].steps.iter();
        steps.filter(|(_, step)| *step == Step::Sent).map(|(event, _)| *event)
    }

    fn number(&mut self, record: &Record) -> usize {
        let next = self.ways.len();
        let number = *self.by_content.entry(content(record)).or_insert(next);
        if number == next {
            let (steps, parents) = (BTreeSet::new(), BTreeSet::new());
            self.ways.push(Way { record: record.clone(), steps, parents });
        }
        number
    }

    fn see(&mut self, event: usize, node: &Arc<str>, touches: &[Touch], batches: &mut Batches) {
        for touch in touches {
            let (record, step) = match touch {
                Touch::Appended(record) => {
                    let number = self.number(record);
                    let of = batches.of(event);
                    batches.appended.entry(of).or_default().insert(number);
                    (number, Step::Outbox)
                }
                Touch::Produced(record) | Touch::Published(record) => {
                    (self.number(record), Step::Sent)
                }
                Touch::Fetched(fetched) => {
                    let number = self.number(&fetched.record);
                    let at = (node.clone(), fetched.partition.clone());
                    batches.read.entry(at).or_default().insert(fetched.offset, number);
                    (number, Step::Read)
                }
                Touch::Delivered(delivery) => {
                    let number = self.number(&delivery.record);
                    batches.delivered.insert((node.clone(), delivery.tag), number);
                    (number, Step::Read)
                }
                Touch::Acked(tag) | Touch::Rejected(tag) => {
                    let step = match touch {
                        Touch::Acked(_) => Step::Acked,
                        _ => Step::Rejected,
                    };
                    let Some(number) = batches.delivered.remove(&(node.clone(), *tag)) else {
                        continue;
                    };
                    (number, step)
                }
                Touch::Offset(partition, next) => {
                    let read = batches.read.entry((node.clone(), partition.clone())).or_default();
                    let later = read.split_off(next);
                    for number in std::mem::replace(read, later).into_values() {
                        self.ways[number].steps.insert((event, Step::Offset));
                    }
                    continue;
                }
                Touch::Transaction(_) | Touch::Row { .. } => continue,
            };
            self.ways[record].steps.insert((event, step));
        }
    }

    /// The record that first named an id which was inserted later than that: it is that record's own.
    fn own_ids(&self, batches: &Batches) -> BTreeMap<Arc<str>, usize> {
        let mut own = BTreeMap::new();
        for (number, way) in self.ways.iter().enumerate() {
            let Some((seen, _)) = way.steps.first() else { continue };
            for token in tokens_of(&way.record) {
                let inserted = batches.inserted.get_key_value(token.as_str());
                if let Some((key, events)) = inserted
                    && !own.contains_key(key)
                    && events.iter().all(|event| event > seen)
                {
                    own.insert(key.clone(), number);
                }
            }
        }
        own
    }

    /// A record that names another's id follows from it.
    fn join(&mut self, own: &BTreeMap<Arc<str>, usize>) {
        for number in 0..self.ways.len() {
            let tokens = tokens_of(&self.ways[number].record);
            let parents = tokens.iter().filter_map(|token| own.get(token.as_str()).copied());
            let parents = parents.filter(|parent| *parent != number).collect();
            self.ways[number].parents = parents;
        }
    }

    /// Where a record's id went into an inbox, the rest of that transaction is its effect, and so is a
    /// call to the outside about a row that it wrote.
    fn handled(
        &mut self,
        own: &BTreeMap<Arc<str>, usize>,
        batches: &Batches,
        trace: &[TraceEvent],
    ) {
        let mut wrote: BTreeMap<(&str, &str), BTreeMap<usize, usize>> = BTreeMap::new();
        for (id, number) in own {
            for inserted in batches.inserted.get(id).into_iter().flatten() {
                let steps = &mut self.ways[*number].steps;
                steps.insert((*inserted, Step::Inbox));
                let batch = batches.of(*inserted);
                for event in batches.events.get(&batch).into_iter().flatten() {
                    if event != inserted {
                        steps.insert((*event, Step::Effect));
                    }
                    for key in batches.put.get(event).into_iter().flatten() {
                        let rows = wrote.entry((&trace[*event].node, key)).or_default();
                        rows.insert(*event, *number);
                    }
                }
            }
        }
        for (at, event) in trace.iter().enumerate().filter(|(_, event)| event.what == "outside") {
            for token in tokens(&event.text) {
                let rows = wrote.get(&(&*event.node, token));
                if let Some((_, number)) = rows.and_then(|rows| rows.range(..at).next_back()) {
                    self.ways[*number].steps.insert((at, Step::Outside));
                }
            }
        }
    }

    /// A request whose last word is that of a key which a transaction inserted: what that transaction
    /// sent, and what nothing else caused, follows from the request.
    fn requested(&mut self, batches: &Batches, trace: &[TraceEvent]) {
        let mut by_word: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for (key, events) in &batches.inserted {
            if let Some(word) = tokens(key).last() {
                by_word.entry(word).or_default().extend(events);
            }
        }
        for (at, event) in trace.iter().enumerate().filter(|(_, event)| event.what == "http") {
            let inserted = tokens(&event.text).last().and_then(|word| by_word.get(word));
            for inserted in inserted.into_iter().flatten() {
                for number in batches.appended.get(&batches.of(*inserted)).into_iter().flatten() {
                    let way = &mut self.ways[*number];
                    if way.parents.is_empty() {
                        way.steps.insert((at, Step::Request));
                    }
                }
            }
        }
    }
}

/// What belongs together: transactions, rows, deliveries.
#[derive(Default)]
struct Batches {
    /// The transaction of an event: the event that began it.
    begun: BTreeMap<usize, usize>,
    events: BTreeMap<usize, BTreeSet<usize>>,
    appended: BTreeMap<usize, BTreeSet<usize>>,
    /// By key: the events that inserted it.
    inserted: BTreeMap<Arc<str>, BTreeSet<usize>>,
    put: BTreeMap<usize, BTreeSet<Arc<str>>>,
    delivered: BTreeMap<(Arc<str>, u64), usize>,
    read: BTreeMap<(Arc<str>, Partition), BTreeMap<i64, usize>>,
}

impl Batches {
    fn see(&mut self, event: usize, touches: &[Touch]) {
        let begun = touches.iter().find_map(|touch| match touch {
            Touch::Transaction(begun) => Some(*begun),
            _ => None,
        });
        let begun = begun.unwrap_or(event);
        self.begun.insert(event, begun);
        self.events.entry(begun).or_default().insert(event);
        for touch in touches {
            if let Touch::Row { verb, key, .. } = touch {
                match *verb {
                    "insert" => drop(self.inserted.entry(key.clone()).or_default().insert(event)),
                    "put" => drop(self.put.entry(event).or_default().insert(key.clone())),
                    _ => {}
                }
            }
        }
    }

    fn of(&self, event: usize) -> usize {
        self.begun.get(&event).copied().unwrap_or(event)
    }
}

fn content(record: &Record) -> (Arc<str>, Arc<str>, u128) {
    (record.to.clone(), record.key.clone(), xxh3_128(&record.payload))
}

/// Ids and words.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let split = text.split(|c: char| !(c.is_alphanumeric() || "-_.".contains(c)));
    split.filter(|token| token.len() >= 2)
}

fn tokens_of(record: &Record) -> BTreeSet<String> {
    let payload = String::from_utf8_lossy(&record.payload);
    tokens(&payload).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use ports::Fetched;

    use super::*;

    fn record(to: &str, payload: &'static str) -> Record {
        let (to, key) = (to.into(), "order-1".into());
        Record { to, key, headers: Vec::new(), payload: Bytes::from_static(payload.as_bytes()) }
    }

    fn row(verb: &'static str, key: &str) -> Touch {
        Touch::Row { verb, table: "rows", key: key.into() }
    }

    #[test]
    fn a_record_is_followed_from_its_request_to_its_effect() {
        let first = || record("orders", r#"{"id":"e-1","order":"order-1"}"#);
        let second = || record("stock", r#"{"id":"e-2","cause":"e-1","order":"order-1"}"#);
        let partition = Partition { topic: "orders".into(), index: 0 };
        let fetched = Fetched {
            partition: partition.clone(),
            offset: 4,
            at: Default::default(),
            record: first(),
        };
        let story: [(&str, &str, &str, Vec<Touch>); 10] = [
            ("a", "http", "POST /orders A1", vec![]),
            ("a", "begin", "", vec![row("insert", "place A1")]),
            ("a", "commit", "", vec![Touch::Transaction(1), Touch::Appended(first())]),
            ("a", "produce", "", vec![Touch::Produced(first())]),
            ("b", "poll", "", vec![Touch::Fetched(fetched)]),
            ("b", "begin", "", vec![row("insert", "e-1")]),
            (
                "b",
                "commit",
                "",
                vec![Touch::Transaction(5), row("put", "order-1"), Touch::Appended(second())],
            ),
            ("b", "commit_offsets", "", vec![Touch::Offset(partition, 5)]),
            ("b", "outside", "order-1:authorise", vec![]),
            ("c", "outside", "order-1:authorise", vec![]),
        ];
        let mut detail = Detail::default();
        let mut trace = Vec::new();
        for (event, (node, what, text, touches)) in story.into_iter().enumerate() {
            let (at, text) = (Duration::from_millis(event as u64), text.to_owned());
            trace.push(TraceEvent { at, node: node.into(), what, text });
            if !touches.is_empty() {
                detail.touches.insert(event, touches);
            }
        }
        let ways = Ways::new(&trace, &detail);
        let steps: Vec<(usize, Step)> = ways.ways[0].steps.iter().copied().collect();
        let wanted = [
            (0, Step::Request),
            (2, Step::Outbox),
            (3, Step::Sent),
            (4, Step::Read),
            (5, Step::Inbox),
            (6, Step::Effect),
            (7, Step::Offset),
            (8, Step::Outside),
        ];
        assert_eq!(steps, wanted, "and node c's call has nothing to do with it");
        assert_eq!(ways.find(&second()), Some(1));
        assert_eq!(ways.ways[1].parents, BTreeSet::from([0]));
        assert!(ways.ways[0].parents.is_empty());
    }
}
