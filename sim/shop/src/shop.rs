//! The shop as a system under test: set up, sell, heal, wait until all is quiet, judge.

use std::sync::Arc;
use std::time::Duration;

use chassis::{DEAD_LETTERS, Metrics, document};
use contract::{Event, PaymentMode, Profile, Service, Stream};
use futures_util::future::join_all;
use model::log::Assignor;
use notifications_worker::rows::MAILS;
use orders::rules::Terminal;
use payments::rows::PAYMENTS;
use ports::{Key, Record, Row, Table};
use query::rows::{ORDERS, OrderRow};
use sim_engine::{
    Cluster, Coverage, Plan, Scene, Settings, Settled, Smaller, Summary, System, Verdict, Violation,
};

use crate::customers::Customers;
use crate::facts::{self, Facts, Watch};
use crate::followers::Followers;
use crate::history;
use crate::nodes::{Metered, World};
use crate::poison::Kind;
use crate::scenario::Scenario;
use crate::workload::{UNKEPT, Workload, is_late, nobodys};
use crate::{invariants, plan, poison, scenarios, smaller, story};

/// What a service waits for until another instance goes on where one is gone, seconds: its session,
/// the rebalance behind it, its lease, and the look that finds it free.
const HANDOVER_S: u64 = 6 + 5 + 4 + 3;
/// A claim of a timer, and of a mail or gateway call, seconds.
const CLAIMS_S: u64 = 30 + 21;
/// The longest pause between attempts of a mail or gateway call, seconds; longer than any behind the
/// few that faults can cost.
const PAUSE_S: u64 = 60;
/// What an order waits for at a gateway that answers late, seconds: the pauses behind the
/// [`LATE_CALLS`] that are lost, and one of the longest for each call that meets a fault besides. Faults
/// last 12 s at most: five calls are made in them, with pauses of 0.5, 1, 2, 4 and 8 s.
///
/// [`LATE_CALLS`]: crate::workload::LATE_CALLS
const LATE_S: u64 = 64 + 5 * PAUSE_S;

/// What stood still with a request in hand may go on when everything else is quiet, and order for somebody
/// without a key who has long ordered elsewhere. Whoever looks at all of a shop looks after this.
const STRAGGLERS: Duration = Duration::from_secs(5);

/// Once what is to be well is well, everything is quiet within this time: a handover in each of the
/// four services that an order passes one after the other, two claims that have to run out one after
/// the other (a failed attempt and its repeat), and a pause; and where an order's money is late, that.
pub fn quiet_within(late: bool) -> Duration {
    let late_s = if late { LATE_S } else { 0 };
    Duration::from_secs(4 * HANDOVER_S + 2 * CLAIMS_S + PAUSE_S + late_s)
}

/// Coverage marks; those that end in a colon or a gap go on with a reason, state, code or version.
const MARKS: [(&str, &str); 21] = [
    ("OrderCreated v", "orders on the log, by version"),
    ("open", "orders without an end: a failure's"),
    ("placed elsewhere", "orders of which only facts came"),
    ("confirmed", "orders that ended well"),
    ("cancelled: ", "orders that did not, by reason"),
    ("late facts", "facts that came after an order's end"),
    ("events", "distinct facts on the log"),
    ("duplicates on the log", "copies of them"),
    ("letters ", "dead letters, by how they were settled"),
    ("letters of ", "dead letters, by what was wrong"),
    ("planted", "records that strangers sent"),
    ("mails", "mails that went out"),
    ("rows sent", "outbox rows that were handed to a broker"),
    ("old rows swept", "expired inbox rows that retention removed"),
    ("leases handed over", "shards of an outbox that another instance took up"),
    ("a core recovered first", "worlds in which others stayed broken meanwhile"),
    ("leases of the broken", "leases that those held when the core recovered"),
    ("memberships of the broken", "group memberships that those held then"),
    ("frozen in a transaction", "nodes that stood still with one open"),
    ("cut off", "nodes without a way to their database while a core recovered"),
    ("left in order", "instances that finished within their drain"),
];

/// The order saga's services as one system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shop;

impl System for Shop {
    type Workload = Workload;

    fn plan(&self, seed: u64) -> Plan<Workload> {
        plan::draw(seed)
    }

