//! RabbitMQ's adapter.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join3};
use ports::{Delivered, Fault, JobQueue, QueueSpec, Record, Runtime, timeout};
use rabbit::Rabbit;
use shakedown_conformance::{Case, Observed};

use super::{SOON, soon};
use crate::amqp::RealChannel;
use crate::control::{self, KILL_RABBIT, RABBITMQCTL};
use crate::proxy::Proxy;

pub struct Fire {
    url: String,
    run: String,
    queues: AtomicU32,
    runtime: Arc<dyn Runtime>,
}

/// All cases.
pub fn cases() -> Vec<Case<Fire>> {
    let case = |claim, run: for<'a> fn(&'a Fire) -> Run<'a>| Case::new("", claim, "all", run);
    vec![
        case("goes on after a cut link", |fire| Box::pin(a_cut_link(fire))),
        case("goes on over a slow link", |fire| Box::pin(a_slow_link(fire))),
        case("goes on after the server has ended its connections", |fire| {
            Box::pin(ended_connections(fire))
        }),
        case("goes on after an alarm", |fire| Box::pin(an_alarm(fire))),
        case("goes on after a kill of the server", |fire| Box::pin(a_kill(fire))),
        case("goes on when a missing queue is there again", |fire| Box::pin(a_missing_queue(fire))),
        case("a channel that ends by an error costs itself alone", |fire| {
            Box::pin(a_channel_error(fire))
        }),
        case("whom the server does not know is refused", |fire| Box::pin(an_unknown_user(fire))),
        case("a publish in an alarm ends as unknown", |fire| Box::pin(unknown_by_an_alarm(fire))),
        case("a publish into silence ends as unknown", |fire| Box::pin(unknown_by_silence(fire))),
        case("a declaration whose answer is lost is unknown", |fire| {
            Box::pin(an_unknown_declaration(fire))
        }),
        case("of equal messages some of which came back each is unknown", |fire| {
            Box::pin(some_came_back(fire))
        }),
        case("a settle on a lost link is unknown, or had no effect", |fire| {
            Box::pin(a_settle_on_a_lost_link(fire))
        }),
        case("dropped with messages in flight, it returns what it held", |fire| {
            Box::pin(dropped_in_flight(fire))
        }),
        case("dropped before a silent server, it does not hang", |fire| {
            Box::pin(dropped_in_silence(fire))
        }),
    ]
}

type Run<'a> = futures_util::future::BoxFuture<'a, Observed>;

impl Fire {
    pub fn at(url: &str, run: &str, runtime: Arc<dyn Runtime>) -> Self {
        let (url, run) = (url.to_owned(), format!("{run}-fire"));
        Fire { url, run, queues: AtomicU32::new(0), runtime }
    }

    async fn client(&self) -> (Proxy, Arc<Rabbit>) {
        let (proxy, url) = Proxy::before(&self.url, 5672);
        (proxy, Arc::new(Rabbit::connect(&url).await.unwrap()))
    }

    fn spec(&self) -> QueueSpec {
        let n = self.queues.fetch_add(1, Ordering::Relaxed);
        QueueSpec {
            name: format!("{}-{n}", self.run).into(),
            delivery_limit: 50,
            dead_letters: None,
        }
    }

    async fn declared(&self) -> (Proxy, Arc<Rabbit>, Arc<str>) {
        let (proxy, client) = self.client().await;
        let spec = self.spec();
        client.declare(&spec).await.unwrap();
        (proxy, client, spec.name)
    }

