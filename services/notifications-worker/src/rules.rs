//! The rules of sending a mail: wanted once for each key, sent again until the answer is definite.
//! Pure. Never sends, never gives up on an unknown answer.

use chrono::{DateTime, TimeDelta, Utc};
use contract::{NotificationChannel, NotificationJob, NotificationType, OrderId};
use envelope::rfc3339_millis;
use serde::{Deserialize, Serialize};

/// Which mail: the business key of a notification (saga-rules 8).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// Which order.
    pub order_id: OrderId,
    /// What to tell.
    #[serde(rename = "type")]
    pub kind: NotificationType,
    /// By which way.
    pub channel: NotificationChannel,
    /// From 1; more for a wanted resend.
    pub revision: u32,
}

impl Wanted {
    /// `order|type|channel|revision`. An id may have bars in it; the parts behind it may not.
    pub fn key(&self) -> String {
        let Wanted { order_id, kind, channel, revision } = self;
        format!("{order_id}|{}|{}|{revision}", kind.name(), channel.name())
    }
}

impl From<NotificationJob> for Wanted {
    fn from(job: NotificationJob) -> Self {
        let NotificationJob { order_id, kind, channel, revision } = job;
        Wanted { order_id, kind, channel, revision: revision.unwrap_or(1) }
    }
}

/// How a mail stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// To be sent at `due`.
    Pending,
    /// The sink will never take it: a person must look.
    Undeliverable,
    /// The sink has it.
    Sent,
}

impl State {
    /// As it is stored, shown and asked for.
    pub fn name(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Undeliverable => "undeliverable",
            State::Sent => "sent",
        }
    }
}

/// The sending of one mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sending {
    /// How it stands.
    pub state: State,
    /// When it was wanted, by the store's clock: the mail's date, the same on each copy.
    #[serde(with = "rfc3339_millis")]
    pub wanted_at: DateTime<Utc>,
    /// When to send it, while it is pending.
    #[serde(default, with = "envelope::rfc3339::option")]
    pub due: Option<DateTime<Utc>>,
    /// Sends that were answered.
    pub attempts: u32,
    /// Those among them whose outcome is unknown: each may have left a copy.
    pub unknown: u32,
    /// Why the sink will never take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Sending {
    /// A mail that is wanted now.
    pub fn wanted(now: DateTime<Utc>) -> Self {
        let (state, due) = (State::Pending, Some(now));
        Sending { state, wanted_at: now, due, attempts: 0, unknown: 0, reason: None }
    }
}

/// What the sink says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has the mail.
    Sent,
    /// It may have it, or not.
    Unknown,
    /// It never will take this mail, and has not taken it this time.
    Refused(String),
}

/// Pauses between sends of one mail: twice as long each time, up to a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// After the first unknown answer.
    pub first: TimeDelta,
    /// The longest.
    pub max: TimeDelta,
}

impl Retry {
    /// The pause after so many attempts, at least 1.
    pub fn pause(&self, attempts: u32) -> TimeDelta {
        let doublings = attempts.saturating_sub(1).min(30);
        self.first.checked_mul(1 << doublings).map_or(self.max, |pause| pause.min(self.max))
    }
}

