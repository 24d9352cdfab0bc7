//! What a fault does to the call that it meets, seen by a node that writes it into the trace. One node,
//! one fault at a time.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ports::{
    Delivered, Fault, Key, Op, Outcome, Polled, QueueSpec, Record, Reply, Row, Rows, Table,
    TopicSpec, Tx, timeout,
};
use shakedown_sim_engine::{
    Cluster, FaultKind, FaultSpec, Leave, NodePorts, Plan, Settings, Site, Start, System, Verdict,
    When, run_plan, run_twice,
};

static ROWS: Table = Table { name: "rows", index: &[] };

type Body = fn(NodePorts) -> Pin<Box<dyn Future<Output = Outcome<()>> + Send>>;

/// One node that does this.
#[derive(Clone, Copy)]
struct Script(Body);

impl System for Script {
    type Workload = ();

    fn plan(&self, seed: u64) -> Plan<()> {
        Plan { seed, workload: (), faults: Vec::new(), choices: Vec::new() }
    }

    fn settings(&self, (): &()) -> Settings {
        Settings { delay_ms: 2, ..Settings::default() }
    }

    async fn run(&self, (): (), cluster: Cluster) -> Verdict {
        let body = self.0;
        let start = move |ports: NodePorts| {
            Box::pin(async move {
                body(ports).await?;
                let leave: Leave = Box::new(|| Box::pin(async {}));
                Ok(leave)
            }) as _
        };
        cluster.add("node", "rows", Arc::new(start));
        cluster.server_runtime().sleep(Duration::from_secs(40)).await;
        Verdict::default()
    }
}

/// What the node wrote down, under a fault at its `nth` call of a site.
fn told(kind: FaultKind, site: Site, nth: u64, for_ms: u64, body: Body) -> Vec<String> {
    let when = When::Call { site, nth };
    let fault = FaultSpec { kind, node: "node".into(), when, for_ms };
    let plan = Plan { faults: vec![fault], ..Script(body).plan(1) };
    let run = run_twice(&Script(body), &plan);
    assert!(run.verdict.is_clean(), "{:?}", run.verdict.violations);
    assert_eq!(run.effective(), 1, "{kind:?} met {site:?}");
    run.trace.into_iter().filter(|it| it.what == "told").map(|it| it.text).collect()
}

fn word<T>(outcome: &Outcome<T>) -> &'static str {
    match outcome {
        Ok(_) => "ok",
        Err(Fault::Retry(_)) => "retry",
        Err(Fault::Refused(_)) => "refused",
        Err(Fault::Unknown(_)) => "unknown",
    }
}

fn row(key: &str) -> Rows {
    let row = Row { version: 0, index: Vec::new(), body: "{}".to_owned() };
    Rows::from_iter([(Key::from(key), row)])
}

fn keys(all: &[&str]) -> std::collections::BTreeSet<Key> {
    all.iter().map(|key| Key::from(*key)).collect()
}

async fn tell_rows(ports: &NodePorts) -> Outcome<()> {
    let read = Op::Read { table: &ROWS, keys: keys(&["a"]) };
    let replies = loop {
        // The server may be down, or the link cut.
        match ports.store.read(vec![read.clone()]).await {
            Ok(replies) => break replies,
            Err(_) => ports.runtime.sleep(Duration::from_millis(100)).await,
        }
    };
    let Some(Reply::Rows(rows)) = replies.into_iter().next() else { panic!("rows were asked for") };
    let there = rows.values().filter(|row| row.version > 0).count();
    ports.note("told", format!("{there} rows"));
    Ok(())
}

async fn commit(ports: NodePorts) -> Outcome<()> {
    ports.store.prepare(&[&ROWS]).await?;
    let (tx, _) = ports.store.begin(vec![Op::Insert { table: &ROWS, rows: row("a") }]).await?;
    let committed = tx.commit(Vec::new()).await;
    ports.note("told", word(&committed).to_owned());
    tell_rows(&ports).await
}

#[test]
fn a_commit_may_be_unknown_with_its_effect_or_without() {
    let told = |kind| told(kind, Site::Commit, 1, 5_000, |ports| Box::pin(commit(ports)));
    for kind in [FaultKind::LostReply, FaultKind::CutReplies, FaultKind::RestartAfter] {
        assert_eq!(told(kind), ["unknown", "1 rows"], "{kind:?}");
    }
    for kind in [FaultKind::LostRequest, FaultKind::CutRequests, FaultKind::RestartBefore] {
        assert_eq!(told(kind), ["unknown", "0 rows"], "{kind:?}");
    }
    assert_eq!(told(FaultKind::Cut), ["unknown", "0 rows"]);
    assert_eq!(told(FaultKind::Rejected), ["retry", "0 rows"]);
    assert_eq!(told(FaultKind::Slow), ["retry", "0 rows"], "it sat idle for too long");
}

