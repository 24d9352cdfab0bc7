//! What a world is asked to do, as data: who sells what, who orders what and when.

use contract::{PaymentMode, Profile, Service};
use serde::{Deserialize, Serialize};

use crate::poison::Poison;

/// Everything that happens to the shop but its misfortunes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload {
    /// Whether the services keep to the owner's table as written.
    pub as_written: bool,
    /// Instances of each service, by its name; one where it is absent.
    pub instances: std::collections::BTreeMap<String, u32>,
    /// Whether the consumer groups rebalance cooperatively, not eagerly.
    #[serde(default)]
    pub cooperative: bool,
    /// Whether offsets are committed to the log after each batch, not once a second.
    #[serde(default = "yes")]
    pub commits_each: bool,
    /// Where retention runs in this world: what it finds, and how long it keeps what comes.
    #[serde(default)]
    pub retention: Option<Retention>,
    /// What is for sale.
    pub products: Vec<Product>,
    /// Whether it is put up in one request for the products and one for their stock, not one by one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub put_up_in_bulk: bool,
    /// What becomes of their prices while customers order.
    #[serde(default)]
    pub prices: Vec<PriceChange>,
    /// New prices of many at once, meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub price_lists: Vec<PriceList>,
    /// What strangers put on topics and queue.
    #[serde(default)]
    pub poisons: Vec<Poison>,
    /// What is ordered.
    pub orders: Vec<Order>,
    /// Stock that an operator adjusts in bulk while customers order.
    #[serde(default)]
    pub imports: Vec<Import>,
    /// Pieces of what is for sale that an operator writes off meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub write_offs: Vec<WriteOff>,
    /// How many customers order without an Idempotency-Key, the same thing each.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub walk_ins: u32,
    /// How many customers ask for orders that nobody placed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub strays: u32,
    /// Whether the mail server refuses some mails for good: of orders with an id that ends in
    /// [`REFUSED_ENDING`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refuses_mail: bool,
    /// Whether the gateway declines at length, in words that nobody may publish.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wordy_gateway: bool,
    /// Whether few commands may wait in a service.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub narrow: bool,
    /// Whether somebody looks at every list once all is done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub visited: bool,
    /// Whether somebody follows the changes of all orders.
    #[serde(default)]
    pub audited: bool,
    /// Nodes that run the next release ([`crate::next`]) from the beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
    /// Nodes that get the next release while customers order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upgrades: Vec<Upgrade>,
    /// How long the saga waits for its facts, milliseconds.
    pub deadline_ms: u64,
    /// When the faults end, milliseconds from the first order.
    pub heal_ms: u64,
    /// The nodes that recover then, at least one of each service; the others stay broken until these
    /// have done all there is to do. None: all recover at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub core: Vec<String>,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// As stored plans without the field were run.
fn yes() -> bool {
    true
}

/// As stored plans without the field were run.
fn once() -> u32 {
    1
}

/// Short periods, and a history to be swept while orders run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    /// Rows in each service's inbox that have expired when the world begins.
    pub old_rows: u32,
    /// How long outcomes are kept, milliseconds: longer than anything comes again in a world.
    pub keep_ms: u64,
    /// So many times as long those of events are.
    #[serde(default = "once")]
    pub events_times: u32,
    /// How often it sweeps, milliseconds.
    pub every_ms: u64,
    /// Whether there are letters, too: a closed one that has expired, one that is as old and open, and a closed
    /// one that has not expired.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub letters: bool,
}

/// A product and its stock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Product {
    /// Its id.
    pub id: String,
    /// Minor units; an amount that ends in 13 is declined by the gateway, and see
    /// [`LATE_ENDING`].
    pub price: i64,
    /// Pieces; `None`: Inventory does not know it.
    pub stock: Option<i64>,
}

/// See [`Workload::refuses_mail`].
pub const REFUSED_ENDING: char = 'f';

/// Amounts that end in this are answered by the gateway only after a minute: see [`LATE_CALLS`].
pub const LATE_ENDING: i64 = 77;

/// Whether the gateway is late with this amount.
pub fn is_late(amount: Option<i64>) -> bool {
    amount.is_some_and(|amount| amount % 100 == LATE_ENDING)
}

/// So many calls to hold such an amount are lost: pauses of 0.5, 1, 2, 4, 8, 16 and 32 s follow.
pub const LATE_CALLS: u32 = 7;
/// So many calls to take it or to give it back are lost besides: pauses of 0.5, 1 and 2 s.
pub const LATE_CALLS_AFTER: u32 = 3;

/// So often a customer asks for a mail who insists: into two digits.
pub const INSISTS: u32 = 10;

/// A product's category, where nothing else is said.
pub const CATEGORY: &str = "things";

/// A new price of a product, or another category.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PriceChange {
    /// Which product.
    pub product: String,
    /// When, milliseconds from the first instant after the setup.
    pub at_ms: u64,
    /// Minor units; `None`: it has none any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<i64>,
    /// Its category; [`CATEGORY`] where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Whether the operator looks first, and changes only what it saw (If-Match).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub looks: bool,
    /// Whether the operator takes the product for a new one, and wants to overwrite none (If-None-Match).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub creates: bool,
    /// Whether the operator uses its key once more when it was done, for the version that it has then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reuses_key: bool,
}

/// New prices of many products in one request: a product may come twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PriceList {
    /// Its name in this world; the Idempotency-Key.
    pub name: String,
    /// When, milliseconds from the first instant after the setup.
    pub at_ms: u64,
    /// Product and price, minor units.
    pub lines: Vec<(String, i64)>,
}

/// A node's upgrade to the next release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upgrade {
    /// Which node.
    pub node: String,
    /// When, milliseconds from the first instant after the setup.
    pub at_ms: u64,
}

