//! A world at rest, as facts: what the log holds, what each service's database says, what the
//! gateway and the mail server know. Read here once; never judged here.

use std::collections::{BTreeMap, BTreeSet};

use chassis::{DEAD_LETTERS, DeadLetter, Document, INBOX, document};
use contract::{Event, Service, Stream};
use envelope::Envelope;
use inventory::rows::{ADJUSTMENTS, AdjustmentRow, RESERVATIONS, ReservationRow, STOCK, StockRow};
use orders::rows::SAGAS;
use orders::rules::Saga;
use payments::rows::PAYMENTS;
use payments::rules::Payment;
use payments::simulated::Ledger;
use ports::Table;
use query::rows::{ORDERS, OrderRow};
use serde_json::Value;

use crate::customers::Answered;
use crate::nodes::World;
use crate::workload::Workload;

/// A record of the log.
#[derive(Debug, Clone)]
pub struct Said {
    /// Where it stands.
    pub place: String,
    /// The topic or queue.
    pub stream: Stream,
    /// Its partition key.
    pub key: String,
    /// The whole of it.
    pub json: Value,
    /// Its id.
    pub event_id: String,
    /// Its content.
    pub fingerprint: String,
    /// What it says.
    pub event: Event,
}

/// Everything that the invariants look at.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What was asked.
    pub workload: Workload,
    /// What the customers were told.
    pub answered: Vec<Answered>,
    /// Every record of every topic, by topic, partition and offset.
    pub said: Vec<Said>,
    /// Records that no reader understands.
    pub unreadable: Vec<String>,
    /// Orders' rows.
    pub sagas: BTreeMap<String, Saga>,
    /// Inventory's books by product.
    pub stock: BTreeMap<String, StockRow>,
    /// Inventory's reservations by order.
    pub reservations: BTreeMap<String, ReservationRow>,
    /// Inventory's adjustments, Σ by product.
    pub adjusted: BTreeMap<String, i64>,
    /// Payments' rows by order.
    pub payments: BTreeMap<String, Payment>,
    /// The gateway's own books.
    pub ledger: Ledger,
    /// Query's rows by order.
    pub shown: BTreeMap<String, OrderRow>,
    /// Ids in each service's inbox.
    pub inbox: BTreeMap<Service, BTreeSet<String>>,
    /// Dead letters as `service code: error`.
    pub dead: Vec<String>,
    /// Rows left in outboxes, by service.
    pub outbox: BTreeMap<Service, usize>,
    /// Copies at the mail server by Message-ID.
    pub mails: BTreeMap<String, u32>,
    /// Sends that the worker could not be sure of, by Message-ID.
    pub unsure: BTreeMap<String, u32>,
    /// Faults that may have made the worker send again without a doubt of its own on record: kills,
    /// doubled sends, and sends slower than their time-out.
    pub mail_doubts: u32,
    /// Jobs in the queue, ready or unacked, and dead ones.
    pub queued: usize,
}

impl Facts {
    /// Reads the whole world.
    pub fn read(world: &World, workload: &Workload, answered: Vec<Answered>) -> Self {
        let mut facts = Facts {
            workload: workload.clone(),
            answered,
            said: Vec::new(),
            unreadable: Vec::new(),
            sagas: rows(world, Service::Orders, &SAGAS),
            stock: rows(world, Service::Inventory, &STOCK),
            reservations: rows(world, Service::Inventory, &RESERVATIONS),
            adjusted: BTreeMap::new(),
            payments: rows(world, Service::Payments, &PAYMENTS),
            ledger: world.gateway.ledger(),
            shown: rows(world, Service::Query, &ORDERS),
            inbox: BTreeMap::new(),
            dead: Vec::new(),
            outbox: BTreeMap::new(),
            mails: BTreeMap::new(),
            unsure: BTreeMap::new(),
            mail_doubts: mail_doubts(world),
            queued: queued(world),
        };
        let adjustments: BTreeMap<String, AdjustmentRow> =
            rows(world, Service::Inventory, &ADJUSTMENTS);
        for row in adjustments.into_values() {
            *facts.adjusted.entry(row.product_id.to_string()).or_default() += row.delta;
        }
        for service in Service::ALL {
            let store = world.cluster.database(service.name());
            store.with(|db| {
                let ids = db.rows(&INBOX).filter(|(_, row)| row.version > 0);
                facts.inbox.insert(service, ids.map(|(key, _)| key.to_string()).collect());
                facts.outbox.insert(service, db.outbox().count());
            });
            let dead: BTreeMap<String, DeadLetter> = rows(world, service, &DEAD_LETTERS);
            facts.dead.extend(
                dead.values().map(|d| format!("{} {}: {}", service.name(), d.code, d.error)),
            );
        }
        facts.read_mails(world);
        facts.read_log(world);
        facts
    }

    fn read_mails(&mut self, world: &World) {
        let kept = world.mails.kept();
        self.mails = kept.iter().map(|(id, kept)| (id.clone(), kept.copies)).collect();
        let rows: BTreeMap<String, notifications_worker::rows::MailRow> =
            rows(world, Service::NotificationsWorker, &notifications_worker::rows::MAILS);
        for row in rows.into_values() {
            let id = notifications_worker::mail::Mail::new(&row.wanted, row.sending.wanted_at)
                .message_id;
            self.unsure.insert(id, row.sending.unknown);
        }
    }

    fn read_log(&mut self, world: &World) {
        world.cluster.log().with(|log| {
            for stream in Stream::ALL.into_iter().filter(|s| s.is_topic()) {
                for fetched in log.records(stream.name()) {
                    let place = format!("{}@{}", fetched.partition, fetched.offset);
                    let payload = &fetched.record.payload;
                    let read = Envelope::read(payload).ok().and_then(|envelope| {
                        let event = Event::read(&envelope).ok()??;
                        let json = serde_json::from_slice(payload).ok()?;
                        Some((envelope, event, json))
                    });
                    let Some((envelope, event, json)) = read else {
                        self.unreadable.push(place);
                        continue;
                    };
                    self.said.push(Said {
                        place,
                        stream,
                        key: fetched.record.key.to_string(),
                        json,
                        event_id: envelope.event_id.to_string(),
                        fingerprint: envelope.fingerprint(),
                        event,
                    });
                }
            }
        });
    }

    /// The name in the workload of an order's id.
    pub fn name<'a>(&'a self, order_id: &'a str) -> &'a str {
        let answered = self.answered.iter().find(|a| a.order_id.as_deref() == Some(order_id));
        answered.map_or(order_id, |a| &a.name)
    }
}

/// See [`Facts::mail_doubts`].
fn mail_doubts(world: &World) -> u32 {
    let faults = world.cluster.faults();
    let doubts = faults.iter().filter(|(step, _)| {
        step.starts_with("kill") || *step == "duplicated @ outside" || *step == "slow @ outside"
    });
    doubts.map(|(_, count)| count.effective as u32).sum()
}

/// All documents of a table.
pub fn rows<D: Document>(
    world: &World,
    service: Service,
    table: &'static Table,
) -> BTreeMap<String, D> {
    world.cluster.database(service.name()).with(|db| {
        let rows = db.rows(table);
        rows.filter_map(|(key, row)| Some((key.to_string(), document(row)?))).collect()
    })
}

/// Jobs that wait or are in hand, and dead ones.
pub fn queued(world: &World) -> usize {
    world.cluster.queue().with(|queues, _| {
        let names = queues.names();
        let count = |name: &std::sync::Arc<str>| {
            queues.ready(name).count() + queues.unacked_of(name).count()
        };
        names.iter().map(count).sum()
    })
}
