//! A test for each statement of the broker contract that the queue model keeps.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use ports::{Delivered, Delivery, Fault, JobQueue, QueueSpec, Record, Runtime, Task};

use super::{ChannelId, Effect, QueueServer, Queues, Settings, Version};

const T0: Duration = Duration::ZERO;

fn spec(limit: u32) -> QueueSpec {
    QueueSpec { name: "jobs".into(), delivery_limit: limit, dead_letters: Some("jobs.dead".into()) }
}

fn job(key: &str) -> Record {
    Record { to: "jobs".into(), key: key.into(), headers: vec![], payload: Bytes::new() }
}

fn server(limit: u32) -> Queues {
    server_of(limit, Settings::default())
}

fn server_of(limit: u32, settings: Settings) -> Queues {
    let mut queues = Queues::new(settings);
    queues.declare(&spec(limit)).unwrap();
    queues
}

fn publish(queues: &mut Queues, keys: &str) {
    for key in keys.chars() {
        queues.publish(job(&key.to_string()), T0).unwrap();
    }
}

fn open(queues: &mut Queues, prefetch: u16) -> ChannelId {
    queues.consume("worker", "jobs", prefetch, T0).unwrap()
}

fn keys(deliveries: &[Delivery]) -> String {
    deliveries.iter().map(|delivery| &*delivery.record.key).collect()
}

fn ready(queues: &Queues, queue: &str) -> String {
    queues.ready(queue).map(|message| &*message.record.key).collect()
}

fn text(record: &Record, name: &str) -> Option<String> {
    let value = record.headers.iter().find(|(header, _)| &**header == name)?;
    Some(String::from_utf8_lossy(&value.1).into_owned())
}

fn is_refused<T>(outcome: Result<T, Fault>, part: &str) -> bool {
    matches!(outcome, Err(Fault::Refused(cause)) if cause.0.contains(part))
}

#[test]
fn declare_again_needs_the_same_arguments() {
    let mut queues = server(3);
    assert_eq!(queues.declare(&spec(3)), Ok(()));
    assert!(is_refused(queues.declare(&spec(4)), "PRECONDITION_FAILED"));
    let other = QueueSpec { name: "other".into(), dead_letters: Some("jobs".into()), ..spec(1) };
    assert!(is_refused(queues.declare(&other), "PRECONDITION_FAILED"));
    assert_eq!(queues.depth("other"), None, "a refused declaration declares nothing");
    assert_eq!(queues.declared(), [spec(3)]);
    let own = QueueSpec { dead_letters: Some("x".into()), name: "x".into(), delivery_limit: 1 };
    assert!(is_refused(queues.declare(&own), "its own"));
}

#[test]
fn r2_each_publish_has_its_own_outcome() {
    let mut queues = server(3);
    let lost = Record { to: "nowhere".into(), ..job("b") };
    let outcomes = [job("a"), lost, job("c")].map(|record| queues.publish(record, T0).is_ok());
    assert_eq!(outcomes, [true, false, true]);
    assert_eq!(ready(&queues, "jobs"), "ac");
}

#[test]
fn r4_mandatory_to_a_missing_queue_is_returned() {
    let mut queues = Queues::new(Settings::default());
    assert!(is_refused(queues.publish(job("a"), T0), "returned"));
    assert!(is_refused(queues.consume("worker", "jobs", 1, T0), "NOT_FOUND"));
}

#[test]
fn r7_a_settled_or_unknown_tag_closes_the_channel() {
    for (acked, rejected) in [(&[1, 1][..], &[][..]), (&[9], &[]), (&[1], &[1])] {
        let mut queues = server(3);
        publish(&mut queues, "ab");
        let channel = open(&mut queues, 10);
        queues.take(channel, 10).unwrap();
        assert!(is_refused(queues.settle(channel, acked, rejected, T0), "PRECONDITION_FAILED"));
        assert_eq!(queues.take(channel, 1), None);
        assert!(is_refused(queues.settle(channel, &[2], &[], T0), "closed"));
        assert!(ready(&queues, "jobs").ends_with('b'), "what was unacked is back");
    }
}