/// A customer's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// Its name in this world; the Idempotency-Key.
    pub name: String,
    /// When it is placed, milliseconds from the first instant after the setup.
    pub at_ms: u64,
    /// Product and quantity.
    pub lines: Vec<(String, u32)>,
    /// How it is paid.
    pub mode: PaymentMode,
    /// So long after it was accepted the customer cancels it, milliseconds.
    pub cancel_after_ms: Option<u64>,
    /// Whether the customer follows its changes.
    #[serde(default)]
    pub followed: bool,
    /// So long after it was accepted the customer asks for its mail once more, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resend_after_ms: Option<u64>,
    /// Whether the customer then asks again and again: [`INSISTS`] times in all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insists: bool,
    /// Whether the customer uses its Idempotency-Key once more, for another order, and that of its cancel
    /// to cancel another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reuses_key: bool,
    /// Whether the customer has one key for all that it asks of the order: a key belongs to one route.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_key: bool,
    /// Whether it comes from a cart.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_cart: bool,
    /// Whether the gateway refuses to take its money once it is held, and to give it back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold_is_stuck: bool,
    /// So long after it was answered the customer places it once more with its key, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_after_ms: Option<u64>,
}

impl Order {
    /// The Idempotency-Key of another request about it.
    pub fn key(&self, what: &str) -> String {
        match self.one_key {
            true => self.name.clone(),
            false => format!("{what}-{}", self.name),
        }
    }

    /// How often its customer asks for its mail once more.
    pub fn resends(&self) -> u32 {
        match (self.resend_after_ms, self.insists) {
            (None, _) => 0,
            (Some(_), false) => 1,
            (Some(_), true) => INSISTS,
        }
    }

    /// The cart that it comes from, if it comes from one.
    pub fn cart(&self) -> Option<String> {
        self.from_cart.then(|| format!("cart-{}", self.name))
    }
}

/// A bulk request for stock of products that nobody orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Import {
    /// Its name in this world; the Idempotency-Key.
    pub name: String,
    /// When, milliseconds from the first instant after the setup.
    pub at_ms: u64,
    /// How many lines.
    pub lines: u32,
    /// Ahead of which of them a further one stands that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoilt: Option<u32>,
    /// Whether the operator uses its key once more, for a line more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reuses_key: bool,
    /// So long after it was answered the operator sends it once more, milliseconds: longer than an inbox
    /// remembers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_after_ms: Option<u64>,
}

impl Import {
    /// Product and pieces of each line: products come again, so that a line done twice shows, and so do
    /// whole lines, so that one left out does.
    pub fn lines(&self) -> impl Iterator<Item = (String, i64)> {
        (0..self.lines).map(|n| (format!("bulk{}", n % 7), 1 + i64::from(n / 14)))
    }
}

/// Pieces that are lost or broken: fewer to sell, where so many are left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WriteOff {
    /// Its name in this world; the Idempotency-Key.
    pub name: String,
    /// When, milliseconds from the first instant after the setup.
    pub at_ms: u64,
    /// Of which product.
    pub product: String,
    /// How many.
    pub pieces: i64,
    /// So long after it was answered the operator sends it once more, milliseconds: later than [`SOON_MS`]
    /// only what was done, for what was refused is forgotten with its inbox row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_after_ms: Option<u64>,
    /// Whether the operator uses its key once more when it was done, for other pieces.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reuses_key: bool,
}

/// So soon every inbox still knows what it was asked.
pub const SOON_MS: u64 = 4_000;

impl Workload {
    /// The profile that the services run in.
    pub fn profile(&self) -> Profile {
        if self.as_written { Profile::Catalog } else { Profile::Default }
    }

    /// Whether a node of this service may meet an OrderCreated in a version that its release cannot read.
    pub fn reads_late(&self, service: Service) -> bool {
        // From when on a node runs the next release.
        let from_ms = |node: &String| {
            let upgrade = self.upgrades.iter().find(|upgrade| upgrade.node == *node);
            let already = self.next.contains(node).then_some(0);
            already.or(upgrade.map(|upgrade| upgrade.at_ms)).unwrap_or(u64::MAX)
        };
        let written_ms = self.nodes(Service::Orders).iter().map(from_ms).min();
        let read_ms = self.nodes(service).iter().map(from_ms).max();
        written_ms < read_ms
    }

    /// How many instances a service has.
    pub fn count(&self, service: Service) -> u64 {
        u64::from(self.instances.get(service.name()).copied().unwrap_or(1))
    }

    /// The nodes that stay broken while the core recovers; none where all recover at once.
    pub fn broken(&self) -> impl Iterator<Item = String> {
        let services = Service::ALL.into_iter().filter(|_| !self.core.is_empty());
        let nodes = services.flat_map(|service| self.nodes(service));
        nodes.filter(|node| !self.core.contains(node))
    }

    /// The names of a service's nodes.
    pub fn nodes(&self, service: Service) -> Vec<String> {
        (0..self.count(service) as u32).map(|i| node(service, i)).collect()
    }
}

/// The cart by which the orders of walk-ins are known.
pub const WALK_INS_CART: &str = "walk-ins";

/// The id of an order that nobody placed here.
pub fn nobodys(number: u32) -> String {
    format!("{NOBODYS}{number}")
}

/// Whether an order is none that a customer placed.
pub fn is_nobodys(order: &str) -> bool {
    order.starts_with(NOBODYS)
}

const NOBODYS: &str = "nobody-";

/// The number of the order of which no database takes a row.
pub const UNKEPT: u32 = 8;
/// The number of the order about whose end strangers quarrel.
pub const QUARRELLED: u32 = 9;

/// The name of an instance's node.
pub fn node(service: Service, instance: u32) -> String {
    format!("{}#{instance}", service.name())
}
