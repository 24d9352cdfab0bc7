//! A statement as a case, and what running it on a backend shows. Never retries: a case that differs
//! once differs.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ports::{Runtime, timeout};

use crate::report::Column;

/// Why a case says nothing about a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotApplicable(pub &'static str);

/// How a case ends where it does not panic; it panics where the backend differs.
pub type Observed = Result<(), NotApplicable>;

type Run<B> = dyn for<'a> Fn(&'a B) -> BoxFuture<'a, Observed> + Send + Sync;

/// A statement of the broker contract that runs on backends of the kind `B`.
pub struct Case<B: ?Sized> {
    /// Its number there; empty for what only the ports promise.
    pub id: &'static str,
    /// What it claims, in one line.
    pub statement: &'static str,
    /// Of which releases of the real server it is claimed.
    pub versions: &'static str,
    run: Box<Run<B>>,
}

impl<B: ?Sized> Case<B> {
    /// A case that runs like this.
    pub fn new(
        id: &'static str,
        statement: &'static str,
        versions: &'static str,
        run: impl for<'a> Fn(&'a B) -> BoxFuture<'a, Observed> + Send + Sync + 'static,
    ) -> Self {
        Case { id, statement, versions, run: Box::new(run) }
    }
}

/// Cases by number, statement, releases and function.
macro_rules! cases {
    ($( $id:literal $statement:literal ($versions:expr) $run:path; )+) => {
        vec![$( $crate::Case::new($id, $statement, $versions, |backend| Box::pin($run(backend))) ),+]
    };
}
pub(crate) use cases;

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The backend does what the statement says.
    Agrees,
    /// It does not: what was seen.
    Differs(String),
    /// The statement says nothing about it: why.
    NotApplicable(String),
    /// Nobody looked: why.
    NotRun(String),
}

/// Runs the cases one after the other. Each may take `limit`, by the runtime's clock.
pub async fn run<B: ?Sized>(
    cases: &[Case<B>],
    name: &str,
    backend: &B,
    runtime: &dyn Runtime,
    limit: Duration,
) -> Column {
    let mut verdicts = Vec::with_capacity(cases.len());
    for case in cases {
        let observed = AssertUnwindSafe((case.run)(backend)).catch_unwind();
        let verdict = match timeout(runtime, limit, observed).await {
            Some(Ok(Ok(()))) => Verdict::Agrees,
            Some(Ok(Err(NotApplicable(why)))) => Verdict::NotApplicable(why.to_owned()),
            Some(Err(panic)) => Verdict::Differs(text(&*panic)),
            None => Verdict::Differs(format!("no end within {} s", limit.as_secs())),
        };
        verdicts.push(verdict);
    }
    Column { name: name.to_owned(), verdicts }
}

fn text(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
