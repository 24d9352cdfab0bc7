//! Query's rules: how an order's facets and a product's replica grow, and what is shown of them.
//! Pure. Never decides anything about an order, and never depends on the order in which facts come:
//! every rule here is commutative, associative and idempotent (saga-rules 12).

use chrono::{DateTime, Utc};
use contract::{CartId, OrderCreated, PaymentMode, ProductId, ProductUpserted};
use envelope::{EventId, rfc3339_millis};
use serde::{Deserialize, Serialize};

/// A part of an order that only its own event types write.
///
/// The decider and the services say each thing once. Should two contradictory facts come all the
/// same, the smallest is kept and the facet is marked, whichever came first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facet<T> {
    /// What was said.
    #[serde(flatten)]
    pub says: T,
    /// When it happened, as its producer says; the earliest of all. Information.
    #[serde(with = "rfc3339_millis")]
    pub at: DateTime<Utc>,
    /// Whether something else was said too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conflict: bool,
}

impl<T: Ord> Facet<T> {
    fn join(known: Option<Self>, says: T, at: DateTime<Utc>) -> Option<Self> {
        let Some(known) = known else { return Some(Facet { says, at, conflict: false }) };
        let conflict = known.conflict || known.says != says;
        Some(Facet { says: known.says.min(says), at: known.at.min(at), conflict })
    }
}

/// What was ordered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    /// The cart it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cart_id: Option<CartId>,
    /// As they were ordered.
    pub lines: Vec<Line>,
    /// Minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<i64>,
    /// ISO 4217 code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// How it is paid.
    pub payment_mode: PaymentMode,
}

/// A line of an order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Which product.
    pub product_id: ProductId,
    /// How many.
    pub qty: u32,
    /// Price of one, minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_price: Option<i64>,
}

impl From<OrderCreated> for Placed {
    fn from(event: OrderCreated) -> Self {
        let lines = event.lines.into_iter().map(|line| Line {
            product_id: line.product_id,
            qty: line.qty,
            unit_price: line.unit_price,
        });
        Placed {
            cart_id: event.cart_id,
            lines: lines.collect(),
            amount: event.amount,
            currency: event.currency,
            payment_mode: event.payment_mode.unwrap_or_default(),
        }
    }
}

/// What Inventory said.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Stock {
    /// All lines are held.
    Reserved,
    /// Nothing is held.
    Failed {
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// What Payments said.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Payment {
    /// Authorised (in profile `catalog`: paid).
    Succeeded,
    /// Not paid.
    Failed {
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// How Orders ended it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Terminal {
    /// Sold.
    Confirmed,
    /// Not sold.
    Cancelled {
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// What an event says about an order: one variant a facet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderFact {
    /// OrderCreated.
    Placed(Placed),
    /// StockReserved, StockFailed.
    Stock(Stock),
    /// PaymentProcessed.
    Payment(Payment),
    /// OrderConfirmed, OrderCancelled.
    Terminal(Terminal),
}

/// An order as far as it is known: any of the facets may come first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Written by OrderCreated.
    pub placed: Option<Facet<Placed>>,
    /// Written by StockReserved and StockFailed.
    pub stock: Option<Facet<Stock>>,
    /// Written by PaymentProcessed.
    pub payment: Option<Facet<Payment>>,
    /// Written by OrderConfirmed and OrderCancelled.
    pub terminal: Option<Facet<Terminal>>,
}

impl Order {
    /// The order after a fact. A repeated fact changes nothing.
    pub fn join(self, fact: OrderFact, at: DateTime<Utc>) -> Order {
        match fact {
            OrderFact::Placed(says) => Order { placed: Facet::join(self.placed, says, at), ..self },
            OrderFact::Stock(says) => Order { stock: Facet::join(self.stock, says, at), ..self },
            OrderFact::Payment(says) => {
                Order { payment: Facet::join(self.payment, says, at), ..self }
            }
            OrderFact::Terminal(says) => {
                Order { terminal: Facet::join(self.terminal, says, at), ..self }
            }
        }
    }

    /// What is shown.
    pub fn status(&self) -> Status {
        if let Some(terminal) = &self.terminal {
            return match (&terminal.says, terminal.conflict) {
                // The smallest is kept: beside a confirmation only a cancellation contradicts.
                (Terminal::Confirmed, true) => Status::Conflict,
                (Terminal::Confirmed, false) => Status::Confirmed,
                // Two reasons, one end.
                (Terminal::Cancelled { .. }, true | false) => Status::Cancelled,
            };
        }
        let free = |placed: &Facet<Placed>| placed.says.payment_mode == PaymentMode::None;
        let not_required = self.placed.as_ref().is_some_and(free);
        let stock = self.stock.as_ref().map(|facet| &facet.says);
        let payment = self.payment.as_ref().map(|facet| &facet.says);
        match (stock, payment) {
            (Some(Stock::Failed { .. }), _) | (_, Some(Payment::Failed { .. })) => Status::Failing,
            (Some(Stock::Reserved), Some(Payment::Succeeded)) => Status::Ready,
            (Some(Stock::Reserved), None) if not_required => Status::Ready,
            (Some(Stock::Reserved), None) => Status::Reserved,
            (None, Some(Payment::Succeeded)) => Status::Paid,
            (None, None) => Status::Placed,
        }
    }
}

/// An order's status as it is shown: a function of its facets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Neither stock nor payment has answered.
    Placed,
    /// Stock is held, payment has not answered.
    Reserved,
    /// Payment succeeded, stock has not answered.
    Paid,
    /// Nothing is missing but the confirmation.
    Ready,
    /// Something failed; nothing is missing but the cancellation.
    Failing,
    /// Ended well.
    Confirmed,
    /// Ended without a sale.
    Cancelled,
    /// Both ends were announced: somebody broke the contract.
    Conflict,
}

