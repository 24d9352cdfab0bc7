//! Quorum queues, channels and deliveries as one state machine. Never waits, never reads a clock:
//! `now` is given, since any fixed instant.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use ports::{Delivery, Fault, Outcome, QueueSpec, Record};

use super::message::{ChannelId, Effect, Message, REJECTED, Settings, Version};

/// What a quorum queue gives one consumer at most, whatever its prefetch (broker-contract R12).
const PREFETCH_CAP: usize = 2_000;

/// All queues of a server, and the channels that consume from them.
///
/// A message is ready, or unacked on one channel. Delivery is a push (broker-contract R12): as soon
/// as a channel has room it holds the message, whether its client has looked or not.
#[derive(Debug)]
pub struct Queues {
    settings: Settings,
    queues: BTreeMap<Arc<str>, Queue>,
    channels: BTreeMap<ChannelId, Channel>,
    next_message: u64,
    next_channel: u64,
    effects: Vec<Effect>,
}

#[derive(Debug)]
struct Queue {
    /// `None`: a dead-letter queue, where messages may come back for ever.
    limit: Option<u32>,
    dead_letters: Option<Arc<str>>,
    /// What came back, in the order it did: delivered first (broker-contract R10).
    returned: VecDeque<Message>,
    /// By id.
    ready: BTreeMap<u64, Message>,
    /// Whose turn it is stands first.
    consumers: VecDeque<ChannelId>,
}

#[derive(Debug)]
struct Channel {
    client: Arc<str>,
    queue: Arc<str>,
    prefetch: usize,
    next_tag: u64,
    /// By tag, hence by time.
    unacked: BTreeMap<u64, Unacked>,
    /// Tags that the client has not taken yet.
    fresh: VecDeque<u64>,
}

#[derive(Debug)]
struct Unacked {
    message: Message,
    since: Duration,
}

/// How a delivery comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Return {
    /// Its client returns it, which is no failure (broker-contract R33).
    Asked,
    /// With its channel.
    Failed,
    /// Held too long, which counts as nothing (broker-contract R16).
    Late,
}

impl Queues {
    /// A server without queues.
    pub fn new(settings: Settings) -> Self {
        Queues {
            settings,
            queues: BTreeMap::new(),
            channels: BTreeMap::new(),
            next_message: 1,
            next_channel: 1,
            effects: Vec::new(),
        }
    }

    /// Declares the queue and its dead-letter queue. Other arguments than the existing ones are
    /// refused, and then nothing was declared.
    pub fn declare(&mut self, spec: &QueueSpec) -> Outcome<()> {
        self.check(spec)?;
        for (name, limit, dead_letters) in declarations(spec) {
            self.queues.entry(name.clone()).or_insert_with(|| Queue {
                limit,
                dead_letters,
                returned: VecDeque::new(),
                ready: BTreeMap::new(),
                consumers: VecDeque::new(),
            });
        }
        Ok(())
    }

    /// Whether [`Self::declare`] would do it; changes nothing.
    pub fn check(&self, spec: &QueueSpec) -> Outcome<()> {
        if spec.dead_letters.as_ref() == Some(&spec.name) {
            return Err(Fault::refused(format!("{}: its own dead-letter queue", spec.name)));
        }
        for (name, limit, dead_letters) in declarations(spec) {
            if let Some(queue) = self.queues.get(name)
                && (queue.limit != limit || queue.dead_letters != dead_letters)
            {
                let text = format!("PRECONDITION_FAILED: {name} exists with other arguments");
                return Err(Fault::refused(text));
            }
        }
        Ok(())
    }

    /// Mandatory publish to a queue: its message id, `Refused` where it was returned because the queue
    /// is missing (broker-contract R4), or `Retry` where it was nacked because the queue is full (R23).
    pub fn publish(&mut self, record: Record, now: Duration) -> Outcome<u64> {
        let id = self.reserve(&record.to)?;
        self.insert(Message { id, record, redelivered: false, returns: 0, failures: 0 }, now)?;
        Ok(id)
    }

