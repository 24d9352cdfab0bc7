//! The Notifications Worker as the chassis calls it: jobs become intents, answers of the sink their
//! ends. Never sends: that is done from the table, outside any transaction.

use std::collections::BTreeSet;

use chassis::{Decided, Handler, Input, Meter, Read, Reason, Sample, Sequence, Touched};
use chrono::{DateTime, Utc};
use contract::{Contract, Event, Profile, Reading, Service};
use envelope::Envelope;
use ports::{Key, Op, Table};

use crate::meters;
use crate::rows::{ALL, MailRow};
use crate::rules::{self, Answer, Retry, Sending, State, Wanted};

/// Everything that can happen to a mail.
#[derive(Debug, Clone)]
pub enum Fact {
    /// A job wants it.
    Wanted(Wanted),
    /// The sink answered.
    Answered {
        /// The mail's key.
        mail: Key,
        /// Which send of it, from 1.
        attempt: u32,
        /// What it said.
        answer: Answer,
    },
}

/// The rules over rows.
#[derive(Debug)]
pub struct NotificationsWorker {
    /// Which versions it reads and writes.
    pub contract: Contract,
    /// Pauses between sends.
    pub retry: Retry,
}

impl Handler for NotificationsWorker {
    type Fact = Fact;

    fn tables(&self) -> &'static [&'static Table] {
        &ALL
    }

    fn event_types(&self) -> &'static [&'static str] {
        &contract::TYPES
    }

    fn meters(&self) -> &'static [&'static Meter] {
        &meters::ALL
    }

    fn gauge_reads(&self) -> Vec<Op> {
        meters::reads()
    }

    fn gauges(&self, read: Vec<ports::Reply>, _now: DateTime<Utc>) -> Vec<Sample> {
        meters::gauges(read)
    }

    fn read(&self, envelope: &Envelope) -> Result<Read<Fact>, Reason> {
        let event =
            match self.contract.read_as(Service::NotificationsWorker, Profile::Default, envelope) {
                Ok(Reading::Event(event)) => event,
                Ok(Reading::Skip(why)) => return Ok(Read::Skip(why)),
                Err(cause) => return Err(Reason::new(cause.code(), cause.to_string())),
            };
        match event {
            Event::NotificationJob(job) => Ok(Read::Fact(Fact::Wanted(job.into()))),
            Event::ProductUpserted(_)
            | Event::OrderCreated(_)
            | Event::StockReserved(_)
            | Event::StockFailed(_)
            | Event::PaymentProcessed(_)
            | Event::OrderConfirmed(_)
            | Event::OrderCancelled(_) => Ok(Read::Skip("not_consumed")),
        }
    }

    /// Each job is a mail of its own.
    fn sequence(&self, _event_type: &str) -> Sequence {
        Sequence::Free
    }

    fn keys(
        &self,
        _table: &'static Table,
        batch: &[Input<Fact>],
        _rows: &Touched,
    ) -> Option<BTreeSet<Key>> {
        Some(batch.iter().map(|input| key(&input.fact)).collect())
    }

    fn decide(
        &self,
        input: &Input<Fact>,
        rows: &mut Touched,
        now: DateTime<Utc>,
    ) -> Result<Decided, Reason> {
        let key = key(&input.fact);
        let known = rows.get::<MailRow>(&key);
        match (&input.fact, known) {
            (Fact::Wanted(wanted), None) => {
                let sending = Sending::wanted(now);
                let (wanted, trace) = (wanted.clone(), input.context.trace.clone());
                rows.put(&key, &MailRow { wanted, sending, trace });
            }
            // A repeated wish, or an answer for a mail that was archived meanwhile.
            (Fact::Wanted(_), Some(_)) | (Fact::Answered { .. }, None) => {}
            (Fact::Answered { attempt, answer, .. }, Some(row)) => {
                let after = rules::answered(&row.sending, *attempt, answer, now, self.retry);
                if let Some(sending) = after {
                    let counted = meters::answered(row.wanted.channel, &row.sending, &sending);
                    counted.into_iter().for_each(|sample| rows.count(sample));
                    if sending.state == State::Undeliverable {
                        let (mail, reason) = (key.clone(), sending.reason.clone());
                        rows.say(move || tracing::warn!(%mail, reason, "undeliverable"));
                    }
                    rows.put(&key, &MailRow { sending, ..row });
                }
            }
        }
        Ok(Decided::default())
    }
}

