//! Which member reads which partitions, as the group's leader decides. Pure: it sees who wants what
//! and who holds what, and never who is late.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ports::Partition;

use super::group::MemberId;
use super::topics::Topics;

/// How partitions are dealt, and with it how a rebalance goes (broker-contract K22). One for a group:
/// members of both sorts do not mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Assignor {
    /// Eager: every member gives up all it holds, and each topic is dealt anew in consecutive
    /// stretches.
    #[default]
    Range,
    /// Incremental (KIP-429): members keep what they hold but for the partitions that move, which
    /// their old owners give up in a first round and their new owners get in a second one.
    CooperativeSticky,
}

/// What the leader knows of a member.
pub(super) struct Wish<'a> {
    pub topics: &'a BTreeSet<Arc<str>>,
    /// What it holds and keeps while the group rebalances.
    pub held: &'a BTreeSet<Partition>,
}

pub(super) type Wishes<'a> = BTreeMap<MemberId, Wish<'a>>;
pub(super) type Dealt = BTreeMap<MemberId, BTreeSet<Partition>>;

impl Assignor {
    /// The partitions of each member in the next generation. What another member still holds is in
    /// nobody's set but its holder's.
    pub(super) fn deal(self, wishes: &Wishes<'_>, topics: &Topics) -> Dealt {
        match self {
            Assignor::Range => range(wishes, topics),
            Assignor::CooperativeSticky => sticky(wishes, topics),
        }
    }
}

/// Each topic's partitions in consecutive stretches, the members by age; the first ones get one more
/// where it doesn't come out even.
fn range(wishes: &Wishes<'_>, topics: &Topics) -> Dealt {
    let mut dealt: Dealt = wishes.keys().map(|id| (*id, BTreeSet::new())).collect();
    for topic in wanted(wishes) {
        let ids: Vec<MemberId> = wanting(wishes, topic).collect();
        let count = topics.count(topic) as usize;
        let (each, more) = (count / ids.len(), count % ids.len());
        let mut partitions = topics.partitions(topic).into_iter();
        for (place, id) in ids.iter().enumerate() {
            let share = each + usize::from(place < more);
            dealt.entry(*id).or_default().extend(partitions.by_ref().take(share));
        }
    }
    dealt
}

/// Everybody keeps what it has; what is free goes to who has least; then single partitions move until
/// nobody has two more than another that wants them. What moves is left out of this round.
fn sticky(wishes: &Wishes<'_>, topics: &Topics) -> Dealt {
    let mut holders: BTreeMap<Partition, MemberId> = BTreeMap::new();
    for (id, wish) in wishes {
        holders.extend(wish.held.iter().map(|partition| (partition.clone(), *id)));
    }
    let mut dealt: Dealt = wishes.iter().map(|(id, wish)| (*id, wish.held.clone())).collect();
    for topic in wanted(wishes) {
        for partition in topics.partitions(topic) {
            if !holders.contains_key(&partition)
                && let Some(id) = least(wishes, &dealt, topic)
            {
                dealt.entry(id).or_default().insert(partition);
            }
        }
    }
    while let Some((partition, from, to)) = surplus(wishes, &dealt) {
        dealt.entry(from).or_default().remove(&partition);
        dealt.entry(to).or_default().insert(partition);
    }
    for (id, mine) in &mut dealt {
        mine.retain(|partition| holders.get(partition).is_none_or(|holder| holder == id));
    }
    dealt
}

/// A partition whose owner has at least two more than another member that wants it; if there is a
/// choice, one that its owner does not hold yet, for nobody has to give that up.
fn surplus(wishes: &Wishes<'_>, dealt: &Dealt) -> Option<(Partition, MemberId, MemberId)> {
    let mut moves: Vec<_> = Vec::new();
    for (from, mine) in dealt {
        for partition in mine {
            let Some(to) = least(wishes, dealt, &partition.topic) else { continue };
            if dealt[&to].len() + 1 < mine.len() {
                let held = wishes[from].held.contains(partition);
                moves.push((held, std::cmp::Reverse((mine.len(), partition)), *from, to));
            }
        }
    }
    let (_, std::cmp::Reverse((_, partition)), from, to) = moves.into_iter().min()?;
    Some((partition.clone(), from, to))
}

/// Of the members that want the topic the one that has least, the oldest of several.
fn least(wishes: &Wishes<'_>, dealt: &Dealt, topic: &str) -> Option<MemberId> {
    wanting(wishes, topic).min_by_key(|id| dealt[id].len())
}

fn wanting<'a>(wishes: &'a Wishes<'_>, topic: &'a str) -> impl Iterator<Item = MemberId> + 'a {
    wishes.iter().filter(move |(_, wish)| wish.topics.contains(topic)).map(|(id, _)| *id)
}

fn wanted<'a>(wishes: &Wishes<'a>) -> BTreeSet<&'a Arc<str>> {
    wishes.values().flat_map(|wish| wish.topics).collect()
}