    /// The first half of [`Self::publish`]: draws the id, so that a journal can store the message
    /// before [`Self::insert`] makes it visible. An id that is not inserted leaves a gap.
    pub fn reserve(&mut self, queue: &str) -> Outcome<u64> {
        let Some(home) = self.queues.get(queue) else {
            return Err(Fault::refused(format!("returned: NO_ROUTE to queue {queue}")));
        };
        // A dead-letter queue has no bound: nothing in it is ever dropped or turned away.
        if home.limit.is_some() && home.depth() >= self.settings.max_length {
            return Err(Fault::retry(format!("nacked: {queue} is full")));
        }
        let id = self.next_message;
        self.next_message += 1;
        Ok(id)
    }

    /// Puts a message with a reserved or restored id into its queue.
    pub fn insert(&mut self, message: Message, now: Duration) -> Outcome<()> {
        let name = message.record.to.clone();
        let Some(queue) = self.queues.get_mut(&name) else {
            return Err(Fault::refused(format!("NOT_FOUND: no queue {name}")));
        };
        self.next_message = self.next_message.max(message.id + 1);
        queue.ready.insert(message.id, message);
        self.deliver(&name, now);
        Ok(())
    }

    /// Opens a channel of this client with one consumer. A prefetch of 0 is the cap of quorum
    /// queues, 2,000.
    pub fn consume(
        &mut self,
        client: &str,
        queue: &str,
        prefetch: u16,
        now: Duration,
    ) -> Outcome<ChannelId> {
        let Some(consumed) = self.queues.get_mut(queue) else {
            return Err(Fault::refused(format!("NOT_FOUND: no queue {queue}")));
        };
        let name: Arc<str> = queue.into();
        let id = ChannelId(self.next_channel);
        self.next_channel += 1;
        consumed.consumers.push_back(id);
        let prefetch = match usize::from(prefetch) {
            0 => PREFETCH_CAP,
            some => some.min(PREFETCH_CAP),
        };
        let channel = Channel {
            client: client.into(),
            queue: name.clone(),
            prefetch,
            next_tag: 1,
            unacked: BTreeMap::new(),
            fresh: VecDeque::new(),
        };
        self.channels.insert(id, channel);
        self.deliver(&name, now);
        Ok(id)
    }

    /// Hands at most `max` of the channel's deliveries to its client. `None`: the channel is closed.
    pub fn take(&mut self, channel: ChannelId, max: usize) -> Option<Vec<Delivery>> {
        let channel = self.channels.get_mut(&channel)?;
        let count = max.min(channel.fresh.len());
        let unacked = &channel.unacked;
        let taken = channel.fresh.drain(..count);
        Some(taken.filter_map(|tag| Some(unacked.get(&tag)?.message.delivery(tag))).collect())
    }

    /// Acks, then rejects without requeue, tag by tag. A tag that is unknown or settled closes the
    /// channel with `Refused` (PRECONDITION_FAILED, broker-contract R7); the tags before it count.
    pub fn settle(
        &mut self,
        channel: ChannelId,
        acked: &[u64],
        rejected: &[u64],
        now: Duration,
    ) -> Outcome<()> {
        for tag in acked {
            let (_, message) = self.unacked(channel, *tag, now)?;
            self.note(Effect::Deleted { id: message.id });
        }
        for tag in rejected {
            let (_, message) = self.unacked(channel, *tag, now)?;
            self.dead_letter(message, REJECTED, now);
        }
        self.refill(channel, now);
        Ok(())
    }

    /// Rejects with requeue: each return counts in every release (broker-contract R16). Unknown tags
    /// as in [`Self::settle`].
    pub fn requeue(&mut self, channel: ChannelId, tags: &[u64], now: Duration) -> Outcome<()> {
        for tag in tags {
            let (queue, message) = self.unacked(channel, *tag, now)?;
            self.put_back(&queue, message, Return::Asked, now);
        }
        self.refill(channel, now);
        Ok(())
    }

    /// Closes a channel: its unacked messages are back (broker-contract R8). A closed one stays so.
    pub fn close(&mut self, channel: ChannelId, now: Duration) {
        self.close_counting(channel, Return::Failed, now);
    }