    fn profiles(&self) -> Vec<&'static str> {
        vec!["default", "catalog"]
    }

    fn plan_in(&self, profile: &str, seed: u64) -> Plan<Workload> {
        let mut plan = plan::draw(seed);
        if profile == "catalog" {
            plan.workload.as_written = true;
            // As written, orders do not say how they are paid.
            plan.workload.orders.iter_mut().for_each(|order| order.mode = PaymentMode::Parallel);
        }
        plan
    }

    fn expected(&self, workload: &Workload) -> Vec<&'static str> {
        match workload.profile() {
            // As written, nobody gives back what was held for an order that is cancelled.
            Profile::Catalog => vec!["money.cancelled_holds_nothing"],
            Profile::Default => Vec::new(),
        }
    }

    fn scenarios(&self) -> Vec<Scene<Workload>> {
        scenarios::all().into_iter().map(Scenario::scene).collect()
    }

    fn coverage(&self) -> Option<Coverage> {
        let marks = vec![
            "OrderCreated v1",
            "OrderCreated v2",
            "confirmed",
            "cancelled: customer_request",
            "cancelled: deadline",
            "cancelled: declined",
            "cancelled: insufficient_stock",
            "cancelled: unknown_product",
            "placed elsewhere",
            "late facts",
            "duplicates on the log",
            "letters applied",
            "letters discarded",
            "letters superseded",
            "letters of parked",
            "letters of store_refused",
            "letters of unsupported_version",
            "old rows swept",
            "leases handed over",
            "left in order",
            "a core recovered first",
            "leases of the broken",
            "memberships of the broken",
            "frozen in a transaction",
            "cut off",
        ];
        Some(Coverage { worlds: 5_000, cells: plan::cells(), marks })
    }

    fn marks(&self) -> Vec<(&'static str, &'static str)> {
        MARKS.to_vec()
    }

    fn invariants(&self) -> Vec<&'static str> {
        invariants::ALL.iter().map(|(name, _)| *name).collect()
    }

    fn label(&self, record: &Record) -> Option<String> {
        let envelope: serde_json::Value = serde_json::from_slice(&record.payload).ok()?;
        envelope["eventType"].as_str().map(str::to_owned)
    }

    fn smaller(&self, workload: &Workload) -> Vec<Smaller<Workload>> {
        smaller::smaller(workload)
    }

    fn settings(&self, workload: &Workload) -> Settings {
        let assignor = match workload.cooperative {
            true => Assignor::CooperativeSticky,
            false => Assignor::Range,
        };
        let log = model::log::Settings {
            session_timeout: Duration::from_secs(6),
            heartbeat: Duration::from_secs(2),
            // Shorter than slow calls can be: then the group moves on, and a zombie writes.
            max_poll_interval: Duration::from_secs(5),
            poll_wait: Duration::from_secs(1),
            assignor,
            ..model::log::Settings::default()
        };
        // Shorter than slow calls can be, too: then jobs in hand go back (broker-contract R24).
        let ack_timeout = Duration::from_secs(6);
        let queue = model::queue::Settings { ack_timeout, ..model::queue::Settings::default() };
        let refuses = workload.poisons.iter().any(|it| it.kind == Kind::Unkept);
        let refuses = refuses.then_some(is_unkept as fn(&Table, &Key) -> bool);
        Settings { log, queue, delay_ms: 4, skew_ms: 2_000, refuses, ..Settings::default() }
    }

    async fn run(&self, workload: Workload, cluster: Cluster) -> Verdict {
        // Nobody looks at what is counted here.
        self.run_metered(workload, cluster, Arc::new(|_| Metrics::silent())).await
    }
}

/// What no database takes of the order of [`Kind::Unkept`]: all but what says that it was refused.
fn is_unkept(table: &Table, key: &Key) -> bool {
    !table.name.starts_with("chassis_") && key.contains(&nobodys(UNKEPT))
}

