//! The ledger as a system under test: how a world of it is built, heals, comes to rest and is judged.
//! Never reads a clock but the world's.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ports::{EventLog, JobQueue, Outcome, QueueSpec, TopicSpec};
use sim_engine::{
    Cluster, Leave, NodePorts, Plan, Settings, Settled, Smaller, Start, Summary, System, Verdict,
    Violation,
};
use tokio::sync::oneshot;

use crate::disk::{Disk, Mounted};
use crate::entry::{ENTRIES, Entry, RECEIPTS};
use crate::ledger::{GROUP, Ledger};
use crate::printer::Printer;
use crate::verdict::{INVARIANTS, judge};
use crate::workload::{Transfer, Workload, draw};

/// After the faults have ended, nothing is left to do within this time: a session (6 s), the rebalance
/// behind it (5 s at most), both once more, and a few calls.
pub const QUIET_WITHIN: Duration = Duration::from_secs(30);

/// A change of what nodes run on: none in the worlds of [`System::run`], a harmless edit in tests.
pub type Edit = Arc<dyn Fn(NodePorts) -> NodePorts + Send + Sync>;

/// The ledger as a system.
#[derive(Debug, Clone, Copy, Default)]
pub struct LedgerSystem {
    /// Whether its plans have the planted bug.
    pub ack_first: bool,
}

impl System for LedgerSystem {
    type Workload = Workload;

    fn plan(&self, seed: u64) -> Plan<Workload> {
        draw(seed, self.ack_first)
    }

    fn settings(&self, _: &Workload) -> Settings {
        let mut settings = Settings { delay_ms: 4, skew_ms: 2_000, ..Settings::default() };
        settings.log.session_timeout = Duration::from_secs(6);
        settings.log.heartbeat = Duration::from_secs(2);
        settings.log.max_poll_interval = Duration::from_secs(5);
        settings
    }

    async fn run(&self, workload: Workload, cluster: Cluster) -> Verdict {
        self.run_edited(workload, cluster, Arc::new(|ports| ports)).await
    }

    fn program(&self) -> &'static str {
        if self.ack_first { "sim-ledger --ack-first" } else { "sim-ledger" }
    }

    fn invariants(&self) -> Vec<&'static str> {
        INVARIANTS.to_vec()
    }

    fn plans(&self) -> PathBuf {
        "fixtures/ledger".into()
    }

    fn smaller(&self, workload: &Workload) -> Vec<Smaller<Workload>> {
        let without = |at: usize| {
            let mut workload = workload.clone();
            Smaller { without: workload.transfers.remove(at).id, workload }
        };
        (0..workload.transfers.len()).map(without).collect()
    }
}