#[test]
fn r7_tags_start_at_1_on_each_channel() {
    let mut queues = server(3);
    publish(&mut queues, "ab");
    for _ in 0..2 {
        let channel = open(&mut queues, 1);
        assert_eq!(queues.take(channel, 1).unwrap()[0].tag, 1);
    }
}

#[test]
fn r8_a_closed_channel_requeues_before_what_was_never_delivered() {
    let mut queues = server(3);
    publish(&mut queues, "abcd");
    let first = open(&mut queues, 3);
    let seen = queues.take(first, 2).unwrap();
    assert!(seen.iter().all(|delivery| !delivery.redelivered && delivery.returns == 0));
    queues.close(first, T0);
    assert_eq!(ready(&queues, "jobs"), "abcd");
    let second = open(&mut queues, 10);
    let again = queues.take(second, 10).unwrap();
    assert_eq!(keys(&again), "abcd");
    let told: Vec<_> = again.iter().map(|d| (d.redelivered, d.returns)).collect();
    assert_eq!(told, [(true, 1), (true, 1), (true, 1), (false, 0)], "c was prefetched (R17)");
}

#[test]
fn r10_returns_come_first_in_the_order_they_came_back() {
    let mut queues = server(3);
    publish(&mut queues, "abcd");
    let (one, two) = (open(&mut queues, 1), open(&mut queues, 2));
    assert_eq!(keys(&queues.take(one, 9).unwrap()), "a");
    assert_eq!(keys(&queues.take(two, 9).unwrap()), "bc");
    queues.close(two, T0);
    queues.close(one, T0);
    assert_eq!(ready(&queues, "jobs"), "bcad");
}

#[test]
fn r8_a_killed_client_loses_all_its_channels_and_no_other() {
    let mut queues = server(3);
    publish(&mut queues, "abc");
    let mine = [open(&mut queues, 1), open(&mut queues, 1)];
    let other = queues.consume("other", "jobs", 1, T0).unwrap();
    assert_eq!(queues.disconnect("worker", T0), 2);
    assert_eq!(mine.map(|channel| queues.held(channel)), [None, None]);
    assert_eq!(queues.held(other), Some(1));
    assert_eq!(ready(&queues, "jobs"), "ab");
    let held: Vec<_> = queues.unacked_of("jobs").map(|(client, _)| &**client).collect();
    assert_eq!(held, ["other"]);
}

#[test]
fn r12_prefetch_bounds_each_consumer_and_they_take_turns() {
    let mut queues = server(3);
    let one = open(&mut queues, 2);
    let two = open(&mut queues, 2);
    publish(&mut queues, "abcdef");
    assert_eq!(keys(&queues.take(one, 10).unwrap()), "ac");
    assert_eq!(keys(&queues.take(two, 10).unwrap()), "bd");
    assert_eq!(ready(&queues, "jobs"), "ef");
    queues.settle(two, &[1], &[], T0).unwrap();
    assert_eq!(keys(&queues.take(two, 10).unwrap()), "e");
    assert_eq!((queues.held(one), queues.held(two)), (Some(2), Some(2)));
}

#[test]
fn r12_a_quorum_queue_caps_the_prefetch() {
    let mut queues = server(3);
    for n in 0..2_100 {
        queues.publish(job(&n.to_string()), T0).unwrap();
    }
    let channel = open(&mut queues, 0);
    assert_eq!(queues.held(channel), Some(2_000));
}

#[test]
fn r15_beyond_the_delivery_limit_is_a_dead_letter() {
    let mut queues = server(2);
    publish(&mut queues, "a");
    for _ in 0..2 {
        let channel = open(&mut queues, 1);
        queues.close(channel, T0);
        assert_eq!(ready(&queues, "jobs"), "a", "within the limit");
    }
    let channel = open(&mut queues, 1);
    assert_eq!(queues.take(channel, 1).unwrap()[0].returns, 2);
    queues.requeue(channel, &[1], T0).unwrap();
    assert_eq!((ready(&queues, "jobs").as_str(), ready(&queues, "jobs.dead").as_str()), ("", "a"));
    let dead = queues.ready("jobs.dead").next().unwrap();
    assert_eq!(text(&dead.record, "x-death").as_deref(), Some("delivery_limit 1 jobs"));
}