impl Shop {
    /// The same world, in which nodes count.
    pub async fn run_metered(
        &self,
        workload: Workload,
        cluster: Cluster,
        metrics: Metered,
    ) -> Verdict {
        let world = World::start(cluster.clone(), &workload, metrics).await;
        let customers = Customers::new(world.clone(), &workload);
        customers.set_up().await;
        if workload.audited {
            customers.followers().follow(None);
        }
        let begun = cluster.elapsed();
        cluster.note("customers", "set up", String::new());
        let orders = workload.orders.iter().cloned();
        let mut shoppers: Vec<_> =
            orders.map(|order| madsim::task::spawn(customers.clone().order(order))).collect();
        let prices = workload.prices.iter().cloned();
        shoppers.extend(prices.map(|it| madsim::task::spawn(customers.clone().reprice(it))));
        let lists = workload.price_lists.iter().cloned();
        shoppers.extend(lists.map(|it| madsim::task::spawn(customers.clone().reprice_many(it))));
        let upgrades = workload.upgrades.iter().cloned();
        shoppers.extend(upgrades.map(|it| madsim::task::spawn(customers.clone().upgrade(it))));
        let poisons = workload.poisons.iter().cloned().enumerate();
        shoppers.extend(
            poisons.map(|(number, poison)| {
                madsim::task::spawn(customers.clone().plant(number, poison))
            }),
        );
        let imports = workload.imports.iter().cloned();
        shoppers.extend(imports.map(|it| madsim::task::spawn(customers.clone().import(it))));
        let write_offs = workload.write_offs.iter().cloned();
        shoppers.extend(write_offs.map(|it| madsim::task::spawn(customers.clone().write_off(it))));
        shoppers.extend(
            (0..workload.strays).map(|it| madsim::task::spawn(customers.clone().stray(it))),
        );
        shoppers.extend(
            (0..workload.walk_ins).map(|it| madsim::task::spawn(customers.clone().walk_in(it))),
        );
        let operator = madsim::task::spawn(customers.clone().operate());
        let watch = Watch::default();
        let inboxes = workload.retention.is_some() || !workload.poisons.is_empty();
        let watching = madsim::task::spawn(watch.clone().look(world.clone(), inboxes));
        let heal_at = begun + Duration::from_millis(workload.heal_ms);
        madsim::time::sleep(heal_at.saturating_sub(cluster.elapsed())).await;
        let mut recovery = Recovery::default();
        if !workload.core.is_empty() {
            cluster.recover(&workload.core);
            recovery.held = world.held_by_the_broken();
            recovery.core = 1;
            join_all(shoppers.drain(..)).await;
            recovery.until_quiet(&world, &customers, &watch, "the core").await;
        }
        cluster.heal();
        join_all(shoppers).await;
        recovery.until_quiet(&world, &customers, &watch, "all").await;
        customers.done().await;
        recovery.until_quiet(&world, &customers, &watch, "all").await;
        if workload.visited {
            madsim::time::sleep(STRAGGLERS).await;
            recovery.until_quiet(&world, &customers, &watch, "all").await;
        }
        watching.abort();
        operator.abort();
        if workload.visited {
            customers.visit().await;
        }
        let healed_at = recovery.healed_at.unwrap_or_default();
        let watched = watch.seen(cluster.elapsed(), healed_at);
        let facts = Facts::read(&world, &workload, &customers, watched);
        let mut summary = summary(&facts);
        recovery.mark(&mut summary);
        recovery.violations.extend(invariants::judge(&facts));
        Verdict { summary, violations: recovery.violations }
    }
}

/// How a world came to rest.
#[derive(Default)]
struct Recovery {
    /// When the faults had ended and every customer was answered.
    healed_at: Option<Duration>,
    /// The longest that it took then, of the core and of all; and what it may take.
    took: Duration,
    bound: Duration,
    /// Whether a core recovered first; and what the others held meanwhile.
    core: u64,
    held: [usize; 2],
    violations: Vec<Violation>,
}

