//! Judges the history of one program on the store: D2, D4, D6, D9 of the broker contract, and that
//! transactions are serializable by key. Pure. A commit of unknown outcome is done or not: each choice is tried.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Event, Seen};
use super::transactions::{Fate, Transaction, transactions};
use crate::programs::{Answer, Judgement, Stop, rule};

/// The rules, by name.
#[cfg(test)]
pub(super) const RULES: [&str; 7] = [
    "answers",     // nothing is unknown where no link is lost (D2)
    "own writes",  // a transaction sees what it wrote
    "versions",    // a version is written over once, and only where it is there (D9)
    "dirty read",  // what is read was committed, or nobody wrote it (D6)
    "stale read",  // what ended before a read was asked for is seen by it
    "cycle",       // the transactions have an order
    "lost commit", // what is committed is there at last
];

/// Commits of unknown outcome: more choices than 2 to this are too many.
const UNKNOWN_MAX: usize = 6;

/// Judges a whole history.
pub fn judge(history: &[Event]) -> Judgement {
    Judgement::of(check(history))
}

fn check(history: &[Event]) -> Result<(), Stop> {
    answers(history)?;
    let all = transactions(history);
    for (tx, this) in &all {
        for (key, seen, own) in &this.own {
            rule("own writes", seen == own, || {
                format!("{tx} reads {seen:?} of {key}, not {own:?}")
            })?;
        }
    }
    let with_fate = |fate| all.iter().filter(move |(_, this)| this.fate == fate).map(|(tx, _)| *tx);
    let committed: BTreeSet<u32> = with_fate(Fate::Committed).collect();
    let unknown: Vec<u32> = with_fate(Fate::Unknown).collect();
    if unknown.len() > UNKNOWN_MAX {
        return Err(Stop::Overflow(format!("{} commits of unknown outcome", unknown.len())));
    }
    let mut first = Ok(());
    for choice in 0..1_u32 << unknown.len() {
        let done = unknown.iter().enumerate().filter(|(at, _)| choice & (1 << at) != 0);
        let done = committed.iter().copied().chain(done.map(|(_, tx)| *tx)).collect();
        match possible(history, &all, &done) {
            Ok(()) => return Ok(()),
            Err(stop) if first.is_ok() => first = Err(stop),
            Err(_) => {}
        }
    }
    first
}

fn answers(history: &[Event]) -> Result<(), Stop> {
    for event in history {
        let (known, what) = match event {
            Event::Failed { answer, .. } => (*answer == Answer::Retry, answer),
            Event::Committed { answer, lossy: false, .. } => {
                (matches!(answer, Answer::Ok | Answer::Retry), answer)
            }
            _ => continue,
        };
        rule("answers", known, || format!("{what:?} although no link was lost: {event:?}"))?;
    }
    Ok(())
}

/// Versions of each key: who wrote it, and what.
type Chains<'a> = BTreeMap<&'a str, BTreeMap<i64, (u32, &'a Seen)>>;

/// Whether the history is one where just these are committed.
fn possible(
    history: &[Event],
    all: &BTreeMap<u32, Transaction>,
    done: &BTreeSet<u32>,
) -> Result<(), Stop> {
    let chains = chains(all, done)?;
    for (tx, this) in all {
        for read in &this.reads {
            let (key, (version, body)) = (&read.key, &read.seen);
            let chain = chains.get(&**key);
            let written = chain.and_then(|chain| chain.get(version));
            let clean = match written {
                Some((_, seen)) => seen.1 == *body,
                None => *version == 0 && body.is_empty(),
            };
            rule("dirty read", clean, || format!("{tx} reads {:?} of {key}", read.seen))?;
            let before = |writer: &u32| all[writer].ended.is_some_and(|ended| ended < read.asked);
            let newer = chain.into_iter().flat_map(|chain| chain.range(version + 1..));
            // One of unknown outcome may have become so later.
            let known = |writer: &u32| all[writer].fate == Fate::Committed;
            let missed = newer.map(|(_, (writer, _))| writer).find(|w| known(w) && before(w));
            rule("stale read", missed.is_none(), || {
                format!("{tx} reads {:?} of {key}, and {missed:?} had ended", read.seen)
            })?;
        }
    }
    let cycle = cycle(all, done, &chains);
    rule("cycle", cycle.is_none(), || format!("{cycle:?} is before itself"))?;
    for event in history {
        let Event::Final { rows } = event else { continue };
        for (key, seen) in rows {
            let absent = (0, String::new());
            let chain = chains.get(&**key);
            let last = chain.and_then(|chain| chain.values().next_back()).map(|(_, seen)| *seen);
            let last = last.unwrap_or(&absent);
            rule("lost commit", seen == last, || format!("{key} is {seen:?}, not {last:?}"))?;
        }
    }
    Ok(())
}

fn chains<'a>(
    all: &'a BTreeMap<u32, Transaction>,
    done: &BTreeSet<u32>,
) -> Result<Chains<'a>, Stop> {
    let mut over: BTreeMap<(&str, i64), u32> = BTreeMap::new();
    let mut chains: Chains = BTreeMap::new();
    for tx in done {
        let this = &all[tx];
        rule("versions", !this.torn, || format!("{tx} wrote over what was not there"))?;
        for (key, (first, seen)) in &this.writes {
            let twice = over.insert((key, *first), *tx);
            rule("versions", twice.is_none(), || {
                format!("{tx} and {twice:?} wrote over version {first} of {key}")
            })?;
            chains.entry(key).or_default().insert(seen.0, (*tx, seen));
        }
    }
    for ((key, first), tx) in over {
        let there = first == 0 || chains.get(key).is_some_and(|chain| chain.contains_key(&first));
        rule("versions", there, || format!("{tx} wrote over version {first} of {key}"))?;
    }
    Ok(chains)
}

/// A transaction that is before itself: by what it read of others, and others wrote over.
fn cycle(all: &BTreeMap<u32, Transaction>, done: &BTreeSet<u32>, chains: &Chains) -> Option<u32> {
    let mut after: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    let mut edge = |from: Option<u32>, to: Option<u32>| {
        if let (Some(from), Some(to)) = (from, to)
            && from != to
        {
            after.entry(from).or_default().insert(to);
        }
    };
    for (key, chain) in chains {
        let writer = |version: i64| chain.get(&version).map(|(tx, _)| *tx);
        let over = |version: i64| {
            let wrote = |tx: &&u32| all[tx].writes.get(*key).is_some_and(|(o, _)| *o == version);
            done.iter().find(wrote).copied()
        };
        chain.keys().for_each(|version| edge(writer(*version), over(*version)));
        for tx in done {
            for read in all[tx].reads.iter().filter(|read| read.key == **key) {
                edge(writer(read.seen.0), Some(*tx));
                edge(Some(*tx), over(read.seen.0));
            }
        }
    }
    done.iter().copied().find(|tx| {
        let mut reached = BTreeSet::new();
        let mut next = vec![*tx];
        while let Some(from) = next.pop() {
            next.extend(after.get(&from).into_iter().flatten().filter(|to| reached.insert(**to)));
        }
        reached.contains(tx)
    })
}