#[test]
fn r15_dead_letters_have_no_limit() {
    let mut queues = server_of(0, Settings { version: Version::V3_10, ..Settings::default() });
    publish(&mut queues, "a");
    let channel = open(&mut queues, 1);
    queues.settle(channel, &[], &[1], T0).unwrap();
    for returns in 0..50 {
        let channel = queues.consume("worker", "jobs.dead", 1, T0).unwrap();
        assert_eq!(queues.take(channel, 1).unwrap()[0].returns, returns);
        queues.close(channel, T0);
    }
}

#[test]
fn r16_returns_that_count_depend_on_the_release() {
    let returns = |version, end: &dyn Fn(&mut Queues, ChannelId)| {
        let mut queues = server_of(9, Settings { version, ..Settings::default() });
        publish(&mut queues, "a");
        let channel = open(&mut queues, 1);
        end(&mut queues, channel);
        let message = queues.ready("jobs").next().unwrap();
        assert!(message.redelivered);
        message.returns
    };
    for (version, timed_out) in [(Version::V3_10, 1), (Version::V4_0, 1), (Version::V4_3, 0)] {
        assert_eq!(returns(version, &|queues, channel| queues.close(channel, T0)), 1);
        let expire = |queues: &mut Queues, _: ChannelId| {
            assert_eq!(queues.expire(Duration::from_secs(1_800)), 1);
        };
        assert_eq!(returns(version, &expire), timed_out, "{version:?}");
    }
}

#[test]
fn r16_a_reject_with_requeue_counts() {
    let mut queues = server(3);
    publish(&mut queues, "ab");
    let channel = open(&mut queues, 2);
    queues.take(channel, 2).unwrap();
    queues.requeue(channel, &[1], T0).unwrap();
    let again = queues.take(channel, 2).unwrap();
    assert_eq!((keys(&again).as_str(), again[0].tag, again[0].returns), ("a", 3, 1));
    assert!(again[0].redelivered);
}

#[test]
fn r20_a_rejected_message_says_where_and_why_it_died() {
    let mut queues = server(3);
    let mut record = job("a");
    record.headers =
        vec![("x-death".into(), Bytes::from("from a client")), ("h".into(), Bytes::new())];
    queues.publish(record, T0).unwrap();
    let channel = open(&mut queues, 1);
    queues.settle(channel, &[], &[1], T0).unwrap();
    let dead = &queues.ready("jobs.dead").next().unwrap().record;
    assert_eq!(&*dead.to, "jobs.dead");
    assert_eq!(text(dead, "x-death").as_deref(), Some("rejected 1 jobs"));
    assert_eq!(text(dead, "x-first-death-reason").as_deref(), Some("rejected"));
    assert_eq!(text(dead, "x-first-death-queue").as_deref(), Some("jobs"));
    assert_eq!(dead.headers.len(), 4, "the client's own x-death is gone");
}

#[test]
fn r23_a_full_queue_nacks_and_what_is_held_is_not_in_it() {
    let mut queues = server_of(0, Settings { max_length: 2, ..Settings::default() });
    publish(&mut queues, "ab");
    assert!(matches!(queues.publish(job("c"), T0), Err(Fault::Retry(_))));
    let channel = open(&mut queues, 1);
    publish(&mut queues, "c");
    // Nothing that was accepted is turned away later: a return may overfill it, a death too.
    queues.close(channel, T0);
    assert_eq!((ready(&queues, "jobs").as_str(), queues.depth("jobs.dead")), ("bc", Some(1)));
    let channel = open(&mut queues, 1);
    queues.settle(channel, &[], &[1], T0).unwrap();
    queues.close(channel, T0);
    assert_eq!(queues.depth("jobs.dead"), Some(3), "dead letters have no bound");
}