#[test]
fn a_link_that_is_whole_again_in_time_delays_only() {
    let told = told(FaultKind::Cut, Site::Commit, 1, 1_000, |ports| Box::pin(commit(ports)));
    assert_eq!(told, ["ok", "1 rows"]);
}

#[test]
fn a_frozen_node_has_lost_its_transaction_when_it_goes_on() {
    let told = told(FaultKind::Freeze, Site::Commit, 1, 8_000, |ports| Box::pin(commit(ports)));
    assert_eq!(told, ["retry", "0 rows"]);
}

async fn locks(ports: NodePorts) -> Outcome<()> {
    ports.store.prepare(&[&ROWS]).await?;
    let lock = |key| vec![Op::Lock { table: &ROWS, keys: keys(&[key]) }];
    let begun = ports.runtime.elapsed();
    let opened = ports.store.begin(lock("b")).await;
    ports.note("told", format!("begin {}", word(&opened)));
    if let Ok((mut tx, _)) = opened {
        let run = tx.run(lock("a")).await;
        ports.note("told", format!("run {}", word(&run)));
    }
    let slow = ports.runtime.elapsed() - begun > Duration::from_millis(500);
    ports.note("told", if slow { "slow" } else { "at once" }.to_owned());
    Ok(())
}

#[test]
fn rows_that_somebody_has_are_waited_for_as_long_as_the_lock_timeout_allows() {
    let told = |kind, site, for_ms| told(kind, site, 1, for_ms, |ports| Box::pin(locks(ports)));
    let locked = |site, for_ms| told(FaultKind::Locked, site, for_ms);
    assert_eq!(locked(Site::Begin, 1_000), ["begin ok", "run ok", "slow"]);
    assert_eq!(locked(Site::Begin, 9_000), ["begin retry", "slow"]);
    assert_eq!(locked(Site::Run, 9_000), ["begin ok", "run retry", "slow"]);
    let deadlock = told(FaultKind::Deadlock, Site::Run, 9_000);
    assert_eq!(deadlock, ["begin ok", "run retry", "at once"]);
}

fn record(to: &str, key: &str) -> Record {
    Record { to: to.into(), key: key.into(), headers: Vec::new(), payload: Bytes::new() }
}

async fn topic(ports: &NodePorts) -> Outcome<()> {
    ports.log.declare(&[TopicSpec { name: "topic".into(), partitions: 1 }]).await
}

/// Polls are dropped all the time; what came is counted.
async fn hasty(ports: NodePorts) -> Outcome<()> {
    topic(&ports).await?;
    let mut consumer = ports.log.subscribe("group", &["topic".into()]).await?;
    let mut seen = Vec::new();
    for n in 0..200 {
        drop(ports.log.produce(vec![record("topic", "k")]).await);
        let patience = Duration::from_micros(500 + 97 * (n % 60));
        let polled = timeout(&*ports.runtime, patience, consumer.poll(1)).await;
        if let Some(Ok(Polled::Records(records))) = polled {
            seen.extend(records.iter().map(|it| it.offset));
        }
    }
    while seen.len() < 200 {
        match consumer.poll(100).await? {
            Polled::Records(records) if records.is_empty() => break,
            Polled::Records(records) => seen.extend(records.iter().map(|it| it.offset)),
            _ => {}
        }
    }
    let whole = seen.iter().copied().eq(0..200);
    ports.note("told", format!("{} in order: {whole}", seen.len()));
    Ok(())
}

/// Seed 1103 of the shop, and 492 of the ledger.
#[test]
fn a_poll_that_is_dropped_at_any_point_loses_nothing() {
    let told = told(FaultKind::Slow, Site::Produce, 200, 1, |ports| Box::pin(hasty(ports)));
    assert_eq!(told, ["200 in order: true"]);
}

/// When each of two records comes, seconds after the first was sent.
async fn two(ports: NodePorts) -> Outcome<()> {
    topic(&ports).await?;
    let mut consumer = ports.log.subscribe("group", &["topic".into()]).await?;
    for key in ["first", "second"] {
        let sent = ports.log.produce(vec![record("topic", key)]).await;
        ports.note("told", format!("sent {}", word(&sent[0])));
        let begun = ports.runtime.elapsed();
        let within = Duration::from_secs(5);
        let came = timeout(&*ports.runtime, within, async {
            loop {
                match consumer.poll(10).await {
                    Ok(Polled::Records(records)) if !records.is_empty() => return,
                    Ok(_) | Err(_) => {}
                }
            }
        });
        match came.await {
            Some(()) => {
                let s = (ports.runtime.elapsed() - begun).as_secs();
                ports.note("told", format!("came after {s} s"));
            }
            None => ports.note("told", "did not come".to_owned()),
        }
    }
    Ok(())
}

