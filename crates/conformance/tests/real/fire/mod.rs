//! The adapters of RabbitMQ and PostgreSQL under fire: whatever is done to link and server, each call
//! ends, nothing confirmed is lost, and all goes on within ten seconds after it is over. Never about what
//! a server means by an answer; that is in the statements.

mod postgres;
mod rabbit;

use std::sync::Arc;
use std::time::Duration;

use ports::Runtime;
use shakedown_conformance::{Column, Section, run};

/// How soon all must go on.
const SOON: Duration = Duration::from_secs(10);

/// For one case: some wait for an adapter's own limit of 20 s.
const LIMIT: Duration = Duration::from_secs(60);

/// The cases of both adapters; none where a server has no address.
pub async fn sections(
    rabbit: Option<&str>,
    postgres: Option<&str>,
    run_name: &str,
    runtime: &Arc<dyn Runtime>,
) -> Vec<Section> {
    let mut sections = Vec::new();
    if let Some(url) = rabbit {
        let cases = rabbit::cases();
        let fire = rabbit::Fire::at(url, run_name, runtime.clone());
        let column = run(&cases, "RabbitMQ", &fire, &**runtime, LIMIT).await;
        sections.push(named("The adapter of RabbitMQ", &cases, column));
    }
    if let Some(url) = postgres {
        let cases = postgres::cases();
        let fire = postgres::Fire::at(url, run_name, runtime.clone());
        let column = run(&cases, "PostgreSQL", &fire, &**runtime, LIMIT).await;
        sections.push(named("The adapter of PostgreSQL", &cases, column));
    }
    sections
}

fn named<B>(
    title: &'static str,
    cases: &[shakedown_conformance::Case<B>],
    column: Column,
) -> Section {
    Section::new(title, cases, vec![column])
}

/// The call, which must end soon.
async fn soon<F: Future>(runtime: &dyn Runtime, what: &str, call: F) -> F::Output {
    let ended = ports::timeout(runtime, SOON, call).await;
    ended.unwrap_or_else(|| panic!("{what}: not within {} s", SOON.as_secs()))
}