impl LedgerSystem {
    /// A world whose nodes run on edited ports.
    pub async fn run_edited(&self, workload: Workload, cluster: Cluster, edit: Edit) -> Verdict {
        let (disk, runtime) = (Disk::default(), cluster.server_runtime());
        let log = cluster.log().client("teller", runtime.clone());
        let queue = cluster.queue().client("teller", runtime.clone());
        let entries = TopicSpec { name: ENTRIES.into(), partitions: 3 };
        let receipts =
            QueueSpec { name: RECEIPTS.into(), delivery_limit: 1_000, dead_letters: None };
        log.declare(&[entries]).await.expect("a new server has no other topic");
        queue.declare(&receipts).await.expect("a new server has no other queue");
        let mut nodes: Vec<String> = (0..workload.ledgers).map(|n| format!("ledger#{n}")).collect();
        for node in &nodes {
            cluster.add(node, "none", ledger(disk.clone(), workload.ack_first, edit.clone()));
        }
        nodes.push("printer#0".to_owned());
        cluster.add("printer#0", "none", printer(disk.clone(), workload.ack_first, edit));

        let until = async |at_ms| {
            runtime.sleep(Duration::from_millis(at_ms).saturating_sub(cluster.elapsed())).await;
        };
        for transfer in &workload.transfers {
            until(transfer.at_ms).await;
            for entry in transfer.entries() {
                let times = 1 + usize::from(transfer.repeated);
                let sent = log.produce(vec![entry.record(); times]).await;
                assert!(
                    sent.iter().all(Outcome::is_ok),
                    "the teller's own link is whole: {sent:?}"
                );
                cluster.note("teller", "sent", format!("{} {times}x", entry.id));
            }
        }
        until(workload.heal_ms).await;
        cluster.heal();
        let (healed, mut violations) = (cluster.elapsed(), Vec::new());
        while let Some(left) = left(&cluster, &nodes) {
            if cluster.elapsed() - healed > QUIET_WITHIN {
                violations.push(Violation::new("ledger.comes_to_rest", "", left));
                break;
            }
            runtime.sleep(Duration::from_millis(100)).await;
        }
        let settled = Settled { took: cluster.elapsed() - healed, bound: QUIET_WITHIN };
        let sent: Vec<Entry> = workload.transfers.iter().flat_map(Transfer::entries).collect();
        violations.extend(judge(&sent, &disk.kept()));
        let mut summary =
            Summary { invariants: INVARIANTS.len(), settled: Some(settled), ..Summary::default() };
        summary.mark("entries booked", disk.kept().booked.len() as u64);
        summary.mark("receipts filed", disk.kept().filed.len() as u64);
        let line = |(account, balance): (&String, &i64)| format!("{account} {balance}");
        summary.lines = disk.kept().balances.iter().map(line).collect();
        Verdict { summary, violations }
    }
}

/// What is left to do, if anything.
fn left(cluster: &Cluster, nodes: &[String]) -> Option<String> {
    let down = nodes.iter().filter(|node| !cluster.is_up(node)).count();
    let lag = cluster.log().with(|log| log.lag(GROUP, ENTRIES));
    let jobs =
        cluster.queue().with(|it, _| it.ready(RECEIPTS).count() + it.unacked_of(RECEIPTS).count());
    let rests = down == 0 && lag == 0 && jobs == 0;
    (!rests).then(|| format!("{down} nodes down, {lag} entries and {jobs} receipts left"))
}

fn ledger(disk: Disk, ack_first: bool, edit: Edit) -> Start {
    Arc::new(move |ports| {
        let (disk, edit) = (disk.clone(), edit.clone());
        Box::pin(async move {
            let ports = edit(ports);
            let books = Arc::new(Mounted { disk, ports: ports.clone() });
            let NodePorts { log, queue, runtime, .. } = ports.clone();
            let ledger = Ledger { log, queue, runtime, books, ack_first };
            let consumer = ledger.join().await?;
            run(&ports, "ledger", |stop| ledger.run(consumer, stop))
        })
    })
}

fn printer(disk: Disk, ack_first: bool, edit: Edit) -> Start {
    Arc::new(move |ports| {
        let (disk, edit) = (disk.clone(), edit.clone());
        Box::pin(async move {
            let ports = edit(ports);
            let files = Arc::new(Mounted { disk, ports: ports.clone() });
            let NodePorts { queue, runtime, .. } = ports.clone();
            let printer = Printer { queue, runtime, files, ack_first };
            run(&ports, "printer", |stop| printer.run(stop))
        })
    })
}

/// Spawns a node's loop, and gives the way to ask it to leave.
fn run<F>(
    ports: &NodePorts,
    name: &'static str,
    code: impl FnOnce(Arc<AtomicBool>) -> F,
) -> Outcome<Leave>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (stop, (done, ended)) = (Arc::new(AtomicBool::new(false)), oneshot::channel::<()>());
    let code = code(stop.clone());
    ports.runtime.spawn(
        name,
        Box::pin(async move {
            code.await;
            drop(done);
        }),
    );
    Ok(Box::new(move || {
        Box::pin(async move {
            stop.store(true, Ordering::Relaxed);
            // An error: the loop has ended, and its sender is dropped.
            let _ = ended.await;
        })
    }))
}
