//! The cases on what needs no server: the models, local mode in a folder, and the client library's
//! mock cluster. Prints the table; fails where a backend differs.

#[path = "../clients/mod.rs"]
mod clients;
mod log;
mod mock;
mod mutants;
mod programs;
mod queue;
mod runtime;
mod store;

use std::borrow::Borrow;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, join3};
use local::{Local, TokioRuntime};
use model::queue::Version;
use ports::Runtime;
use runtime::Fast;
use shakedown_conformance::queue::QueueBackend;
use shakedown_conformance::{Case, Column, Release, Section, document, run, run_release};
use tokio::runtime::Runtime as Tokio;

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
    // Each on a thread of its own: what blocks in one of them must not stop the clocks of the others.
    let (logs, queues, stores, mut unseen) = std::thread::scope(|scope| {
        let queues = scope.spawn(|| queues(&tokio, &runtime));
        let stores = scope.spawn(|| stores(&tokio, &runtime));
        let logs = scope.spawn(|| tokio.block_on(logs(&runtime, &fast, &mock)));
        let limit = Duration::from_secs(100);
        let unseen = tokio.block_on(mutants::all(&runtime, &fast, limit));
        (logs.join().unwrap(), queues.join().unwrap(), stores.join().unwrap(), unseen)
    });
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
        at_once(&cases, "model", &model, &**fast, limit),
        at_once(&cases, "local mode", &local, &**fast, limit),
        at_once(&cases, "librdkafka mock", mock, &**runtime, LIMIT),
    )
    .await;
    Section::new("EventLog", &cases, vec![model, local, mock])
}

/// All cases at once: they share nothing, and most of their time they wait.
async fn at_once<B: ?Sized>(
    cases: &[Case<B>],
    name: &str,
    backend: &B,
    runtime: &dyn Runtime,
    limit: Duration,
) -> Column {
    let all = join_all(cases.chunks(1).map(|case| run(case, name, backend, runtime, limit))).await;
    let verdicts = all.into_iter().flat_map(|column| column.verdicts).collect();
    Column { name: name.to_owned(), verdicts }
}

fn queues(tokio: &Tokio, runtime: &Arc<dyn Runtime>) -> Section {
    let cases = shakedown_conformance::queue::cases();
    let folder = tempfile::tempdir().unwrap();
    let columns = std::thread::scope(|scope| {
        let local = scope.spawn(|| {
            let local = Local::open(folder.path(), runtime.clone()).unwrap();
            let backend = queue::InProcess::on(local, runtime.clone());
            let release = Some(backend.release());
            tokio.block_on(side_by_side(&cases, "local mode", release, || &backend, runtime))
        });
        let models = [Version::V3_10, Version::V4_0, Version::V4_3].map(|version| {
            let cases = &cases;
            async move {
                // Each on a model of its own: some kill it.
                let backend = || queue::InProcess::on_the_model(version, runtime.clone());
                let release = backend().release();
                let name = format!("model {}.{}", release.0, release.1);
                side_by_side(cases, &name, Some(release), backend, runtime).await
            }
        });
        let mut columns = tokio.block_on(join_all(models));
        columns.push(local.join().unwrap());
        columns
    });
    Section::new("JobQueue", &cases, columns)
}

/// Runs the cases at the same time.
async fn side_by_side<B: Borrow<queue::InProcess>>(
    cases: &[Case<dyn QueueBackend>],
    name: &str,
    release: Option<Release>,
    backend: impl Fn() -> B,
    runtime: &Arc<dyn Runtime>,
) -> Column {
    let backend = &backend;
    let all = cases.chunks(1).map(|case| async move {
        let backend = backend();
        run_release(case, "", release, &[], backend.borrow(), &**runtime, LIMIT).await
    });
    let verdicts = join_all(all).await.into_iter().flat_map(|column| column.verdicts);
    Column { name: name.to_owned(), verdicts: verdicts.collect() }
}

fn stores(tokio: &Tokio, runtime: &Arc<dyn Runtime>) -> Section {
    let cases = shakedown_conformance::store::cases();
    let folder = tempfile::tempdir().unwrap();
    let columns = std::thread::scope(|scope| {
        let local = scope.spawn(|| {
            let local = Local::open(folder.path(), runtime.clone()).unwrap();
            tokio.block_on(async {
                let local = store::InProcess::on(&local, runtime.clone()).await;
                run(&cases, "local mode", &local, &**runtime, LIMIT).await
            })
        });
        let model = tokio.block_on(async {
            let model = store::InProcess::on_the_model(runtime.clone()).await;
            run(&cases, "model", &model, &**runtime, LIMIT).await
        });
        vec![model, local.join().unwrap()]
    });
    Section::new("Store", &cases, columns)
}
