//! The Notifications API as the chassis calls it: ends of orders and resends become jobs. Never
//! sends a job itself; what is told stands in the rules.

use std::collections::{BTreeMap, BTreeSet};

use chassis::http::Problem;
use chassis::{Decided, Emit, Handler, Input, Read, Reason, Reply, Sequence, Touched};
use chrono::{DateTime, Utc};
use contract::{
    Contract, Event, NotificationJob, NotificationType, OrderId, Profile, Reading, Service,
    Streams, derived_id,
};
use envelope::{CorrelationId, Envelope, EventId, Seal};
use ports::{Channel, Key, Table};
use serde_json::json;

use crate::rows::{ALL, NotificationRow, ORDERS, OrderRow};
use crate::rules::{self, CHANNEL, OrderFact, Refusal, Told};

/// Something that happened to an order.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Which order.
    pub order_id: OrderId,
    /// What happened.
    pub fact: OrderFact,
}

/// The rules over rows.
#[derive(Debug)]
pub struct NotificationsApi {
    /// Which versions it reads and writes.
    pub contract: Contract,
    /// Where its jobs go.
    pub streams: Streams,
    /// In profile `catalog` jobs carry neither cause nor revision.
    pub profile: Profile,
}

impl Handler for NotificationsApi {
    type Fact = Fact;

    fn tables(&self) -> &'static [&'static Table] {
        &ALL
    }

    fn event_types(&self) -> &'static [&'static str] {
        &contract::TYPES
    }

    fn read(&self, envelope: &Envelope) -> Result<Read<Fact>, Reason> {
        let event = match self.contract.read_as(Service::NotificationsApi, self.profile, envelope) {
            Ok(Reading::Event(event)) => event,
            Ok(Reading::Skip(why)) => return Ok(Read::Skip(why)),
            Err(cause) => return Err(Reason::new(cause.code(), cause.to_string())),
        };
        let (order_id, kind) = match event {
            Event::OrderConfirmed(e) => (e.order_id, NotificationType::Confirmed),
            Event::OrderCancelled(e) => (e.order_id, NotificationType::Cancelled),
            Event::ProductUpserted(_)
            | Event::OrderCreated(_)
            | Event::StockReserved(_)
            | Event::StockFailed(_)
            | Event::PaymentProcessed(_)
            | Event::NotificationJob(_) => return Ok(Read::Skip("not_consumed")),
        };
        Ok(Read::Fact(Fact { order_id, fact: OrderFact::Ended(kind) }))
    }

    /// An end is told once, whatever died before it.
    fn sequence(&self, _event_type: &str) -> Sequence {
        Sequence::Free
    }

    fn keys(
        &self,
        table: &'static Table,
        batch: &[Input<Fact>],
        rows: &Touched,
    ) -> Option<BTreeSet<Key>> {
        if table == &ORDERS {
            return Some(batch.iter().map(|input| input.fact.order_id.key()).collect());
        }
        let mut keys = BTreeSet::new();
        for (order, asked) in Asked::of(batch) {
            if !rows.holds(&ORDERS, order.as_str()) {
                return None;
            }
            keys.extend(asked.keys(order, rows.get::<OrderRow>(order.as_str())));
        }
        Some(keys)
    }

    fn decide(
        &self,
        input: &Input<Fact>,
        rows: &mut Touched,
        now: DateTime<Utc>,
    ) -> Result<Decided, Reason> {
        let Fact { order_id, fact } = &input.fact;
        let told = rows.get::<OrderRow>(order_id.as_str()).map(|row| row.told);
        match (fact, rules::decide(told, *fact)) {
            (OrderFact::Ended(_), Ok(None)) => Ok(Decided::default()),
            (OrderFact::Ended(_), Ok(Some(told))) => {
                let (_, emit) = self.tell(input, told, rows, now);
                Ok(Decided { emits: vec![emit], reply: None })
            }
            (OrderFact::Ended(_), Err(refusal)) => {
                Err(Reason::new("contradiction", refusal.to_string()))
            }
            (OrderFact::Resend, Ok(Some(told))) => {
                let (row, emit) = self.tell(input, told, rows, now);
                Ok(Decided { emits: vec![emit], reply: Some(Reply::kept(202, json!(row))) })
            }
            (OrderFact::Resend, Ok(None)) => panic!("a resend always tells or is refused"),
            (OrderFact::Resend, Err(refusal)) => {
                let reply = Some(refused(order_id, refusal));
                Ok(Decided { emits: Vec::new(), reply })
            }
        }
    }
}

