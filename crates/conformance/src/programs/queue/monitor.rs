//! Judges the history of one program on the job queue: R1 to R20, R28 and R33 of the broker contract. Pure:
//! a history in, a judgement out. Each message has a set of states, for the server is not asked.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Event, Place};
use super::states::{BOUND, Count, Reason, Rules, State};
use crate::programs::{Answer, Judgement, Stop, rule};

/// The rules, by name.
#[cfg(test)]
pub(super) const RULES: [&str; 13] = [
    "answers",      // each call ends as the state of the server demands (R2, R4, R5, R7)
    "published",    // what is delivered was published, and not refused (R3, R4)
    "content",      // as it was published (R10)
    "settled",      // what is settled does not come again (R13)
    "one holder",   // what a channel holds is not delivered elsewhere (R12)
    "tags",         // tags rise on a channel (R7)
    "prefetch",     // at most so many unsettled (R12)
    "redelivered",  // says whether it came back (R8, R9, R10, R33)
    "count",        // says how often (R15, R16, R33)
    "dead letters", // there for its reason, and beyond the limit not in the queue (R15, R19, R20)
    "order",        // one publisher's order where nothing came back (R28)
    "depth",        // no more is ready than can be (R12)
    "lost",         // what is confirmed and not settled comes at last (R1, R3, R8)
];

/// Judges a whole history.
pub fn judge(history: &[Event]) -> Judgement {
    let mut monitor = Monitor::default();
    Judgement::of(history.iter().try_for_each(|event| monitor.see(event)))
}

/// What is known after the events so far.
#[derive(Debug, Default)]
pub(super) struct Monitor {
    rules: Rules,
    prompt: bool,
    /// Whether a server closed a channel, or a link was cut: then a client may have to ask again.
    disturbed: bool,
    messages: BTreeMap<String, Message>,
    channels: BTreeMap<u32, Channel>,
}

#[derive(Debug)]
struct Message {
    states: BTreeSet<State>,
    /// Its place in the order of publishing; none where the publish was not confirmed.
    order: Option<usize>,
    held: bool,
}

#[derive(Debug)]
struct Channel {
    from: Place,
    prefetch: u16,
    last_tag: u64,
    last_order: usize,
    /// Credits that the server gave twice.
    extra: usize,
    held: BTreeMap<u64, String>,
    /// Settled or returned, with the states before: both may be lost with the link.
    settled: Vec<(String, BTreeSet<State>)>,
}

impl Monitor {
    /// How many messages must be ready in the queue.
    pub(super) fn surely_ready(&self, place: Place) -> usize {
        let there = |state: &State| matches!(state, State::In(at, ..) if *at == place);
        let ready = |message: &&Message| !message.held && message.states.iter().all(there);
        self.messages.values().filter(ready).count()
    }

    /// How many must be somewhere.
    pub(super) fn surely_left(&self) -> usize {
        let left = |message: &&Message| !message.states.contains(&State::Gone);
        self.messages.values().filter(left).count()
    }

    /// Goes on by an event.
    pub(super) fn see(&mut self, event: &Event) -> Result<(), Stop> {
        match event {
            Event::Begun { limit, dead_letters, release, prompt } => {
                let (limit, dead_letters, release) = (*limit, *dead_letters, *release);
                self.rules = Rules { release, limit, dead_letters, ..Rules::default() };
                self.prompt = *prompt;
                Ok(())
            }
            Event::Declared { limit, answer } => {
                let equal = *limit == self.rules.limit;
                let expected = if equal { Answer::Ok } else { Answer::Refused };
                self.asked(*answer, expected, "declare")
            }
            Event::Published { key, to, lossy, answer } => {
                self.published(key, *to, *lossy, *answer)
            }
            Event::Opened { channel, from, prefetch, answer } => {
                self.asked(*answer, expected(*from), "consume")?;
                if *answer == Answer::Ok {
                    let channel = (*channel, Channel::new(*from, *prefetch));
                    self.channels.extend([channel]);
                }
                Ok(())
            }
            Event::Delivered { .. } => self.delivered(event),
            Event::Settled { channel, acked, rejected, answer } => {
                self.settled(*channel, acked, rejected, *answer)
            }
            Event::Returned { channel, tags, answer } => self.returned(*channel, tags, *answer),
            Event::Closed { channel, told } => {
                rule("answers", !told, || format!("channel {channel} is lost, and no link is"))?;
                self.ended(*channel, false)
            }
            Event::Cut { channel } => self.ended(*channel, true),
            Event::Depth { of, answer, count } => self.depth(*of, *answer, *count),
            Event::Drained => self.drained(),
        }
    }

