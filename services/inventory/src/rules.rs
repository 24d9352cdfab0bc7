//! Inventory's rules: what stock and a reservation become, and what is told of it. Pure. Never
//! expires a reservation, never takes a part of an order, never lets a number become negative.

use std::collections::BTreeMap;

use contract::{Line, ProductId, reason};
use serde::{Deserialize, Serialize};

/// How much of each product an order wants, each at least 1. Duplicate lines are merged.
pub type Lines = BTreeMap<ProductId, i64>;

/// Merges an order's lines.
pub fn merge(lines: &[Line]) -> Result<Lines, Violation> {
    let mut merged = Lines::new();
    for line in lines {
        let qty = merged.entry(line.product_id.clone()).or_default();
        *qty = qty.checked_add(i64::from(line.qty)).ok_or(Violation::Quantity)?;
    }
    Ok(merged)
}

/// The books of one product, in pieces. `on_hand = available + reserved + committed`, and nothing is
/// negative: asserted whenever it is written, refused whenever it is read. `on_hand` is the sum of
/// all adjustments: what was sold stays in it, as committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Books")]
pub struct Stock {
    on_hand: i64,
    available: i64,
    reserved: i64,
    committed: i64,
}

/// [`Stock`] as it is stored, not yet checked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Books {
    on_hand: i64,
    available: i64,
    reserved: i64,
    committed: i64,
}

impl TryFrom<Books> for Stock {
    type Error = &'static str;

    fn try_from(books: Books) -> Result<Self, Self::Error> {
        let Books { on_hand, available, reserved, committed } = books;
        let stock = Stock { on_hand, available, reserved, committed };
        if stock.is_balanced() { Ok(stock) } else { Err("the books of a product do not balance") }
    }
}

/// Why an adjustment is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdjustError {
    /// It would take more than is available.
    #[error("only {available} available")]
    Insufficient {
        /// Pieces available now.
        available: i64,
    },
    /// The sum is beyond 64 bits.
    #[error("the sum is too large")]
    Overflow,
}

impl Stock {
    /// Σ adjustments.
    pub fn on_hand(&self) -> i64 {
        self.on_hand
    }

    /// Free to be reserved.
    pub fn available(&self) -> i64 {
        self.available
    }

    /// Held for orders that are not final.
    pub fn reserved(&self) -> i64 {
        self.reserved
    }

    /// Sold: lines of confirmed orders.
    pub fn committed(&self) -> i64 {
        self.committed
    }

    fn is_balanced(&self) -> bool {
        let parts = [self.available, self.reserved, self.committed];
        let sum = parts.iter().try_fold(0_i64, |sum, part| sum.checked_add(*part));
        parts.iter().all(|part| *part >= 0) && sum == Some(self.on_hand)
    }

    fn balanced(self) -> Self {
        assert!(self.is_balanced(), "the books of a product do not balance: {self:?}");
        self
    }

    /// Adds `delta` pieces, which may be negative.
    pub fn adjust(self, delta: i64) -> Result<Stock, AdjustError> {
        let on_hand = self.on_hand.checked_add(delta).ok_or(AdjustError::Overflow)?;
        let available = self.available.checked_add(delta).ok_or(AdjustError::Overflow)?;
        if available < 0 {
            return Err(AdjustError::Insufficient { available: self.available });
        }
        Ok(Stock { on_hand, available, ..self }.balanced())
    }

    /// Holds `qty` pieces; `None` where they do not fit.
    fn reserve(self, qty: i64) -> Option<Stock> {
        let available = self.available.checked_sub(qty).filter(|left| *left >= 0)?;
        Some(Stock { available, reserved: self.reserved + qty, ..self }.balanced())
    }

    /// Sells `qty` held pieces.
    fn commit(self, qty: i64) -> Stock {
        let (reserved, committed) = (self.reserved - qty, self.committed + qty);
        Stock { reserved, committed, ..self }.balanced()
    }

    /// Frees `qty` held pieces.
    fn release(self, qty: i64) -> Stock {
        let (reserved, available) = (self.reserved - qty, self.available + qty);
        Stock { reserved, available, ..self }.balanced()
    }
}

/// Where an order's reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Confirmed, but nothing is held. Its lines are not known yet: they are committed when they
    /// come. Or they did not fit: then it is an open item, an operator's to settle.
    Pending,
    /// All lines are held.
    Reserved,
    /// Nothing is held: not all lines fit.
    Failed,
    /// All lines are sold.
    Committed,
    /// All lines were held and are free again.
    Released,
    /// Cancelled before its lines were known: they are never reserved (saga-rules 3).
    Tombstone,
}

impl State {
    /// As it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Reserved => "reserved",
            State::Failed => "failed",
            State::Committed => "committed",
            State::Released => "released",
            State::Tombstone => "tombstone",
        }
    }
}

/// One order's reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// Where it stands.
    pub state: State,
    /// What the order wants; `None` until OrderCreated was seen.
    pub lines: Option<Lines>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Reservation {
    /// Whether an operator has to settle it: the order is confirmed, and its lines did not fit.
    pub fn is_open_item(&self) -> bool {
        self.state == State::Pending && self.reason.is_some()
    }
}

/// What an order's event says to Inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderFact {
    /// Reserve these, all or none.
    Created(Lines),
    /// Commit.
    Confirmed,
    /// Release.
    Cancelled,
}

/// What is told of a reservation, once an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// StockReserved.
    Reserved,
    /// StockFailed, for this reason.
    Failed(&'static str),
}

/// What follows from a fact. A repeated fact changes nothing and tells nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// The reservation, where it changed.
    pub reservation: Option<Reservation>,
    /// The stock that changed.
    pub stock: BTreeMap<ProductId, Stock>,
    /// What to tell.
    pub outcome: Option<Outcome>,
}

