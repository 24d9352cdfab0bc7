//! What must hold of dead letters: each has a cause in the plan, each planted record comes to what it
//! must, nobody is left waiting, and what waited was applied in order. Pure functions over facts, as
//! those of `invariants`.

use std::collections::BTreeMap;

use chassis::{DeadLetter, LetterState};
use contract::Service;

use crate::facts::Facts;
use crate::invariants::found;
use crate::poison::{Fate, reads};

type Bad = Vec<(String, String)>;

/// Kills of a service's nodes that a record's three chances take, at least.
const CRASHES: u32 = 3;

fn all(facts: &Facts) -> impl Iterator<Item = (Service, &DeadLetter)> {
    facts.letters.iter().flat_map(|(service, letters)| letters.iter().map(|it| (*service, it)))
}

/// Whether it is a version that came before the upgrade of its reader.
fn too_early(facts: &Facts, service: Service, code: &str, event_type: Option<&str>) -> bool {
    code == "unsupported_version"
        && event_type == Some("OrderCreated")
        && facts.workload.reads_late(service)
}

/// A letter was planted, or came before an upgrade, or waited behind one that did, or was in hand
/// whenever its service was killed.
pub fn have_a_cause(facts: &Facts) -> Bad {
    let own = |service: Service, letter: &DeadLetter| {
        facts.planted.iter().any(|it| it.letter == letter.id)
            || too_early(facts, service, &letter.code, letter.event_type.as_deref())
    };
    let mut bad = Vec::new();
    for (service, letter) in all(facts) {
        let killed = facts.kills.get(&service).copied().unwrap_or(0);
        let caused = match letter.code.as_str() {
            _ if own(service, letter) => true,
            "crash_loop" => killed >= CRASHES,
            "parked" => facts.letters[&service].iter().any(|other| {
                other.key == letter.key && (own(service, other) || other.code == "crash_loop")
            }),
            _ => false,
        };
        if !caused {
            let DeadLetter { id, code, error, .. } = letter;
            bad.push(found(&letter.key, format!("{} {id}: {code}: {error}", service.name())));
        }
    }
    bad
}

/// In each service that reads its stream, a planted record is a dead letter that was settled, or
/// skipped, or applied, as its sort wants.
pub fn poison_is_settled(facts: &Facts) -> Bad {
    let profile = facts.workload.profile();
    let mut bad = Vec::new();
    for planted in &facts.planted {
        let readers = Service::ALL.into_iter().filter(|it| reads(*it, planted.stream, profile));
        for service in readers {
            let letter = facts.letters[&service].iter().find(|it| it.id == planted.letter);
            let code = letter.map(|letter| letter.code.as_str());
            let event_type = planted.event_type.as_deref();
            let applied = planted
                .event_id
                .as_ref()
                .is_some_and(|id| facts.inbox.get(&service).is_some_and(|ids| ids.contains(id)));
            let right = match (planted.fate(service, profile), code) {
                (_, Some("crash_loop")) => true,
                (_, Some(code)) if too_early(facts, service, code, event_type) => true,
                (Fate::Dead(wanted), Some(code)) => code == wanted,
                (Fate::Skipped, None) => true,
                (Fate::Applied, None | Some("parked")) => applied,
                (Fate::Dead(_), None) | (Fate::Skipped | Fate::Applied, _) => false,
            };
            if !right {
                let (kind, fate) = (planted.kind, planted.fate(service, profile));
                let text =
                    format!("{kind:?} should be {fate:?} in {}, is {code:?}", service.name());
                bad.push(found(&planted.letter, text));
            }
        }
    }
    bad
}

/// At rest no letter is open and no key waits.
pub fn nobody_waits(facts: &Facts) -> Bad {
    let waiting = facts
        .waiting
        .iter()
        .map(|(service, key)| found(key, format!("{} still waits in {}", key, service.name())));
    let open = all(facts).filter(|(_, letter)| letter.state.is_open()).map(|(service, letter)| {
        found(
            &letter.key,
            format!("{} is {} in {}", letter.id, letter.state.name(), service.name()),
        )
    });
    waiting.chain(open).collect()
}

/// Of the events of a key that waited in one partition, none was applied before an earlier one.
pub fn drained_in_order(facts: &Facts) -> Bad {
    let mut last: BTreeMap<(Service, &str, &str, i32), (i64, &str)> = BTreeMap::new();
    let mut bad = Vec::new();
    let mut waited: Vec<(Service, &DeadLetter)> = all(facts)
        .filter(|(_, it)| it.code == "parked" && it.state == LetterState::Applied)
        .collect();
    waited.sort_by_key(|(_, letter)| letter.offset);
    for (service, letter) in waited {
        let (Some(partition), Some(offset)) = (letter.partition, letter.offset) else { continue };
        let closed_at = letter.closed_at.as_deref().unwrap_or("");
        let place = (service, letter.key.as_str(), letter.from.as_str(), partition);
        let (before, earlier) = last.insert(place, (offset, closed_at)).unwrap_or((-1, ""));
        if earlier > closed_at {
            let text = format!("{} was applied before {before} in {}", letter.id, service.name());
            bad.push(found(&letter.key, text));
        }
    }
    bad
}