/// The sending after an answer to its `attempt`th send (from 1); `None` where nothing changes.
///
/// A claim that ran out lets two send at once, so answers come in any order and more than once. An
/// attempt counts once; a definite answer outranks an unknown one, and a mail that the sink has is
/// sent, whatever else was said.
pub fn answered(
    sending: &Sending,
    attempt: u32,
    answer: &Answer,
    now: DateTime<Utc>,
    retry: Retry,
) -> Option<Sending> {
    let attempts = sending.attempts.max(attempt);
    let settled = Sending { attempts, due: None, ..sending.clone() };
    match (sending.state, answer) {
        (State::Sent, Answer::Sent | Answer::Unknown | Answer::Refused(_)) => None,
        (State::Pending | State::Undeliverable, Answer::Sent) => {
            Some(Sending { state: State::Sent, reason: None, ..settled })
        }
        (State::Undeliverable, Answer::Unknown | Answer::Refused(_)) => None,
        (State::Pending, Answer::Refused(reason)) => {
            let (state, reason) = (State::Undeliverable, Some(reason.clone()));
            Some(Sending { state, reason, ..settled })
        }
        (State::Pending, Answer::Unknown) if attempt <= sending.attempts => None,
        (State::Pending, Answer::Unknown) => {
            let due = now.checked_add_signed(retry.pause(attempts)).or(Some(now));
            Some(Sending { due, unknown: sending.unknown.saturating_add(1), ..settled })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RETRY: Retry = Retry { first: TimeDelta::seconds(1), max: TimeDelta::seconds(60) };

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn no() -> Answer {
        Answer::Refused("no such mailbox".to_owned())
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let pauses = [1, 2, 3, 6, 7, 31, 32, u32::MAX].map(|n| RETRY.pause(n).num_seconds());
        assert_eq!(pauses, [1, 2, 4, 32, 60, 60, 60, 60]);
    }

    #[test]
    fn an_unknown_answer_is_tried_again_later() {
        let first = answered(&Sending::wanted(at(0)), 1, &Answer::Unknown, at(5), RETRY).unwrap();
        assert_eq!((first.state, first.due, first.unknown), (State::Pending, Some(at(6)), 1));
        let again = answered(&first, 2, &Answer::Unknown, at(10), RETRY).unwrap();
        assert_eq!((again.attempts, again.due, again.unknown), (2, Some(at(12)), 2));
        assert_eq!(answered(&again, 2, &Answer::Unknown, at(11), RETRY), None, "counted before");
        let sent = answered(&again, 3, &Answer::Sent, at(12), RETRY).unwrap();
        assert_eq!((sent.state, sent.due, sent.attempts), (State::Sent, None, 3));
        assert_eq!(sent.wanted_at, at(0));
    }

    #[test]
    fn a_refusal_is_for_good_unless_the_sink_has_the_mail() {
        let refused = answered(&Sending::wanted(at(0)), 1, &no(), at(5), RETRY).unwrap();
        assert_eq!((refused.state, refused.due), (State::Undeliverable, None));
        assert_eq!(refused.reason.as_deref(), Some("no such mailbox"));
        assert_eq!(answered(&refused, 1, &Answer::Unknown, at(6), RETRY), None);
        let sent = answered(&refused, 1, &Answer::Sent, at(6), RETRY).unwrap();
        assert_eq!((sent.state, sent.reason.as_deref()), (State::Sent, None));
        assert_eq!(answered(&sent, 2, &no(), at(7), RETRY), None);
    }

    #[test]
    fn a_job_without_revision_wants_the_first() {
        let (kind, channel) = (NotificationType::Cancelled, NotificationChannel::Email);
        let order_id = OrderId::parse("o|1").unwrap();
        let job = NotificationJob { order_id, kind, channel, revision: None };
        assert_eq!(Wanted::from(job).key(), "o|1|cancelled|email|1");
    }

    #[test]
    fn names_are_those_of_the_wire() {
        for state in [State::Pending, State::Undeliverable, State::Sent] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
    }

    proptest! {
        #[test]
        fn every_interleaving_of_answers_ends_in_one_state(
            (one, other) in prop::collection::vec(
                (1_u32..5, prop_oneof![Just(Answer::Sent), Just(Answer::Unknown), Just(no())]),
                1..10,
            ).prop_flat_map(|answers| {
                let doubled = [answers.clone(), answers.clone()].concat();
                (Just(answers), Just(doubled).prop_shuffle())
            })
        ) {
            let end = |answers: &[(u32, Answer)]| {
                answers.iter().fold(Sending::wanted(at(0)), |sending, (attempt, answer)| {
                    answered(&sending, *attempt, answer, at(1), RETRY).unwrap_or(sending)
                })
            };
            let (one, other) = (end(&one), end(&other));
            prop_assert_eq!((one.state, &one.reason), (other.state, &other.reason));
            prop_assert_eq!(one.due.is_some(), one.state == State::Pending);
        }
    }
}
