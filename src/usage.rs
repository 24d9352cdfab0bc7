//! What processes have used of the machine, as Linux counts it: for `GET /stats` and for the reports of
//! `load`. Elsewhere nothing is known, and nothing is said.

use std::collections::BTreeMap;

use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

/// Ticks in a second of /proc, on every Linux that runs this.
const TICKS: f64 = 100.0;

/// What one process has used.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Seconds of CPU, of all its threads, user and system.
    pub cpu_s: f64,
    /// Most memory it ever held.
    pub peak_rss_mb: f64,
}

/// `GET /stats`: what this process has used.
pub fn router() -> Router {
    Router::new().route("/stats", get(|| async { Json(of_this_process()) }))
}

/// What this process has used; `None` where the system does not say.
pub fn of_this_process() -> Option<Usage> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak_kb = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let peak_kb: f64 = peak_kb.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(Usage { cpu_s: Stat::read(&stat)?.own_s, peak_rss_mb: peak_kb / 1024.0 })
}

/// CPU seconds that the whole machine has worked.
pub fn of_the_machine() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let mut busy = 0.0;
    for (at, ticks) in stat.lines().next()?.split_whitespace().skip(1).take(8).enumerate() {
        // Neither idle nor waiting for a disk.
        if at != 3 && at != 4 {
            busy += ticks.parse::<f64>().ok()?;
        }
    }
    Some(busy / TICKS)
}

/// CPU seconds of named processes with their children: `kafka=12,postgres=34`.
pub fn of_pids(named: &str) -> BTreeMap<String, f64> {
    let names: BTreeMap<&str, &str> = named
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, pid)| (pid.trim(), name.trim()))
        .collect();
    let mut used = BTreeMap::new();
    let Ok(processes) = std::fs::read_dir("/proc") else { return used };
    for process in processes.flatten() {
        let pid = process.file_name().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(process.path().join("stat"));
        let Some(stat) = text.ok().and_then(|text| Stat::read(&text)) else { continue };
        // A named one's children that ended are counted with it.
        let (name, seconds) = match (names.get(pid.as_str()), names.get(stat.parent.as_str())) {
            (Some(name), _) => (name, stat.own_s + stat.children_s),
            (None, Some(name)) => (name, stat.own_s),
            (None, None) => continue,
        };
        *used.entry((*name).to_owned()).or_default() += seconds;
    }
    used
}

/// What /proc/PID/stat says.
#[derive(Debug, PartialEq)]
struct Stat {
    parent: String,
    own_s: f64,
    children_s: f64,
}

impl Stat {
    fn read(text: &str) -> Option<Stat> {
        // The name in brackets may hold anything: the last bracket ends it.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
        let own_s = (ticks(11)? + ticks(12)?) / TICKS;
        let children_s = (ticks(13)? + ticks(14)?) / TICKS;
        Some(Stat { parent: (*fields.get(1)?).to_owned(), own_s, children_s })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let text = "12 (a) b) S 7 0 0 0 -1 0 0 0 0 0 150 50 25 75 20 0";
        let stat = Stat { parent: "7".to_owned(), own_s: 2.0, children_s: 1.0 };
        assert_eq!(Stat::read(text), Some(stat));
        assert_eq!(Stat::read("12 (a) S 7"), None);
    }
}
