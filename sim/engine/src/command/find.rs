//! Which world is meant: a seed, a name, or a file. Never guesses.

use std::path::{Path, PathBuf};

use crate::runner::check;
use crate::system::{Plan, System};

/// A world that was asked for.
pub(super) struct Found<W> {
    pub(super) plan: Plan<W>,
    /// Whether it was stored or written, so that each of its faults is meant.
    pub(super) stored: bool,
    /// The arguments that find it again.
    pub(super) again: String,
}

/// Asked for in a way that cannot be done, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// The name of a profile, checked; the system's first without one.
pub(super) fn profile<S: System>(system: &S, name: Option<&str>) -> Result<&'static str, Usage> {
    let all = system.profiles();
    let found = match name {
        None => all.first(),
        Some(name) => all.iter().find(|profile| **profile == name),
    };
    found.copied().ok_or_else(|| {
        Usage(format!("no profile {:?}; there is {}", name.unwrap_or(""), all.join(", ")))
    })
}

/// The world of a seed, of a scenario's or stored plan's name, or of a plan's file. It can be run.
pub(super) fn world<S: System>(
    system: &S,
    what: &str,
    name: Option<&str>,
) -> Result<Found<S::Workload>, Usage> {
    let found = look(system, what, name)?;
    check(&found.plan).map_err(|wrong| {
        let program = system.program();
        Usage(format!(
            "{what:?} cannot be run: {wrong}\n`{program} list` names where each fault is legal"
        ))
    })?;
    Ok(found)
}

fn look<S: System>(
    system: &S,
    what: &str,
    name: Option<&str>,
) -> Result<Found<S::Workload>, Usage> {
    let profile = profile(system, name)?;
    if let Ok(seed) = what.parse::<u64>() {
        let again = match name {
            Some(name) => format!("{seed} --profile {name}"),
            None => seed.to_string(),
        };
        return Ok(Found { plan: system.plan_in(profile, seed), stored: false, again });
    }
    if name.is_some() {
        return Err(Usage("--profile is for seeds: a stored plan has its own".to_owned()));
    }
    let (stored, again) = (true, what.to_owned());
    if let Some(scene) = system.scenarios().into_iter().find(|scene| scene.name == what) {
        return Ok(Found { plan: scene.plan, stored, again });
    }
    let named = stored_plans(system).into_iter().find(|path| stem(path) == what);
    let path = named.unwrap_or_else(|| PathBuf::from(what));
    let wrong = |cause: String| {
        let program = system.program();
        Usage(format!(
            "{what:?} is no seed, no name and no plan's file ({cause})\n\
             `{program} list` names what there is; `{program} plan 7 > plan.json` makes a file"
        ))
    };
    let text = std::fs::read_to_string(&path).map_err(|cause| wrong(cause.to_string()))?;
    let plan = serde_json::from_str(&text).map_err(|cause| wrong(cause.to_string()))?;
    Ok(Found { plan, stored, again })
}

/// The files of stored plans, by name.
pub(super) fn stored_plans<S: System>(system: &S) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(system.plans()).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths
}

/// The name of a stored plan.
pub(super) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A plan as JSON.
pub(super) fn json<W: serde::Serialize>(plan: &Plan<W>) -> String {
    serde_json::to_string_pretty(plan).expect("a plan has a JSON form")
}
