//! The cases on real servers, at the addresses in SHAKEDOWN_KAFKA, SHAKEDOWN_RABBIT and
//! SHAKEDOWN_POSTGRES. Prints the table; fails where a server differs, and with
//! SHAKEDOWN_REQUIRE_SERVERS=1 also where one has no address.

mod kafka;
mod member;
mod postgres;
mod programs;
mod proxy;
mod rabbit;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, join3};
use local::TokioRuntime;
use ports::Runtime;
use shakedown_conformance::{Case, Column, Section, Verdict, document, run};

/// For one case.
const LIMIT: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Some(member) = member::Member::told(&arguments) {
        return tokio.block_on(member.live());
    }
    let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime::new(tokio.handle().clone()));
    let names = ["SHAKEDOWN_KAFKA", "SHAKEDOWN_RABBIT", "SHAKEDOWN_POSTGRES"];
    let urls = names.map(|name| std::env::var(name).ok().filter(|url| !url.is_empty()));
    let missing = urls.iter().any(Option::is_none);
    let [kafka, rabbit, postgres] = urls;
    let all = join3(
        logs(kafka.as_deref(), &runtime),
        queues(rabbit.as_deref(), &runtime),
        stores(postgres.as_deref(), &runtime),
    );
    let (logs, queues, stores) = tokio.block_on(all);
    let name = run_name(&*runtime);
    // After the cases, whose waiting they would disturb.
    let disagrees = !tokio.block_on(programs::all(
        kafka.as_deref(),
        rabbit.as_deref(),
        postgres.as_deref(),
        &name,
        &runtime,
    ));
    let sections = [logs, queues, stores];
    for section in &sections {
        println!("\n{section}");
    }
    let required = std::env::var("SHAKEDOWN_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
    if missing && required {
        println!("FAILED: SHAKEDOWN_REQUIRE_SERVERS=1 wants all of {}", names.join(", "));
    }
    let stale = if missing { None } else { document::check("on real servers", &sections).err() };
    if let Some(stale) = &stale {
        println!("FAILED: {stale}");
    }
    let failed = sections.iter().any(Section::differs) || (missing && required) || stale.is_some();
    let failed = failed || disagrees;
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A prefix for names on the servers that no other run has.
fn run_name(runtime: &dyn Runtime) -> String {
    let now_ms = runtime.now().timestamp_millis();
    format!("conformance-{now_ms}-{}", std::process::id())
}

fn absent<B: ?Sized>(cases: &[Case<B>], name: &str, variable: &str) -> Column {
    let why =
        format!("{variable} is not set (scripts/brokers up; eval \"$(scripts/brokers env)\")");
    println!("{name} not run: {why}");
    Column::not_run(cases, name, &why)
}

async fn logs(url: Option<&str>, runtime: &Arc<dyn Runtime>) -> Section {
    let cases = shakedown_conformance::log::cases();
    let columns = [("Kafka", "classic"), ("Kafka, KIP-848", "consumer")].map(|(name, protocol)| {
        let cases = &cases;
        async move {
            let Some(url) = url else { return absent(cases, name, "SHAKEDOWN_KAFKA") };
            let backend =
                kafka::RealKafka::at(url, protocol, &run_name(&**runtime), runtime.clone()).await;
            run(cases, name, &backend, &**runtime, LIMIT).await
        }
    });
    let columns = join_all(columns).await;
    Section::new("EventLog", &cases, columns)
}

async fn queues(url: Option<&str>, runtime: &Arc<dyn Runtime>) -> Section {
    let cases = shakedown_conformance::queue::cases();
    let column = match url {
        None => absent(&cases, "RabbitMQ", "SHAKEDOWN_RABBIT"),
        Some(url) => {
            let backend = rabbit::RealRabbit::at(url, &run_name(&**runtime), runtime.clone());
            run(&cases, "RabbitMQ", &backend, &**runtime, LIMIT).await
        }
    };
    Section::new("JobQueue", &cases, vec![column])
}

async fn stores(url: Option<&str>, runtime: &Arc<dyn Runtime>) -> Section {
    let cases = shakedown_conformance::store::cases();
    let column = match url {
        None => absent(&cases, "PostgreSQL", "SHAKEDOWN_POSTGRES"),
        Some(url) => {
            let name = run_name(&**runtime);
            match postgres::RealPostgres::at(url, &name, runtime.clone()).await {
                Ok(backend) => run(&cases, "PostgreSQL", &backend, &**runtime, LIMIT).await,
                Err(fault) => {
                    let verdicts =
                        vec![Verdict::Differs(format!("no store: {fault}")); cases.len()];
                    Column { name: "PostgreSQL".to_owned(), verdicts }
                }
            }
        }
    };
    Section::new("Store", &cases, vec![column])
}
