//! A group member's thread: the only one that polls its client. It reads only when it is asked to,
//! so that a service that stops polling is expelled (broker-contract K23).
//!
//! A revocation does not unassign inside poll: the partitions stay ours until they are released.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::DateTime;
use ports::{Fault, Fetched, Offsets, Outcome, Partition, Polled, Record};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{mpsc as replies, oneshot};

use crate::committer::Committer;
use crate::faults::{Call, fault, is_fatal, not_created};
use crate::logs::Logs;
use crate::settings::{Assignor, Clients};
use crate::watchdog::Watchdog;

/// What the port's side asks for.
pub(crate) enum Command {
    Poll(usize),
    Commit(Offsets, oneshot::Sender<Outcome<()>>),
    Release(Vec<Partition>, oneshot::Sender<()>),
    Seek(Offsets, oneshot::Sender<Outcome<()>>),
    Pause(Vec<Partition>, bool),
    Close(oneshot::Sender<()>),
}

/// A change of the assignment that the group asks for.
enum Change {
    Assign(Vec<(String, i32)>),
    Revoke(Vec<(String, i32)>),
}

/// Keeps the changes that come inside poll, for the thread to act on after it.
struct Changes {
    assignor: Assignor,
    queue: Mutex<VecDeque<Change>>,
    /// Set before the last goodbye, which waits until every change was obeyed.
    closing: AtomicBool,
}

impl ClientContext for Changes {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        Logs.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Logs.error(error, reason);
    }
}

impl ConsumerContext for Changes {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let assigned = kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::SeqCst) {
            let obeyed = match assigned {
                true => assign(consumer, self.assignor, list),
                false => unassign(consumer, self.assignor, list),
            };
            report("rebalance while closing", obeyed);
            return;
        }
        let named = |e: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            (e.topic().to_owned(), e.partition())
        };
        let named = list.elements().into_iter().map(named).collect();
        let change = if assigned { Change::Assign(named) } else { Change::Revoke(named) };
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(change);
    }
}

fn assign(
    consumer: &BaseConsumer<Changes>,
    assignor: Assignor,
    list: &TopicPartitionList,
) -> KafkaResult<()> {
    match assignor {
        Assignor::CooperativeSticky | Assignor::Brokers => consumer.incremental_assign(list),
        Assignor::Range => consumer.assign(list),
    }
}

fn unassign(
    consumer: &BaseConsumer<Changes>,
    assignor: Assignor,
    list: &TopicPartitionList,
) -> KafkaResult<()> {
    match assignor {
        Assignor::CooperativeSticky | Assignor::Brokers => consumer.incremental_unassign(list),
        Assignor::Range => consumer.unassign(),
    }
}

fn report(what: &str, result: Result<(), impl std::fmt::Display>) {
    if let Err(error) = result {
        tracing::error!(%error, "{what} failed");
    }
}

/// The member, on its thread.
pub(crate) struct Worker {
    consumer: Arc<BaseConsumer<Changes>>,
    committer: Committer,
    assignor: Assignor,
    poll_wait: Duration,
    request_timeout: Duration,
    topics: Vec<Arc<str>>,
    held: BTreeSet<Partition>,
    /// Held, told as revoked, and not yet released.
    revoked: BTreeSet<Partition>,
    paused: BTreeSet<Partition>,
    /// Told as assigned and not yet read: where a seek said to start, else the committed offset.
    starting: Option<BTreeMap<Partition, Option<i64>>>,
    /// An error that came behind records.
    failed: Option<Fault>,
    /// The next offset of each partition that is read, as far as it is known.
    next: Offsets,
    watchdog: Watchdog,
    began: Instant,
}

impl Worker {
    // The watchdog's clock: a thread of the adapter.
    #[allow(clippy::disallowed_methods)]
    pub fn join(clients: &Clients, group: &str, topics: Vec<Arc<str>>) -> Outcome<Self> {
        let assignor = clients.settings.assignor;
        let closing = AtomicBool::new(false);
        let context = Changes { assignor, queue: Mutex::default(), closing };
        let consumer: Result<BaseConsumer<Changes>, _> =
            clients.consumer(group).create_with_context(context);
        let consumer = consumer.map_err(not_created)?;
        let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        consumer.subscribe(&names).map_err(not_created)?;
        let consumer = Arc::new(consumer);
        let committer = Committer::new(consumer.clone(), clients.settings.request_timeout);
        Ok(Worker {
            consumer,
            committer,
            assignor,
            poll_wait: clients.settings.poll_wait,
            request_timeout: clients.settings.request_timeout,
            topics,
            held: BTreeSet::new(),
            revoked: BTreeSet::new(),
            paused: BTreeSet::new(),
            starting: None,
            failed: None,
            next: Offsets::new(),
            watchdog: Watchdog::new(group, &clients.given_up),
            began: Instant::now(),
        })
    }