    /// Where channels end late, the end of one may hit the next of its client: it is to ask again.
    fn asked(&self, answer: Answer, expected: Answer, call: &str) -> Result<(), Stop> {
        match answer {
            Answer::Retry if self.disturbed && !self.prompt => Ok(()),
            _ => answers(answer, expected, call),
        }
    }

    fn published(&mut self, key: &str, to: Place, lossy: bool, answer: Answer) -> Result<(), Stop> {
        if !lossy {
            self.asked(answer, expected(to), "publish")?;
        }
        let arrived = self.rules.arriving(State::In(Place::Jobs, Count::default(), None));
        let states = match answer {
            Answer::Ok => arrived,
            Answer::Retry | Answer::Refused => [State::Gone].into(),
            Answer::Unknown | Answer::Silence => arrived.into_iter().chain([State::Gone]).collect(),
        };
        let order = (answer == Answer::Ok).then_some(self.messages.len() + 1);
        self.messages.insert(key.to_owned(), Message { states, order, held: false });
        Ok(())
    }

    fn delivered(&mut self, event: &Event) -> Result<(), Stop> {
        let Event::Delivered { channel, tag, key, returns, intact, .. } = event else {
            return Ok(());
        };
        let on = self.channels.get_mut(channel);
        let Some(on) = on else { return rule("tags", false, || format!("{channel} is closed")) };
        rule("tags", *tag > on.last_tag, || format!("{tag} after {}", on.last_tag))?;
        on.last_tag = *tag;
        let message = self.messages.get_mut(key);
        let Some(message) = message else {
            return rule("published", false, || format!("nobody published {key}"));
        };
        rule("content", *intact, || format!("{key} is not what was published"))?;
        rule("one holder", !message.held, || format!("{key} is held by another channel"))?;
        let unsettled = on.held.len() + 1;
        rule("prefetch", unsettled <= usize::from(on.prefetch) + on.extra, || {
            format!("{unsettled} unsettled on channel {channel}, prefetch {}", on.prefetch)
        })?;
        let states = matching(message, on.from, event)?;
        if let (Some(order), Place::Jobs, 0) = (message.order, on.from, returns) {
            rule("order", order > on.last_order, || format!("{key} came late"))?;
            on.last_order = order;
        }
        (message.states, message.held) = (states, true);
        on.held.insert(*tag, key.clone());
        for other in self.channels.values_mut() {
            // It came again from where its settling brought it: that was done.
            other.settled.retain(|(settled, _)| settled != key);
        }
        Ok(())
    }

    fn settled(
        &mut self,
        channel: u32,
        acked: &[u64],
        rejected: &[u64],
        answer: Answer,
    ) -> Result<(), Stop> {
        let Some(on) = self.channels.get_mut(&channel) else { return Ok(()) };
        let mut strange = false;
        let tags =
            acked.iter().map(|tag| (tag, true)).chain(rejected.iter().map(|tag| (tag, false)));
        let mut moved = Vec::new();
        for (tag, is_ack) in tags {
            match on.held.remove(tag) {
                Some(key) => moved.push((key, is_ack)),
                None => strange = true,
            }
        }
        answers(answer, if strange { Answer::Refused } else { Answer::Ok }, "settle")?;
        self.disturbed |= strange;
        for (key, is_ack) in moved {
            let before = self.messages[&key].states.clone();
            let after: Vec<_> = match is_ack {
                true => vec![State::Gone],
                false => before.iter().map(|state| self.rules.rejected(*state)).collect(),
            };
            if let Some(on) = self.channels.get_mut(&channel) {
                on.settled.push((key.clone(), before));
            }
            self.put(&key, &after)?;
        }
        Ok(())
    }

    fn returned(&mut self, channel: u32, tags: &[u64], answer: Answer) -> Result<(), Stop> {
        answers(answer, Answer::Ok, "return")?;
        for tag in tags {
            let on = self.channels.get_mut(&channel);
            let Some(key) = on.and_then(|on| on.held.remove(tag)) else { continue };
            let before = self.messages[&key].states.clone();
            let back: Vec<_> = before.iter().map(|state| self.rules.returned(*state)).collect();
            let stays = |state: &State| matches!(state, State::In(Place::Jobs, ..));
            let dies = before.iter().all(stays) && !back.iter().all(stays);
            if let Some(on) = self.channels.get_mut(&channel) {
                on.extra += usize::from(self.rules.credits_twice() && dies);
                on.settled.push((key.clone(), before));
            }
            self.put(&key, &back)?;
        }
        Ok(())
    }