#[test]
fn r24_the_ack_timeout_closes_the_channel() {
    let ack_timeout = Duration::from_secs(60);
    let mut queues = server_of(3, Settings { ack_timeout, ..Settings::default() });
    publish(&mut queues, "a");
    let idle = open(&mut queues, 1);
    assert_eq!(queues.next_expiry(), Some(ack_timeout));
    assert_eq!(queues.expire(ack_timeout - Duration::from_millis(1)), 0);
    queues.settle(idle, &[1], &[], T0).unwrap();
    assert_eq!((queues.next_expiry(), queues.expire(ack_timeout)), (None, 0));
    publish(&mut queues, "b");
    assert_eq!(queues.expire(ack_timeout), 1);
    assert_eq!(queues.take(idle, 1), None);
    assert_eq!(ready(&queues, "jobs"), "b");
}

#[test]
fn r28_one_consumer_without_returns_sees_the_order_of_publishing() {
    let mut queues = server(3);
    let channel = open(&mut queues, 2);
    let mut seen = String::new();
    publish(&mut queues, "abc");
    for key in "defghi".chars() {
        publish(&mut queues, &key.to_string());
        let taken = queues.take(channel, 1).unwrap();
        seen += &keys(&taken);
        queues.settle(channel, &[taken[0].tag], &[], T0).unwrap();
    }
    assert_eq!(seen, "abcdef");
    assert_eq!(queues.held(channel), Some(2));
}

#[test]
fn r33_what_a_dead_letter_tells_depends_on_the_release() {
    // Of one that was returned, lost its channel and was then rejected; and of it after a return.
    let rejected = |version| {
        let mut queues = server_of(9, Settings { version, ..Settings::default() });
        publish(&mut queues, "a");
        let channel = open(&mut queues, 1);
        queues.requeue(channel, &[1], T0).unwrap();
        queues.close(channel, T0);
        let channel = open(&mut queues, 1);
        queues.settle(channel, &[], &[1], T0).unwrap();
        let dead = queues.consume("worker", "jobs.dead", 1, T0).unwrap();
        let first = queues.take(dead, 1).unwrap().remove(0);
        queues.requeue(dead, &[1], T0).unwrap();
        let second = queues.take(dead, 1).unwrap().remove(0);
        [first, second].map(|delivery| (delivery.redelivered, delivery.returns))
    };
    assert_eq!(rejected(Version::V3_10), [(false, 0), (true, 1)]);
    assert_eq!(rejected(Version::V4_0), [(true, 2), (true, 1)], "a return is no failure");
    assert_eq!(rejected(Version::V4_3), [(true, 3), (true, 4)]);
    // Of one whose client returned it too often: nothing failed.
    let returned = |version| {
        let mut queues = server_of(0, Settings { version, ..Settings::default() });
        publish(&mut queues, "a");
        let channel = open(&mut queues, 1);
        queues.requeue(channel, &[1], T0).unwrap();
        let dead = queues.consume("worker", "jobs.dead", 1, T0).unwrap();
        let first = queues.take(dead, 1).unwrap().remove(0);
        (first.redelivered, first.returns)
    };
    assert_eq!(returned(Version::V3_10), (false, 0));
    assert_eq!(returned(Version::V4_0), (false, 0));
    assert_eq!(returned(Version::V4_3), (true, 1));
}

#[test]
fn a_journal_stores_first_and_inserts_then() {
    let mut queues = server_of(0, Settings { journaled: true, ..Settings::default() });
    let channel = open(&mut queues, 10);
    let id = queues.reserve("jobs").unwrap();
    publish(&mut queues, "b");
    assert_eq!(keys(&queues.take(channel, 10).unwrap()), "b", "a reserved one is not visible");
    let late = super::Message { id, record: job("a"), redelivered: false, returns: 0, failures: 0 };
    queues.insert(late, T0).unwrap();
    assert_eq!(keys(&queues.take(channel, 10).unwrap()), "a");
    assert_eq!(queues.effects(), []);
    queues.settle(channel, &[1], &[2], T0).unwrap();
    let effects = queues.effects();
    assert_eq!(queues.depth("jobs.dead"), Some(0), "not before the journal has it");
    let [Effect::Deleted { id: 2 }, Effect::DeadLettered { from: 1, message }] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    queues.insert(message.clone(), T0).unwrap();
    assert_eq!(ready(&queues, "jobs.dead"), "a");
}

