//! The saga's one decider (saga-rules 1): an order's state, everything that can happen to it, and
//! what follows. Never prices, never compensates by itself: Inventory and Payments do, on the
//! terminal event.

use chassis::Trace;
use chrono::{DateTime, TimeDelta, Utc};
use contract::{CartId, Line, OrderId, PaymentMode, reason, written};
use serde::{Deserialize, Serialize};

/// What is known of the reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stock {
    /// Nothing yet.
    Pending,
    /// All lines.
    Reserved,
    /// No line.
    Failed,
}

/// What is known of the payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payment {
    /// Nothing yet.
    Pending,
    /// Authorised (in profile `catalog`: paid).
    Ok,
    /// Declined.
    Failed,
    /// Mode `none`.
    NotRequired,
}

/// What the customer wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cancel {
    /// The order.
    None,
    /// No order any more.
    Requested,
}

/// How it ended. Absorbing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Terminal {
    /// It did not end.
    None,
    /// With a sale.
    Confirmed,
    /// Without one.
    Cancelled,
}

/// What the customer ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    /// The cart it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cart_id: Option<CartId>,
    /// At least one; a product may stand in several.
    pub lines: Vec<Line>,
    /// Minor units; `None` in profile `catalog`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<i64>,
    /// ISO 4217 code, where there is an amount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// How it is paid.
    pub mode: PaymentMode,
}

/// Facts that came when their question was answered or the order had ended: counted, never decided.
/// The same answer again is a repeat and not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Late {
    /// About stock.
    pub stock: u32,
    /// About payment.
    pub payment: u32,
}

/// An order's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saga {
    /// Which order.
    pub order_id: OrderId,
    /// `None` for a stub: facts came for an order that was never placed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<Placed>,
    /// The reservation.
    pub stock: Stock,
    /// The payment.
    pub payment: Payment,
    /// The customer's wish.
    pub cancel: Cancel,
    /// The end.
    pub terminal: Terminal,
    /// Why it was cancelled; see [`contract::reason`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it is cancelled at the latest, by the store's clock; a stub has none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "envelope::rfc3339::option")]
    pub deadline: Option<DateTime<Utc>>,
    /// What came late.
    pub late: Late,
    /// The trace of the request that placed it: what only time brings about is in the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// When the row was made, by the store's clock.
    #[serde(with = "envelope::rfc3339")]
    pub created_at: DateTime<Utc>,
    /// Counts the transitions that changed something. 0: the row does not exist.
    pub version: u64,
}

/// Everything that can happen to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The customer placed it.
    Place {
        /// What.
        placed: Placed,
        /// How long until the deadline.
        wait: TimeDelta,
    },
    /// The customer cancels.
    Cancel,
    /// Inventory reserved all lines.
    StockReserved,
    /// Inventory reserved nothing.
    StockFailed {
        /// Why, where it said.
        reason: Option<String>,
    },
    /// Payment succeeded.
    PaymentOk,
    /// Payment failed.
    PaymentFailed {
        /// Why, where it said.
        reason: Option<String>,
    },
    /// A timer says that the deadline may have passed.
    DeadlinePassed,
}

/// What follows, to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// OrderCreated.
    Create,
    /// OrderConfirmed.
    Confirm,
    /// OrderCancelled, with the saga's reason.
    Cancel,
}

/// A foreign reason is cut to this many characters, so that no event grows over its limit by it.
pub const REASON_CHARS_MAX: usize = 200;

