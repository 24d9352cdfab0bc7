//! A world at rest, as facts: what the log holds, what each service's database says, what the
//! gateway and the mail server know. Read here once; never judged here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chassis::{
    DEAD_LETTERS, DeadLetter, Document, Due, INBOX, InboxOutcome, JOB_MARKS, LetterStanding,
    PARKED, document,
};
use chrono::{DateTime, Utc};
use contract::{Contract, Event, Service, Stream};
use envelope::Envelope;
use inventory::rows::{ADJUSTMENTS, AdjustmentRow, RESERVATIONS, ReservationRow, STOCK, StockRow};
use notifications_worker::mail::Mail;
use notifications_worker::rows::{MAILS, MailRow};
use orders::rows::{PRICES, SAGAS};
use orders::rules::{Price, Saga, Terminal};
use payments::rows::PAYMENTS;
use payments::rules::Payment;
use payments::simulated::Ledger;
use ports::{Record, Row, Table};
use query::rows::{ORDERS, OrderRow};
use serde_json::Value;
use sim_engine::{FaultSpec, TraceEvent};

use crate::customers::{Answered, Customers};
use crate::excuses::{faulty, gone, mail_doubts};
use crate::followers::Followed;
use crate::keeper::Told;
use crate::leaving;
use crate::next;
use crate::nodes::World;
use crate::poison::Planted;
use crate::watch::{Holders, Seen};
use crate::workload::{Workload, is_nobodys};

/// A record of the log.
#[derive(Debug, Clone)]
pub struct Said {
    /// Where it stands.
    pub place: String,
    /// The topic or queue.
    pub stream: Stream,
    /// Its partition key; of a job, which has its own: its order.
    pub key: String,
    /// The whole of it.
    pub json: Value,
    /// Its id.
    pub event_id: String,
    /// The trace in which it was said, by its headers.
    pub trace: Option<String>,
    /// The media type of its payload, by its headers.
    pub media_type: Option<String>,
    /// Its content.
    pub fingerprint: String,
    /// What it says.
    pub event: Event,
}

