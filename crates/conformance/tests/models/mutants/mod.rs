//! Backends that break one statement each: the case must differ there, else it could not fail
//! anywhere. Each is a model behind a wrapper that lies.

pub mod log;
pub mod queue;
pub mod store;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, join4};
use model::queue::Version;
use model::store::Settings;
use ports::Runtime;
use shakedown_conformance::{Case, Verdict, run};

use log::{LogLie, LyingLog};
use queue::{LyingQueue, QueueLie};
use store::{LyingStore, StoreLie};

/// What became of a lie: the statements that saw it, and what is wrong if none did.
struct Told {
    seen: BTreeSet<&'static str>,
    wrong: Option<String>,
}

/// Runs the cases with this number.
async fn tell<B: ?Sized>(
    lie: String,
    id: &str,
    mut cases: Vec<Case<B>>,
    backend: &B,
    runtime: &dyn Runtime,
    limit: Duration,
) -> Told {
    cases.retain(|case| case.id == id);
    let column = run(&cases, &lie, backend, runtime, limit).await;
    let differs = |verdict: &Verdict| matches!(verdict, Verdict::Differs(_));
    let told = cases.iter().zip(&column.verdicts).filter(|(_, verdict)| differs(verdict));
    let seen: BTreeSet<_> = told.map(|(case, _)| case.statement).collect();
    let wrong = (seen.is_empty() != (lie == "Nothing"))
        .then(|| format!("{id} does not see {lie}: {column:?}"));
    Told { seen, wrong }
}

/// Cases that no lie makes differ could not fail.
fn never_seen<B: ?Sized>(cases: &[Case<B>], told: &[Told]) -> Vec<String> {
    let seen: BTreeSet<_> = told.iter().flat_map(|told| &told.seen).collect();
    let unseen = cases.iter().filter(|case| !seen.contains(&case.statement));
    unseen.map(|case| format!("{}: no lie is seen by \"{}\"", case.id, case.statement)).collect()
}

/// Runs each lie: those that nobody saw.
pub async fn all(
    runtime: &Arc<dyn Runtime>,
    fast: &Arc<dyn Runtime>,
    limit: Duration,
) -> Vec<String> {
    let logs = LogLie::ALL.into_iter().flat_map(|(lie, ids)| ids.iter().map(move |id| (lie, *id)));
    let logs = logs.map(|(lie, id)| async move {
        let truth = match lie {
            LogLie::Eager => crate::log::InProcess::eager(fast.clone()),
            _ => crate::log::InProcess::impatient(fast.clone()),
        };
        let backend = LyingLog::new(truth, lie);
        let cases = shakedown_conformance::log::cases();
        // A lie that starves a case ends here; that is in the fast clock's time.
        tell(format!("{lie:?}"), id, cases, &backend, &**fast, limit).await
    });
    let queues =
        QueueLie::ALL.into_iter().flat_map(|(lie, ids)| ids.iter().map(move |id| (lie, *id)));
    let queues = queues.map(|(lie, id)| async move {
        let version = match lie {
            QueueLie::CountsLateNot => Version::V4_3,
            QueueLie::BeginsAnew => Version::V3_10,
            _ => Version::V4_0,
        };
        let truth = crate::queue::InProcess::on_the_model(version, fast.clone());
        let backend = LyingQueue::new(truth, lie);
        let mut cases = shakedown_conformance::queue::through_the_port();
        // Each release has its own of these two.
        let late = |case: &Case<_>| case.statement.starts_with("that counts as");
        match lie {
            QueueLie::CountsLate => {
                cases.retain(|case| late(case) && case.versions == "4.3 and later")
            }
            QueueLie::CountsLateNot => {
                cases.retain(|case| late(case) && case.versions != "4.3 and later")
            }
            QueueLie::BeginsAnew => cases.retain(|case| !case.is_claimed_of((3, 10))),
            QueueLie::TellsFailures => cases.retain(|case| !case.is_claimed_of((4, 0))),
            _ => cases.retain(|case| case.versions != "4.3 and later"),
        }
        tell(format!("{lie:?}"), id, cases, &backend, &**fast, limit).await
    });
    let stores =
        StoreLie::ALL.into_iter().flat_map(|(lie, ids)| ids.iter().map(move |id| (lie, *id)));
    let stores = stores.map(|(lie, id)| async move {
        let backend =
            LyingStore { truth: crate::store::InProcess::on_the_model(fast.clone()).await, lie };
        let cases = shakedown_conformance::store::cases();
        tell(format!("{lie:?}"), id, cases, &backend, &**fast, limit).await
    });
    let (short, long) = (Duration::from_millis(20), Duration::from_secs(1_000));
    let half = Duration::from_millis(500);
    // Time-outs: of locks, of statements, of silent holders.
    let timeouts = [
        ("Impatient", "D4", short, half, half),
        ("WaitsForEver", "", long, long, half),
        ("HoldsForEver", "", short, half, long),
    ];
    let timeouts = timeouts.map(|(lie, id, lock_timeout, statement_timeout, idle)| async move {
        let idle_in_transaction_timeout = idle;
        let settings = Settings { lock_timeout, statement_timeout, idle_in_transaction_timeout };
        let backend = crate::store::InProcess::with(settings, runtime.clone()).await;
        let cases = shakedown_conformance::store::cases();
        tell(lie.to_owned(), id, cases, &backend, &**runtime, limit).await
    });
    let (logs, queues, mut stores, timeouts) =
        join4(join_all(logs), join_all(queues), join_all(stores), join_all(timeouts)).await;
    stores.extend(timeouts);
    let mut wrong = never_seen(&shakedown_conformance::queue::through_the_port(), &queues);
    wrong.extend(never_seen(&shakedown_conformance::log::cases(), &logs));
    let mut on_stores = shakedown_conformance::store::cases();
    // Shown by real servers alone (tests/real/mutants.rs).
    on_stores.retain(|case| case.id != "D7");
    wrong.extend(never_seen(&on_stores, &stores));
    let all = [logs, queues, stores].into_iter().flatten();
    wrong.extend(all.filter_map(|told| told.wrong));
    wrong
}
