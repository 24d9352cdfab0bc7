//! A scenario: a claim as a name, a workload, faults, and a verdict to pin in a snapshot.

use contract::{PaymentMode, Service, Stream};
use sim_engine::{FaultKind, FaultSpec, Plan, Run, Scene, Site, Violation, When, run_twice};

use crate::plan::rolling_restart;
use crate::poison::{Kind, Poison};
use crate::shop::Shop;
use crate::workload::{
    Import, Order, PriceChange, Product, Retention, Upgrade, Workload, WriteOff, node,
};

/// Something that goes wrong: at a call of a node's, and for half a second, unless it says otherwise.
#[derive(Debug, Clone)]
pub struct Mishap(FaultSpec);

impl Mishap {
    /// At the first such call of the service's first node: of a site, for what is named, in the words
    /// of [`When::CallFor`]; the empty word: for whatever.
    pub fn of(kind: FaultKind, service: Service, site: Site, what: &str) -> Self {
        let when = match what {
            "" => When::Call { site, nth: 1 },
            what => When::CallFor { site, what: what.into(), nth: 1 },
        };
        Mishap(FaultSpec { kind, node: node(service, 0), when, for_ms: 500 })
    }

    /// At the `nth` such call, from 1.
    pub fn nth(mut self, number: u64) -> Self {
        match &mut self.0.when {
            When::Call { nth, .. } | When::CallFor { nth, .. } => *nth = number,
            When::AtMs(_) => {}
        }
        self
    }

    /// On this instance, from 0.
    pub fn on(mut self, service: Service, instance: u32) -> Self {
        self.0.node = node(service, instance);
        self
    }

    /// For so long.
    pub fn for_ms(mut self, for_ms: u64) -> Self {
        self.0.for_ms = for_ms;
        self
    }
}

/// A world written by hand.
#[derive(Debug, Clone)]
pub struct Scenario {
    name: &'static str,
    claim: &'static str,
    plan: Plan<Workload>,
}

impl Scenario {
    /// A shop with enough of everything, no orders and no faults.
    pub fn new(name: &'static str, claim: &'static str) -> Self {
        let products =
            [("tea", 350, Some(50)), ("cup", 1_200, Some(50)), ("declined", 1_313, Some(50))];
        let products = products.map(|(id, price, stock)| Product { id: id.into(), price, stock });
        let workload = Workload {
            as_written: false,
            instances: std::collections::BTreeMap::new(),
            cooperative: true,
            commits_each: true,
            retention: None,
            products: products.to_vec(),
            put_up_in_bulk: false,
            prices: Vec::new(),
            price_lists: Vec::new(),
            poisons: Vec::new(),
            orders: Vec::new(),
            imports: Vec::new(),
            write_offs: Vec::new(),
            walk_ins: 0,
            strays: 0,
            refuses_mail: false,
            wordy_gateway: false,
            narrow: false,
            visited: false,
            audited: false,
            next: Vec::new(),
            upgrades: Vec::new(),
            deadline_ms: 900_000,
            heal_ms: 10_000,
            core: Vec::new(),
        };
        Scenario {
            name,
            claim,
            plan: Plan { seed: 1, workload, faults: Vec::new(), choices: Vec::new() },
        }
    }

    /// In profile `catalog`.
    pub fn as_written(mut self) -> Self {
        self.plan.workload.as_written = true;
        self
    }

    /// So many pieces of a product; `None`: Inventory does not know it.
    pub fn stock(mut self, product: &str, stock: Option<i64>) -> Self {
        self.plan.workload.products.retain(|p| p.id != product);
        self.plan.workload.products.push(Product { id: product.into(), price: 500, stock });
        self
    }

    /// Enough of a product at this price, minor units: see [`Product::price`].
    pub fn priced(mut self, product: &str, price: i64) -> Self {
        let product = Product { id: product.into(), price, stock: Some(50) };
        self.plan.workload.products.push(product);
        self
    }