    /// Closes all channels of a client, as when its connection dies. How many there were.
    pub fn disconnect(&mut self, client: &str, now: Duration) -> usize {
        let ids = self.channels_where(|channel| &*channel.client == client);
        ids.iter().for_each(|id| self.close(*id, now));
        ids.len()
    }

    /// Closes all channels: the server came back.
    pub fn restart(&mut self, now: Duration) {
        for id in self.channels_where(|_| true) {
            self.close(id, now);
        }
    }

    /// Closes the channels that hold a delivery for longer than the ack timeout (broker-contract
    /// R24). From 4.3 on the server cancels the consumer instead, to the client the same, and the
    /// return does not count (R16). How many there were.
    pub fn expire(&mut self, now: Duration) -> usize {
        let timeout = self.settings.ack_timeout;
        let ids =
            self.channels_where(|channel| channel.expiry(timeout).is_some_and(|at| at <= now));
        let late = self.settings.version >= Version::V4_3;
        let how = if late { Return::Late } else { Return::Failed };
        ids.iter().for_each(|id| self.close_counting(*id, how, now));
        ids.len()
    }

    /// When the next channel expires, if nothing is settled before.
    pub fn next_expiry(&self) -> Option<Duration> {
        self.channels.values().filter_map(|c| c.expiry(self.settings.ack_timeout)).min()
    }

    /// The effects since the last call, where the settings say `journaled`.
    pub fn effects(&mut self) -> Vec<Effect> {
        mem::take(&mut self.effects)
    }

    /// The declared queues, without those that were declared only as dead-letter queues.
    pub fn declared(&self) -> Vec<QueueSpec> {
        let spec = |(name, queue): (&Arc<str>, &Queue)| {
            let dead_letters = queue.dead_letters.clone();
            Some(QueueSpec { name: name.clone(), delivery_limit: queue.limit?, dead_letters })
        };
        self.queues.iter().filter_map(spec).collect()
    }