    /// Messages flow from a publisher to a consumer while they are hurt, and soon after; what was
    /// confirmed arrives.
    async fn flow(
        &self,
        client: &Rabbit,
        queue: &Arc<str>,
        hurt: impl Future<Output = Observed>,
    ) -> Observed {
        let flow = Flow::default();
        let publishing = flow.publish(self, client, queue);
        let consuming = flow.consume(self, client, queue);
        let hurting = async {
            self.runtime.sleep(Duration::from_millis(500)).await;
            let hurt = hurt.await;
            if hurt.is_ok() {
                let before = flow.state().confirmed.clone();
                // One that is confirmed from now on has arrived too.
                let new = |state: &State| {
                    let arrived = state.confirmed.difference(&before);
                    arrived.filter(|key| state.arrived.contains(*key)).count() > 0
                };
                let on = timeout(&*self.runtime, SOON, flow.wait(self, new)).await;
                assert!(on.is_some(), "it does not go on: {:?}", flow.state().faults);
            }
            flow.state().closing = true;
            hurt
        };
        let (hurt, (), ()) = join3(hurting, publishing, consuming).await;
        let state = flow.state();
        let lost: Vec<_> = state.confirmed.difference(&state.arrived).collect();
        assert!(lost.is_empty(), "confirmed, and never arrived: {lost:?}");
        hurt
    }
}

fn record(queue: &Arc<str>, key: &str) -> Record {
    let payload = Bytes::from_static(&[b'x'; 256]);
    Record { to: queue.clone(), key: key.into(), headers: vec![], payload }
}

#[derive(Default)]
struct Flow {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    confirmed: BTreeSet<String>,
    arrived: BTreeSet<String>,
    /// The latest, of publishing and of consuming.
    faults: [Option<Fault>; 2],
    /// No new messages.
    closing: bool,
    /// All that were sent are confirmed.
    closed: bool,
}

impl Flow {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn wait(&self, fire: &Fire, enough: impl Fn(&State) -> bool) {
        while !enough(&self.state()) {
            fire.runtime.sleep(Duration::from_millis(20)).await;
        }
    }

    /// Batches of ten; what is not confirmed is published again, under its id.
    async fn publish(&self, fire: &Fire, client: &Rabbit, queue: &Arc<str>) {
        let (mut next, mut open) = (0, BTreeSet::new());
        loop {
            if !self.state().closing {
                open.extend((next..next + 10).map(|n| format!("{n:06}")));
                next += 10;
            } else if open.is_empty() {
                self.state().closed = true;
                return;
            }
            let keys: Vec<String> = open.iter().cloned().collect();
            let batch = keys.iter().map(|key| record(queue, key)).collect();
            for (key, outcome) in keys.into_iter().zip(client.publish(batch).await) {
                match outcome {
                    Ok(()) => {
                        open.remove(&key);
                        self.state().confirmed.insert(key);
                    }
                    Err(fault) => self.state().faults[0] = Some(fault),
                }
            }
            fire.runtime.sleep(Duration::from_millis(20)).await;
        }
    }

