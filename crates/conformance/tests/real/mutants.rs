//! Servers that break one statement each, where only a real one can show it: a real RabbitMQ behind a
//! wrapper that does something else than it was told. A case that sees no lie could not fail.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, join_all};
use ports::{JobQueue, Outcome, Record, Runtime, Store};
use shakedown_conformance::queue::{
    Amqp, Arguments, Bound, Confirmed, Consuming, Got, Kind, Message, QueueBackend, beyond_the_port,
};
use shakedown_conformance::store::{Loss, Session, StoreBackend, Writers};
use shakedown_conformance::{NotApplicable, Release, Unseen, Verdict, run_release};

use crate::postgres::RealPostgres;
use crate::rabbit::RealRabbit;

/// What is done otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Declares without this argument.
    Forgets(&'static str),
    /// Declares with another `x-overflow`.
    Refuses,
    /// Publishes mandatory, whatever is said.
    Mandatory,
    /// Declares a missing exchange.
    MakesExchanges,
    /// Binds the first queue only.
    FansOutToOne,
    /// Publishes each message twice.
    Doubles,
    /// Leaves out what a message has beside its id.
    Plain,
    /// Consumes with a prefetch where there is none.
    Prefetches,
    /// Leaves out what is special about a consumer.
    PlainConsumer,
    /// Gets nothing.
    GetsNothing,
    /// Returns what a cancelled consumer holds.
    CancelReturns,
    /// Acks one at a time.
    AcksOne,
    /// Drops what it should return.
    DropsReturned,
    /// Tells deaths from the oldest.
    OldestFirst,
    /// Its queues are of the other type.
    OtherKind,
    /// There is no alarm.
    NoAlarm,
}

/// Each with the statements that it breaks, and the queues where it does.
const LIES: [(Lie, Kind, &[&str]); 27] = [
    (Lie::Mandatory, Kind::Quorum, &["R4"]),
    (Lie::MakesExchanges, Kind::Quorum, &["R5"]),
    (Lie::FansOutToOne, Kind::Quorum, &["R6", "R31"]),
    (Lie::FansOutToOne, Kind::Classic, &["R31"]),
    (Lie::Forgets("x-overflow"), Kind::Classic, &["R23"]),
    (Lie::OtherKind, Kind::Classic, &["R10"]),
    (Lie::CancelReturns, Kind::Quorum, &["R11"]),
    (Lie::GetsNothing, Kind::Quorum, &["R12"]),
    (Lie::Prefetches, Kind::Quorum, &["R12"]),
    (Lie::Forgets("x-delivery-limit"), Kind::Quorum, &["R12"]),
    (Lie::AcksOne, Kind::Quorum, &["R13"]),
    (Lie::PlainConsumer, Kind::Quorum, &["R14"]),
    (Lie::DropsReturned, Kind::Quorum, &["R15"]),
    (Lie::DropsReturned, Kind::Classic, &["R15"]),
    (Lie::Forgets("x-dead-letter-exchange"), Kind::Quorum, &["R18"]),
    (Lie::Forgets("x-dead-letter-strategy"), Kind::Quorum, &["R19"]),
    (Lie::Refuses, Kind::Quorum, &["R19"]),
    (Lie::OldestFirst, Kind::Quorum, &["R20"]),
    (Lie::Forgets("x-message-ttl"), Kind::Quorum, &["R21"]),
    (Lie::Plain, Kind::Quorum, &["R22"]),
    (Lie::Forgets("x-max-length"), Kind::Quorum, &["R23"]),
    (Lie::Forgets("x-single-active-consumer"), Kind::Quorum, &["R25"]),
    (Lie::PlainConsumer, Kind::Classic, &["R26"]),
    (Lie::Plain, Kind::Classic, &["R27"]),
    (Lie::Doubles, Kind::Quorum, &["R27"]),
    (Lie::NoAlarm, Kind::Quorum, &["R30"]),
    (Lie::OtherKind, Kind::Classic, &["R33"]),
];

/// For one case; one that waits in vain ends here too.
const LIMIT: Duration = Duration::from_secs(15);

