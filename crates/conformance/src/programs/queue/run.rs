//! Runs programs on a backend and writes down what it shows. Never judges: it asks the monitor only
//! how long something is worth waiting for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ports::{Delivered, Deliveries, Delivery, JobQueue, QueueSpec, Record};

use super::generate::{CLIENTS, Fate, Step, generate};
use super::history::{Event, Place};
use super::judge;
use super::monitor::Monitor;
use crate::Release;
use crate::programs::{Answer, Programs, Trial};
use crate::queue::QueueBackend;

/// How fast a backend is, and what else a monitor has to know of it.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// What is to come must be there after so long.
    pub patience: Duration,
    /// What nobody expects may take so long.
    pub quiet: Duration,
    /// Whether a dropped channel has ended when the drop returns.
    pub prompt: bool,
    /// Of the server; of a model, the one that is modelled.
    pub release: Release,
}

/// Programs on this backend.
pub struct QueuePrograms<'a> {
    backend: &'a dyn QueueBackend,
    pace: Pace,
    clients: Mutex<BTreeMap<String, Arc<dyn JobQueue>>>,
}

/// So much of a message that a link can break between two.
const PAYLOAD_BYTES: usize = 4096;

impl<'a> QueuePrograms<'a> {
    /// On this backend, at this pace.
    pub fn on(backend: &'a dyn QueueBackend, pace: Pace) -> Self {
        QueuePrograms { backend, pace, clients: Mutex::default() }
    }

    /// The client of this name; programs of a lane share theirs.
    async fn client(&self, name: &str) -> Arc<dyn JobQueue> {
        let known = self.lock().get(name).cloned();
        if let Some(client) = known {
            return client;
        }
        let client = self.backend.client(name).await;
        self.lock().insert(name.to_owned(), client.clone());
        client
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<dyn JobQueue>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Programs for QueuePrograms<'_> {
    type Step = Step;

    fn program(&self, seed: u64) -> Vec<Step> {
        generate(seed)
    }

    async fn trial(&self, lane: usize, steps: &[Step]) -> Trial {
        let mut run = Run::new(self, lane);
        run.begin(steps.first()).await;
        for step in steps {
            run.step(step).await;
        }
        run.drain().await;
        run.open.clear();
        self.backend.forget(&[run.jobs.clone(), run.dead.clone()]).await;
        Trial::of(&run.history, |event| Some(event.met()), judge)
    }
}

/// An open channel of a client.
struct Open {
    number: u32,
    from: Place,
    prefetch: u16,
    deliveries: Box<dyn Deliveries>,
    held: Vec<u64>,
}

struct Run<'a> {
    programs: &'a QueuePrograms<'a>,
    lane: usize,
    jobs: Arc<str>,
    dead: Arc<str>,
    dead_letters: bool,
    limit: u32,
    history: Vec<Event>,
    monitor: Monitor,
    /// Whether the monitor still agrees; if not, nothing is worth waiting for.
    sound: bool,
    open: BTreeMap<usize, Open>,
    messages: usize,
    channels: u32,
}

impl<'a> Run<'a> {
    fn new(programs: &'a QueuePrograms<'a>, lane: usize) -> Self {
        Run {
            lane,
            jobs: programs.backend.queue(),
            dead: programs.backend.queue(),
            dead_letters: true,
            limit: 2,
            history: Vec::new(),
            monitor: Monitor::default(),
            sound: true,
            open: BTreeMap::new(),
            messages: 0,
            channels: 0,
            programs,
        }
    }

    fn note(&mut self, event: Event) {
        self.sound = self.sound && self.monitor.see(&event).is_ok();
        self.history.push(event);
    }

    fn name(&self, client: usize) -> String {
        format!("lane-{}-{client}", self.lane)
    }