impl Said {
    /// What stands there; else the place, of what no reader understands.
    fn read(
        contract: &Contract,
        place: String,
        stream: Stream,
        record: &Record,
    ) -> Result<Self, String> {
        let payload = &record.payload;
        let read = Envelope::read(payload).ok().and_then(|envelope| {
            let event = contract.read(&envelope).ok()??;
            let json = serde_json::from_slice(payload).ok()?;
            Some((envelope, event, json))
        });
        let Some((envelope, event, json)) = read else { return Err(place) };
        let (event_id, fingerprint) = (envelope.event_id.to_string(), envelope.fingerprint());
        let key = if stream.is_topic() { record.key.to_string() } else { event.key().to_string() };
        let header = |name: &str| {
            let header = record.headers.iter().find(|(it, _)| &**it == name);
            header.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        // Version, trace, span, flags (W3C Trace Context).
        let trace = header("traceparent").and_then(|it| Some(it.split('-').nth(1)?.to_owned()));
        let media_type = header("content-type");
        Ok(Said { place, stream, key, json, event_id, trace, media_type, fingerprint, event })
    }
}

/// Everything that the invariants look at.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What was asked.
    pub workload: Workload,
    /// What the customers were told.
    pub answered: Vec<Answered>,
    /// What those who followed orders were told.
    pub followed: Vec<Followed>,
    /// Every record of every topic, by topic, partition and offset.
    pub said: Vec<Said>,
    /// Every job that was published, repeats among them, in that order.
    pub jobs: Vec<Said>,
    /// Records and jobs that no reader understands.
    pub unreadable: Vec<String>,
    /// Orders' rows.
    pub sagas: BTreeMap<String, Saga>,
    /// Inventory's books by product.
    pub stock: BTreeMap<String, StockRow>,
    /// Inventory's reservations by order.
    pub reservations: BTreeMap<String, ReservationRow>,
    /// Inventory's adjustments.
    pub adjustments: Vec<AdjustmentRow>,
    /// Their Σ by product.
    pub adjusted: BTreeMap<String, i64>,
    /// The same by product and reason.
    pub adjusted_for: BTreeMap<(String, Option<String>), i64>,
    /// Payments' rows by order.
    pub payments: BTreeMap<String, Payment>,
    /// Orders that Payments knew to be cancelled before it asked for their money.
    pub given_up: BTreeSet<String>,
    /// The gateway's own books.
    pub ledger: Ledger,
    /// Query's rows by order.
    pub shown: BTreeMap<String, OrderRow>,
    /// Ids that each service's inbox says were applied, or said so before they were swept; with when
    /// that was first seen, at most 100 ms late, as letters have their times.
    pub inbox: BTreeMap<Service, BTreeMap<String, String>>,
    /// Ids of which each service's inbox has a row in the end, where retention ran.
    pub remembered: BTreeMap<Service, BTreeSet<String>>,
    /// When the world was at rest, as [`Facts::inbox`].
    pub at_rest: DateTime<Utc>,
    /// Orders with an end that a timer still waits for.
    pub timed: Vec<String>,
    /// When the gateway and the mail server were asked, by key.
    pub asked: BTreeMap<String, Vec<Duration>>,
    /// When each letter of a service was first seen to have died while no transaction was open, as
    /// [`Facts::inbox`]: what begins from then on sees it too. One that was parked may die later.
    pub died: BTreeMap<(Service, String), String>,
    /// Letters of each service, by id.
    pub letters: BTreeMap<Service, Vec<DeadLetter>>,
    /// Keys that still wait, by service.
    pub waiting: Vec<(Service, String)>,
    /// What strangers put on topics and queue.
    pub planted: Vec<Planted>,
    /// How often nodes of a service were killed by the plan or for an upgrade, left, or stood still: by a fault, or
    /// while the others recovered.
    pub gone: BTreeMap<Service, u32>,
    /// Marks of jobs that are left, by service.
    pub marks: BTreeMap<Service, usize>,
    /// Rows left in outboxes, by service.
    pub outbox: BTreeMap<Service, usize>,
    /// Copies at the mail server by Message-ID.
    pub mails: BTreeMap<String, u32>,
    /// What each mail says, by Message-ID: its subject and its lines.
    pub mail_texts: BTreeMap<String, String>,
    /// Mails of which copies differ, by Message-ID.
    pub altered: BTreeSet<String>,
    /// Mails that the mail server never takes, by Message-ID.
    pub refused: BTreeSet<String>,
    /// The worker's rows by Message-ID.
    pub mail_rows: BTreeMap<String, MailRow>,
    /// Faults of the worker's nodes that may have made it send again without a doubt of its own on
    /// record: kills, doubled and late sends, sends slower than their time-out, leaving with a slow
    /// call, and whatever keeps a node from writing down what it sent.
    pub mail_doubts: u32,
    /// Catalog's rows by product.
    pub products: BTreeMap<String, catalog::rules::Product>,
    /// Orders' replica of the prices.
    pub prices: BTreeMap<String, Price>,
    /// Query's replica of the products.
    pub shown_products: BTreeMap<String, query::rules::Product>,
    /// The faults that met their step.
    pub met: Vec<FaultSpec>,
    /// Services that may have sent twice: a fault met its step on one of their nodes, leaving apart, or a
    /// broker crashed, or they were upgraded, or stood still while the core recovered.
    pub faulty: BTreeSet<Service>,
    /// When orders were first seen to be final, and when the faults stopped.
    pub ends: Ends,
    /// Jobs in the queue, ready or unacked, and dead ones.
    pub queued: usize,
    /// Who came and went, and what befell whom.
    pub events: Vec<TraceEvent>,
    /// What the operator asked of letters to be redriven: service, letter, answer.
    pub redrives: Vec<String>,
    /// What those were told who run the shop, and the visitor.
    pub told: Told,
    /// How the relays sent.
    pub sends: Seen,
    /// Who held which shard.
    pub holders: Holders,
}