/// Runs each lie: those that nobody saw, and the cases that saw none.
pub async fn all(
    url: &str,
    run: &str,
    release: Release,
    runtime: &Arc<dyn Runtime>,
) -> Vec<String> {
    let run = format!("{run}-lies");
    let at = |kind| RealRabbit::at(url, &run, kind, release, runtime.clone());
    let (quorum, classic) = (Arc::new(at(Kind::Quorum).await), Arc::new(at(Kind::Classic).await));
    let told =
        LIES.iter().flat_map(|(lie, kind, ids)| ids.iter().map(move |id| (*lie, *kind, *id)));
    let told = told.map(|(lie, kind, id)| {
        let (truth, kind) = match (kind, lie) {
            (Kind::Classic, Lie::OtherKind) => (quorum.clone(), Kind::Classic),
            (Kind::Classic, _) => (classic.clone(), kind),
            (Kind::Quorum, _) => (quorum.clone(), kind),
        };
        async move {
            let backend = Liar { truth, lie, kind };
            let mut cases = beyond_the_port();
            cases.retain(|case| case.id == id);
            let column =
                run_release(&cases, "", Some(release), &[], &backend, &**runtime, LIMIT).await;
            let verdicts = cases.into_iter().zip(column.verdicts);
            let seen = verdicts.filter(|(_, verdict)| matches!(verdict, Verdict::Differs(_)));
            let seen: Vec<&'static str> = seen.map(|(case, _)| case.statement).collect();
            let wrong = seen.is_empty().then(|| format!("{id} does not see {lie:?} ({kind:?})"));
            (seen, wrong)
        }
    });
    let told = join_all(told).await;
    let seen: BTreeSet<_> = told.iter().flat_map(|(seen, _)| seen).collect();
    let mut wrong: Vec<String> = told.iter().filter_map(|(_, wrong)| wrong.clone()).collect();
    for case in beyond_the_port() {
        if case.is_claimed_of(release) && !seen.contains(&case.statement) {
            wrong.push(format!("{}: no lie is seen by {:?}", case.id, case.statement));
        }
    }
    wrong
}

/// Whether D7 sees a session that has listened before it was told to.
pub async fn early(truth: Arc<RealPostgres>, runtime: &dyn Runtime) -> Option<String> {
    let mut cases = shakedown_conformance::store::cases();
    cases.retain(|case| case.id == "D7");
    let column = run_release(&cases, "", None, &[], &Early { truth }, runtime, LIMIT).await;
    let seen = matches!(column.verdicts[..], [Verdict::Differs(_)]);
    (!seen).then(|| format!("D7 does not see who listens early: {column:?}"))
}

struct Early {
    truth: Arc<RealPostgres>,
}

#[async_trait]
impl StoreBackend for Early {
    fn runtime(&self) -> &dyn Runtime {
        self.truth.runtime()
    }

    fn writers(&self) -> Writers {
        self.truth.writers()
    }

    fn store(&self) -> Arc<dyn Store> {
        self.truth.store()
    }

    async fn flaky(&self) -> Result<Arc<dyn Store>, NotApplicable> {
        self.truth.flaky().await
    }

    async fn losing(&self, loss: Loss, call: BoxFuture<'_, Outcome<()>>) -> Outcome<()> {
        self.truth.losing(loss, call).await
    }

    async fn restart(&self) -> Result<(), Unseen> {
        self.truth.restart().await
    }

    async fn session(&self) -> Result<Box<dyn Session>, Unseen> {
        let session = self.truth.session().await?;
        session.listen("d7").await;
        Ok(session)
    }
}

struct Liar {
    truth: Arc<RealRabbit>,
    lie: Lie,
    kind: Kind,
}

