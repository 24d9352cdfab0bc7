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

/// Why a case ends without having seen anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unseen {
    /// The statement says nothing about the backend: why.
    NotApplicable(&'static str),
    /// Something that it needs is not at hand: what.
    NotRun(&'static str),
}

impl From<NotApplicable> for Unseen {
    fn from(NotApplicable(why): NotApplicable) -> Self {
        Unseen::NotApplicable(why)
    }
}

/// How a case ends where it does not panic; it panics where the backend differs.
pub type Observed = Result<(), Unseen>;

/// Major and minor number of a server.
pub type Release = (u32, u32);

/// A difference of one release that is known and lived with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiver {
    /// The number of the case.
    pub id: &'static str,
    /// What it claims.
    pub statement: &'static str,
    /// Of which releases, in the words of [`Case::versions`].
    pub versions: &'static str,
    /// Why that is no fault of ours.
    pub why: &'static str,
}

type Run<B> = dyn for<'a> Fn(&'a B) -> BoxFuture<'a, Observed> + Send + Sync;

/// A statement of the broker contract that runs on backends of the kind `B`.
pub struct Case<B: ?Sized> {
    /// Its number there; empty for what only the ports promise.
    pub id: &'static str,
    /// What it claims, in one line.
    pub statement: &'static str,
    /// Of which releases of the real server it is claimed: `all`, `3.8 and later`, `before 4.3`, or
    /// `3.8 to 4.2`, both included.
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
        assert!(span(versions).is_some(), "{id}: {versions:?} are no releases");
        Case { id, statement, versions, run: Box::new(run) }
    }
}

impl<B: ?Sized> Case<B> {
    /// Whether it says something of this release.
    pub fn is_claimed_of(&self, release: Release) -> bool {
        covers(self.versions, release)
    }
}

/// The first release, and the first one that no longer belongs to it. `None`: not such words.
fn span(versions: &str) -> Option<(Release, Release)> {
    const EVER: Release = (u32::MAX, 0);
    let release = |text: &str| {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    if versions == "all" {
        return Some(((0, 0), EVER));
    }
    if let Some(since) = versions.strip_suffix(" and later") {
        return Some((release(since)?, EVER));
    }
    if let Some(end) = versions.strip_prefix("before ") {
        return Some(((0, 0), release(end)?));
    }
    let (first, last) = versions.split_once(" to ")?;
    let (major, minor): Release = release(last)?;
    Some((release(first)?, (major, minor + 1)))
}

/// Whether these words mean that release.
fn covers(versions: &str, release: Release) -> bool {
    span(versions).is_some_and(|(first, end)| first <= release && release < end)
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
    /// It does not, which is known of this release: why.
    Waived(String),
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
    run_release(cases, name, None, &[], backend, runtime, limit).await
}

/// The same on a server of this release, if that is known.
pub async fn run_release<B: ?Sized>(
    cases: &[Case<B>],
    name: &str,
    release: Option<Release>,
    waivers: &[Waiver],
    backend: &B,
    runtime: &dyn Runtime,
    limit: Duration,
) -> Column {
    let mut verdicts = Vec::with_capacity(cases.len());
    for case in cases {
        if let Some(release) = release
            && !case.is_claimed_of(release)
        {
            let why = format!("a statement on {}", case.versions);
            verdicts.push(Verdict::NotApplicable(why));
            continue;
        }
        let observed = AssertUnwindSafe((case.run)(backend)).catch_unwind();
        let verdict = match timeout(runtime, limit, observed).await {
            Some(Ok(Ok(()))) => Verdict::Agrees,
            Some(Ok(Err(Unseen::NotApplicable(why)))) => Verdict::NotApplicable(why.to_owned()),
            Some(Ok(Err(Unseen::NotRun(why)))) => Verdict::NotRun(why.to_owned()),
            Some(Err(panic)) => Verdict::Differs(text(&*panic)),
            None => Verdict::Differs(format!("no end within {} s", limit.as_secs())),
        };
        let waiver = waivers.iter().find(|waiver| {
            let (id, statement) = (waiver.id, waiver.statement);
            (id, statement) == (case.id, case.statement)
                && release.is_some_and(|release| covers(waiver.versions, release))
        });
        verdicts.push(waived(verdict, waiver));
    }
    Column { name: name.to_owned(), verdicts }
}

/// A waiver that nothing needs is a difference too: it would hide the next one.
fn waived(verdict: Verdict, waiver: Option<&Waiver>) -> Verdict {
    match (verdict, waiver) {
        (Verdict::Differs(_), Some(waiver)) => Verdict::Waived(waiver.why.to_owned()),
        (Verdict::Agrees, Some(waiver)) => {
            Verdict::Differs(format!("it agrees, though waived: {}", waiver.why))
        }
        (verdict, _) => verdict,
    }
}

fn text(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_releases() {
        let of = |versions| {
            [(3, 7), (3, 8), (3, 10), (4, 0), (4, 3)].map(|release| covers(versions, release))
        };
        assert_eq!(of("all"), [true; 5]);
        assert_eq!(of("3.8 and later"), [false, true, true, true, true]);
        assert_eq!(of("before 4.3"), [true, true, true, true, false]);
        assert_eq!(of("3.8 to 4.0"), [false, true, true, true, false]);
        for words in ["", "3.8", "3 and later", "3.8 till 4.0", "before"] {
            assert_eq!(span(words), None, "{words}");
        }
    }

    #[test]
    fn a_waiver_is_for_a_difference_that_is_there() {
        let waiver = Waiver { id: "R1", statement: "it holds", versions: "all", why: "a bug" };
        let differs = || Verdict::Differs("left: 1".to_owned());
        assert_eq!(waived(differs(), Some(&waiver)), Verdict::Waived("a bug".to_owned()));
        assert_eq!(waived(differs(), None), differs());
        assert!(matches!(waived(Verdict::Agrees, Some(&waiver)), Verdict::Differs(_)));
        let not_run = Verdict::NotRun("no server".to_owned());
        assert_eq!(waived(not_run.clone(), Some(&waiver)), not_run);
    }
}