impl Facts {
    /// Reads the whole world.
    pub fn read(
        world: &World,
        workload: &Workload,
        customers: &Customers,
        watched: Watched,
    ) -> Self {
        let Watched { ends, holders, inbox, died, given_up } = watched;
        let met = world.cluster.met();
        let mut facts = Facts {
            workload: workload.clone(),
            answered: customers.answered(),
            followed: customers.followers().known(),
            said: Vec::new(),
            jobs: Vec::new(),
            unreadable: Vec::new(),
            sagas: rows(world, Service::Orders, &SAGAS),
            stock: rows(world, Service::Inventory, &STOCK),
            reservations: rows(world, Service::Inventory, &RESERVATIONS),
            adjustments: Vec::new(),
            adjusted: BTreeMap::new(),
            adjusted_for: BTreeMap::new(),
            payments: rows(world, Service::Payments, &PAYMENTS),
            given_up,
            ledger: world.gateway.ledger(),
            shown: rows(world, Service::Query, &ORDERS),
            inbox,
            remembered: BTreeMap::new(),
            at_rest: world.cluster.now(),
            timed: timed(world),
            asked: world.asked(),
            died,
            letters: BTreeMap::new(),
            waiting: Vec::new(),
            planted: customers.planted_jobs(),
            gone: gone(&met, workload),
            marks: BTreeMap::new(),
            outbox: BTreeMap::new(),
            mails: BTreeMap::new(),
            mail_texts: BTreeMap::new(),
            altered: BTreeSet::new(),
            refused: BTreeSet::new(),
            mail_rows: BTreeMap::new(),
            mail_doubts: mail_doubts(&met, workload),
            products: rows(world, Service::Catalog, &catalog::rows::PRODUCTS),
            prices: rows(world, Service::Orders, &PRICES),
            shown_products: rows(world, Service::Query, &query::rows::PRODUCTS),
            faulty: faulty(&met, workload),
            met,
            ends,
            queued: queued(world),
            events: world.cluster.events(leaving::wanted),
            redrives: redrives(world),
            told: customers.told(),
            sends: world.sends.seen(),
            holders,
        };
        let adjustments: BTreeMap<String, AdjustmentRow> =
            rows(world, Service::Inventory, &ADJUSTMENTS);
        facts.adjustments = adjustments.into_values().collect();
        for row in &facts.adjustments {
            let (product, reason) = (row.product_id.to_string(), row.reason.clone());
            *facts.adjusted.entry(product.clone()).or_default() += row.delta;
            *facts.adjusted_for.entry((product, reason)).or_default() += row.delta;
        }
        let end = Due::at(facts.at_rest);
        for service in Service::ALL {
            let store = world.database(service);
            store.with(|db| {
                let known = facts.inbox.entry(service).or_default();
                for (key, row) in db.rows(&INBOX) {
                    if !known.contains_key(&**key) && applied(row) {
                        known.insert(key.to_string(), end.clone());
                    }
                }
                if workload.retention.is_some() {
                    let ids = db.rows(&INBOX).map(|(key, _)| key.to_string());
                    facts.remembered.insert(service, ids.collect());
                }
                let keys = db.rows(&PARKED).filter(|(_, row)| row.version > 0);
                facts.waiting.extend(keys.map(|(key, _)| (service, key.to_string())));
                facts.outbox.insert(service, db.outbox().count());
                let marks = db.rows(&JOB_MARKS).filter(|(_, row)| row.version > 0);
                facts.marks.insert(service, marks.count());
            });
            let letters: BTreeMap<String, DeadLetter> = rows(world, service, &DEAD_LETTERS);
            facts.letters.insert(service, letters.into_values().collect());
        }
        facts.read_mails(world);
        facts.read_log(world);
        facts
    }

    fn read_mails(&mut self, world: &World) {
        for (id, kept) in world.mails.kept() {
            if kept.altered > 0 {
                self.altered.insert(id.clone());
            }
            let text = format!("{}\n{}", kept.mail.subject, kept.mail.body.join("\n"));
            self.mail_texts.insert(id.clone(), text);
            if kept.refused > 0 {
                self.refused.insert(id);
            } else {
                self.mails.insert(id, kept.copies);
            }
        }
        let rows: BTreeMap<String, MailRow> = rows(world, Service::NotificationsWorker, &MAILS);
        for row in rows.into_values() {
            let id = Mail::new(&row.wanted, row.sending.wanted_at).message_id;
            self.mail_rows.insert(id, row);
        }
    }