    fn client(&self, client: usize) -> impl Future<Output = Arc<dyn JobQueue>> + Send + use<'a> {
        let (programs, name) = (self.programs, self.name(client));
        async move { programs.client(&name).await }
    }

    fn spec(&self, limit: u32) -> QueueSpec {
        let dead_letters = self.dead_letters.then(|| self.dead.clone());
        QueueSpec { name: self.jobs.clone(), delivery_limit: limit, dead_letters }
    }

    fn queue(&self, place: Place) -> Arc<str> {
        match place {
            Place::Jobs => self.jobs.clone(),
            Place::Dead => self.dead.clone(),
            Place::Nowhere => format!("{}-nowhere", self.jobs).into(),
        }
    }

    async fn begin(&mut self, first: Option<&Step>) {
        if let Some(Step::Begin { limit, dead_letters }) = first {
            (self.limit, self.dead_letters) = (*limit, *dead_letters);
        }
        let (limit, dead_letters) = (self.limit, self.dead_letters);
        let Pace { prompt, release, .. } = self.programs.pace;
        self.note(Event::Begun { limit, dead_letters, release, prompt });
        let answer = Answer::of(&self.client(0).await.declare(&self.spec(limit)).await);
        self.note(Event::Declared { limit, answer });
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Begin { .. } => {}
            Step::Declare { more } => {
                let limit = self.limit + more;
                let answer = Answer::of(&self.client(0).await.declare(&self.spec(limit)).await);
                self.note(Event::Declared { limit, answer });
            }
            Step::Publish { client, count, nowhere } => {
                self.publish(*client, *count, *nowhere).await;
            }
            Step::PublishAndLose { count, arriving } => {
                self.publish_and_lose(*count, *arriving).await;
            }
            Step::Consume { client, dead, prefetch } => {
                let dead = *dead && self.dead_letters;
                let from = if dead { Place::Dead } else { Place::Jobs };
                self.consume(*client, from, *prefetch).await;
            }
            Step::Take { client, max } => self.take(*client, *max).await,
            Step::Settle { client, fates } => self.settle(*client, fates).await,
            Step::Stranger { client } => self.stranger(*client).await,
            Step::Close { client } => self.close(*client, false),
            Step::Cut { client } => self.cut(*client).await,
            Step::Depth { dead } => {
                let dead = *dead && self.dead_letters;
                self.depth(if dead { Place::Dead } else { Place::Jobs }).await;
            }
            Step::Missing { client } => {
                if !self.open.contains_key(client) {
                    self.consume(*client, Place::Nowhere, 1).await;
                }
                self.depth(Place::Nowhere).await;
            }
        }
    }

    fn batch(&mut self, count: usize, nowhere: bool, bytes: usize) -> Vec<(Place, Record)> {
        let batch = (0..count).map(|at| {
            let place = if nowhere && at == count / 2 { Place::Nowhere } else { Place::Jobs };
            (place, message(&self.queue(place), self.messages + at, bytes))
        });
        let batch = batch.collect();
        self.messages += count;
        batch
    }

    async fn publish(&mut self, client: usize, count: usize, nowhere: bool) {
        let batch = self.batch(count, nowhere, 8);
        let records = batch.iter().map(|(_, record)| record.clone()).collect();
        let answers = self.client(client).await.publish(records).await;
        for ((to, record), answer) in batch.iter().zip(&answers) {
            let (key, answer) = (record.key.to_string(), Answer::of(answer));
            self.note(Event::Published { key, to: *to, lossy: false, answer });
        }
    }

    async fn publish_and_lose(&mut self, count: usize, arriving: usize) {
        let batch = self.batch(count, false, PAYLOAD_BYTES);
        let records: Vec<_> = batch.into_iter().map(|(_, record)| record).collect();
        let keys: Vec<_> = records.iter().map(|record| record.key.to_string()).collect();
        let lost = self.programs.backend.publish_and_lose_the_link(records, arriving);
        let Ok(answers) = lost.await else { return };
        for (key, answer) in keys.into_iter().zip(&answers) {
            let answer = Answer::of(answer);
            self.note(Event::Published { key, to: Place::Jobs, lossy: true, answer });
        }
    }

    async fn consume(&mut self, client: usize, from: Place, prefetch: u16) {
        if self.open.contains_key(&client) {
            return;
        }
        let outcome = self.client(client).await.consume(&self.queue(from), prefetch).await;
        self.channels += 1;
        let (number, answer) = (self.channels, Answer::of(&outcome));
        self.note(Event::Opened { channel: number, from, prefetch, answer });
        if let Ok(deliveries) = outcome {
            let open = Open { number, from, prefetch, deliveries, held: Vec::new() };
            self.open.insert(client, open);
        }
    }

    async fn take(&mut self, client: usize, max: usize) {
        let Some(open) = self.open.get(&client) else { return };
        let room = open.held.len() < usize::from(open.prefetch);
        let likely = room && self.monitor.surely_ready(open.from) > 0;
        let quiet = self.programs.pace.quiet;
        self.ask(client, max, if likely { quiet * 10 } else { quiet }).await;
    }

    /// Whether something came.
    async fn ask(&mut self, client: usize, max: usize, wait: Duration) -> bool {
        let runtime = self.programs.backend.runtime();
        let Some(open) = self.open.get_mut(&client) else { return false };
        match ports::timeout(runtime, wait, open.deliveries.next(max)).await {
            Some(Ok(Delivered::Batch(batch))) => {
                for delivery in batch {
                    self.delivered(client, &delivery);
                }
                true
            }
            Some(Ok(Delivered::ChannelLost) | Err(_)) => {
                self.close(client, true);
                false
            }
            None => false,
        }
    }

    fn delivered(&mut self, client: usize, delivery: &Delivery) {
        let event = {
            let Some(open) = self.open.get_mut(&client) else { return };
            open.held.push(delivery.tag);
            let header = |name: &str| {
                let headers = &delivery.record.headers;
                headers.iter().find(|(known, _)| &**known == name).map(|(_, value)| value)
            };
            let n = header("n").and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
            let as_published = n.is_some_and(|n| {
                let sent = message(&delivery.record.to, n, delivery.record.payload.len());
                sent.key == delivery.record.key && sent.payload == delivery.record.payload
            });
            let died = header("x-death").map(|line| String::from_utf8_lossy(line));
            Event::Delivered {
                channel: open.number,
                tag: delivery.tag,
                key: delivery.record.key.to_string(),
                redelivered: delivery.redelivered,
                returns: delivery.returns,
                died: died.map(|line| line.replace(&*self.jobs, "jobs")),
                intact: as_published,
            }
        };
        self.note(event);
    }

    async fn settle(&mut self, client: usize, fates: &[Fate]) {
        let Some(open) = self.open.get_mut(&client) else { return };
        let fates: Vec<_> = open.held.iter().copied().zip(fates.iter().copied()).collect();
        let of = |fate| fates.iter().filter(|(_, is)| *is == fate).map(|(tag, _)| *tag).collect();
        let (acked, rejected, tags): (Vec<_>, Vec<_>, Vec<_>) =
            (of(Fate::Ack), of(Fate::Reject), of(Fate::Return));
        open.held.retain(|tag| ![&acked, &rejected, &tags].iter().any(|all| all.contains(tag)));
        let channel = open.number;
        if !acked.is_empty() || !rejected.is_empty() {
            let answer = Answer::of(&open.deliveries.settle(&acked, &rejected).await);
            self.note(Event::Settled { channel, acked, rejected, answer });
        }
        let Some(open) = self.open.get_mut(&client) else { return };
        if !tags.is_empty() {
            let answer = Answer::of(&open.deliveries.requeue(&tags).await);
            self.note(Event::Returned { channel, tags, answer });
        }
    }

    /// The server closes the channel; what it held is back (R7).
    async fn stranger(&mut self, client: usize) {
        let Some(open) = self.open.get_mut(&client) else { return };
        let (channel, acked) = (open.number, vec![open.held.iter().max().unwrap_or(&0) + 100]);
        let answer = Answer::of(&open.deliveries.settle(&acked, &[]).await);
        self.note(Event::Settled { channel, acked, rejected: vec![], answer });
        self.close(client, false);
    }

    fn close(&mut self, client: usize, told: bool) {
        if let Some(Open { number, deliveries, .. }) = self.open.remove(&client) {
            drop(deliveries);
            self.note(Event::Closed { channel: number, told });
        }
    }

    async fn cut(&mut self, client: usize) {
        let Some(channel) = self.open.get(&client).map(|open| open.number) else { return };
        let name = self.name(client);
        if self.programs.backend.cut(&name).await.is_err() {
            return self.close(client, false);
        }
        // Whose link is lost starts anew: a client of the same name.
        let gone = self.open.remove(&client);
        self.programs.lock().remove(&name);
        self.note(Event::Cut { channel });
        drop(gone);
    }

    async fn depth(&mut self, of: Place) {
        let outcome = self.client(0).await.depth(&self.queue(of)).await;
        let (answer, count) = (Answer::of(&outcome), outcome.unwrap_or(0));
        self.note(Event::Depth { of, answer, count });
    }

    /// Closes all, and settles what is left in both queues.
    async fn drain(&mut self) {
        (0..CLIENTS).for_each(|client| self.close(client, false));
        let both: &[Place] =
            if self.dead_letters { &[Place::Jobs, Place::Dead] } else { &[Place::Jobs] };
        for (client, from) in both.iter().enumerate() {
            while self.sound && !self.open.contains_key(&client) {
                self.consume(client, *from, 1_000).await;
            }
        }
        let Pace { patience, quiet, .. } = self.programs.pace;
        let begun = self.programs.backend.runtime().elapsed();
        loop {
            let mut came = false;
            for client in 0..both.len() {
                came |= self.ask(client, 1_000, quiet).await;
                let count = self.open.get(&client).map_or(0, |open| open.held.len());
                self.settle(client, &vec![Fate::Ack; count]).await;
            }
            let waited = self.programs.backend.runtime().elapsed() - begun;
            let hoped = self.sound && self.monitor.surely_left() > 0 && waited < patience;
            if !self.sound || (!came && !hoped) {
                break;
            }
        }
        (0..CLIENTS).for_each(|client| self.close(client, false));
        self.note(Event::Drained);
    }
}

/// The message of this number, of at least so many bytes.
fn message(queue: &Arc<str>, n: usize, bytes: usize) -> Record {
    Record {
        to: queue.clone(),
        key: format!("m{n}").into(),
        headers: vec![("n".into(), Bytes::from(format!("{n}")))],
        payload: Bytes::from(format!("{n:0>bytes$}")),
    }
}