/// Next state, and what to publish with it in one transaction. `now` is the store's clock.
/// A repeated fact changes nothing: delivery is at-least-once. Where nothing changed the version is
/// the same, and nothing need be written.
pub fn decide(saga: &Saga, fact: &Fact, now: DateTime<Utc>) -> (Saga, Vec<Action>) {
    let mut next = saga.clone();
    let mut actions = Vec::new();
    let mut cause = None;
    match fact {
        Fact::Place { placed, wait } => {
            if saga.version == 0 {
                next.place(placed, *wait);
                actions.push(Action::Create);
            }
        }
        Fact::Cancel => {
            if saga.is_open() {
                next.cancel = Cancel::Requested;
                cause = Some(reason::CUSTOMER_REQUEST.to_owned());
            }
        }
        Fact::StockReserved => next.learn_stock(Stock::Reserved),
        Fact::StockFailed { reason } => {
            next.learn_stock(Stock::Failed);
            cause = Some(said(reason, reason::STOCK_FAILED));
        }
        Fact::PaymentOk => next.learn_payment(Payment::Ok),
        Fact::PaymentFailed { reason } => {
            next.learn_payment(Payment::Failed);
            cause = Some(said(reason, reason::PAYMENT_FAILED));
        }
        Fact::DeadlinePassed => {
            if saga.deadline.is_some_and(|deadline| now >= deadline) {
                cause = Some(reason::DEADLINE.to_owned());
            }
        }
    }
    let overdue = matches!(fact, Fact::DeadlinePassed) && cause.is_some();
    if next.is_open() {
        next.terminal = next.verdict(overdue);
        match next.terminal {
            Terminal::None => {}
            Terminal::Confirmed => actions.push(Action::Confirm),
            Terminal::Cancelled => {
                next.reason = cause;
                actions.push(Action::Cancel);
            }
        }
    }
    if next != *saga {
        next.version += 1;
    }
    (next, actions)
}

impl Saga {
    /// An order that nobody knows: what an absent row means.
    pub fn unknown(order_id: OrderId, now: DateTime<Utc>) -> Self {
        Saga {
            order_id,
            placed: None,
            stock: Stock::Pending,
            payment: Payment::Pending,
            cancel: Cancel::None,
            terminal: Terminal::None,
            reason: None,
            deadline: None,
            late: Late::default(),
            trace: None,
            // The precision in which it is stored.
            created_at: DateTime::from_timestamp_millis(now.timestamp_millis()).unwrap_or(now),
            version: 0,
        }
    }

    /// How it stands, as it is shown.
    pub fn status(&self) -> &'static str {
        match self.terminal {
            Terminal::None => "pending",
            Terminal::Confirmed => "confirmed",
            Terminal::Cancelled => "cancelled",
        }
    }

    /// Placed here and not ended.
    pub fn is_open(&self) -> bool {
        self.placed.is_some() && self.terminal == Terminal::None
    }

    fn place(&mut self, placed: &Placed, wait: TimeDelta) {
        self.payment = match placed.mode {
            PaymentMode::Parallel | PaymentMode::AfterStock => Payment::Pending,
            PaymentMode::None => Payment::NotRequired,
        };
        self.placed = Some(placed.clone());
        self.deadline = Some(self.created_at + wait);
    }

    fn learn_stock(&mut self, told: Stock) {
        if self.stock == told {
            return;
        }
        if self.stock != Stock::Pending || self.terminal != Terminal::None {
            self.late.stock = self.late.stock.saturating_add(1);
        }
        if self.stock == Stock::Pending {
            self.stock = told;
        }
    }

    fn learn_payment(&mut self, told: Payment) {
        if self.payment == told {
            return;
        }
        if self.payment != Payment::Pending || self.terminal != Terminal::None {
            self.late.payment = self.late.payment.saturating_add(1);
        }
        if self.payment == Payment::Pending {
            self.payment = told;
        }
    }

    /// How an open order stands.
    fn verdict(&self, overdue: bool) -> Terminal {
        match (self.cancel, self.stock, self.payment) {
            (Cancel::Requested, _, _) => Terminal::Cancelled,
            (Cancel::None, Stock::Failed, _) => Terminal::Cancelled,
            (Cancel::None, _, Payment::Failed) => Terminal::Cancelled,
            (Cancel::None, Stock::Reserved, Payment::Ok | Payment::NotRequired) => {
                Terminal::Confirmed
            }
            (Cancel::None, Stock::Reserved, Payment::Pending)
            | (
                Cancel::None,
                Stock::Pending,
                Payment::Pending | Payment::Ok | Payment::NotRequired,
            ) => match overdue {
                true => Terminal::Cancelled,
                false => Terminal::None,
            },
        }
    }
}

fn said(reason: &Option<String>, otherwise: &str) -> String {
    written(reason.as_deref().unwrap_or(""), REASON_CHARS_MAX, otherwise)
}

#[cfg(test)]
#[path = "saga_tests.rs"]
mod tests;