#[test]
fn records_are_refused_without_a_leader_and_invisible_below_the_watermark() {
    let told = |kind, site, nth| told(kind, site, nth, 3_000, |ports| Box::pin(two(ports)));
    let leaderless = told(FaultKind::LeaderChange, Site::Produce, 1);
    assert_eq!(leaderless, ["sent retry", "did not come", "sent ok", "came after 0 s"]);
    // The first poll through the gate is the assignment, the second has the first record.
    let hidden = told(FaultKind::Hidden, Site::Poll, 2);
    assert_eq!(hidden, ["sent ok", "came after 0 s", "sent ok", "came after 2 s"]);
}

async fn jobs(ports: NodePorts) -> Outcome<()> {
    let spec = QueueSpec { name: "jobs".into(), delivery_limit: 20, dead_letters: None };
    ports.queue.declare(&spec).await?;
    let sent = ports.queue.publish(vec![record("jobs", "job")]).await;
    ports.note("told", format!("sent {}", word(&sent[0])));
    for _ in 0..2 {
        let mut channel = loop {
            match ports.queue.consume("jobs", 10).await {
                Ok(channel) => break channel,
                Err(_) => ports.runtime.sleep(Duration::from_millis(200)).await,
            }
        };
        match channel.next(10).await? {
            Delivered::ChannelLost => ports.note("told", "lost".to_owned()),
            Delivered::Batch(batch) => {
                let again = if batch[0].redelivered { "again" } else { "new" };
                let settled = channel.settle(&[batch[0].tag], &[]).await;
                ports.note("told", format!("{again}, ack {}", word(&settled)));
                if settled.is_ok() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

#[test]
fn what_was_in_hand_when_a_channel_went_comes_again_with_its_flag() {
    let told = |kind, for_ms| told(kind, Site::Settle, 1, for_ms, |ports| Box::pin(jobs(ports)));
    assert_eq!(told(FaultKind::ChannelLost, 1), ["sent ok", "new, ack refused", "again, ack ok"]);
    assert_eq!(
        told(FaultKind::RestartBefore, 1_000),
        ["sent ok", "new, ack unknown", "again, ack ok"]
    );
    // Silent for longer than the server's heartbeats allow.
    assert_eq!(told(FaultKind::Freeze, 8_000), ["sent ok", "new, ack refused", "again, ack ok"]);
}

async fn clock(ports: NodePorts) -> Outcome<()> {
    ports.store.prepare(&[&ROWS]).await?;
    let before = (ports.runtime.now(), ports.runtime.elapsed());
    let _: (Box<dyn Tx>, Vec<Reply>) = ports.store.begin(Vec::new()).await?;
    let wall = (ports.runtime.now() - before.0).num_seconds();
    let passed = (ports.runtime.elapsed() - before.1).as_secs();
    ports.note("told", format!("{wall} s by the wall, {passed} s"));
    Ok(())
}

/// A node whose way to leave holds its ports, as any will that says goodbye.
#[derive(Clone)]
struct Holding(Arc<()>);

impl System for Holding {
    type Workload = ();

    fn plan(&self, seed: u64) -> Plan<()> {
        Script(|ports| Box::pin(commit(ports))).plan(seed)
    }

    fn settings(&self, (): &()) -> Settings {
        Settings::default()
    }

    async fn run(&self, (): (), cluster: Cluster) -> Verdict {
        let held = self.0.clone();
        let start = move |ports: NodePorts| {
            let held = (ports, held.clone());
            let leave: Leave = Box::new(|| Box::pin(async move { drop(held) }));
            Box::pin(async move { Ok(leave) }) as _
        };
        let start: Start = Arc::new(start);
        for node in ["killed", "frozen", "running"] {
            cluster.add(node, node, start.clone());
        }
        let (beside, clock) = (self.0.clone(), cluster.clone());
        cluster.aside(async move {
            clock.server_runtime().sleep(Duration::from_secs(60)).await;
            drop(beside);
        });
        cluster.server_runtime().sleep(Duration::from_millis(5)).await;
        cluster.kill("killed", Duration::from_secs(60));
        cluster.freeze("frozen", Duration::from_secs(60));
        Verdict::default()
    }
}

#[test]
fn a_world_leaves_nothing_behind() {
    let system = Holding(Arc::default());
    let run = run_plan(&system, &system.plan(1));
    assert!(run.verdict.is_clean(), "{:?}", run.verdict.violations);
    assert_eq!(Arc::strong_count(&system.0), 1, "somebody of the world is still there");
}

#[test]
fn a_clock_jumps_and_time_passes_as_before() {
    let told = |kind| told(kind, Site::Begin, 1, 60_500, |ports| Box::pin(clock(ports)));
    assert_eq!(told(FaultKind::ClockAhead), ["60 s by the wall, 0 s"]);
    assert_eq!(told(FaultKind::ClockBack), ["-60 s by the wall, 0 s"]);
}