fn refused(order: &OrderId, refusal: Refusal) -> Reply {
    let detail = format!("{order}: {refusal}");
    Reply::passing(match refusal {
        Refusal::NotEnded => Problem::new(409, "order-not-final", "The order is not final", detail),
        Refusal::Exhausted | Refusal::Contradiction(_) => {
            let title = "The notification cannot be sent again";
            Problem::new(409, "resend-refused", title, detail)
        }
    })
}

/// What a batch asks for of one order.
#[derive(Debug, Default)]
struct Asked {
    ends: BTreeSet<NotificationType>,
    resends: u32,
}

impl Asked {
    fn of(batch: &[Input<Fact>]) -> BTreeMap<&OrderId, Asked> {
        let mut all: BTreeMap<&OrderId, Asked> = BTreeMap::new();
        for Input { fact: Fact { order_id, fact }, .. } in batch {
            let asked = all.entry(order_id).or_default();
            match fact {
                OrderFact::Ended(kind) => drop(asked.ends.insert(*kind)),
                OrderFact::Resend => asked.resends = asked.resends.saturating_add(1),
            }
        }
        all
    }

    /// Every notification that may follow: the end, and a revision a resend behind the last one.
    fn keys(self, order: &OrderId, known: Option<OrderRow>) -> Vec<Key> {
        let mut ends = self.ends;
        let mut last = 0;
        if let Some(row) = known {
            ends = BTreeSet::from([row.told.kind]);
            last = row.told.revision;
        }
        // Behind an end of this same batch the resends begin at 2.
        let highest = last.max(1).saturating_add(self.resends);
        let one = |kind| {
            let told = (last.saturating_add(1)..=highest).map(move |n| Told { kind, revision: n });
            told.map(|told| rules::key(order, told).into())
        };
        ends.into_iter().flat_map(one).collect()
    }
}

impl NotificationsApi {
    /// The rows and the job of a notification.
    fn tell(
        &self,
        input: &Input<Fact>,
        told: Told,
        rows: &mut Touched,
        now: DateTime<Utc>,
    ) -> (NotificationRow, Emit) {
        let order_id = input.fact.order_id.clone();
        let job_id = job_id(&order_id, told);
        rows.put(&order_id.key(), &OrderRow { order_id: order_id.clone(), told });
        let row = NotificationRow {
            order_id: order_id.clone(),
            told,
            channel: CHANNEL,
            job_id: job_id.clone(),
            requested_at: now,
        };
        rows.put(&rules::key(&order_id, told).into(), &row);

        let (cause, revision) = match self.profile {
            Profile::Default => (input.context.cause.clone(), Some(told.revision)),
            Profile::Catalog => (None, None),
        };
        let correlation_id = CorrelationId::parse(order_id.as_str()).expect("an order's id is one");
        let (kind, channel) = (told.kind, CHANNEL);
        let event = Event::NotificationJob(NotificationJob { order_id, kind, channel, revision });
        let seal = Seal {
            event_id: job_id.clone(),
            occurred_at: now,
            correlation_id,
            causation_id: cause,
        };
        let envelope = self.contract.seal(&event, seal);
        let to = self.streams.name(event.stream());
        (row, Emit { channel: Channel::Queue, to, key: job_id.key(), envelope })
    }
}

/// The job's id: whoever derives it again derives the same (saga-rules 8).
pub fn job_id(order: &OrderId, told: Told) -> EventId {
    let (kind, channel) = (told.kind.name(), CHANNEL.name());
    derived_id(order, &format!("NotificationJob|{kind}|{channel}|{}", told.revision))
}

#[cfg(test)]
mod tests;