    /// The operator gives a product another price.
    pub fn reprice(mut self, product: &str, at_ms: u64, price: i64) -> Self {
        let (product, price) = (product.into(), Some(price));
        let change = PriceChange {
            product,
            at_ms,
            price,
            category: None,
            looks: false,
            creates: false,
            reuses_key: false,
        };
        self.plan.workload.prices.push(change);
        self
    }

    /// The operator looks at a product and then gives it another price, if it still is as it was seen.
    pub fn reprice_as_seen(mut self, product: &str, at_ms: u64, price: i64) -> Self {
        self = self.reprice(product, at_ms, price);
        self.plan.workload.prices.iter_mut().last().expect("a change").looks = true;
        self
    }

    /// The operator writes pieces of a product off.
    pub fn write_off(mut self, product: &str, at_ms: u64, pieces: i64) -> Self {
        let name = format!("W{}", self.plan.workload.write_offs.len() + 1);
        let product = product.to_owned();
        let write_off =
            WriteOff { name, at_ms, product, pieces, again_after_ms: None, reuses_key: false };
        self.plan.workload.write_offs.push(write_off);
        self
    }

    /// Somebody looks at every list in the end.
    pub fn visited(mut self) -> Self {
        self.plan.workload.visited = true;
        self
    }

    /// Consumer groups rebalance eagerly, not cooperatively.
    pub fn eager(mut self) -> Self {
        self.plan.workload.cooperative = false;
        self
    }

    /// Inboxes have 100 rows that have expired, and are swept every second.
    pub fn swept(mut self) -> Self {
        let retention = Retention {
            old_rows: 100,
            keep_ms: 60_000,
            every_ms: 1_000,
            events_times: 1,
            letters: true,
        };
        self.plan.workload.retention = Some(retention);
        self
    }

    /// Faults go on for so long, not 10 s.
    pub fn heal_ms(mut self, heal_ms: u64) -> Self {
        self.plan.workload.heal_ms = heal_ms;
        self
    }

    /// The first instance of each service recovers, and the others stay broken until these have done
    /// all there is to do.
    pub fn core_first(mut self) -> Self {
        self.plan.workload.core = Service::ALL.map(|service| node(service, 0)).to_vec();
        self
    }

    /// So many instances of a service.
    pub fn instances(mut self, service: Service, count: u32) -> Self {
        self.plan.workload.instances.insert(service.name().to_owned(), count);
        self
    }

    /// An order of one line, paid in parallel; each comes 200 ms after the one before.
    pub fn order(self, product: &str, qty: u32) -> Self {
        self.order_with(product, qty, PaymentMode::Parallel, None)
    }

    /// An order of one line.
    pub fn order_with(
        mut self,
        product: &str,
        qty: u32,
        mode: PaymentMode,
        cancel_after_ms: Option<u64>,
    ) -> Self {
        let orders = &mut self.plan.workload.orders;
        let (name, at_ms) = (format!("A{}", orders.len() + 1), 200 * orders.len() as u64);
        let lines = vec![(product.to_owned(), qty)];
        let followed = false;
        let (resend_after_ms, reuses_key) = (None, false);
        orders.push(Order {
            name,
            at_ms,
            lines,
            mode,
            cancel_after_ms,
            followed,
            resend_after_ms,
            insists: false,
            reuses_key,
            one_key: false,
            from_cart: false,
            hold_is_stuck: false,
            again_after_ms: None,
        });
        self
    }

    /// Every customer follows its order, and an auditor all of them.
    pub fn followed(mut self) -> Self {
        self.plan.workload.orders.iter_mut().for_each(|order| order.followed = true);
        self.plan.workload.audited = true;
        self
    }

    /// An operator adjusts stock in one request of so many lines.
    pub fn import(mut self, lines: u32) -> Self {
        let name = format!("I{}", self.plan.workload.imports.len() + 1);
        let import = Import {
            name,
            at_ms: 100,
            lines,
            spoilt: None,
            again_after_ms: None,
            reuses_key: false,
        };
        self.plan.workload.imports.push(import);
        self
    }