    /// Until all that is confirmed has arrived, or for ten seconds after the last one.
    async fn consume(&self, fire: &Fire, client: &Rabbit, queue: &Arc<str>) {
        let all_here = |state: &State| state.closed && state.confirmed.is_subset(&state.arrived);
        loop {
            let consuming = client.consume(queue, 16).await;
            self.state().faults[1] = consuming.as_ref().err().cloned();
            if let Ok(mut channel) = consuming {
                loop {
                    let next = match timeout(&*fire.runtime, SOON, channel.next(16)).await {
                        Some(Ok(Delivered::Batch(batch))) => batch,
                        _ if self.state().closed => return,
                        _ => break,
                    };
                    let tags: Vec<u64> = next.iter().map(|delivery| delivery.tag).collect();
                    let keys = next.iter().map(|delivery| delivery.record.key.to_string());
                    self.state().arrived.extend(keys);
                    let settled = channel.settle(&tags, &[]).await;
                    if all_here(&self.state()) {
                        return;
                    }
                    if settled.is_err() {
                        break;
                    }
                }
            }
            if all_here(&self.state()) {
                return;
            }
            fire.runtime.sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn a_cut_link(fire: &Fire) -> Observed {
    let (proxy, client, queue) = fire.declared().await;
    let cutting = async {
        for _ in 0..3 {
            proxy.limit_requests(Some(2_000));
            fire.runtime.sleep(Duration::from_millis(200)).await;
            proxy.cut();
            fire.runtime.sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    };
    fire.flow(&client, &queue, cutting).await
}

async fn a_slow_link(fire: &Fire) -> Observed {
    let (proxy, client, queue) = fire.declared().await;
    let slowing = async {
        proxy.slow(Duration::from_millis(100));
        fire.runtime.sleep(Duration::from_secs(2)).await;
        Ok(())
    };
    // It stays slow: what goes on goes on over it.
    fire.flow(&client, &queue, slowing).await
}

async fn ended_connections(fire: &Fire) -> Observed {
    let (_proxy, client, queue) = fire.declared().await;
    let ending = control::run(RABBITMQCTL, &["close_all_connections", "a test"]);
    fire.flow(&client, &queue, ending).await
}

async fn alarm(on: bool) -> Observed {
    let watermark = if on { "0.0000001" } else { "0.4" };
    control::run(RABBITMQCTL, &["set_vm_memory_high_watermark", watermark]).await
}

async fn an_alarm(fire: &Fire) -> Observed {
    let (_proxy, client, queue) = fire.declared().await;
    let alarming = async {
        alarm(true).await?;
        fire.runtime.sleep(Duration::from_secs(2)).await;
        alarm(false).await
    };
    fire.flow(&client, &queue, alarming).await
}

async fn a_kill(fire: &Fire) -> Observed {
    let (_proxy, client, queue) = fire.declared().await;
    let killing = async {
        // The server has written down by then that there is this queue.
        fire.runtime.sleep(crate::rabbit::WRITTEN).await;
        control::run(KILL_RABBIT, &[]).await
    };
    fire.flow(&client, &queue, killing).await
}

async fn a_missing_queue(fire: &Fire) -> Observed {
    let (_proxy, client, queue) = fire.declared().await;
    let mut channel = client.consume(&queue, 1).await.unwrap();
    RealChannel::open(&fire.url).await.delete(&queue).await;
    let lost = soon(&*fire.runtime, "its end", channel.next(1)).await;
    assert_eq!(lost, Ok(Delivered::ChannelLost), "the server cancels its consumer");
    let returned = client.publish(vec![record(&queue, "1")]).await;
    assert!(matches!(returned[..], [Err(Fault::Refused(_))]), "{returned:?}");
    let missing = client.consume(&queue, 1).await.err();
    assert!(matches!(missing, Some(Fault::Refused(_))), "{missing:?}");
    let spec = QueueSpec { name: queue.clone(), delivery_limit: 50, dead_letters: None };
    client.declare(&spec).await.unwrap();
    fire.flow(&client, &queue, async { Ok(()) }).await
}

async fn a_channel_error(fire: &Fire) -> Observed {
    let (_proxy, client, queue) = fire.declared().await;
    let other = fire.spec();
    client.declare(&other).await.unwrap();
    let failing = async {
        for _ in 0..5 {
            // Tags that nobody gave out, and a declaration that does not fit.
            let mut channel = client.consume(&other.name, 1).await.unwrap();
            let refused = channel.settle(&[99], &[]).await;
            assert!(matches!(refused, Err(Fault::Refused(_))), "{refused:?}");
            let unlike = QueueSpec { delivery_limit: 51, ..other.clone() };
            let refused = client.declare(&unlike).await;
            assert!(matches!(refused, Err(Fault::Refused(_))), "{refused:?}");
        }
        Ok(())
    };
    fire.flow(&client, &queue, failing).await
}

async fn an_unknown_user(fire: &Fire) -> Observed {
    let (scheme, rest) = fire.url.split_once("://").expect("a URL");
    let server = rest.rsplit_once('@').map_or(rest, |(_, server)| server);
    let url = format!("{scheme}://nobody:wrong@{server}");
    let refused = soon(&*fire.runtime, "an answer", Rabbit::connect(&url)).await.err();
    assert!(matches!(refused, Some(Fault::Refused(_))), "{refused:?}");
    Ok(())
}

/// Longer than the adapter waits for an answer.
const LONG: Duration = Duration::from_secs(25);

async fn unknown_by_an_alarm(fire: &Fire) -> Observed {
    let (_proxy, client, queue) = fire.declared().await;
    alarm(true).await?;
    // The server stops to read behind the first publish that it meets.
    let mut stalled = Some(vec![Ok(())]);
    while stalled == Some(vec![Ok(())]) {
        let publishing = client.publish(vec![record(&queue, "1")]);
        stalled = timeout(&*fire.runtime, LONG, publishing).await;
    }
    let blocked = client.blocked().await;
    alarm(false).await?;
    assert!(matches!(stalled.as_deref(), Some([Err(Fault::Unknown(_))])), "{stalled:?}");
    assert!(blocked, "it says so");
    fire.flow(&client, &queue, async { Ok(()) }).await
}

async fn unknown_by_silence(fire: &Fire) -> Observed {
    let (proxy, client, queue) = fire.declared().await;
    assert_eq!(client.publish(vec![record(&queue, "1")]).await, [Ok(())]);
    proxy.limit_replies(Some(0));
    let lost = timeout(&*fire.runtime, LONG, client.publish(vec![record(&queue, "2")])).await;
    assert!(matches!(lost.as_deref(), Some([Err(Fault::Unknown(_))])), "{lost:?}");
    proxy.cut();
    fire.flow(&client, &queue, async { Ok(()) }).await
}

async fn an_unknown_declaration(fire: &Fire) -> Observed {
    let (proxy, client, _) = fire.declared().await;
    let spec = fire.spec();
    // The end of the channel before is answered by then.
    fire.runtime.sleep(Duration::from_millis(500)).await;
    // A channel is opened first: its answer passes, and little more.
    proxy.limit_replies(Some(CHANNEL_OPEN_OK_BYTES));
    let cutting = async {
        fire.runtime.sleep(Duration::from_secs(1)).await;
        proxy.cut();
    };
    let (declared, ()) = join(client.declare(&spec), cutting).await;
    assert!(matches!(declared, Err(Fault::Unknown(_))), "{declared:?}");
    assert_eq!(soon(&*fire.runtime, "again", client.declare(&spec)).await, Ok(()));
    fire.flow(&client, &spec.name, async { Ok(()) }).await
}

/// A frame of type, channel and size, two numbers of a method, an empty long string, and its end.
const CHANNEL_OPEN_OK_BYTES: usize = 7 + 4 + 4 + 1;

/// Their queue is made while they come, so that the first of them are returned.
async fn some_came_back(fire: &Fire) -> Observed {
    const ALL: usize = 2_000;
    let (proxy, client) = fire.client().await;
    let direct = Rabbit::connect(&fire.url).await.unwrap();
    for round in 1..=10 {
        let spec = fire.spec();
        proxy.slow(Duration::from_millis(5));
        let publishing = client.publish(vec![record(&spec.name, "same"); ALL]);
        let declaring = async {
            fire.runtime.sleep(Duration::from_millis(30 * round)).await;
            direct.declare(&spec).await.unwrap();
        };
        let (outcomes, ()) = join(publishing, declaring).await;
        proxy.slow(Duration::ZERO);
        fire.runtime.sleep(Duration::from_secs(1)).await;
        let kept = direct.depth(&spec.name).await.unwrap() as usize;
        let count = |is: fn(&Fault) -> bool| {
            outcomes.iter().filter(|outcome| outcome.as_ref().is_err_and(is)).count()
        };
        let refused = count(|fault| matches!(fault, Fault::Refused(_)));
        let unknown = count(|fault| matches!(fault, Fault::Unknown(_)));
        // A queue that has not begun yet nacks.
        let done = ALL - refused - unknown - count(|fault| matches!(fault, Fault::Retry(_)));
        match (done, refused, unknown) {
            (done, 0, 0) => assert_eq!(kept, done, "none came back"),
            (0, _, 0) => assert_eq!(kept, 0, "none arrived"),
            (0, 0, unknown) => {
                assert!((1..unknown).contains(&kept), "{kept} of {unknown}");
                return Ok(());
            }
            told => panic!("{kept} arrived; done, refused, unknown: {told:?}"),
        }
    }
    panic!("in no round some arrived and some came back")
}

/// Which comes first, the ack or the news of the end, is a race.
async fn a_settle_on_a_lost_link(fire: &Fire) -> Observed {
    const HELD: u16 = 100;
    let mut seen = [0; 3];
    for round in 0.. {
        let (proxy, client, queue) = fire.declared().await;
        let some = (0..HELD).map(|n| record(&queue, &format!("{n:03}"))).collect();
        assert_eq!(client.publish(some).await, vec![Ok(()); HELD.into()]);
        let mut channel = client.consume(&queue, HELD).await.unwrap();
        let mut tags = Vec::new();
        while tags.len() < HELD.into() {
            let next = soon(&*fire.runtime, "a delivery", channel.next(100)).await;
            let Ok(Delivered::Batch(batch)) = next else { panic!("{next:?}") };
            tags.extend(batch.iter().map(|delivery| delivery.tag));
        }
        proxy.cut();
        for _ in 0..round * 5 {
            tokio::task::yield_now().await;
        }
        let settled = channel.settle(&tags, &[]).await;
        let kind = match &settled {
            Ok(()) => 0,
            Err(Fault::Refused(_)) => 1,
            Err(Fault::Unknown(_)) => 2,
            Err(Fault::Retry(_)) => panic!("some may have arrived: {settled:?}"),
        };
        seen[kind] += 1;
        let direct = Rabbit::connect(&fire.url).await.unwrap();
        let all_back = async {
            while direct.depth(&queue).await != Ok(HELD.into()) {
                fire.runtime.sleep(Duration::from_millis(50)).await;
            }
        };
        match kind {
            1 => soon(&*fire.runtime, "each again", all_back).await,
            2 => break,
            _ => {}
        }
        assert!(round < 100, "done, refused, unknown: {seen:?}");
    }
    Ok(())
}

async fn dropped_in_flight(fire: &Fire) -> Observed {
    let (proxy, client, queue) = fire.declared().await;
    let some = (0..20).map(|n| record(&queue, &format!("{n:02}"))).collect();
    assert_eq!(client.publish(some).await, vec![Ok(()); 20]);
    let mut channel = client.consume(&queue, 8).await.unwrap();
    let Delivered::Batch(held) = channel.next(8).await.unwrap() else { panic!("a delivery") };
    // A publish that never hears anything, dropped as it waits.
    proxy.limit_replies(Some(0));
    let pending = client.publish(vec![record(&queue, "late")]);
    assert_eq!(timeout(&*fire.runtime, Duration::from_millis(200), pending).await, None);
    let begun = fire.runtime.elapsed();
    drop((channel, client));
    assert!(fire.runtime.elapsed() - begun < Duration::from_secs(1), "it hangs");
    drop(proxy);
    let (_proxy, other) = fire.client().await;
    let mut channel = other.consume(&queue, 100).await.unwrap();
    let mut back = BTreeSet::new();
    while back.len() < 20 {
        let next = soon(&*fire.runtime, "what was held", channel.next(100)).await;
        let Ok(Delivered::Batch(batch)) = next else { panic!("{next:?}") };
        let keys = batch.iter().map(|delivery| delivery.record.key.to_string());
        back.extend(keys.filter(|key| key != "late"));
        let tags: Vec<u64> = batch.iter().map(|delivery| delivery.tag).collect();
        channel.settle(&tags, &[]).await.unwrap();
    }
    assert!(held.iter().all(|delivery| back.contains(&*delivery.record.key)));
    Ok(())
}

async fn dropped_in_silence(fire: &Fire) -> Observed {
    let (proxy, client, queue) = fire.declared().await;
    let channel = client.consume(&queue, 8).await.unwrap();
    proxy.limit_requests(Some(0));
    proxy.limit_replies(Some(0));
    let begun = fire.runtime.elapsed();
    drop((channel, client));
    assert!(fire.runtime.elapsed() - begun < Duration::from_secs(1), "it hangs");
    Ok(())
}