/// A clock that the test moves; a sleep ends when it is polled late enough.
#[derive(Default)]
struct Clock(Mutex<Duration>);

#[async_trait::async_trait]
impl Runtime for Clock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }
    fn elapsed(&self) -> Duration {
        *self.0.lock().unwrap()
    }
    async fn sleep(&self, duration: Duration) {
        let end = self.elapsed() + duration;
        std::future::poll_fn(|_| match self.elapsed() >= end {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await
    }
    fn spawn(&self, _: &'static str, _: Task) {}
    fn choose(&self, _: &'static str, _: &str, _: u64) -> u64 {
        0
    }
    fn block(&self, work: &mut dyn FnMut()) {
        work();
    }
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn done<F: Future>(future: F) -> F::Output {
    match poll(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

fn client(clock: &Arc<Clock>) -> (QueueServer, impl JobQueue) {
    let server = QueueServer::new(Settings::default(), clock.clone());
    let client = server.client("worker", clock.clone());
    done(client.declare(&spec(3))).unwrap();
    (server, client)
}

#[test]
fn a_client_waits_takes_settles_and_loses_its_channel() {
    let clock = Arc::new(Clock::default());
    let (server, client) = client(&clock);
    let mut deliveries = done(client.consume("jobs", 2)).unwrap();
    {
        let mut next = pin!(deliveries.next(0));
        assert!(poll(next.as_mut()).is_pending());
        assert_eq!(done(client.publish(vec![job("a")])), [Ok(())]);
        let Poll::Ready(Ok(Delivered::Batch(batch))) = poll(next) else { panic!("no delivery") };
        assert_eq!(keys(&batch), "a");
    }
    assert_eq!(done(deliveries.settle(&[1], &[])), Ok(()));
    assert_eq!(done(client.depth("jobs")), Ok(0));
    assert!(is_refused(done(client.depth("nowhere")), "NOT_FOUND"));
    let mut next = pin!(deliveries.next(1));
    assert!(poll(next.as_mut()).is_pending());
    assert_eq!(server.disconnect("worker"), 1);
    assert_eq!(poll(next), Poll::Ready(Ok(Delivered::ChannelLost)));
}

#[test]
fn a_dropped_channel_requeues_and_a_dropped_wait_loses_nothing() {
    let clock = Arc::new(Clock::default());
    let (server, client) = client(&clock);
    let mut deliveries = done(client.consume("jobs", 1)).unwrap();
    assert!(poll(pin!(deliveries.next(1))).is_pending());
    done(client.publish(vec![job("a")])).remove(0).unwrap();
    assert!(matches!(done(deliveries.next(1)), Ok(Delivered::Batch(_))));
    assert_eq!(done(client.depth("jobs")), Ok(0));
    drop(deliveries);
    assert_eq!(done(client.depth("jobs")), Ok(1));
    assert!(server.with(|queues, _| queues.ready("jobs").all(|message| message.redelivered)));
}

#[test]
fn r24_a_waiting_client_notices_the_ack_timeout() {
    let clock = Arc::new(Clock::default());
    let (_server, client) = client(&clock);
    let mut deliveries = done(client.consume("jobs", 1)).unwrap();
    done(client.publish(vec![job("a")])).remove(0).unwrap();
    done(deliveries.next(1)).unwrap();
    let mut next = pin!(deliveries.next(1));
    assert!(poll(next.as_mut()).is_pending());
    *clock.0.lock().unwrap() += Duration::from_secs(1_800);
    assert_eq!(poll(next), Poll::Ready(Ok(Delivered::ChannelLost)));
    assert_eq!(done(client.depth("jobs")), Ok(1));
}
