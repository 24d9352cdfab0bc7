//! What must hold of instances that come and go: leases, offsets and memberships, over the way of a
//! world and not only its end. Pure functions over facts, as those of `invariants`.

use std::iter::successors;
use std::time::Duration;

use chassis::Settings;
use sim_engine::{FaultKind, FaultSpec, TraceEvent};

use crate::facts::Facts;
use crate::invariants::found;
use crate::nodes::{HOLDS_NOTHING, LEASE, LEFT_BEHIND, LET_GO};

type Bad = Vec<(String, String)>;

/// So long after it ended, nothing is left of what befell a node: a session (6 s) of a membership that
/// it was never told of, and a call that waited meanwhile.
const OVER: Duration = Duration::from_secs(11);

/// When nothing is left of this any more. How long it lasts is at the end of its text.
pub fn over(event: &TraceEvent) -> Duration {
    let lasts = event.text.strip_suffix(" ms").and_then(|text| text.rsplit_once(" for "));
    let lasts_ms = lasts.and_then(|(_, ms)| ms.parse().ok()).unwrap_or(0);
    event.at + Duration::from_millis(lasts_ms) + OVER
}

/// A shard that lost its holder has a new one within a lease and this: the longest pause between two
/// looks of a relay (1 s), a failed look and the pause behind it.
const SOON: Duration = Duration::from_secs(3);

/// The events that these look at.
pub fn wanted(event: &TraceEvent) -> bool {
    matches!(
        event.what,
        "fault"
            | "killed"
            | "started"
            | "leaving"
            | "left"
            | "left late"
            | "frozen"
            | "thawed"
            | "cut off"
            | CRASHED
            | LET_GO
            | LEFT_BEHIND
    )
}

/// Of a server: a trouble for every node.
const CRASHED: &str = "crashed";

/// No two instances have the same outbox row in flight under valid leases: each sending begins under
/// a valid lease of its own instance, and a shard has one lease.
pub fn sends_under_its_lease(facts: &Facts) -> Bad {
    facts.sends.unleased.iter().map(|text| found("", text.clone())).collect()
}

/// Between two attempts to send a row to a broker that does not answer there is a pause: it is not
/// sent more often than faults can be to blame for. Each may cost two attempts, and those that fit
/// into the time that it lasts; one is the row's own, and one its lease's.
pub fn no_storm(facts: &Facts) -> Bad {
    let per_fault = |fault: &FaultSpec| 2 + attempts_within(Duration::from_millis(fault.for_ms));
    let most =
        2 + facts.met.iter().map(per_fault).sum::<u64>() + 2 * facts.workload.upgrades.len() as u64;
    let storms = facts.sends.rows.iter().filter(|(_, sent)| **sent > most);
    storms
        .map(|((service, id), sent)| {
            found("", format!("row {id} of {} was sent {sent} times of {most}", service.name()))
        })
        .collect()
}

/// How many attempts a relay makes after one that failed, in so much time: the pauses before them
/// double, and jitter halves them at most.
pub fn attempts_within(time: Duration) -> u64 {
    let Settings { backoff, backoff_max, .. } = Settings::new("", "");
    let pauses = successors(Some(backoff), |pause| Some((*pause * 2).min(backoff_max)));
    let ends = pauses.scan(Duration::ZERO, |end, pause| {
        *end += pause / 2;
        Some(*end)
    });
    ends.take_while(|end| *end <= time).count() as u64
}

/// An offset is committed when what stands before it is handled, never earlier: the log's copy is not
/// ahead of the database's position.
pub fn offsets_follow(facts: &Facts) -> Bad {
    facts.sends.ahead.iter().map(|text| found("", text.clone())).collect()
}

/// A shard is without a holder no longer than a lease and a look, where an instance was up all the
/// while and nothing befell it.
pub fn shards_are_held(facts: &Facts) -> Bad {
    let mut bad = Vec::new();
    for gap in &facts.holders.gaps {
        if gap.to - gap.from <= LEASE + SOON {
            continue;
        }
        for node in facts.workload.nodes(gap.service) {
            if was_well(facts, &node, gap.from, gap.to) {
                let text = format!(
                    "shard {} of {} had no holder from {:?} to {:?}, and {node} was well",
                    gap.shard,
                    gap.service.name(),
                    gap.from,
                    gap.to
                );
                bad.push(found("", text));
            }
        }
    }
    bad
}

/// Whether the node was up and undisturbed from before `from` until `to`.
fn was_well(facts: &Facts, node: &str, from: Duration, to: Duration) -> bool {
    let concerns = |event: &&TraceEvent| *event.node == *node || event.what == CRASHED;
    let mut up = false;
    for event in facts.events.iter().filter(concerns) {
        if event.at > to {
            break;
        }
        if matches!(event.what, "started" | "thawed") && event.at <= from {
            up = true;
        } else if over(event) > from {
            return false;
        } else {
            up = matches!(event.what, "fault" | CRASHED) && up;
        }
    }
    up
}

/// Whether it is a fault of this kind.
fn is_fault(event: &TraceEvent, kind: FaultKind) -> bool {
    event.what == "fault" && event.text.starts_with(kind.name())
}

/// Who left and met no fault on the way left in time, and held no lease and no membership at that
/// instant: no time-out has to pass before others go on. Nor is anything of its own left to be sent, or
/// to be committed to the log.
pub fn lets_go_at_once(facts: &Facts) -> Bad {
    let mut bad = Vec::new();
    for (i, leaving) in facts.events.iter().enumerate().filter(|(_, e)| e.what == "leaving") {
        // A leader is missed by all, whose call it ever was that found it gone.
        let of_all =
            |event: &TraceEvent| event.what == CRASHED || is_fault(event, FaultKind::LeaderChange);
        let of_node = |event: &&TraceEvent| event.node == leaving.node || of_all(event);
        let troubled = |event: &TraceEvent| match event.what {
            "fault" => !is_fault(event, FaultKind::Leave),
            what => matches!(what, CRASHED | "frozen"),
        };
        let earlier = facts.events[..i].iter().filter(of_node);
        let mut earlier = earlier.filter(|event| over(event) > leaving.at);
        // Its partitions are still those of an earlier self that said no goodbye.
        let bereft = earlier.clone().any(|event| matches!(event.what, "killed" | "left late"));
        if earlier.any(troubled) {
            continue;
        }
        for event in facts.events[i + 1..].iter().filter(of_node) {
            let wrong = match event.what {
                LET_GO => event.text != HOLDS_NOTHING,
                LEFT_BEHIND => !bereft,
                what => what == "left late",
            };
            if wrong {
                let text = format!("{} {} {}", event.node, event.what, event.text);
                bad.push(found("", text));
            }
            if troubled(event) || matches!(event.what, "killed" | "left" | "left late") {
                break;
            }
        }
    }
    bad
}
