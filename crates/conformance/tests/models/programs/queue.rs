//! Programs on the queue model, on local mode's queues, and on queues that lie.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use local::Local;
use model::queue::Version;
use ports::Runtime;
use shakedown_conformance::programs::queue::{Pace, QueuePrograms};

use super::lies::{Lie, LyingQueue};
use super::{honest, lying};
use crate::mutants;
use crate::mutants::queue::QueueLie;
use crate::queue::InProcess;

const MODEL: Pace = Pace {
    patience: Duration::from_millis(30),
    quiet: Duration::from_millis(1),
    prompt: true,
    double_credit: false,
};

/// Its journal is written by a thread.
const LOCAL: Pace =
    Pace { patience: Duration::from_secs(5), quiet: Duration::from_millis(10), ..MODEL };

/// Lies and the rules that they break.
const LIES: [(QueueLie, &str); 10] = [
    (QueueLie::DropsUnroutable, "answers"),
    (QueueLie::ForgivesTags, "answers"),
    (QueueLie::SaysNowhere, "published"),
    (QueueLie::LosesTheLast, "lost"),
    (QueueLie::DropsReturned, "lost"),
    (QueueLie::NeverRedelivered, "redelivered"),
    (QueueLie::CountsNothing, "count"),
    (QueueLie::OneMore, "prefetch"),
    (QueueLie::LastFirst, "tags"),
    (QueueLie::HeldIsReady, "depth"),
];

/// Lies of which no statement by number speaks.
const MORE: [(Lie, &str); 8] = [
    (Lie::Garbles, "content"),
    (Lie::ForgetsAcks, "settled"),
    (Lie::OtherReason, "dead letters"),
    (Lie::NeverDies, "dead letters"),
    (Lie::Swaps, "order"),
    (Lie::Shares, "one holder"),
    (Lie::Invents, "published"),
    (Lie::CountsTwice, "count"),
];

pub async fn all(runtime: &Arc<dyn Runtime>) -> Vec<String> {
    let model = InProcess::on_the_model(Version::V3_10, runtime.clone());
    let mut wrong = honest("JobQueue, model", &QueuePrograms::on(&model, MODEL), 500).await;
    let folder = tempfile::tempdir().unwrap();
    let local = Local::open(folder.path(), runtime.clone()).unwrap();
    let local = InProcess::on(local, runtime.clone());
    wrong.extend(honest("JobQueue, local mode", &QueuePrograms::on(&local, LOCAL), 200).await);
    let lies = LIES.map(|(lie, rule)| async move {
        let backend = mutants::queue::LyingQueue::new(
            InProcess::on_the_model(Version::V3_10, runtime.clone()),
            lie,
        );
        let programs = QueuePrograms::on(&backend, MODEL);
        lying(&format!("{lie:?}"), rule, &programs, 100).await
    });
    wrong.extend(join_all(lies).await.into_iter().flatten());
    let more = MORE.map(|(lie, rule)| async move {
        let truth = InProcess::on_the_model(Version::V3_10, runtime.clone());
        let backend = LyingQueue { truth, lie, held: Arc::default() };
        let programs = QueuePrograms::on(&backend, MODEL);
        lying(&format!("{lie:?}"), rule, &programs, 100).await
    });
    wrong.extend(join_all(more).await.into_iter().flatten());
    wrong
}
