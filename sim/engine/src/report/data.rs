//! A world as the page's data: numbers and shared strings, so that twenty thousand events stay small.
//! Never more than it is given room for: texts are cut before events are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::ways::{Step, Ways};
use crate::fault::{FaultKind, FaultSpec, Site};
use crate::outcome::{Run, Violation};
use crate::system::{Plan, System};
use crate::touch::{Detail, Touch};
use crate::trace::TraceEvent;

/// How much of texts and payloads is kept, characters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) text: usize,
    pub(super) payload: usize,
    /// The last events; earlier ones are left out.
    pub(super) events: usize,
}

#[derive(Serialize)]
struct Lane {
    name: String,
    kind: &'static str,
}

/// A fault while it lasts.
#[derive(Serialize)]
struct Band {
    lane: usize,
    from: u64,
    to: u64,
    event: usize,
}

/// A record: strings by number, events with what they are to it, places in the log.
#[derive(Serialize)]
struct Rec {
    to: usize,
    key: usize,
    label: usize,
    payload: usize,
    parents: Vec<usize>,
    steps: Vec<usize>,
    places: Vec<(usize, i64, u64)>,
}

/// Everything that the page shows. Times are microseconds.
#[derive(Serialize)]
pub(super) struct Data<'a> {
    seed: String,
    again: String,
    hash: String,
    invariants: usize,
    violations: &'a [Violation],
    /// Invariants that this workload is known to break.
    known: Vec<&'static str>,
    lines: &'a [String],
    left_out: usize,
    cut: bool,
    end: u64,
    lanes: Vec<Lane>,
    steps: Vec<&'static str>,
    strings: Vec<String>,
    /// Of each event: time since the one before, lane, what, text.
    at: Vec<u64>,
    lane: Vec<usize>,
    what: Vec<usize>,
    text: Vec<usize>,
    bands: Vec<Band>,
    /// Commits that a fault kept from any effect.
    without_effect: Vec<usize>,
    /// Event that began it, when it was over.
    transactions: Vec<(usize, u64)>,
    /// Event, the event that began its transaction, then verb, table and key of each row.
    rows: Vec<Vec<usize>>,
    records: Vec<Rec>,
}

#[derive(Default)]
struct Strings {
    all: Vec<String>,
    numbers: BTreeMap<String, usize>,
}

impl Strings {
    fn number(&mut self, text: &str) -> usize {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        self.all.push(text.to_owned());
        self.numbers.insert(text.to_owned(), self.all.len() - 1);
        self.all.len() - 1
    }
}

fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn micros(at: std::time::Duration) -> u64 {
    at.as_micros() as u64
}