fn key(fact: &Fact) -> Key {
    match fact {
        Fact::Wanted(wanted) => wanted.key().into(),
        Fact::Answered { mail, .. } => mail.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chassis::{Context, Document};
    use chrono::TimeDelta;
    use ports::{Row, Rows};

    const MAIL: &str = "o1|confirmed|email|1";

    fn worker() -> NotificationsWorker {
        let retry = Retry { first: TimeDelta::seconds(1), max: TimeDelta::seconds(60) };
        NotificationsWorker { contract: Contract::default(), retry }
    }

    fn job(payload: &str) -> Result<Read<Fact>, Reason> {
        let text = format!(
            r#"{{"eventId":"e","eventType":"NotificationJob","eventVersion":1,
            "correlationId":"o1","occurredAt":"2026-01-02T03:04:05Z","payload":{payload}}}"#
        );
        worker().read(&Envelope::read(text.as_bytes()).unwrap())
    }

    fn wanted() -> Fact {
        match job(r#"{"orderId":"o1","type":"confirmed","channel":"email"}"#) {
            Ok(Read::Fact(fact)) => fact,
            other => panic!("{other:?}"),
        }
    }

    fn decide(facts: Vec<Fact>) -> Option<MailRow> {
        let one = |fact| {
            let (fingerprint, context) = (String::new(), Context::default());
            Input { id: None, fingerprint, context, fact }
        };
        let batch: Vec<Input<Fact>> = facts.into_iter().map(one).collect();
        let keys = worker().keys(MailRow::TABLE, &batch, &Touched::new()).unwrap();
        assert_eq!(keys, BTreeSet::from([Key::from(MAIL)]));
        let mut rows = Touched::new();
        rows.add(MailRow::TABLE, Rows::from_iter([(MAIL.into(), Row::default())]));
        for (second, input) in batch.iter().enumerate() {
            let now = DateTime::from_timestamp(second as i64, 0).unwrap();
            worker().decide(input, &mut rows, now).unwrap();
        }
        rows.get(MAIL)
    }

    fn answered(attempt: u32, answer: Answer) -> Fact {
        Fact::Answered { mail: MAIL.into(), attempt, answer }
    }

    #[test]
    fn a_job_is_an_intent_that_is_due_at_once_and_a_repeat_is_nothing() {
        let once = decide(vec![wanted()]).unwrap();
        let index = [
            "1970-01-01T00:00:00.000Z",
            "o1 0000000001 confirmed email",
            "pending o1 0000000001 confirmed email",
        ];
        assert_eq!(once.index(), index.map(|value| Some(value.to_owned())));
        assert_eq!(decide(vec![wanted(), wanted()]), Some(once));
    }

    #[test]
    fn an_unknown_answer_makes_it_due_later_and_a_definite_one_never() {
        let unknown = answered(1, Answer::Unknown);
        let row = decide(vec![wanted(), unknown.clone(), wanted(), unknown.clone()]).unwrap();
        assert_eq!(row.index()[0].as_deref(), Some("1970-01-01T00:00:02.000Z"));
        assert_eq!((row.sending.attempts, row.sending.unknown), (1, 1));
        let row = decide(vec![wanted(), unknown, answered(2, Answer::Sent)]).unwrap();
        assert_eq!((row.index()[0].as_ref(), row.sending.state), (None, State::Sent));
        let refused = answered(1, Answer::Refused("gone".to_owned()));
        let row = decide(vec![wanted(), refused]).unwrap();
        let state = Some("undeliverable o1 0000000001 confirmed email".to_owned());
        assert_eq!(row.index()[1..], [row.index()[1].clone(), state]);
        assert_eq!(row.sending.reason.as_deref(), Some("gone"));
    }

    #[test]
    fn an_answer_without_a_mail_makes_none() {
        assert_eq!(decide(vec![answered(1, Answer::Sent)]), None);
    }

    #[test]
    fn broken_jobs_are_dead_letters() {
        for payload in [
            "{}",
            r#"{"orderId":"o1","type":"shipped","channel":"email"}"#,
            r#"{"orderId":"o1","type":"confirmed","channel":"pigeon"}"#,
            r#"{"orderId":"o1","type":"confirmed","channel":"email","revision":0}"#,
            r#"{"orderId":"o1\nBcc: x","type":"confirmed","channel":"email"}"#,
        ] {
            assert_eq!(job(payload).unwrap_err().code, "bad_payload", "{payload}");
        }
    }
}