    /// Obeys until it is closed or nobody is left to ask, then leaves the group.
    pub fn run(
        mut self,
        commands: mpsc::Receiver<Command>,
        polled: replies::Sender<Outcome<Polled>>,
    ) {
        let mut goodbye = None;
        // A reply that nobody waits for is not an error: the asking future was dropped.
        while let Ok(command) = commands.recv() {
            match command {
                Command::Poll(max) => drop(polled.blocking_send(self.poll(max))),
                Command::Commit(next, reply) => drop(reply.send(self.commit(&next))),
                Command::Release(revoked, reply) => {
                    self.release(&revoked);
                    let _ = reply.send(());
                }
                Command::Seek(next, reply) => drop(reply.send(self.seek(next))),
                Command::Pause(partitions, paused) => self.pause(partitions, paused),
                Command::Close(reply) => {
                    goodbye = Some(reply);
                    break;
                }
            }
        }
        self.leave();
        if let Some(reply) = goodbye {
            let _ = reply.send(());
        }
    }

    /// Finishes a change that is under way, as the client waits for it, and says goodbye.
    fn leave(mut self) {
        self.consumer.context().closing.store(true, Ordering::SeqCst);
        self.start_reading();
        self.unassign_revoked();
        while let Some(change) = self.next_change() {
            let obeyed = match change {
                Change::Assign(list) => {
                    assign(&self.consumer, self.assignor, &named(&self.partitions(list)))
                }
                Change::Revoke(list) => {
                    unassign(&self.consumer, self.assignor, &named(&self.partitions(list)))
                }
            };
            report("rebalance while closing", obeyed);
        }
        self.committer.end();
        // The destructor leaves the group and waits for the answer.
        drop(self.consumer);
    }

    fn poll(&mut self, max: usize) -> Outcome<Polled> {
        if let Some(fault) = self.failed.take() {
            return Err(fault);
        }
        if let Some(polled) = self.tell_change() {
            return Ok(polled);
        }
        self.start_reading();
        if !self.revoked.is_empty() && self.consumer.assignment_lost() {
            return Ok(self.lose_revoked());
        }
        let records = self.read(max);
        if !records.is_empty() {
            self.watchdog.moved(self.began.elapsed());
            let behind = |record: &Fetched| (record.partition.clone(), record.offset + 1);
            self.next.extend(records.iter().map(behind));
            return Ok(Polled::Records(records));
        }
        if let Some(fault) = self.failed.take() {
            return Err(fault);
        }
        match self.tell_change() {
            Some(change) => Ok(change),
            None => self.look_for_more().map(|()| Polled::Records(Vec::new())),
        }
    }

    /// Whether this member reads nothing although there is more. `Refused` where it is stalled: only a
    /// new member helps.
    fn look_for_more(&mut self) -> Outcome<()> {
        let now = self.began.elapsed();
        if !self.watchdog.due(now) {
            return Ok(());
        }
        let mut read = BTreeMap::new();
        // A broker that does not answer is no stall of ours.
        if let Ok(committed) = self.consumer.committed(self.request_timeout) {
            for partition in self.held.iter().filter(|partition| self.is_read(partition)) {
                let (topic, index) = (&*partition.topic, partition.index);
                let ends = self.consumer.fetch_watermarks(topic, index, self.request_timeout);
                let Ok((low, high)) = ends else { continue };
                let committed = committed.find_partition(topic, index).map(|found| found.offset());
                let began = committed.and_then(|offset| offset.to_raw()).filter(|next| *next >= 0);
                // What expired unread is not there any more (K32).
                let next = self.next.get(partition).copied().or(began).unwrap_or(low);
                read.insert(partition.clone(), (next.max(low), high));
            }
        }
        match self.watchdog.look(self.began.elapsed(), &read) {
            None => Ok(()),
            Some(partition) => {
                Err(Fault::refused(format!("{partition} has records and none comes: stalled")))
            }
        }
    }

    fn is_read(&self, partition: &Partition) -> bool {
        !self.revoked.contains(partition) && !self.paused.contains(partition)
    }

    /// Waits for the first record, takes what else is there, and stops at a change.
    // The wait is the client's own, on its own thread.
    #[allow(clippy::disallowed_methods)]
    fn read(&mut self, max: usize) -> Vec<Fetched> {
        let until = Instant::now() + self.poll_wait;
        let mut records = Vec::new();
        while records.len() < max {
            let wait = match records.is_empty() {
                true => until.saturating_duration_since(Instant::now()),
                false => Duration::ZERO,
            };
            match self.consumer.poll(wait) {
                Some(Ok(message)) => records.extend(self.fetched(&message)),
                Some(Err(error)) => {
                    self.failed = self.poll_fault(&error);
                    if self.failed.is_some() {
                        break;
                    }
                }
                None if !records.is_empty() || wait.is_zero() => break,
                None => {}
            }
            if self.has_change() {
                break;
            }
        }
        if self.has_change() && self.consumer.assignment_lost() {
            records.clear();
        }
        records
    }