/// What there is to show, within so much room.
pub(super) fn data<'a, S: System>(
    system: &S,
    plan: &Plan<S::Workload>,
    again: &str,
    run: &'a Run,
    detail: &'a Detail,
    ways: &Ways,
    room: Room,
) -> Data<'a> {
    let first = run.trace.len().saturating_sub(room.events);
    let trace = &run.trace[first..];
    let (lanes, numbers) = lanes(trace, detail);
    let mut strings = Strings::default();
    strings.number("");
    let mut before = 0;
    let (mut at, mut lane, mut what, mut text) = (vec![], vec![], vec![], vec![]);
    for event in trace {
        at.push(micros(event.at) - before);
        before = micros(event.at);
        lane.push(numbers[&(NODE, event.node.to_string())]);
        what.push(strings.number(event.what));
        text.push(strings.number(&cut(&event.text, room.text)));
    }
    let faults = trace.iter().enumerate().filter(|(_, event)| event.what == "fault");
    // Each is in the trace once, in the order in which they were met.
    let skipped = run.trace[..first].iter().filter(|event| event.what == "fault").count();
    let faults: Vec<_> = faults.zip(run.met.iter().skip(skipped)).collect();
    let without_effect = faults
        .iter()
        .filter(|((event, it), fault)| {
            let before = event.checked_sub(1).map(|before| &trace[before]);
            before.is_some_and(|before| before.what == "commit" && before.node == it.node)
                && keeps_from_effect(fault)
        })
        .map(|((event, _), _)| event - 1)
        .collect();
    let bands = faults
        .into_iter()
        .map(|((event, it), fault)| {
            let lane = numbers[&(NODE, it.node.to_string())];
            let (from, to) = lasts(fault, it, &trace[event + 1..]);
            Band { lane, from, to, event }
        })
        .collect();
    let transactions = detail.ended.iter().filter(|(begun, _)| **begun >= first);
    let transactions = transactions.map(|(begun, at)| (begun - first, micros(*at))).collect();
    let rows = detail
        .touches
        .range(first..)
        .filter_map(|(event, touches)| rows(event - first, first, touches, &mut strings))
        .collect();
    let mut records: Vec<Rec> = ways
        .ways
        .iter()
        .map(|way| {
            let kept = way.steps.iter().filter(|(event, _)| *event >= first);
            let payload = String::from_utf8_lossy(&way.record.payload);
            Rec {
                to: strings.number(&way.record.to),
                key: strings.number(&way.record.key),
                label: strings.number(&system.label(&way.record).unwrap_or_default()),
                payload: strings.number(&cut(&payload, room.payload)),
                parents: way.parents.iter().copied().collect(),
                steps: kept.flat_map(|(event, step)| [event - first, number(*step)]).collect(),
                places: Vec::new(),
            }
        })
        .collect();
    for fetched in &detail.log {
        if let Some(record) = ways.find(&fetched.record) {
            // Its own time is its producer's clock, which may be wrong: it came when it was sent.
            let sent = ways.sent(record).filter(|event| *event >= first);
            let nth = records[record].places.len();
            let Some(event) = sent.clone().nth(nth).or_else(|| sent.last()) else { continue };
            let lane = numbers[&(PARTITION, fetched.partition.to_string())];
            let at = micros(run.trace[event].at) + 1_000;
            records[record].places.push((lane, fetched.offset, at));
        }
    }
    Data {
        seed: plan.seed.to_string(),
        again: again.to_owned(),
        hash: format!("{:032x}", run.hash),
        invariants: run.verdict.summary.invariants,
        violations: &run.verdict.violations,
        known: system.expected(&plan.workload),
        lines: &run.verdict.summary.lines,
        left_out: first,
        cut: run.trace.iter().any(|event| event.text.len() > room.text),
        end: before,
        lanes,
        steps: Step::ALL.map(Step::name).to_vec(),
        strings: strings.all,
        at,
        lane,
        what,
        text,
        bands,
        without_effect,
        transactions,
        rows,
        records,
    }
}

/// From when to when a fault is there, by its event and what came later; most are over with their call.
/// Who leaves is gone once it has left, if nothing kills it first. What recovers, the core or all, makes
/// nodes, links and servers well before their time.
fn lasts(fault: &FaultSpec, event: &TraceEvent, later: &[TraceEvent]) -> (u64, u64) {
    use FaultKind as Kind;
    let at = micros(event.at);
    let first = |is: &dyn Fn(&TraceEvent) -> bool| later.iter().find(|event| is(event));
    let of_node = |what: &[&str]| first(&|it| it.node == event.node && what.contains(&it.what));
    let well = |of_core: &dyn Fn(&TraceEvent) -> bool| {
        first(&|it| it.what == "healed" || it.what == "core recovers" && of_core(it))
    };
    let mut from = at;
    let over = match fault.kind {
        Kind::LostReply | Kind::LostRequest | Kind::Rejected | Kind::Duplicated => return (at, at),
        Kind::ChannelLost | Kind::ClockAhead | Kind::ClockBack => return (at, at),
        Kind::Slow | Kind::LateEffect | Kind::Rebalance | Kind::Locked | Kind::Deadlock => None,
        Kind::KillBefore | Kind::KillAfter => of_node(&["started"]),
        Kind::Leave => {
            match of_node(&["left", "left late", "killed", "started"]) {
                Some(left) if left.what.starts_with("left") => from = micros(left.at),
                // It was killed on its way, or the world ended.
                Some(TraceEvent { what: "killed", .. }) | None => return (at, at),
                // It was still starting: the signal killed it.
                Some(_) => {}
            }
            of_node(&["started"])
        }
        Kind::Freeze => of_node(&["thawed", "killed", "left late", "started"]),
        Kind::Cut | Kind::CutRequests | Kind::CutReplies | Kind::SlowLink => {
            well(&|it| it.text.split(' ').any(|node| *node == *event.node))
        }
        Kind::RestartBefore | Kind::RestartAfter | Kind::LeaderChange | Kind::Hidden => {
            well(&|_| true)
        }
    };
    let to = from + 1_000 * fault.for_ms;
    (from, over.map_or(to, |over| to.min(micros(over.at))))
}

/// Whether it keeps the commit that it meets from any effect: its event comes right after that of the
/// commit, before the commit gets to its server.
fn keeps_from_effect(fault: &FaultSpec) -> bool {
    use FaultKind::{KillBefore, LostRequest, Rejected, RestartBefore};
    fault.when.site() == Some(Site::Commit)
        && matches!(fault.kind, KillBefore | LostRequest | Rejected | RestartBefore)
}

