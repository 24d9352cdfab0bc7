//! A world as the page's data: numbers and shared strings, so that twenty thousand events stay small.
//! Never more than it is given room for: texts are cut before events are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::ways::{Step, Ways};
use crate::fault::{FaultKind, FaultSpec};
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
    let bands = faults
        .zip(run.met.iter().skip(skipped))
        .map(|((event, it), fault)| {
            let (lane, from) = (numbers[&(NODE, it.node.to_string())], micros(it.at));
            Band { lane, from, to: from + 1_000 * lasts_ms(fault), event }
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
        transactions,
        rows,
        records,
    }
}

/// How long a fault is there; most are over with their call.
fn lasts_ms(fault: &FaultSpec) -> u64 {
    use FaultKind::{
        ChannelLost, ClockAhead, ClockBack, Duplicated, LostReply, LostRequest, Rejected,
    };
    match fault.kind {
        LostReply | LostRequest | Rejected | Duplicated | ChannelLost => 0,
        ClockAhead | ClockBack => 0,
        _ => fault.for_ms,
    }
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