    /// The fault that a poll's error is to the service; none for what the client repairs itself.
    fn poll_fault(&self, error: &KafkaError) -> Option<Fault> {
        tracing::debug!(%error, "poll");
        if is_fatal(error) {
            return Some(Fault::refused(error.to_string()));
        }
        match error.rdkafka_error_code() {
            Some(
                Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::PollExceeded
                | Code::UnknownTopicOrPartition,
            ) => None,
            _ => Some(fault(Call::Read, error)),
        }
    }

    fn fetched(&self, message: &BorrowedMessage<'_>) -> Option<Fetched> {
        let partition = self.partition(message.topic(), message.partition());
        if !self.held.contains(&partition) || self.revoked.contains(&partition) {
            return None;
        }
        let millis = message.timestamp().to_millis().unwrap_or(0);
        let record = Record {
            to: partition.topic.clone(),
            key: String::from_utf8_lossy(message.key().unwrap_or_default()).into(),
            headers: message.headers().map(headers).unwrap_or_default(),
            payload: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        };
        let at = DateTime::from_timestamp_millis(millis).unwrap_or_default();
        Some(Fetched { partition, offset: message.offset(), at, record })
    }

    fn commit(&mut self, next: &Offsets) -> Outcome<()> {
        self.check_held(next)?;
        // Without a membership the client would commit as nobody, which an empty group takes (K20).
        if self.consumer.assignment_lost() {
            return Err(Fault::refused("the assignment is lost"));
        }
        let list = list(next.iter().map(|(partition, offset)| (partition, Some(*offset))))?;
        self.committer.commit(list)
    }

    fn release(&mut self, released: &[Partition]) {
        for partition in released.iter().filter(|partition| self.revoked.contains(partition)) {
            self.held.remove(partition);
        }
        if self.revoked.is_disjoint(&self.held) {
            self.unassign_revoked();
        }
    }

    fn seek(&mut self, next: Offsets) -> Outcome<()> {
        self.check_held(&next)?;
        // Refuses offsets below 0 before anything is changed.
        list(next.iter().map(|(partition, offset)| (partition, Some(*offset))))?;
        let mut now = Offsets::new();
        for (partition, offset) in next {
            match self.starting.as_mut().and_then(|starting| starting.get_mut(&partition)) {
                Some(start) => *start = Some(offset),
                None => drop(now.insert(partition, offset)),
            }
        }
        if now.is_empty() {
            return Ok(());
        }
        let list = list(now.iter().map(|(partition, offset)| (partition, Some(*offset))))?;
        let sought = self.consumer.seek_partitions(list, self.request_timeout);
        let sought = sought.map_err(|error| fault(Call::Read, &error))?;
        for element in sought.elements() {
            element.error().map_err(|error| fault(Call::Read, &error))?;
        }
        self.read_from(now.into_iter().map(|(partition, next)| (partition, Some(next))));
        Ok(())
    }

    fn pause(&mut self, partitions: Vec<Partition>, paused: bool) {
        let held = partitions.into_iter().filter(|partition| self.held.contains(partition));
        let held: Vec<Partition> = held.collect();
        if paused {
            self.paused.extend(held.iter().cloned());
        } else {
            self.paused.retain(|partition| !held.contains(partition));
        }
        let starting = self.starting.as_ref();
        let read: Vec<Partition> = held
            .into_iter()
            .filter(|partition| starting.is_none_or(|starting| !starting.contains_key(partition)))
            .collect();
        if read.is_empty() {
            return;
        }
        let done = match paused {
            true => self.consumer.pause(&named(&read)),
            false => self.consumer.resume(&named(&read)),
        };
        report("pause", done);
        self.watchdog.moved(self.began.elapsed());
    }

    /// Acts on the next change and says what it is, if it is one to the service.
    fn tell_change(&mut self) -> Option<Polled> {
        while let Some(change) = self.next_change() {
            let told = match change {
                Change::Assign(list) => {
                    let partitions = self.partitions(list);
                    self.held.extend(partitions.iter().cloned());
                    let starts = partitions.iter().map(|partition| (partition.clone(), None));
                    self.starting = Some(starts.collect());
                    Polled::Assigned(partitions)
                }
                Change::Revoke(list) => {
                    let partitions = self.partitions(list);
                    self.revoked.extend(partitions.iter().cloned());
                    if self.consumer.assignment_lost() {
                        self.lose_revoked()
                    } else {
                        Polled::Revoked(partitions)
                    }
                }
            };
            match told {
                // An empty change is the client's own affair, but it waits for the answer.
                Polled::Assigned(none) if none.is_empty() => self.start_reading(),
                Polled::Revoked(none) if none.is_empty() => {
                    let empty = TopicPartitionList::new();
                    report("unassign", unassign(&self.consumer, self.assignor, &empty));
                }
                Polled::Lost(none) if none.is_empty() => {}
                told => return Some(told),
            }
        }
        None
    }