    /// The names of all queues, dead-letter queues too.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.queues.keys().cloned().collect()
    }

    /// How many messages are ready. `None`: no such queue.
    pub fn depth(&self, queue: &str) -> Option<usize> {
        Some(self.queues.get(queue)?.depth())
    }

    /// The ready messages of a queue, in its order.
    pub fn ready(&self, queue: &str) -> impl Iterator<Item = &Message> {
        let queue = self.queues.get(queue).into_iter();
        queue.flat_map(|queue| queue.returned.iter().chain(queue.ready.values()))
    }

    /// The unacked messages of a queue by the client that holds them, in no order of time.
    pub fn unacked_of(&self, queue: &str) -> impl Iterator<Item = (&Arc<str>, &Message)> {
        self.channels.values().filter(move |channel| &*channel.queue == queue).flat_map(|channel| {
            channel.unacked.values().map(move |unacked| (&channel.client, &unacked.message))
        })
    }

    /// How many deliveries the channel holds unsettled. `None`: it is closed.
    pub fn held(&self, channel: ChannelId) -> Option<usize> {
        Some(self.channels.get(&channel)?.unacked.len())
    }

    fn channels_where(&self, wanted: impl Fn(&Channel) -> bool) -> Vec<ChannelId> {
        self.channels.iter().filter(|(_, channel)| wanted(channel)).map(|(id, _)| *id).collect()
    }

    /// Takes a delivery off its channel, with the name of its queue; or closes the channel.
    fn unacked(&mut self, id: ChannelId, tag: u64, now: Duration) -> Outcome<(Arc<str>, Message)> {
        let Some(channel) = self.channels.get_mut(&id) else {
            return Err(Fault::refused("the channel is closed"));
        };
        match channel.unacked.remove(&tag) {
            Some(unacked) => {
                channel.fresh.retain(|fresh| *fresh != tag);
                Ok((channel.queue.clone(), unacked.message))
            }
            None => {
                self.close(id, now);
                let text = format!("PRECONDITION_FAILED: unknown delivery tag {tag}");
                Err(Fault::refused(text))
            }
        }
    }

    fn close_counting(&mut self, id: ChannelId, how: Return, now: Duration) {
        let Some(channel) = self.channels.remove(&id) else { return };
        if let Some(queue) = self.queues.get_mut(&channel.queue) {
            queue.consumers.retain(|consumer| *consumer != id);
        }
        for unacked in channel.unacked.into_values() {
            self.put_back(&channel.queue, unacked.message, how, now);
        }
        self.deliver(&channel.queue, now);
    }

    /// Back before what was never delivered, behind what came back earlier; or to the dead letters
    /// where that was once too often (broker-contract R10, R15).
    fn put_back(&mut self, queue: &Arc<str>, mut message: Message, how: Return, now: Duration) {
        message.redelivered = true;
        message.returns += u32::from(how != Return::Late);
        message.failures += u32::from(how == Return::Failed);
        let (id, returns) = (message.id, message.returns);
        let Some(home) = self.queues.get_mut(queue) else { return };
        if home.limit.is_some_and(|limit| returns > limit) {
            self.dead_letter(message, "delivery_limit", now);
        } else {
            home.returned.push_back(message);
            self.note(Effect::Returned { id, returns });
        }
    }

    fn dead_letter(&mut self, message: Message, reason: &str, now: Duration) {
        let from = message.id;
        let queue = self.queues.get(&message.record.to);
        let Some(target) = queue.and_then(|queue| queue.dead_letters.clone()) else {
            return self.note(Effect::Deleted { id: from });
        };
        let id = self.next_message;
        self.next_message += 1;
        let message = message.died(id, reason, target.clone(), self.settings.version);
        if self.settings.journaled {
            self.note(Effect::DeadLettered { from, message });
        } else if let Some(queue) = self.queues.get_mut(&target) {
            queue.ready.insert(id, message);
            self.deliver(&target, now);
        }
    }

    fn note(&mut self, effect: Effect) {
        if self.settings.journaled {
            self.effects.push(effect);
        }
    }

    /// Delivers from the channel's queue, after some of its deliveries were settled.
    fn refill(&mut self, channel: ChannelId, now: Duration) {
        if let Some(queue) = self.channels.get(&channel).map(|channel| channel.queue.clone()) {
            self.deliver(&queue, now);
        }
    }

    /// Gives ready messages to the channels that have room, in turn.
    fn deliver(&mut self, name: &str, now: Duration) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        let channels = &mut self.channels;
        loop {
            let has_room = |id: &ChannelId| channels.get(id).is_some_and(Channel::has_room);
            let Some(at) = queue.consumers.iter().position(has_room) else { return };
            let Some(message) = queue.pop() else { return };
            let Some(id) = queue.consumers.remove(at) else { return };
            queue.consumers.push_back(id);
            if let Some(channel) = channels.get_mut(&id) {
                channel.push(message, now);
            }
        }
    }
}

/// A queue's name, its delivery limit and its dead-letter queue.
type Declaration<'a> = (&'a Arc<str>, Option<u32>, Option<Arc<str>>);

fn declarations(spec: &QueueSpec) -> Vec<Declaration<'_>> {
    let mut all = vec![(&spec.name, Some(spec.delivery_limit), spec.dead_letters.clone())];
    all.extend(spec.dead_letters.as_ref().map(|name| (name, None, None)));
    all
}

impl Queue {
    fn depth(&self) -> usize {
        self.returned.len() + self.ready.len()
    }

    fn pop(&mut self) -> Option<Message> {
        let returned = self.returned.pop_front();
        returned.or_else(|| self.ready.pop_first().map(|(_, message)| message))
    }
}

impl Channel {
    fn has_room(&self) -> bool {
        self.unacked.len() < self.prefetch
    }

    fn push(&mut self, message: Message, now: Duration) {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.unacked.insert(tag, Unacked { message, since: now });
        self.fresh.push_back(tag);
    }

    fn expiry(&self, timeout: Duration) -> Option<Duration> {
        Some(self.unacked.values().next()?.since + timeout)
    }
}
