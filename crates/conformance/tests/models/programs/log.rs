//! Programs on the log model, on local mode's log, and on logs that lie.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use local::Local;
use ports::Runtime;
use shakedown_conformance::programs::log::LogPrograms;

use super::{honest, lying};
use crate::log::InProcess;
use crate::mutants::log::{LogLie, LyingLog};

/// Longer than a session, by the fast clock.
const PATIENCE: Duration = Duration::from_secs(100);

/// Less than a session: whoever lies is not worth more.
const SOON: Duration = Duration::from_secs(20);

/// Lies and the rules that they break.
const LIES: [(LogLie, &str); 8] = [
    (LogLie::LastFirst, "order"),
    (LogLie::LowWatermark, "watermarks"),
    (LogLie::BeginsAtTheEnd, "start"),
    (LogLie::LastNotNext, "start"),
    (LogLie::NeverBack, "fenced"),
    (LogLie::CommitsWhatItCan, "fenced"),
    (LogLie::NoSeek, "start"),
    (LogLie::NoPause, "start"),
];

pub async fn all(fast: &Arc<dyn Runtime>) -> Vec<String> {
    let model = InProcess::on_the_model(fast.clone());
    let mut wrong = honest("EventLog, model", &LogPrograms::on(&model, PATIENCE), 300).await;
    let folder = tempfile::tempdir().unwrap();
    let local = Local::open(folder.path(), fast.clone()).unwrap();
    let local = InProcess::on(local, fast.clone());
    wrong.extend(honest("EventLog, local mode", &LogPrograms::on(&local, PATIENCE), 60).await);
    let lies = LIES.map(|(lie, rule)| async move {
        let backend = LyingLog::new(InProcess::on_the_model(fast.clone()), lie);
        lying(&format!("{lie:?}"), rule, &LogPrograms::on(&backend, SOON), 60).await
    });
    wrong.extend(join_all(lies).await.into_iter().flatten());
    wrong
}
