//! What must hold of dead letters: each has a cause in the plan, each planted record comes to what it
//! must, nobody is left waiting, and what waited was applied in order. Pure functions over facts, as
//! those of `invariants`.

use std::collections::BTreeMap;

use chassis::{DeadLetter, LetterState};
use contract::{CATALOG, ProductUpserted, Service};
use envelope::Payload;

use crate::facts::{Facts, Said};
use crate::history;
use crate::invariants::found;
use crate::operator::MENDED;
use crate::poison::{Fate, Kind, Planted, reads};
use crate::workload::{QUARRELLED, nobodys};

type Bad = Vec<(String, String)>;

/// How often nodes of a service must be gone, or seem so, for a record to have used up its chances: once
/// for each mark. What the first mark follows may be any claim without progress.
const GONE: u32 = 2;

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
/// whenever its service was killed, or left later than it may wait.
pub fn have_a_cause(facts: &Facts) -> Bad {
    let own = |service: Service, letter: &DeadLetter| {
        history::is_old(letter)
            || facts.planted.iter().any(|it| it.letter == letter.id)
            || too_early(facts, service, &letter.code, letter.event_type.as_deref())
    };
    let mut bad = Vec::new();
    for (service, letter) in all(facts) {
        let gone = facts.gone.get(&service).copied().unwrap_or(0);
        let caused = match letter.code.as_str() {
            _ if own(service, letter) => true,
            "crash_loop" => gone >= GONE,
            "parked" => sequenced(facts).any(|(of, other)| {
                (of, &other.key) == (service, &letter.key)
                    && (own(service, other) || other.code == "crash_loop")
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
/// skipped, or applied, as its sort wants. Its letter keeps it to the byte.
pub fn poison_is_settled(facts: &Facts) -> Bad {
    let profile = facts.workload.profile();
    let mut bad = Vec::new();
    let first_end = first_end(facts);
    // Of an order that never held anything, Inventory does not keep that it was cancelled.
    let reservation = facts.reservations.get(&nobodys(QUARRELLED)).map(|row| &row.reservation);
    let never_held = reservation.is_some_and(|it| it.reason.is_some());
    for (at, planted) in facts.planted.iter().enumerate() {
        // Known by what was said there, whatever became of it.
        let repeats = facts.planted[..at].iter().any(|it| it.number == planted.number);
        let readers = Service::ALL.into_iter().filter(|it| reads(*it, planted.stream, profile));
        for service in readers {
            let letter = facts.letters[&service].iter().find(|it| it.id == planted.letter);
            let code = letter.map(|letter| letter.code.as_str());
            let event_type = planted.event_type.as_deref();
            let applied = planted.event_id.as_ref().is_some_and(|id| {
                facts.inbox.get(&service).is_some_and(|ids| ids.contains_key(id))
            });
            let twin =
                |it: &&Planted| it.number != planted.number && it.event_id == planted.event_id;
            let contradicts = planted.kind.is_end() && first_end != Some(planted.kind);
            let right = match (planted.fate(service, profile), code) {
                (_, code) if repeats => code.is_none(),
                (Fate::Applied, code)
                    if planted.kind.is_end() && service == Service::Inventory && never_held =>
                {
                    matches!(code, None | Some("contradiction" | "crash_loop"))
                }
                (Fate::Applied, code) if contradicts && service != Service::Query => {
                    matches!(code, Some("contradiction" | "crash_loop"))
                }
                (_, Some("crash_loop")) => true,
                (_, Some("event_id_reused")) if facts.planted.iter().any(|it| twin(&it)) => true,
                (_, Some(code)) if too_early(facts, service, code, event_type) => true,
                (Fate::Dead(wanted), Some(code)) => code == wanted,
                (Fate::Skipped | Fate::Guarded, None) => true,
                (Fate::Applied, None | Some("parked")) => applied,
                (Fate::Dead(_), None) | (Fate::Skipped | Fate::Applied | Fate::Guarded, _) => false,
            };
            if letter.is_some_and(|letter| letter.payload.bytes() != planted.bytes) {
                bad.push(found(&planted.letter, format!("{} keeps other bytes", service.name())));
            }
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

/// Whoever had a letter settled was told how it ended; who asked in vain, why not yet. What was discarded has a
/// note that says why, and nothing else has.
pub fn settled_as_told(facts: &Facts) -> Bad {
    let mut bad = Vec::new();
    for told in &facts.told.settled {
        let letter = facts.letters[&told.service].iter().find(|it| it.id == told.letter);
        let state = letter.map(|letter| letter.state.name());
        let right = match (told.status, told.verb) {
            (200, _) => told.state.as_deref() == state,
            // Out of turn, or still dead.
            (409 | 422, "redrive") => true,
            // Nobody answers in time, or a database is away.
            (status, _) => status == 503,
        };
        if !right {
            bad.push(found(
                &told.letter,
                format!("it is {state:?}, and somebody was told {told:?}"),
            ));
        }
    }
    for (service, letter) in all(facts) {
        if (letter.state == LetterState::Discarded) != letter.note.is_some() {
            let (state, note, id) = (letter.state.name(), &letter.note, &letter.id);
            bad.push(found(id, format!("{state} in {} with the note {note:?}", service.name())));
        }
    }
    bad
}

/// What was first said of how the order about which strangers quarrel ended: all of it stands in one partition.
pub fn first_end(facts: &Facts) -> Option<Kind> {
    facts.planted.iter().map(|it| it.kind).find(|kind| kind.is_end())
}

/// At rest no letter is open and no key waits, and each letter says when it was closed.
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
    let timeless = all(facts).filter(|(_, it)| it.state.is_open() == it.closed_at.is_some());
    let timeless = timeless.map(|(service, letter)| {
        let (state, at) = (letter.state.name(), &letter.closed_at);
        found(&letter.key, format!("{} is {state} since {at:?} in {}", letter.id, service.name()))
    });
    waiting.chain(open).chain(timeless).collect()
}

/// Services whose events of a key keep their order.
const ORDERED: [Service; 3] = [Service::Orders, Service::Inventory, Service::Payments];

/// Letters that stand in the sequence of their key: behind each of them later events wait.
fn sequenced(facts: &Facts) -> impl Iterator<Item = (Service, &DeadLetter)> {
    all(facts).filter(|(service, letter)| {
        let kind = letter.event_type.as_deref().unwrap_or("");
        ORDERED.contains(service)
            && letter.correlation_id.as_ref() == Some(&letter.key)
            && !contract::ends_order(kind)
            // It has an order of its own.
            && kind != ProductUpserted::TYPE
            && letter.code != "event_id_reused"
            // Redriven behind what it took the id of, it may have died of something else since.
            && !facts.planted.iter().any(|it| it.letter == letter.id && it.kind == Kind::ReusedId)
    })
}

fn closed_at(letter: &DeadLetter) -> &str {
    letter.closed_at.as_deref().unwrap_or("")
}

/// An order's end waits for no letter where it has something to undo (saga-rules 3).
pub fn ends_never_wait(facts: &Facts) -> Bad {
    let waited = all(facts).filter(|(service, letter)| {
        ORDERED.contains(service)
            && letter.code == "parked"
            && contract::ends_order(letter.event_type.as_deref().unwrap_or(""))
    });
    waited
        .map(|(service, letter)| {
            let kind = letter.event_type.as_deref().unwrap_or("");
            found(&letter.key, format!("{kind} {} waited in {}", letter.id, service.name()))
        })
        .collect()
}

/// What is dead is tried again only when an operator asks for it: a request may come twice, and each fault of
/// its service may hide that it was tried. With the right payload it is not dead again, whatever was tried
/// before.
pub fn tried_when_asked(facts: &Facts) -> Bad {
    let mut bad = Vec::new();
    for (service, letter) in all(facts) {
        let about = format!("{} {}: ", service.name(), letter.id);
        let asked = facts.redrives.iter().filter(|text| text.starts_with(&about)).count() as u32;
        let nodes = facts.workload.nodes(service);
        let hidden = facts.met.iter().filter(|fault| nodes.contains(&fault.node)).count() as u32;
        if letter.attempts > 1 + asked * (2 + hidden) {
            let (id, attempts) = (&letter.id, letter.attempts);
            let text = format!("{id} failed {attempts} times in {}, asked {asked}", service.name());
            bad.push(found(&letter.key, text));
        }
        let refused = format!("{about}422{MENDED}");
        if facts.redrives.contains(&refused)
            && !too_early(facts, service, &letter.code, letter.event_type.as_deref())
        {
            bad.push(found(&letter.key, format!("{refused}: {}", letter.error)));
        }
    }
    bad
}

/// Of the letters of a key, none is applied before an earlier one is settled.
pub fn drained_in_order(facts: &Facts) -> Bad {
    let mut keys: BTreeMap<(Service, &str), Vec<&DeadLetter>> = BTreeMap::new();
    for (service, letter) in sequenced(facts) {
        keys.entry((service, &letter.key)).or_default().push(letter);
    }
    let mut bad = Vec::new();
    for ((service, key), letters) in keys {
        for later in letters.iter().filter(|it| it.state == LetterState::Applied) {
            let overtaken = letters.iter().find(|first| {
                first.first_failed_at < later.first_failed_at && closed_at(first) > closed_at(later)
            });
            if let Some(first) = overtaken {
                let (later, first, service) = (&later.id, &first.id, service.name());
                bad.push(found(key, format!("{later} was applied before {first} in {service}")));
            }
        }
    }
    bad
}

/// While a letter of its key is open, a later event of the same partition is not applied.
pub fn nothing_overtakes(facts: &Facts) -> Bad {
    let mut first: BTreeMap<&str, (&Said, i64)> = BTreeMap::new();
    for said in &facts.said {
        let offset = said.place.rsplit('@').next().and_then(|offset| offset.parse().ok());
        first.entry(&said.event_id).or_insert((said, offset.unwrap_or(0)));
    }
    let profile = facts.workload.profile();
    let mut bad = Vec::new();
    for (service, letter) in sequenced(facts).filter(|(_, letter)| letter.has_died()) {
        let (Some(partition), Some(offset)) = (letter.partition, letter.offset) else { continue };
        let place = format!("{}/{partition}@", letter.from);
        let later = first.iter().filter(|(_, (said, at))| {
            let consumed = CATALOG.iter().any(|row| {
                row.event == said.event.kind()
                    && row.consumers_in(profile).any(|consumer| consumer == service)
            });
            consumed
                && said.key == letter.key
                && said.place.starts_with(&place)
                && *at > offset
                && !contract::ends_order(said.event.kind())
        });
        for (id, _) in later {
            let waited =
                facts.letters[&service].iter().any(|it| it.event_id.as_deref() == Some(id));
            let seen = facts.inbox.get(&service).and_then(|ids| ids.get(*id));
            if !waited && seen.is_some_and(|seen| seen.as_str() < closed_at(letter)) {
                let text = format!("{id} was applied in {} ahead of {}", service.name(), letter.id);
                bad.push(found(&letter.key, text));
            }
        }
    }
    bad
}

/// What was dead when the order's end was applied is void: nobody redrives or discards it.
pub fn void_at_the_end(facts: &Facts) -> Bad {
    let mut bad = Vec::new();
    for (service, letter) in sequenced(facts).filter(|(_, letter)| letter.has_died()) {
        if letter.state == LetterState::Superseded {
            continue;
        }
        let ends = facts
            .said
            .iter()
            .filter(|said| said.key == letter.key && contract::ends_order(said.event.kind()));
        for end in ends {
            let Some(seen) = facts.inbox.get(&service).and_then(|ids| ids.get(&end.event_id))
            else {
                continue;
            };
            // Both were seen by the same looks: what was seen in an earlier one was there before.
            let died = facts.died.get(&(service, letter.id.clone()));
            let before = died.is_some_and(|died| died < seen);
            if before && seen.as_str() < closed_at(letter) {
                let (id, state) = (&letter.id, letter.state.name());
                let text = format!("{id} was {state} in {} behind the end", service.name());
                bad.push(found(&letter.key, text));
            }
        }
    }
    bad
}