    /// By the next release's contract, which reads every version there is.
    fn read_log(&mut self, world: &World) {
        let contract = next::contract();
        world.cluster.log().with(|log| {
            for stream in Stream::ALL.into_iter().filter(|s| s.is_topic()) {
                for fetched in log.records(stream.name()) {
                    let place = format!("{}@{}", fetched.partition, fetched.offset);
                    let letter = format!(
                        "{}:{}:{}",
                        fetched.partition.topic, fetched.partition.index, fetched.offset
                    );
                    let poisons = &self.workload.poisons;
                    if let Some(planted) = Planted::read(poisons, stream, &fetched.record, letter) {
                        self.planted.push(planted);
                        continue;
                    }
                    match Said::read(&contract, place, stream, &fetched.record) {
                        Ok(said) => self.said.push(said),
                        Err(place) => self.unreadable.push(place),
                    }
                }
            }
        });
        for (number, job) in std::mem::take(&mut self.sends.jobs).iter().enumerate() {
            match Said::read(&contract, format!("job {number}"), Stream::NotificationsJobs, job) {
                Ok(said) => self.jobs.push(said),
                Err(place) => self.unreadable.push(place),
            }
        }
    }

    /// How often an order's mail was promised once more.
    pub fn promised(&self, order_id: &str) -> usize {
        let of_it = self.answered.iter().filter(|it| it.order_id.as_deref() == Some(order_id));
        of_it.map(Answered::promised).sum()
    }

    /// The name in the workload of an order's id.
    pub fn name<'a>(&'a self, order_id: &'a str) -> &'a str {
        let answered = self.answered.iter().find(|a| a.order_id.as_deref() == Some(order_id));
        answered.map_or(order_id, |a| &a.name)
    }
}

/// See [`Facts::timed`].
fn timed(world: &World) -> Vec<String> {
    world.database(Service::Orders).with(|db| {
        let timed = db.rows(&SAGAS).filter(|(_, row)| is_first_set(row) && is_final(row));
        timed.map(|(key, _)| key.to_string()).collect()
    })
}

/// See [`Facts::redrives`].
fn redrives(world: &World) -> Vec<String> {
    let asked = |event: &TraceEvent| (&*event.node, event.what) == ("operator", "redrive");
    world.cluster.events(asked).into_iter().map(|event| event.text).collect()
}

/// When something was seen.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    /// Each final order, from the beginning of the world; at most 100 ms late.
    pub final_at: BTreeMap<String, Duration>,
    /// When the faults had stopped.
    pub healed_at: Duration,
}

/// Looks at databases all the time: rows at rest do not say when an order became final by the right
/// clock, nor who held a lease.
#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<Looked>>);

#[derive(Default)]
struct Looked {
    /// How many transactions each database had committed when it was looked at.
    commits: BTreeMap<Service, u64>,
    final_at: BTreeMap<String, Duration>,
    holders: Holders,
    inbox: BTreeMap<Service, BTreeMap<String, String>>,
    died: BTreeMap<(Service, String), String>,
    given_up: BTreeSet<String>,
}

impl Watch {
    /// Looks until it is aborted.
    pub async fn look(self, world: World, inboxes: bool) {
        loop {
            madsim::time::sleep(Duration::from_millis(100)).await;
            let now = world.cluster.elapsed();
            let mut looked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let changed = looked.changed(&world);
            looked.holders.look(&world, &changed);
            for (service, since) in changed {
                if inboxes {
                    looked.look_at_inbox(&world, service, since);
                }
                match service {
                    Service::Payments => looked.look_at_payments(&world, since),
                    Service::Orders => looked.look_at_orders(&world, since, now),
                    _ => {}
                }
            }
        }
    }

    /// Orders without an end. What was seen to have one is not looked at again.
    pub fn open_orders(&self, world: &World) -> usize {
        let looked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        world.database(Service::Orders).with(|db| {
            let open = |key: &str| !looked.final_at.contains_key(key) && !is_nobodys(key);
            let rows = db.rows(&SAGAS).filter(|(key, _)| open(key));
            rows.filter(|(_, row)| !is_final(row)).count()
        })
    }

    /// What was seen by now.
    pub fn seen(&self, now: Duration, healed_at: Duration) -> Watched {
        let looked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut holders, inbox) = (looked.holders.clone(), looked.inbox.clone());
        holders.end(now);
        let ends = Ends { final_at: looked.final_at.clone(), healed_at };
        let (died, given_up) = (looked.died.clone(), looked.given_up.clone());
        Watched { ends, holders, inbox, died, given_up }
    }
}

