//! The cases on real servers, at the addresses in SHAKEDOWN_KAFKA, SHAKEDOWN_RABBIT and
//! SHAKEDOWN_POSTGRES. Prints the table; fails where a server differs, and with
//! SHAKEDOWN_REQUIRE_SERVERS=1 also where one has no address.

mod amqp;
#[path = "../clients/mod.rs"]
mod clients;
mod control;
mod fire;
mod kafka;
mod member;
mod mutants;
mod numbers;
mod postgres;
mod programs;
mod proxy;
mod rabbit;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ::rabbit::Server;
use futures_util::future::{join_all, join3};
use futures_util::stream::{self, StreamExt};
use local::TokioRuntime;
use ports::Runtime;
use shakedown_conformance::queue::Kind;
use shakedown_conformance::{Case, Column, Section, Verdict, document, run, run_release};

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
    let given = urls.each_ref().map(Option::is_some);
    let [kafka, rabbit, postgres] = urls;
    // A number such as R29: only the cases of that statement; `programs`: only generated programs; `fire`: only
    // the adapters under fire, and of the document their tables alone.
    let only = arguments.first().map(String::as_str);
    // What a case saw is in the table.
    std::panic::set_hook(Box::new(|_| {}));
    // Each on a thread of its own: what blocks in one of them must not hold up the others.
    let (logs, (release, queues, unseen), (stores, early)) = std::thread::scope(|scope| {
        let logs = scope.spawn(|| tokio.block_on(logs(kafka.as_deref(), only, &runtime)));
        let stores = scope.spawn(|| tokio.block_on(stores(postgres.as_deref(), only, &runtime)));
        let queues = tokio.block_on(queues(rabbit.as_deref(), only, &runtime));
        (logs.join().unwrap(), queues, stores.join().unwrap())
    });
    // After the cases, whose waiting they would disturb.
    let urls = [kafka.as_deref(), rabbit.as_deref(), postgres.as_deref()];
    let agree = match only {
        None | Some("programs") => {
            tokio.block_on(programs::all(urls, &run_name(&*runtime), &runtime))
        }
        Some(_) => true,
    };
    // Alone: some kill a server.
    let fire = match only {
        None | Some("fire") => tokio.block_on(fire::sections(urls, &run_name(&*runtime), &runtime)),
        Some(_) => Vec::new(),
    };
    let others = [logs, stores];
    let queues = [queues];
    let sections = || others.iter().chain(&queues).chain(&fire);
    for section in sections() {
        println!("\n{section}");
    }
    let missing = given.contains(&false) || sections().any(Section::incomplete);
    let required = std::env::var("SHAKEDOWN_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
    let mut failed = sections().any(Section::differs) || (missing && required) || !agree;
    for lie in unseen.iter().chain(&early) {
        println!("FAILED: {lie}");
        failed = true;
    }
    if missing && required {
        println!(
            "FAILED: SHAKEDOWN_REQUIRE_SERVERS=1 wants all of {}, and the commands that the cases \
             name which did not run",
            names.join(", ")
        );
    }
    let brokers = kafka.as_deref().map_or(0, kafka::brokers);
    // Each release of RabbitMQ that the document knows has tables of its own.
    let mut blocks = vec![];
    let logs = std::slice::from_ref(&others[0]);
    match brokers {
        3.. if only.is_none() => blocks.push(("on three brokers".to_owned(), logs)),
        1.. if only.is_none() && given[2] => blocks.push(("on real servers".to_owned(), &others)),
        _ => {}
    }
    if matches!(only, None | Some("fire")) && given == [true; 3] {
        blocks.push(("under fire".to_owned(), &fire));
    }
    if only.is_none() && RELEASES.contains(&&*release) {
        blocks.push((format!("on RabbitMQ {release}"), &queues));
    }
    for (block, sections) in blocks {
        if let Err(stale) = document::check(&block, sections) {
            println!("FAILED: {stale}");
            failed = true;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The releases of RabbitMQ in docs/conformance.md.
const RELEASES: [&str; 2] = ["3.10", "4.0"];

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

async fn logs(url: Option<&str>, only: Option<&str>, runtime: &Arc<dyn Runtime>) -> Section {
    let mut cases = shakedown_conformance::log::cases();
    cases.retain(|case| only.is_none_or(|id| case.id == id));
    let columns = [("Kafka", "classic"), ("Kafka, KIP-848", "consumer")].map(|(name, protocol)| {
        let cases = &cases;
        async move {
            let Some(url) = url else { return absent(cases, name, "SHAKEDOWN_KAFKA") };
            let backend =
                kafka::RealKafka::at(url, protocol, &run_name(&**runtime), runtime.clone()).await;
            run(cases, name, &backend, &**runtime, LIMIT).await
        }
    });
    let columns = match url.map_or(0, kafka::brokers) {
        // Where brokers are killed, one after the other.
        3.. => stream::iter(columns).then(|column| column).collect().await,
        _ => join_all(columns).await,
    };
    Section::new("EventLog", &cases, columns)
}

/// The release, what it shows, and which lies nobody saw; empty where there is no server.
async fn queues(
    url: Option<&str>,
    only: Option<&str>,
    runtime: &Arc<dyn Runtime>,
) -> (String, Section, Vec<String>) {
    let mut cases = shakedown_conformance::queue::cases();
    cases.retain(|case| only.is_none_or(|id| case.id == id));
    let Some(url) = url else {
        let column = absent(&cases, "RabbitMQ", "SHAKEDOWN_RABBIT");
        return (String::new(), Section::new("JobQueue", &cases, vec![column]), Vec::new());
    };
    let server = Server::ask(url, LIMIT).await.unwrap();
    let release = server.release().expect("a release");
    let name = format!("{}.{}", release.0, release.1);
    let run = run_name(&**runtime);
    let backend = |kind| rabbit::RealRabbit::at(url, &run, kind, release, runtime.clone());
    let backends = [backend(Kind::Quorum).await, backend(Kind::Classic).await];
    let mut columns = [format!("RabbitMQ {name}"), "classic queues".to_owned()]
        .map(|name| Column { name, verdicts: Vec::new() });
    let mut unseen = Vec::new();
    let groups = cases.chunk_by(|one, two| disturbs(one) == disturbs(two));
    for (n, group) in groups.enumerate() {
        let on = |backend| async move {
            run_release(group, "", Some(release), &[], backend, &**runtime, LIMIT).await
        };
        let [quorum, classic] = &backends;
        let seen = if disturbs(&group[0]) {
            [on(quorum).await, on(classic).await]
        } else {
            let lies = async {
                match only {
                    None if n == 0 => mutants::all(url, &run, release, runtime).await,
                    _ => Vec::new(),
                }
            };
            let (quorum, classic, lies) = join3(on(quorum), on(classic), lies).await;
            unseen.extend(lies);
            [quorum, classic]
        };
        for (column, seen) in columns.iter_mut().zip(seen) {
            column.verdicts.extend(seen.verdicts);
        }
    }
    (name, Section::new("JobQueue", &cases, columns.into()), unseen)
}

/// Whether the case does something to the whole server: patience, a kill, an alarm.
fn disturbs<B: ?Sized>(case: &Case<B>) -> bool {
    ["R24", "R29", "R30"].contains(&case.id)
}

/// What it shows, and which lies nobody saw.
async fn stores(
    url: Option<&str>,
    only: Option<&str>,
    runtime: &Arc<dyn Runtime>,
) -> (Section, Vec<String>) {
    let mut cases = shakedown_conformance::store::cases();
    cases.retain(|case| only.is_none_or(|id| case.id == id));
    let name = "PostgreSQL";
    let Some(url) = url else {
        let column = absent(&cases, name, "SHAKEDOWN_POSTGRES");
        return (Section::new("Store", &cases, vec![column]), Vec::new());
    };
    let (column, unseen) =
        match postgres::RealPostgres::at(url, &run_name(&**runtime), runtime.clone()).await {
            Ok(backend) => {
                let backend = Arc::new(backend);
                let unseen = mutants::early(backend.clone(), &**runtime).await;
                (run(&cases, name, &*backend, &**runtime, LIMIT).await, unseen)
            }
            Err(fault) => {
                let verdicts = vec![Verdict::Differs(format!("no store: {fault}")); cases.len()];
                (Column { name: name.to_owned(), verdicts }, None)
            }
        };
    (Section::new("Store", &cases, vec![column]), unseen.into_iter().collect())
}