impl Recovery {
    /// Waits until nothing is left to do, as long as that may take once this is well.
    async fn until_quiet(
        &mut self,
        world: &World,
        customers: &Customers,
        watch: &Watch,
        well: &str,
    ) {
        let since = world.cluster.elapsed();
        self.healed_at.get_or_insert(since);
        self.bound = quiet_within(customers.answered().iter().any(|it| is_late(it.amount)));
        loop {
            let mut left = left(world, customers, watch).peekable();
            let took = world.cluster.elapsed() - since;
            self.took = self.took.max(took);
            if left.peek().is_none() {
                return;
            }
            if took > self.bound {
                let left: Vec<String> = left.collect();
                let (left, within_s) = (left.join(", "), self.bound.as_secs());
                let text =
                    format!("not quiet {within_s} s after the faults, with {well} well: {left}");
                self.violations.push(Violation::new("saga.lives", "", text));
                return;
            }
            madsim::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn mark(&self, summary: &mut Summary) {
        summary.settled = Some(Settled { took: self.took, bound: self.bound });
        summary.mark("a core recovered first", self.core);
        let names = ["leases of the broken", "memberships of the broken"];
        for (name, held) in names.into_iter().zip(self.held) {
            summary.mark(name, held as u64);
        }
    }
}

/// What is left to do: lag, rows in outboxes, jobs in queues, open orders, due calls. None: quiet.
/// Looks no further than it is asked to, and at what costs least first.
fn left<'a>(
    world: &'a World,
    customers: &'a Customers,
    watch: &'a Watch,
) -> impl Iterator<Item = String> + 'a {
    let (followers, profile) = (customers.followers(), customers.profile());
    let lag = move |service: Service| {
        let topics = Stream::ALL.into_iter().filter(|topic| topic.is_topic());
        let read = topics.filter(move |topic| poison::reads(service, *topic, profile));
        // Of every service, also of one that never came to join its group: its lag is the whole topic.
        read.filter_map(move |topic| {
            let lag = world.cluster.log().with(|log| log.lag(service.name(), topic.name()));
            let (service, topic) = (service.name(), topic.name());
            (lag > 0).then(|| format!("{service} lags {lag} behind on {topic}"))
        })
    };
    let unsent = move |service: Service| {
        let unsent = world.database(service).with(|db| db.outbox().count());
        (unsent > 0).then(|| format!("{unsent} rows in the outbox of {}", service.name()))
    };
    let letters = move |service: Service| {
        let open = facts::to_do(world, service, &DEAD_LETTERS);
        (open > 0).then(|| format!("{open} open letters in {}", service.name()))
    };
    type Count = (&'static str, fn(&World, &Watch) -> usize);
    let rest: [Count; 5] = [
        ("jobs in queues", |world, _| facts::queued(world)),
        ("rows that have expired", |world, _| history::left(world)),
        ("open orders", |world, watch| watch.open_orders(world)),
        ("gateway calls due", |world, _| facts::to_do(world, Service::Payments, &PAYMENTS)),
        ("mails due", |world, _| facts::to_do(world, Service::NotificationsWorker, &MAILS)),
    ];
    let rest = rest.into_iter().filter_map(move |(what, count)| {
        let count = count(world, watch);
        (count > 0).then(|| format!("{count} {what}"))
    });
    let all = Service::ALL.into_iter();
    let queues = all.clone().filter_map(unsent).chain(all.clone().flat_map(lag));
    queues
        .chain(rest)
        .chain(all.filter_map(letters))
        .chain(std::iter::once_with(|| behind(world, followers)).flatten())
}

/// Followers whom the last change of what they follow has not reached.
fn behind(world: &World, followers: &Followers) -> Option<String> {
    let known = followers.known();
    if known.is_empty() {
        return None;
    }
    let behind = world.database(Service::Query).with(|db| {
        let last = |order: &str| match order {
            "" => db.rows(&ORDERS).filter_map(|(_, row)| changed(row)).max().unwrap_or(0),
            order => db.row(&ORDERS, order).and_then(changed).unwrap_or(0),
        };
        known.iter().filter(|it| it.cursor < last(&it.order_id)).count()
    });
    (behind > 0).then(|| format!("{behind} followers are behind"))
}

/// The number of an order's last change.
fn changed(row: &Row) -> Option<u64> {
    document(row).map(|row: OrderRow| row.changed)
}

fn summary(facts: &Facts) -> Summary {
    let mut summary = Summary { invariants: invariants::ALL.len(), ..Summary::default() };
    summary.lines = story::lines(facts);
    for saga in facts.sagas.values() {
        let reason = saga.reason.as_deref().unwrap_or("");
        let mark = match saga.terminal {
            Terminal::None if saga.placed.is_none() => "placed elsewhere".to_owned(),
            Terminal::None => "open".to_owned(),
            Terminal::Confirmed => "confirmed".to_owned(),
            Terminal::Cancelled => {
                // A gateway may say more.
                let word = reason.split(' ').next().unwrap_or_default();
                format!("cancelled: {word}")
            }
        };
        summary.mark(&mark, 1);
        summary.mark("late facts", u64::from(saga.late.stock + saga.late.payment));
    }
    let copies = facts.said.len() as u64;
    let ids: std::collections::BTreeSet<&str> =
        facts.said.iter().map(|said| said.event_id.as_str()).collect();
    summary.mark("events", ids.len() as u64);
    summary.mark("duplicates on the log", copies - ids.len() as u64);
    for letter in facts.letters.values().flatten() {
        summary.mark(&format!("letters {}", letter.state.name()), 1);
        summary.mark(&format!("letters of {}", letter.code), 1);
    }
    summary.mark("planted", facts.planted.len() as u64);
    for said in facts.said.iter().filter(|said| matches!(said.event, Event::OrderCreated(_))) {
        let version = &said.json["eventVersion"];
        summary.mark(&format!("{} v{version}", said.event.kind()), 1);
    }
    let mails: u64 = facts.mails.values().map(|copies| u64::from(*copies)).sum();
    summary.mark("mails", mails);
    summary.mark("rows sent", facts.sends.count);
    let swept = facts.workload.retention.as_ref().map_or(0, |it| u64::from(it.old_rows) * 7);
    summary.mark("old rows swept", swept);
    summary.mark("leases handed over", facts.holders.handovers);
    let frozen = facts.events.iter().filter(|event| event.what == "frozen");
    let in_transaction = frozen.filter(|event| !event.text.ends_with(" 0 transactions open"));
    summary.mark("frozen in a transaction", in_transaction.count() as u64);
    for (mark, what) in [("left in order", "left"), ("cut off", "cut off")] {
        let events = facts.events.iter().filter(|event| event.what == what);
        summary.mark(mark, events.count() as u64);
    }
    summary
}