impl Status {
    /// All of them.
    pub const ALL: [Status; 8] = [
        Status::Placed,
        Status::Reserved,
        Status::Paid,
        Status::Ready,
        Status::Failing,
        Status::Confirmed,
        Status::Cancelled,
        Status::Conflict,
    ];

    /// As it is stored, shown and asked for.
    pub fn name(self) -> &'static str {
        match self {
            Status::Placed => "placed",
            Status::Reserved => "reserved",
            Status::Paid => "paid",
            Status::Ready => "ready",
            Status::Failing => "failing",
            Status::Confirmed => "confirmed",
            Status::Cancelled => "cancelled",
            Status::Conflict => "conflict",
        }
    }
}

/// A product as Catalog last said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Product {
    /// All of it: the event is full state.
    #[serde(flatten)]
    pub says: ProductUpserted,
    /// The event that said so.
    pub event_id: EventId,
}

impl Product {
    /// Whether this is newer: by `productVersion`, and where it is absent by `(updatedAt, eventId)`
    /// (saga-rules 11). A versioned event is newer than any without. Whatever breaks the contract,
    /// two events of one version or two contents of one id, is put in order by the rest.
    pub fn supersedes(&self, known: &Product) -> bool {
        self.rank() > known.rank()
    }

    fn rank(&self) -> impl Ord {
        let says = &self.says;
        let stamp = says.product_version.is_none().then_some(says.updated_at);
        let rest = (&says.name, &says.category_id, says.price, says.updated_at);
        (says.product_version, stamp, &self.event_id, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::CategoryId;
    use envelope::parse_time;

    fn at(second: u32) -> DateTime<Utc> {
        parse_time(&format!("2026-01-02T03:04:{second:02}Z")).unwrap()
    }

    fn placed(payment_mode: PaymentMode) -> OrderFact {
        let product_id = ProductId::parse("p").unwrap();
        let lines = vec![Line { product_id, qty: 1, unit_price: None }];
        let (cart_id, amount, currency) = (None, None, None);
        OrderFact::Placed(Placed { cart_id, lines, amount, currency, payment_mode })
    }

    fn order(facts: &[OrderFact]) -> Order {
        facts.iter().fold(Order::default(), |order, fact| order.join(fact.clone(), at(1)))
    }

    #[test]
    fn the_status_is_a_function_of_the_facets() {
        let mode = || placed(PaymentMode::Parallel);
        let reserved = || OrderFact::Stock(Stock::Reserved);
        let short = || OrderFact::Stock(Stock::Failed { reason: None });
        let paid = || OrderFact::Payment(Payment::Succeeded);
        let declined = || OrderFact::Payment(Payment::Failed { reason: None });
        let confirmed = || OrderFact::Terminal(Terminal::Confirmed);
        let cancelled = || OrderFact::Terminal(Terminal::Cancelled { reason: None });
        for (facts, status) in [
            (vec![mode()], Status::Placed),
            (vec![mode(), reserved()], Status::Reserved),
            (vec![mode(), paid()], Status::Paid),
            (vec![mode(), reserved(), paid()], Status::Ready),
            (vec![placed(PaymentMode::None), reserved()], Status::Ready),
            (vec![placed(PaymentMode::None)], Status::Placed),
            (vec![mode(), short()], Status::Failing),
            (vec![mode(), short(), paid()], Status::Failing),
            (vec![mode(), reserved(), declined()], Status::Failing),
            (vec![confirmed()], Status::Confirmed),
            (vec![mode(), short(), cancelled()], Status::Cancelled),
            (vec![confirmed(), cancelled()], Status::Conflict),
            (vec![cancelled(), confirmed()], Status::Conflict),
        ] {
            assert_eq!(order(&facts).status(), status, "{facts:?}");
        }
    }

    #[test]
    fn two_reasons_of_a_cancellation_are_marked_but_cancelled() {
        let because =
            |why: &str| OrderFact::Terminal(Terminal::Cancelled { reason: Some(why.to_owned()) });
        let order = order(&[because("deadline"), because("declined")]);
        assert_eq!(order.status(), Status::Cancelled);
        assert!(order.terminal.is_some_and(|facet| facet.conflict));
    }

    #[test]
    fn a_status_is_stored_under_its_name() {
        for status in Status::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.name());
        }
    }

    fn product(version: Option<u64>, updated: u32, event: &str) -> Product {
        let says = ProductUpserted {
            product_id: ProductId::parse("p").unwrap(),
            name: "tea".to_owned(),
            category_id: CategoryId::parse("c").unwrap(),
            price: Some(100),
            updated_at: at(updated),
            product_version: version,
        };
        Product { says, event_id: EventId::parse(event).unwrap() }
    }

    #[test]
    fn products_are_put_in_order_by_version_and_else_by_time_and_id() {
        let in_order = [
            product(None, 1, "b"),
            product(None, 2, "a"),
            product(None, 2, "b"),
            product(Some(1), 9, "z"),
            product(Some(2), 3, "a"),
            product(Some(3), 1, "b"),
        ];
        for (i, older) in in_order.iter().enumerate() {
            assert!(!older.supersedes(older));
            for newer in &in_order[i + 1..] {
                assert!(newer.supersedes(older), "{newer:?} {older:?}");
                assert!(!older.supersedes(newer), "{older:?} {newer:?}");
            }
        }
    }
}
