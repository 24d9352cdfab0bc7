//! What must hold of times: pauses between calls of the world outside, and how long an id is remembered. Pure
//! functions over facts, as those of `invariants`.

use std::collections::BTreeSet;
use std::time::Duration;

use chassis::Due;
use chrono::TimeDelta;

use crate::facts::Facts;
use crate::history::is_kept;
use crate::invariants::found;

type Bad = Vec<(String, String)>;

/// So many calls of the gateway, or of the mail server, under one key take so long at least: there are pauses
/// between them, twice as long each time (0.5 s at first). Some are doubled by faults, or come late.
const CALLS_TAKE: [(usize, Duration); 2] =
    [(6, Duration::from_millis(500)), (8, Duration::from_secs(2))];

/// Who does not get an answer asks again after a pause, longer each time.
pub fn no_storm(facts: &Facts) -> Bad {
    let storm = |times: &[Duration]| {
        CALLS_TAKE.iter().any(|&(calls, take)| {
            times.windows(calls).any(|window| window[calls - 1] - window[0] < take)
        })
    };
    let keys = facts.asked.iter().filter(|(_, times)| storm(times));
    keys.map(|(key, times)| found(key, format!("asked at {times:?}"))).collect()
}

/// An inbox knows the id of an event for as long as it is to keep it; and a closed letter is kept longer.
pub fn remembered(facts: &Facts) -> Bad {
    // Clocks differ, and jump.
    const SKEW_MS: i64 = 30_000;
    let Some(retention) = &facts.workload.retention else { return Vec::new() };
    let keep_ms = retention.keep_ms as i64 * i64::from(retention.events_times) - SKEW_MS;
    let since = Due::at(facts.at_rest - TimeDelta::milliseconds(keep_ms));
    let events: BTreeSet<&str> = facts.said.iter().map(|said| said.event_id.as_str()).collect();
    let mut bad = Vec::new();
    for (service, ids) in &facts.inbox {
        let known = &facts.remembered[service];
        let gone = ids.iter().filter(|(id, seen)| events.contains(id.as_str()) && **seen > since);
        for (id, seen) in gone.filter(|(id, _)| !known.contains(*id)) {
            let text = format!("{} has forgotten what it handled at {seen}", service.name());
            bad.push(found(id, text));
        }
        if retention.letters && !facts.letters[service].iter().any(is_kept) {
            let text =
                format!("a letter of {} is gone that was closed a month ago", service.name());
            bad.push(found("", text));
        }
    }
    bad
}