    /// What was to be released belongs to others already.
    fn lose_revoked(&mut self) -> Polled {
        let lost = self.revoked.intersection(&self.held).cloned().collect();
        self.held.retain(|partition| !self.revoked.contains(partition));
        if self.revoked.is_empty() {
            let empty = TopicPartitionList::new();
            report("unassign", unassign(&self.consumer, self.assignor, &empty));
        }
        self.unassign_revoked();
        Polled::Lost(lost)
    }

    /// Answers the assignment: only now, so that a seek could say where to start.
    fn start_reading(&mut self) {
        let Some(starting) = self.starting.take() else { return };
        let assigned = list(starting.iter().map(|(partition, start)| (partition, *start)));
        match assigned {
            Ok(assigned) => report("assign", assign(&self.consumer, self.assignor, &assigned)),
            Err(fault) => report("assign", Err(fault)),
        }
        let paused: Vec<_> =
            starting.keys().filter(|p| self.paused.contains(*p)).cloned().collect();
        self.read_from(starting);
        if !paused.is_empty() {
            report("pause", self.consumer.pause(&named(&paused)));
        }
    }

    fn unassign_revoked(&mut self) {
        if self.revoked.is_empty() {
            return;
        }
        let revoked: Vec<_> = std::mem::take(&mut self.revoked).into_iter().collect();
        let (paused, rest) =
            std::mem::take(&mut self.paused).into_iter().partition(|p| revoked.contains(p));
        self.paused = rest;
        self.resume(paused);
        report("unassign", unassign(&self.consumer, self.assignor, &named(&revoked)));
    }

    /// A pause ends with the assignment.
    fn resume(&self, paused: BTreeSet<Partition>) {
        if !paused.is_empty() {
            report("resume", self.consumer.resume(&named(&Vec::from_iter(paused))));
        }
    }

    fn check_held(&self, offsets: &Offsets) -> Outcome<()> {
        match offsets.iter().find(|(partition, _)| !self.held.contains(partition)) {
            Some((partition, _)) => Err(Fault::refused(format!("{partition} is not held"))),
            None => Ok(()),
        }
    }

    /// What is read changes: from where, where that is known.
    fn read_from(&mut self, starts: impl IntoIterator<Item = (Partition, Option<i64>)>) {
        self.watchdog.moved(self.began.elapsed());
        for (partition, start) in starts {
            match start {
                Some(start) => drop(self.next.insert(partition, start)),
                None => drop(self.next.remove(&partition)),
            }
        }
    }

    fn next_change(&self) -> Option<Change> {
        let queue = &self.consumer.context().queue;
        queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn has_change(&self) -> bool {
        let queue = &self.consumer.context().queue;
        !queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn partitions(&self, list: Vec<(String, i32)>) -> Vec<Partition> {
        let mut partitions: Vec<Partition> =
            list.into_iter().map(|(topic, index)| self.partition(&topic, index)).collect();
        partitions.sort();
        partitions
    }

    fn partition(&self, topic: &str, index: i32) -> Partition {
        let known = self.topics.iter().find(|known| ***known == *topic);
        Partition { topic: known.cloned().unwrap_or_else(|| topic.into()), index }
    }
}

/// A record's headers. The client panics at a name that is not UTF-8, which a broker takes from anybody: such
/// a header is left out, so that the record is handed over.
fn headers(headers: &impl Headers) -> Vec<(Arc<str>, Bytes)> {
    let header = |at: usize| {
        let read = || {
            let header = headers.get(at);
            (header.key.into(), Bytes::copy_from_slice(header.value.unwrap_or_default()))
        };
        catch_unwind(AssertUnwindSafe(read)).ok()
    };
    (0..headers.count()).filter_map(header).collect()
}

fn named(partitions: &[Partition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&partition.topic, partition.index);
    }
    list
}

/// A list with offsets; none means the committed one. `Refused` for offsets below 0.
fn list<'a>(
    offsets: impl Iterator<Item = (&'a Partition, Option<i64>)>,
) -> Outcome<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        match offset {
            None => drop(list.add_partition(&partition.topic, partition.index)),
            Some(offset) => list
                .add_partition_offset(&partition.topic, partition.index, Offset::Offset(offset))
                .map_err(not_created)?,
        }
    }
    Ok(list)
}