#[async_trait]
impl QueueBackend for Liar {
    fn runtime(&self) -> &dyn Runtime {
        self.truth.runtime()
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn queue(&self) -> Arc<str> {
        self.truth.queue()
    }

    async fn client(&self, name: &str) -> Arc<dyn JobQueue> {
        self.truth.client(name).await
    }

    async fn publish_and_lose_the_link(
        &self,
        batch: Vec<Record>,
        arriving: usize,
    ) -> Result<Vec<Outcome<()>>, NotApplicable> {
        self.truth.publish_and_lose_the_link(batch, arriving).await
    }

    async fn cut(&self, client: &str) -> Result<(), NotApplicable> {
        self.truth.cut(client).await
    }

    async fn bounded(&self, bound: Bound) -> Result<(Arc<str>, Arc<dyn JobQueue>), Unseen> {
        self.truth.bounded(bound).await
    }

    async fn restart(&self) -> Result<(), Unseen> {
        self.truth.restart().await
    }

    async fn alarm(&self, on: bool) -> Result<(), Unseen> {
        if self.lie == Lie::NoAlarm { Ok(()) } else { self.truth.alarm(on).await }
    }

    async fn channel(&self) -> Result<Box<dyn Amqp>, Unseen> {
        let truth = self.truth.channel().await?;
        Ok(Box::new(LyingChannel { truth, lie: self.lie, held: Mutex::default() }))
    }
}

struct LyingChannel {
    truth: Box<dyn Amqp>,
    lie: Lie,
    /// Tags that were delivered.
    held: Mutex<BTreeSet<u64>>,
}

impl LyingChannel {
    fn told(&self, got: Option<Got>) -> Option<Got> {
        let mut got = got?;
        self.held.lock().unwrap().insert(got.tag);
        if self.lie == Lie::OldestFirst {
            got.deaths.reverse();
        }
        Some(got)
    }
}

#[async_trait]
impl Amqp for LyingChannel {
    async fn declare(&self, queue: &str, arguments: &Arguments) -> Outcome<()> {
        let mut arguments = arguments.clone();
        match self.lie {
            Lie::Forgets(name) => drop(arguments.remove(name)),
            Lie::Refuses => drop(arguments.insert("x-overflow", "reject-publish".into())),
            Lie::OtherKind => drop(arguments.insert("x-queue-type", "quorum".into())),
            _ => {}
        }
        self.truth.declare(queue, &arguments).await
    }

    async fn fan_out(&self, exchange: &str, queues: &[Arc<str>]) {
        let all = if self.lie == Lie::FansOutToOne { &queues[..1] } else { queues };
        self.truth.fan_out(exchange, all).await;
    }

    async fn publish(
        &self,
        exchange: &str,
        key: &str,
        mandatory: bool,
        message: Message,
    ) -> Outcome<Confirmed> {
        let mut message = message;
        match self.lie {
            Lie::MakesExchanges if !exchange.is_empty() => self.truth.fan_out(exchange, &[]).await,
            Lie::Plain => message = Message { key: message.key, ..Message::default() },
            Lie::Doubles => {
                self.truth.publish(exchange, key, mandatory, message.clone()).await?;
            }
            _ => {}
        }
        let mandatory = mandatory || self.lie == Lie::Mandatory;
        self.truth.publish(exchange, key, mandatory, message).await
    }

    async fn transact(&self, exchange: &str, key: &str, message: Message) -> Outcome<()> {
        self.truth.transact(exchange, key, message).await
    }

    async fn depth(&self, queue: &str) -> u64 {
        self.truth.depth(queue).await
    }

    async fn get(&self, queue: &str) -> Option<Got> {
        if self.lie == Lie::GetsNothing {
            return None;
        }
        self.told(self.truth.get(queue).await)
    }

    async fn consume(&self, queue: &str, how: Consuming) -> Outcome<()> {
        let how = match self.lie {
            Lie::Prefetches => Consuming { prefetch: how.prefetch.max(1_000), ..how },
            Lie::PlainConsumer => Consuming { prefetch: how.prefetch, ..Consuming::default() },
            _ => how,
        };
        self.truth.consume(queue, how).await
    }

    async fn cancel(&self) {
        self.truth.cancel().await;
        if self.lie == Lie::CancelReturns {
            let held = std::mem::take(&mut *self.held.lock().unwrap());
            for tag in held {
                self.truth.reject(tag, true).await;
            }
        }
    }

    async fn next(&self) -> Option<Got> {
        self.told(self.truth.next().await)
    }

    async fn ack(&self, tag: u64, multiple: bool) {
        self.truth.ack(tag, multiple && self.lie != Lie::AcksOne).await;
    }

    async fn reject(&self, tag: u64, requeue: bool) {
        self.truth.reject(tag, requeue && self.lie != Lie::DropsReturned).await;
    }
}
