//! Leaves a failed world where it can be looked at, and where CI picks it up. Never more than its few
//! files a seed.

use std::path::Path;

use serde::Serialize;

use super::find::json;
use crate::outcome::Run;
use crate::system::Plan;

/// What is kept of a failed world.
pub(super) struct Kept<'a, W> {
    /// The plan that was run.
    pub(super) plan: &'a Plan<W>,
    /// The plan made small, where it could be.
    pub(super) shrunk: Option<&'a Plan<W>>,
    pub(super) run: &'a Run,
    pub(super) story: &'a str,
    /// The page of the world, if it came to its end.
    pub(super) page: Option<String>,
}

/// Writes `SEED.plan.json` (small, if it was shrunk; the other is `SEED.original.plan.json` then),
/// `SEED.txt` with story and trace, `SEED.html` if there is a page.
pub(super) fn keep<W: Serialize>(folder: &Path, kept: Kept<'_, W>) {
    let Kept { plan, shrunk, run, story, page } = kept;
    let seed = plan.seed;
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join(format!("{seed}.plan.json")), json(shrunk.unwrap_or(plan)))?;
        if shrunk.is_some() {
            std::fs::write(folder.join(format!("{seed}.original.plan.json")), json(plan))?;
        }
        let trace: String = run.trace.iter().map(|event| format!("{event}\n")).collect();
        std::fs::write(folder.join(format!("{seed}.txt")), format!("{story}\n{trace}"))?;
        page.map_or(Ok(()), |page| std::fs::write(folder.join(format!("{seed}.html")), page))
    };
    if let Err(cause) = write() {
        eprintln!("could not keep the failure under {}: {cause}", folder.display());
    }
}