    /// The channel is gone: what it held is back, and what it may have held unseen perhaps (R8, R17).
    fn ended(&mut self, channel: u32, cut: bool) -> Result<(), Stop> {
        let Some(gone) = self.channels.remove(&channel) else { return Ok(()) };
        for message in self.messages.values_mut().filter(|message| !message.held) {
            message.states = self.rules.perhaps_returned_and_on(&message.states, gone.from);
        }
        for key in gone.held.values() {
            let states: Vec<_> = self.messages[key].states.iter().copied().collect();
            let back: Vec<_> = states.into_iter().map(|state| self.rules.failed(state)).collect();
            self.put(key, &back)?;
        }
        if cut {
            self.disturbed = true;
            for (key, before) in &gone.settled {
                let mut states: Vec<_> = self.messages[key].states.iter().copied().collect();
                states.extend(before.iter().map(|state| self.rules.failed(*state)));
                self.put(key, &states)?;
            }
        }
        if !self.prompt {
            match gone.from {
                Place::Dead => self.rules.ending_dead += 1,
                Place::Jobs | Place::Nowhere => self.rules.ending_jobs += 1,
            }
        }
        let most = self.messages.values().map(|message| message.states.len()).max();
        if most.unwrap_or(0) > BOUND {
            return Err(Stop::Overflow(format!("a message with more than {BOUND} states")));
        }
        Ok(())
    }

    /// The message is held by nobody, in one of these states.
    fn put(&mut self, key: &str, states: &[State]) -> Result<(), Stop> {
        let states = states.iter().flat_map(|state| self.rules.arriving(*state)).collect();
        if let Some(message) = self.messages.get_mut(key) {
            (message.states, message.held) = (states, false);
        }
        Ok(())
    }

    fn depth(&self, of: Place, answer: Answer, count: u64) -> Result<(), Stop> {
        self.asked(answer, expected(of), "depth")?;
        let there = |state: &State| matches!(state, State::In(at, ..) if *at == of);
        let ready = |message: &&Message| !message.held && message.states.iter().any(there);
        let most = self.messages.values().filter(ready).count() as u64;
        rule("depth", count <= most, || format!("{count} ready, at most {most} can be"))
    }

    fn drained(&self) -> Result<(), Stop> {
        let lost = |(_, message): &(&String, &Message)| !message.states.contains(&State::Gone);
        let lost: Vec<_> = self.messages.iter().filter(lost).collect();
        rule("lost", lost.is_empty(), || format!("never came: {lost:?}"))
    }
}

impl Channel {
    fn new(from: Place, prefetch: u16) -> Self {
        let (held, settled) = (BTreeMap::new(), Vec::new());
        Channel { from, prefetch, last_tag: 0, last_order: 0, extra: 0, held, settled }
    }
}

/// How a call on this queue ends.
fn expected(place: Place) -> Answer {
    match place {
        Place::Jobs | Place::Dead => Answer::Ok,
        Place::Nowhere => Answer::Refused,
    }
}

fn answers(answer: Answer, expected: Answer, call: &str) -> Result<(), Stop> {
    rule("answers", answer == expected, || format!("{call}: {answer:?}, not {expected:?}"))
}

/// Those of the message's states that the delivery shows; an error where it shows none.
fn matching(message: &Message, from: Place, event: &Event) -> Result<BTreeSet<State>, Stop> {
    let Event::Delivered { key, redelivered, returns, died, .. } = event else {
        return Ok(BTreeSet::new());
    };
    let mut there = Vec::new();
    let mut elsewhere = false;
    for state in &message.states {
        match state {
            State::In(place, count, reason) if *place == from => there.push((*count, *reason)),
            State::In(..) => elsewhere = true,
            State::Gone => {}
        }
    }
    if there.is_empty() && !elsewhere {
        let name = if message.order.is_some() { "settled" } else { "published" };
        rule(name, false, || format!("{key} came, and is in no queue"))?;
    }
    rule("dead letters", !there.is_empty(), || format!("{key} came from {from:?}"))?;
    there.retain(|(count, _)| (count.told() > 0) == *redelivered);
    rule("redelivered", !there.is_empty(), || format!("{key} says {redelivered}"))?;
    there.retain(|(count, _)| count.told() == *returns);
    rule("count", !there.is_empty(), || format!("{key} says {returns}"))?;
    let told = |reason: Option<Reason>| reason.map(|r| format!("{} 1 jobs", r.text()));
    there.retain(|(_, reason)| told(*reason) == *died);
    rule("dead letters", !there.is_empty(), || format!("{key} died of {died:?}"))?;
    Ok(there.into_iter().map(|(count, reason)| State::In(from, count, reason)).collect())
}
