//! The rules of notifying: an order is told its end once, and again only where somebody asks for
//! it. Pure. Never sends, never decides how an order ends.

use contract::{NotificationChannel, NotificationType, OrderId};
use serde::{Deserialize, Serialize};

/// The one way to notify.
pub const CHANNEL: NotificationChannel = NotificationChannel::Email;

/// What the customer of an order was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// How the order ended.
    #[serde(rename = "type")]
    pub kind: NotificationType,
    /// From 1; one more with each resend.
    pub revision: u32,
}

/// What can happen to an order's notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderFact {
    /// It ended so.
    Ended(NotificationType),
    /// Somebody asks to tell it again.
    Resend,
}

/// Why nothing follows from a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It ended in the other way before: the decider ends an order once.
    #[error("the order was {} before", .0.name())]
    Contradiction(NotificationType),
    /// There is nothing to tell again.
    #[error("the order has not ended, or its end has not come here yet")]
    NotEnded,
    /// The last revision is used.
    #[error("the order has no further revision")]
    Exhausted,
}

/// What to tell now; `None` where it was told before.
pub fn decide(told: Option<Told>, fact: OrderFact) -> Result<Option<Told>, Refusal> {
    match (told, fact) {
        (None, OrderFact::Ended(kind)) => Ok(Some(Told { kind, revision: 1 })),
        (Some(told), OrderFact::Ended(kind)) if told.kind == kind => Ok(None),
        (Some(told), OrderFact::Ended(_)) => Err(Refusal::Contradiction(told.kind)),
        (None, OrderFact::Resend) => Err(Refusal::NotEnded),
        (Some(told), OrderFact::Resend) => {
            let revision = told.revision.checked_add(1).ok_or(Refusal::Exhausted)?;
            Ok(Some(Told { revision, ..told }))
        }
    }
}

/// The business key of a notification: `order|type|channel|revision` (saga-rules 8). An id may have
/// bars in it; the three parts behind the last ones may not.
pub fn key(order: &OrderId, told: Told) -> String {
    let (kind, channel) = (told.kind.name(), CHANNEL.name());
    format!("{order}|{kind}|{channel}|{}", told.revision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use NotificationType::{Cancelled, Confirmed};
    use OrderFact::{Ended, Resend};
    use proptest::prelude::*;

    #[test]
    fn an_end_is_told_once_and_again_by_wish() {
        let first = Told { kind: Confirmed, revision: 1 };
        let second = Told { revision: 2, ..first };
        let last = Told { revision: u32::MAX, ..first };
        for (told, fact, outcome) in [
            (None, Ended(Confirmed), Ok(Some(first))),
            (Some(first), Ended(Confirmed), Ok(None)),
            (Some(second), Ended(Confirmed), Ok(None)),
            (Some(first), Ended(Cancelled), Err(Refusal::Contradiction(Confirmed))),
            (None, Resend, Err(Refusal::NotEnded)),
            (Some(first), Resend, Ok(Some(second))),
            (Some(last), Resend, Err(Refusal::Exhausted)),
        ] {
            assert_eq!(decide(told, fact), outcome, "{told:?} {fact:?}");
        }
    }

    proptest! {
        #[test]
        fn an_end_with_duplicates_and_resends_is_told_once_a_revision(
            facts in prop::collection::vec(prop_oneof![Just(Ended(Cancelled)), Just(Resend)], 0..20)
        ) {
            let mut last = None;
            let mut revisions = Vec::new();
            for fact in &facts {
                if let Ok(Some(told)) = decide(last, *fact) {
                    revisions.push(told.revision);
                    last = Some(told);
                }
            }
            let ended = facts.iter().position(|fact| *fact == Ended(Cancelled));
            let resends = ended.map(|at| facts[at..].iter().filter(|f| **f == Resend).count());
            let expected: Vec<u32> = match resends {
                Some(n) => (1..=n as u32 + 1).collect(),
                None => Vec::new(),
            };
            prop_assert_eq!(revisions, expected);
        }
    }
}