    /// A stranger plants this on a topic or the queue, in the sequence of order `A1`.
    pub fn poison(mut self, kind: Kind, stream: Stream, mend: bool) -> Self {
        let (stream, order) = (stream.name().to_owned(), "A1".to_owned());
        self.plan.workload.poisons.push(Poison {
            at_ms: 0,
            kind,
            stream,
            order,
            mend,
            form: None,
            again_after_ms: None,
        });
        self
    }

    /// All of a service's nodes run the next release, with OrderCreated in version 2. Say how many
    /// they are first.
    pub fn next_release(mut self, service: Service) -> Self {
        let nodes = self.plan.workload.nodes(service);
        self.plan.workload.next.extend(nodes);
        self
    }

    /// One node gets the next release while customers order.
    pub fn upgrade(mut self, service: Service, instance: u32, at_ms: u64) -> Self {
        let node = node(service, instance);
        self.plan.workload.upgrades.push(Upgrade { node, at_ms });
        self
    }

    /// The saga's deadline.
    pub fn deadline_ms(mut self, deadline_ms: u64) -> Self {
        self.plan.workload.deadline_ms = deadline_ms;
        self
    }

    /// A fault at the `nth` call of a site on the service's first node.
    pub fn fault(self, kind: FaultKind, service: Service, site: Site, nth: u64) -> Self {
        self.with(Mishap::of(kind, service, site, "").nth(nth))
    }

    /// Something goes wrong.
    pub fn with(mut self, mishap: Mishap) -> Self {
        self.plan.faults.push(mishap.0);
        self
    }

    /// The service's first node is killed before the effect of one such call, and between effect and
    /// reply of another: of these numbers.
    pub fn crashes(self, service: Service, site: Site, what: &str, numbers: [u64; 2]) -> Self {
        let [before, after] = numbers;
        self.with(Mishap::of(FaultKind::KillBefore, service, site, what).nth(before))
            .with(Mishap::of(FaultKind::KillAfter, service, site, what).nth(after))
    }

    /// Every instance of every service is restarted in order, one after the other. Comes last: it
    /// takes the instances as they are by then.
    pub fn rolling_restart(mut self, first_ms: u64, every_ms: u64) -> Self {
        let restart = rolling_restart(&self.plan.workload, first_ms, every_ms);
        self.plan.faults.extend(restart);
        self
    }

    /// Its name, `<area>.<claim>`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// As the command line knows it.
    pub fn scene(self) -> Scene<Workload> {
        let snapshot = format!("snapshots/{}.snap", self.name).into();
        let (name, claim) = (self.name.to_owned(), self.claim.to_owned());
        Scene { name, claim, plan: self.plan, snapshot }
    }

    /// The world as data.
    pub fn plan(&self) -> &Plan<Workload> {
        &self.plan
    }

    /// Runs it twice. The outcome for a snapshot: never times, never random ids.
    pub fn run(&self) -> (Run, String) {
        let run = run_twice(&Shop, &self.plan);
        let mut text = format!("scenario: {}    seed {}\n", self.name, self.plan.seed);
        text.push_str(&format!("claim:    {}\n", self.claim));
        let faults: Vec<String> = run
            .faults
            .iter()
            .map(|(step, n)| format!("{step} {}/{} effective", n.effective, n.injected))
            .collect();
        let faults = if faults.is_empty() { "none".to_owned() } else { faults.join(" · ") };
        text.push_str(&format!("faults:   {faults}\n"));
        for line in &run.verdict.summary.lines {
            text.push_str(line);
            text.push('\n');
        }
        if run.verdict.is_clean() {
            text.push_str("verdict:  every invariant holds\n");
        }
        for violation in &run.verdict.violations {
            let Violation { invariant, text: cause, .. } = violation;
            text.push_str(&format!("verdict:  {invariant} broken: {cause}\n"));
        }
        (run, text)
    }
}
