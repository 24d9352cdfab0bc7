//! The cases on what needs no server: the models, local mode in a folder, and the client library's
//! mock cluster. Prints the table; fails where a backend differs.

mod log;
mod mock;
mod mutants;
mod programs;
mod queue;
mod runtime;
mod store;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all, join3, join4};
use local::{Local, TokioRuntime};
use ports::Runtime;
use runtime::Fast;
use shakedown_conformance::{Column, Section, document, run};

/// For one case.
const LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime::new(tokio.handle().clone()));
    let cluster = mock::Cluster::new();
    let mock = cluster.backend(runtime.clone());
    // Local mode's session time-out is 45 s and no setting: logs live faster.
    let fast: Arc<dyn Runtime> = Arc::new(Fast::over(runtime.clone()));
    // What a case saw is in the table.
    std::panic::set_hook(Box::new(|_| {}));
    let all = join4(
        logs(&runtime, &fast, &mock),
        queues(&runtime),
        stores(&runtime),
        mutants::all(&runtime, &fast, Duration::from_secs(100)),
    );
    let (logs, queues, stores, mut unseen) = tokio.block_on(all);
    unseen.extend(tokio.block_on(programs::all(&runtime, &fast)));
    let sections = [logs, queues, stores];
    for section in &sections {
        println!("\n{section}");
    }
    for lie in &unseen {
        println!("FAILED: {lie}");
    }
    let stale = document::check("without servers", &sections).err();
    if let Some(stale) = &stale {
        println!("FAILED: {stale}");
    }
    let failed = sections.iter().any(Section::differs) || !unseen.is_empty() || stale.is_some();
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn logs(runtime: &Arc<dyn Runtime>, fast: &Arc<dyn Runtime>, mock: &mock::Mock) -> Section {
    let cases = shakedown_conformance::log::cases();
    let folder = tempfile::tempdir().unwrap();
    let model = log::InProcess::on_the_model(fast.clone());
    let local = Local::open(folder.path(), fast.clone()).unwrap();
    let local = log::InProcess::on(local, fast.clone());
    let limit = LIMIT * Fast::FACTOR;
    let (model, local, mock) = join3(
        run(&cases, "model", &model, &**fast, limit),
        run(&cases, "local mode", &local, &**fast, limit),
        // Side by side: whoever joins a group waits three seconds there.
        join_all(cases.chunks(1).map(|case| run(case, "", mock, &**runtime, LIMIT))),
    )
    .await;
    let verdicts = mock.into_iter().flat_map(|column| column.verdicts).collect();
    let mock = Column { name: "librdkafka mock".to_owned(), verdicts };
    Section::new("EventLog", &cases, vec![model, local, mock])
}

async fn queues(runtime: &Arc<dyn Runtime>) -> Section {
    let cases = shakedown_conformance::queue::cases();
    let folder = tempfile::tempdir().unwrap();
    let model = queue::InProcess::on_the_model(runtime.clone());
    let local = Local::open(folder.path(), runtime.clone()).unwrap();
    let local = queue::InProcess::on(local, runtime.clone());
    let (model, local) = join(
        run(&cases, "model", &model, &**runtime, LIMIT),
        run(&cases, "local mode", &local, &**runtime, LIMIT),
    )
    .await;
    Section::new("JobQueue", &cases, vec![model, local])
}

async fn stores(runtime: &Arc<dyn Runtime>) -> Section {
    let cases = shakedown_conformance::store::cases();
    let folder = tempfile::tempdir().unwrap();
    let model = store::InProcess::on_the_model(runtime.clone()).await;
    let local = Local::open(folder.path(), runtime.clone()).unwrap();
    let local = store::InProcess::on(&local, runtime.clone()).await;
    let (model, local) = join(
        run(&cases, "model", &model, &**runtime, LIMIT),
        run(&cases, "local mode", &local, &**runtime, LIMIT),
    )
    .await;
    Section::new("Store", &cases, vec![model, local])
}