/// What a fact must not say after what was said before. A dead letter; nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The sum of an order's lines for one product is beyond 64 bits.
    #[error("the quantities of a product add up to more than can be")]
    Quantity,
    /// The same order with other lines (saga-rules 8).
    #[error("the order was created before with other lines")]
    OrderChanged,
    /// An end that the reservation's state rules out: the decider ends an order once.
    #[error("the order was {0}, and its reservation is {1} already")]
    Contradiction(&'static str, &'static str),
}

impl Violation {
    /// The stable reason code of its dead letter.
    pub fn code(self) -> &'static str {
        match self {
            Violation::Quantity => "quantity_overflow",
            Violation::OrderChanged => "order_changed",
            Violation::Contradiction(..) => "contradiction",
        }
    }
}

/// The next reservation and stock of an order, and what to tell, in one transaction. `stock` gives a
/// product's books, `None` for a product that was never adjusted.
pub fn decide(
    reservation: Option<&Reservation>,
    fact: &OrderFact,
    stock: &dyn Fn(&ProductId) -> Option<Stock>,
) -> Result<Step, Violation> {
    match fact {
        OrderFact::Created(lines) => created(reservation, lines, stock),
        OrderFact::Confirmed => confirmed(reservation, stock),
        OrderFact::Cancelled => cancelled(reservation, stock),
    }
}

fn created(
    reservation: Option<&Reservation>,
    lines: &Lines,
    stock: &dyn Fn(&ProductId) -> Option<Stock>,
) -> Result<Step, Violation> {
    let Some(before) = reservation else {
        return Ok(reserve(lines, stock, false));
    };
    match &before.lines {
        Some(known) if known == lines => return Ok(Step::default()),
        Some(_) => return Err(Violation::OrderChanged),
        None => {}
    }
    match before.state {
        State::Pending => Ok(reserve(lines, stock, true)),
        State::Tombstone => {
            let known = Reservation { lines: Some(lines.clone()), ..before.clone() };
            Ok(Step { reservation: Some(known), ..Step::default() })
        }
        state @ (State::Reserved | State::Failed | State::Committed | State::Released) => {
            panic!("a reservation is {} without lines", state.name())
        }
    }
}

/// All lines or none. An order that was confirmed before commits them at once.
fn reserve(lines: &Lines, stock: &dyn Fn(&ProductId) -> Option<Stock>, confirmed: bool) -> Step {
    let mut held = BTreeMap::new();
    let mut failed = None;
    for (product, qty) in lines {
        let Some(before) = stock(product) else {
            failed = Some(reason::UNKNOWN_PRODUCT);
            continue;
        };
        match before.reserve(*qty) {
            Some(after) => {
                let after = if confirmed { after.commit(*qty) } else { after };
                held.insert(product.clone(), after);
            }
            None => failed = failed.or(Some(reason::INSUFFICIENT_STOCK)),
        }
    }
    let state = match (failed, confirmed) {
        (None, true) => State::Committed,
        (None, false) => State::Reserved,
        (Some(_), true) => State::Pending,
        (Some(_), false) => State::Failed,
    };
    if failed.is_some() {
        held.clear();
    }
    let reason = failed.map(str::to_owned);
    Step {
        reservation: Some(Reservation { state, lines: Some(lines.clone()), reason }),
        stock: held,
        outcome: Some(failed.map_or(Outcome::Reserved, Outcome::Failed)),
    }
}

fn confirmed(
    reservation: Option<&Reservation>,
    stock: &dyn Fn(&ProductId) -> Option<Stock>,
) -> Result<Step, Violation> {
    let Some(before) = reservation else {
        // Orders cannot confirm what was not reserved here; but what it decided is never lost.
        let pending = Reservation { state: State::Pending, lines: None, reason: None };
        return Ok(Step { reservation: Some(pending), ..Step::default() });
    };
    match before.state {
        State::Reserved => Ok(settle(before, State::Committed, stock, Stock::commit)),
        State::Failed => {
            let pending = Reservation { state: State::Pending, ..before.clone() };
            Ok(Step { reservation: Some(pending), ..Step::default() })
        }
        State::Pending | State::Committed => Ok(Step::default()),
        state @ (State::Released | State::Tombstone) => {
            Err(Violation::Contradiction("confirmed", state.name()))
        }
    }
}

fn cancelled(
    reservation: Option<&Reservation>,
    stock: &dyn Fn(&ProductId) -> Option<Stock>,
) -> Result<Step, Violation> {
    let Some(before) = reservation else {
        let tombstone = Reservation { state: State::Tombstone, lines: None, reason: None };
        return Ok(Step { reservation: Some(tombstone), ..Step::default() });
    };
    match before.state {
        State::Reserved => Ok(settle(before, State::Released, stock, Stock::release)),
        State::Failed | State::Released | State::Tombstone => Ok(Step::default()),
        state @ (State::Pending | State::Committed) => {
            Err(Violation::Contradiction("cancelled", state.name()))
        }
    }
}

fn settle(
    before: &Reservation,
    state: State,
    stock: &dyn Fn(&ProductId) -> Option<Stock>,
    change: fn(Stock, i64) -> Stock,
) -> Step {
    let lines = before.lines.as_ref().expect("what is reserved has lines");
    let after = lines.iter().map(|(product, qty)| {
        let held = stock(product).expect("what is reserved is a known product");
        (product.clone(), change(held, *qty))
    });
    let stock = after.collect();
    let reservation = Some(Reservation { state, ..before.clone() });
    Step { reservation, stock, outcome: None }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
