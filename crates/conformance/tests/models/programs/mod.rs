//! Generated programs on what needs no server, and on backends that lie. Fails where a backend disagrees with
//! a monitor, or where a lie is not noticed by the rule that it breaks.

mod lies;
mod log;
mod queue;
mod store;

use std::sync::Arc;

use futures_util::future::join3;
use ports::Runtime;
use shakedown_conformance::programs::{Programs, Report, campaign};

/// Programs at a time.
const LANES: usize = 16;

/// What is wrong, a line each.
pub async fn all(runtime: &Arc<dyn Runtime>, fast: &Arc<dyn Runtime>) -> Vec<String> {
    let begun = runtime.elapsed();
    let all = join3(queue::all(runtime), store::all(runtime), log::all(fast));
    let (queues, stores, logs) = all.await;
    let wrong = [queues, stores, logs].concat();
    println!("Programs took {} ms", (runtime.elapsed() - begun).as_millis());
    wrong
}

/// Runs programs and prints what came of them; what is wrong.
async fn honest<P: Programs>(name: &str, programs: &P, count: u64) -> Vec<String> {
    let report = campaign(programs, 0..count, LANES, true).await;
    print!("{name}: {report}");
    report.failed().then(|| format!("programs disagree with {name}")).into_iter().collect()
}

/// Runs programs on a backend that lies; what is wrong if this rule does not notice.
async fn lying<P: Programs>(lie: &str, rule: &str, programs: &P, count: u64) -> Vec<String> {
    let Report { differing, .. } = campaign(programs, 0..count, 4, false).await;
    let rules: Vec<_> = differing.iter().map(|subject| subject.breach.rule).collect();
    let noticed = rules.contains(&rule);
    println!("lie {lie}: noticed by {rules:?}");
    let wrong = (!noticed).then(|| format!("programs: {rule} does not notice {lie}, {rules:?} do"));
    wrong.into_iter().collect()
}