fn number(step: Step) -> usize {
    Step::ALL.iter().position(|other| *other == step).unwrap_or_default()
}

fn rows(
    event: usize,
    first: usize,
    touches: &[Touch],
    strings: &mut Strings,
) -> Option<Vec<usize>> {
    let mut begun = event;
    let mut rows = Vec::new();
    for touch in touches {
        match touch {
            Touch::Transaction(by) => begun = by.saturating_sub(first),
            Touch::Row { verb, table, key } => {
                rows.extend([verb, *table, &**key].map(|text| strings.number(text)));
            }
            _ => {}
        }
    }
    let known = !rows.is_empty() || begun != event;
    known.then(|| [vec![event, begun], rows].concat())
}

const NODE: u8 = 0;
const PARTITION: u8 = 1;
const QUEUE: u8 = 2;

type Numbers = BTreeMap<(u8, String), usize>;

/// Processes, then partitions, then queues; each by name.
fn lanes(trace: &[TraceEvent], detail: &Detail) -> (Vec<Lane>, Numbers) {
    let nodes = trace.iter().map(|event| (NODE, event.node.to_string()));
    let log = detail.log.iter().map(|fetched| (PARTITION, fetched.partition.to_string()));
    let queues = detail.touches.values().flatten().filter_map(|touch| match touch {
        Touch::Published(record) => Some((QUEUE, record.to.to_string())),
        _ => None,
    });
    let names: BTreeSet<(u8, String)> = nodes.chain(log).chain(queues).collect();
    let kind = |kind: u8| ["node", "partition", "queue"][usize::from(kind)];
    let lane = |(of, name): &(u8, String)| Lane { name: name.clone(), kind: kind(*of) };
    let lanes = names.iter().map(lane).collect();
    (lanes, names.into_iter().enumerate().map(|(n, name)| (name, n)).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fault::When;

    fn event(at: u64, node: &str, what: &'static str, text: &str) -> TraceEvent {
        let (at, text) = (Duration::from_micros(at), text.to_owned());
        TraceEvent { at, node: node.into(), what, text }
    }

    /// A fault of 9 ms at 1 ms on node `a`, after which this happens.
    fn lasts_with(kind: FaultKind, later: &[TraceEvent]) -> (u64, u64) {
        let when = When::Call { site: Site::Commit, nth: 1 };
        let fault = FaultSpec { kind, node: "a".to_owned(), when, for_ms: 9 };
        lasts(&fault, &event(1_000, "a", "fault", &fault.to_string()), later)
    }

    #[test]
    fn a_fault_is_over_where_its_node_link_or_server_is_well() {
        use FaultKind::{Cut, Freeze, Hidden, KillAfter, Locked, Rejected, RestartBefore};
        let recovery = |core: &str| {
            [
                event(2_000, "world", "core recovers", core),
                event(2_000, "b", "started", "b.2"),
                event(3_000, "world", "healed", ""),
                event(3_000, "a", "thawed", "a.1"),
                event(3_000, "a", "started", "a.2"),
            ]
        };
        for (kind, core, over) in [
            (Cut, "b a", 2_000),
            (Cut, "b aa", 3_000),
            (RestartBefore, "b", 2_000),
            (Hidden, "b", 2_000),
            (Freeze, "b", 3_000),
            (KillAfter, "b", 3_000),
            (Locked, "a", 10_000),
            (Rejected, "a", 1_000),
        ] {
            assert_eq!(lasts_with(kind, &recovery(core)), (1_000, over), "{kind:?}, core {core}");
        }
        assert_eq!(lasts_with(Cut, &[]), (1_000, 10_000));
    }

    #[test]
    fn who_leaves_is_gone_once_it_has_left() {
        let leaves = |later: &[TraceEvent]| lasts_with(FaultKind::Leave, later);
        let left = event(4_000, "a", "left", "a.1 for 9 ms");
        let started = event(13_000, "a", "started", "a.2");
        assert_eq!(leaves(&[left.clone(), started.clone()]), (4_000, 13_000));
        let early = event(5_000, "a", "started", "a.2");
        assert_eq!(leaves(&[left, early]), (4_000, 5_000), "all is well by then");
        let killed = event(4_000, "a", "killed", "a.1 for 9 ms");
        assert_eq!(leaves(&[killed, started]), (1_000, 1_000), "another fault did that");
    }
}
