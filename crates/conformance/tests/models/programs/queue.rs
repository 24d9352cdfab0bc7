//! Programs on the queue model, on local mode's queues, and on queues that lie.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use local::Local;
use model::queue::Version;
use ports::Runtime;
use shakedown_conformance::Release;
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
    release: (3, 10),
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

/// Releases that are taken for another one, and the rule that notices: their dead letters tell otherwise (R33).
const OTHERS: [(Version, Release, &str); 4] = [
    (Version::V3_10, (4, 0), "redelivered"),
    (Version::V4_0, (3, 10), "redelivered"),
    (Version::V4_0, (4, 3), "count"),
    (Version::V4_3, (4, 0), "count"),
];

pub async fn all(runtime: &Arc<dyn Runtime>) -> Vec<String> {
    let mut wrong = Vec::new();
    for version in [Version::V3_10, Version::V4_0, Version::V4_3] {
        let model = InProcess::on_the_model(version, runtime.clone());
        let pace = Pace { release: model.release(), ..MODEL };
        let name = format!("JobQueue, model {}.{}", version.major, version.minor);
        wrong.extend(honest(&name, &QueuePrograms::on(&model, pace), 500).await);
    }
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
    let others = OTHERS.map(|(version, release, rule)| async move {
        let backend = InProcess::on_the_model(version, runtime.clone());
        let programs = QueuePrograms::on(&backend, Pace { release, ..MODEL });
        lying(&format!("{version:?} for {release:?}"), rule, &programs, 100).await
    });
    wrong.extend(join_all(others).await.into_iter().flatten());
    wrong
}