impl Looked {
    /// Whose rows may have changed since the last look, and how many commits it had seen.
    fn changed(&mut self, world: &World) -> Vec<(Service, u64)> {
        let mut changed = Vec::new();
        for service in Service::ALL {
            let commits = world.database(service).with(|db| db.commits());
            let since = self.commits.insert(service, commits).unwrap_or(0);
            if since < commits {
                changed.push((service, since));
            }
        }
        changed
    }

    fn look_at_orders(&mut self, world: &World, since: u64, now: Duration) {
        world.database(Service::Orders).with(|db| {
            for (key, row) in db.rows_since(&SAGAS, since) {
                if self.final_at.contains_key(&**key) {
                    continue;
                }
                if is_final(row) {
                    self.final_at.insert(key.to_string(), now);
                }
            }
        });
    }

    /// What is cancelled and was never asked for needs no money any more, whatever comes.
    fn look_at_payments(&mut self, world: &World, since: u64) {
        let cancelled = |payment: &Payment| {
            payment.terminal == Some(payments::rules::Terminal::Cancelled)
                && payment.outcome.is_none()
                && payment.wanted().is_none()
        };
        world.database(Service::Payments).with(|db| {
            for (key, row) in db.rows_since(&PAYMENTS, since) {
                if document(row).is_some_and(|it| cancelled(&it)) {
                    self.given_up.insert(key.to_string());
                }
            }
        });
    }

    /// What stands there for a moment was handled, though it is swept later.
    fn look_at_inbox(&mut self, world: &World, service: Service, since: u64) {
        let now = Due::at(world.cluster.now());
        let seen = self.inbox.entry(service).or_default();
        world.database(service).with(|db| {
            for (key, row) in db.rows_since(&INBOX, since) {
                if !seen.contains_key(&**key) && applied(row) {
                    seen.insert(key.to_string(), now.clone());
                }
            }
            // What goes on beside a letter's own transaction may not see it.
            if db.open_transactions() > 0 {
                return;
            }
            for (key, row) in db.rows(&DEAD_LETTERS) {
                let letter = (service, key.to_string());
                if !self.died.contains_key(&letter) && LetterStanding::of(row).has_died() {
                    self.died.insert(letter, now.clone());
                }
            }
        });
    }
}

/// What was seen on the way of a world.
#[derive(Debug, Clone)]
pub struct Watched {
    /// When orders ended.
    pub ends: Ends,
    /// Who held which shard.
    pub holders: Holders,
    /// Ids in each service's inbox, also of rows that are swept by now, with when they were seen.
    pub inbox: BTreeMap<Service, BTreeMap<String, String>>,
    /// When each letter was first seen.
    pub died: BTreeMap<(Service, String), String>,
    /// See [`Facts::given_up`].
    pub given_up: BTreeSet<String>,
}

fn is_final(row: &Row) -> bool {
    /// Of a saga's row all that is asked for here.
    #[derive(serde::Deserialize)]
    struct End {
        terminal: Terminal,
    }
    let end: End = serde_json::from_str(&row.body).expect("a saga's row");
    end.terminal != Terminal::None
}

fn applied(row: &Row) -> bool {
    InboxOutcome::of(row) == InboxOutcome::Applied
}

/// All documents of a table.
pub fn rows<D: Document>(
    world: &World,
    service: Service,
    table: &'static Table,
) -> BTreeMap<String, D> {
    world.database(service).with(|db| {
        let rows = db.rows(table);
        rows.filter_map(|(key, row)| Some((key.to_string(), document(row)?))).collect()
    })
}

/// The letters of a service that are not settled, by id.
pub fn open_letters(world: &World, service: Service) -> Vec<DeadLetter> {
    // Their first index column has a value as long as they are open: the others need not be read.
    world.database(service).with(|db| {
        let rows = db.rows(&DEAD_LETTERS).filter(|(_, row)| is_first_set(row));
        rows.filter_map(|(_, row)| document(row)).collect()
    })
}

/// How many rows of a table have a value in its first index column: something to do, in those that are
/// kept so.
pub fn to_do(world: &World, service: Service, table: &'static Table) -> usize {
    world.database(service).with(|db| db.rows(table).filter(|(_, row)| is_first_set(row)).count())
}

fn is_first_set(row: &Row) -> bool {
    row.index.first().is_some_and(Option::is_some)
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
