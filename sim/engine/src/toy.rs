//! A system for the engine's own tests: a writer that sends numbered records, a reader that keeps each
//! in a row. It loses one where the workload says so.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ports::{EventLog, Key, Op, Outcome, Polled, Record, Row, Rows, Table, TopicSpec};
use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, Leave, NodePorts, Settings};
use crate::fault::{FaultKind, FaultSpec, Site, When};
use crate::outcome::{Settled, Verdict, Violation};
use crate::system::{Plan, Scene, Smaller, System};

/// A world that loses this number panics.
pub(crate) const PANICS: u32 = u32::MAX;

static KEPT: Table = Table { name: "kept", index: &[] };

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sends {
    pub(crate) numbers: Vec<u32>,
    /// The reader forgets this one.
    pub(crate) lost: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Toy;

impl System for Toy {
    type Workload = Sends;

    /// Every seventh seed loses a record; each has a fault that is met and one that is not.
    fn plan(&self, seed: u64) -> Plan<Sends> {
        let fault = |nth| FaultSpec {
            kind: FaultKind::Slow,
            node: "writer".to_owned(),
            when: When::Call { site: Site::Produce, nth },
            for_ms: 30,
        };
        let lost = (seed % 7 == 6).then_some(3);
        let workload = Sends { numbers: (0..6).collect(), lost };
        Plan { seed, workload, faults: vec![fault(1), fault(1_000)], choices: Vec::new() }
    }

    fn settings(&self, _workload: &Sends) -> Settings {
        Settings::default()
    }

    async fn run(&self, workload: Sends, cluster: Cluster) -> Verdict {
        assert_ne!(workload.lost, Some(PANICS), "as it was asked to");
        let topic: Arc<str> = "numbers".into();
        let clock = cluster.server_runtime();
        let spec = TopicSpec { name: topic.clone(), partitions: 1 };
        cluster.log().client("world", clock).declare(&[spec]).await.expect("declared");
        let (sends, wanted) = (workload.clone(), workload.numbers.len());
        let writer = move |ports: NodePorts| boxed(write(ports, sends.clone()));
        cluster.add("writer", "writer", Arc::new(writer));
        let lost = workload.lost;
        let reader = move |ports: NodePorts| boxed(read(ports, lost));
        cluster.add("reader", "reader", Arc::new(reader));
        madsim::time::sleep(Duration::from_secs(5 + wanted as u64 / 80)).await;
        cluster.heal();
        let kept = cluster.database("reader").with(|db| db.rows(&KEPT).count());
        let mut verdict = Verdict::default();
        verdict.summary.mark("kept", kept as u64);
        let took = Duration::from_secs(1);
        verdict.summary.settled = Some(Settled { took, bound: Duration::from_secs(4) });
        if kept < wanted {
            let text = format!("{kept} of {wanted} are kept");
            verdict.violations.push(Violation::new("numbers.kept", "number-3", text));
        }
        verdict
    }

    fn scenarios(&self) -> Vec<Scene<Sends>> {
        let (name, claim) = ("numbers.lost".to_owned(), "a lost number is noticed".to_owned());
        vec![Scene { name, claim, plan: self.plan(6), snapshot: "snapshots/numbers.snap".into() }]
    }

    fn smaller(&self, workload: &Sends) -> Vec<Smaller<Sends>> {
        let without = |at: usize| {
            let mut workload = workload.clone();
            let without = format!("number {}", workload.numbers.remove(at));
            Smaller { without, workload }
        };
        (0..workload.numbers.len()).map(without).collect()
    }

    /// A folder of this process alone.
    fn failures(&self) -> PathBuf {
        std::env::temp_dir().join(format!("toy-failures-{}", std::process::id()))
    }

    fn label(&self, record: &Record) -> Option<String> {
        Some(format!("a number on {}", record.to))
    }
}

type Started = std::pin::Pin<Box<dyn Future<Output = Outcome<Leave>> + Send>>;

fn boxed(started: impl Future<Output = Outcome<Leave>> + Send + 'static) -> Started {
    Box::pin(started)
}

async fn write(ports: NodePorts, sends: Sends) -> Outcome<Leave> {
    for number in sends.numbers {
        let payload = Bytes::from(format!("{{\"id\":\"number-{number}\"}}"));
        let key: Key = number.to_string().into();
        let record = Record { to: "numbers".into(), key, headers: Vec::new(), payload };
        while ports.log.produce(vec![record.clone()]).await != [Ok(())] {}
    }
    Ok(Box::new(|| Box::pin(async {})))
}

async fn read(ports: NodePorts, lost: Option<u32>) -> Outcome<Leave> {
    ports.store.prepare(&[&KEPT]).await?;
    let mut consumer = ports.log.subscribe("readers", &["numbers".into()]).await?;
    loop {
        let Polled::Records(records) = consumer.poll(10).await? else { continue };
        for fetched in records {
            if lost.is_some_and(|lost| *fetched.record.key == *lost.to_string()) {
                continue;
            }
            let id: Key = format!("number-{}", fetched.record.key).into();
            let rows = Rows::from_iter([(id, Row::default())]);
            let (tx, _) = ports.store.begin(vec![Op::Insert { table: &KEPT, rows }]).await?;
            tx.commit(Vec::new()).await?;
            let next = ports::Offsets::from([(fetched.partition, fetched.offset + 1)]);
            consumer.commit(&next).await?;
        }
    }
}
