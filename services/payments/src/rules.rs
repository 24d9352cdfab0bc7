//! Payments' rules: what an order's payment becomes, and which call to the gateway is wanted. Pure.
//! Never voids before an authorisation is definite, never charges what was cancelled first, never
//! decides about an order.

use chassis::Trace;
use chrono::{DateTime, TimeDelta, Utc};
use contract::{OrderId, PaymentMode, TEXT_CHARS_MAX, reason, written};
use envelope::EventId;
use serde::{Deserialize, Serialize};

/// What the gateway is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Hold the amount.
    Authorise,
    /// Take what is held.
    Capture,
    /// Give back what is held.
    Void,
    /// Hold and take in one (profile `catalog`: payment success is final).
    Charge,
}

impl Operation {
    /// As it stands in the key.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Authorise => "authorise",
            Operation::Capture => "capture",
            Operation::Void => "void",
            Operation::Charge => "charge",
        }
    }

    /// The key of this call for an order, the same each time (saga-rules 7).
    pub fn key(self, order: &OrderId) -> String {
        format!("{order}:{}", self.name())
    }
}

/// What the gateway answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done.
    Approved,
    /// It is not done and will not be, for this reason.
    Declined(String),
    /// It may be done or not: ask again with the same key.
    Unknown,
}

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is asked yet: the order, or its stock, is not there.
    Intent,
    /// The gateway is asked to hold the amount.
    Authorising,
    /// The amount is held.
    Authorised,
    /// Nothing is held: declined, or nothing to charge by.
    Declined,
    /// The gateway is asked to take the amount.
    Capturing,
    /// The amount is taken.
    Captured,
    /// The gateway refused to take it: an open item, an operator's to settle.
    CaptureFailed,
    /// The gateway is asked to give the amount back.
    Voiding,
    /// Nothing is held any more.
    Voided,
    /// The gateway refused to give it back: an open item, an operator's to settle.
    VoidFailed,
    /// The gateway is asked to hold and take in one (profile `catalog`).
    Charging,
    /// The order is not paid here (mode `none`).
    NotRequired,
    /// Cancelled before anything was asked: never charged (saga-rules 3).
    Tombstone,
}

/// How the order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Terminal {
    /// Take the money.
    Confirmed,
    /// Give it back.
    Cancelled,
}

/// What OrderCreated says to Payments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Minor units, at least 0; `None` where the order has none.
    pub amount: Option<i64>,
    /// How it is paid.
    pub mode: PaymentMode,
    /// Whether success is final and needs no amount (profile `catalog`).
    pub charge_at_once: bool,
}

/// What was told of a payment, once an order (PaymentProcessed).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Authorised, or charged.
    Success,
    /// For this reason.
    Failure(String),
}

/// One order's payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Payment {
    /// Whose.
    pub order_id: OrderId,
    /// Where it stands.
    pub state: State,
    /// The order, once it is known.
    pub order: Option<Order>,
    /// Whether its stock was seen to be reserved while it mattered.
    pub stock_reserved: bool,
    /// How the order ended, once it is known. While an answer is awaited it is a wish.
    pub terminal: Option<Terminal>,
    /// What was told.
    pub outcome: Option<Outcome>,
    /// Why the last refused operation was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Unknown answers to the present operation.
    pub attempts: u32,
    /// When the gateway is to be called, where it is.
    #[serde(default, with = "envelope::rfc3339::option")]
    pub due: Option<DateTime<Utc>>,
    /// The event that the first call followed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<EventId>,
    /// Its trace: what comes of the calls is in the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// When the order was first heard of, by the store's clock.
    #[serde(with = "envelope::rfc3339")]
    pub created_at: DateTime<Utc>,
}

/// Everything that can happen to a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// OrderCreated.
    Created(Order),
    /// StockReserved.
    StockReserved,
    /// OrderConfirmed or OrderCancelled.
    Ended(Terminal),
    /// The gateway was called.
    Answered(Operation, Answer),
}

/// What a fact must not say after what was said before. A dead letter; nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The same order with another amount or mode (saga-rules 8).
    #[error("the order was created before with another amount or mode")]
    OrderChanged,
    /// The decider ends an order once.
    #[error("the order was {0:?} before, and now {1:?}")]
    Contradiction(Terminal, Terminal),
}

impl Violation {
    /// The stable reason code of its dead letter.
    pub fn code(self) -> &'static str {
        match self {
            Violation::OrderChanged => "order_changed",
            Violation::Contradiction(..) => "contradiction",
        }
    }
}

/// When to ask again after an unknown answer: `first`, doubled each time, up to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// After the first unknown answer.
    pub first: TimeDelta,
    /// Never later than this.
    pub max: TimeDelta,
}

impl Retry {
    fn after(self, attempts: u32) -> TimeDelta {
        let doubled = 1_i32 << attempts.saturating_sub(1).min(20);
        self.first.checked_mul(doubled).unwrap_or(self.max).min(self.max)
    }
}

impl Payment {
    /// The call to the gateway that is wanted now.
    pub fn wanted(&self) -> Option<Operation> {
        match self.state {
            State::Authorising => Some(Operation::Authorise),
            State::Capturing => Some(Operation::Capture),
            State::Voiding => Some(Operation::Void),
            State::Charging => Some(Operation::Charge),
            State::Intent
            | State::Authorised
            | State::Declined
            | State::Captured
            | State::CaptureFailed
            | State::Voided
            | State::VoidFailed
            | State::NotRequired
            | State::Tombstone => None,
        }
    }

    /// The amount to charge, minor units.
    pub fn amount(&self) -> Option<i64> {
        self.order.as_ref().and_then(|order| order.amount)
    }

    /// Whether an operator has to settle it: money is neither where it should be nor on its way.
    pub fn is_open_item(&self) -> bool {
        match self.state {
            State::CaptureFailed | State::VoidFailed => true,
            State::Declined => self.terminal == Some(Terminal::Confirmed),
            State::Intent
            | State::Authorising
            | State::Authorised
            | State::Capturing
            | State::Captured
            | State::Voiding
            | State::Voided
            | State::Charging
            | State::NotRequired
            | State::Tombstone => false,
        }
    }

    fn unknown(order_id: OrderId, now: DateTime<Utc>) -> Payment {
        Payment {
            order_id,
            state: State::Intent,
            order: None,
            stock_reserved: false,
            terminal: None,
            outcome: None,
            refused: None,
            attempts: 0,
            due: None,
            cause: None,
            trace: None,
            created_at: now,
        }
    }

    fn ask(&mut self, state: State, now: DateTime<Utc>) {
        self.state = state;
        self.attempts = 0;
        self.due = Some(now);
        assert!(self.wanted().is_some(), "{state:?} asks the gateway nothing");
    }

    fn settle(&mut self, state: State) {
        self.state = state;
        self.attempts = 0;
        self.due = None;
        assert!(self.wanted().is_none(), "{state:?} still asks the gateway");
    }

    fn tell(&mut self, outcome: Outcome) {
        assert!(self.outcome.is_none(), "{}: told {:?} before", self.order_id, self.outcome);
        self.outcome = Some(outcome);
    }
}

/// The payment after a fact. A repeated fact changes nothing. PaymentProcessed is told where
/// `outcome` was none and is some.
pub fn decide(
    before: Option<&Payment>,
    order_id: &OrderId,
    happened: &Happened,
    cause: Option<&EventId>,
    now: DateTime<Utc>,
    retry: Retry,
) -> Result<Option<Payment>, Violation> {
    let mut payment = match (before, happened) {
        // An answer to a call that nobody wanted.
        (None, Happened::Answered(..)) => return Ok(None),
        (None, _) => Payment::unknown(order_id.clone(), now),
        (Some(before), _) => before.clone(),
    };
    match happened {
        Happened::Created(order) => match &payment.order {
            Some(known) if known != order => return Err(Violation::OrderChanged),
            Some(_) => {}
            None => payment.order = Some(order.clone()),
        },
        Happened::StockReserved => payment.stock_reserved |= payment.state == State::Intent,
        Happened::Ended(terminal) => match payment.terminal {
            Some(known) if known != *terminal => {
                return Err(Violation::Contradiction(known, *terminal));
            }
            Some(_) => {}
            None => payment.terminal = Some(*terminal),
        },
        Happened::Answered(operation, answer) => {
            answered(&mut payment, *operation, answer, now, retry);
        }
    }
    if payment.state == State::Intent {
        begin(&mut payment, cause, now);
    }
    if payment.state == State::Authorised {
        finish(&mut payment, now);
    }
    Ok(before.is_none_or(|before| *before != payment).then_some(payment))
}

/// From the intent on, where everything is there.
fn begin(payment: &mut Payment, cause: Option<&EventId>, now: DateTime<Utc>) {
    if payment.terminal == Some(Terminal::Cancelled) {
        return payment.settle(State::Tombstone);
    }
    let Some(order) = payment.order.clone() else { return };
    match order.mode {
        PaymentMode::None => return payment.settle(State::NotRequired),
        PaymentMode::AfterStock if !payment.stock_reserved => return,
        PaymentMode::AfterStock | PaymentMode::Parallel => {}
    }
    payment.cause = cause.cloned();
    if order.charge_at_once {
        return payment.ask(State::Charging, now);
    }
    match order.amount {
        None => {
            payment.settle(State::Declined);
            payment.tell(Outcome::Failure(reason::PRICE_UNAVAILABLE.to_owned()));
        }
        Some(0) => {
            payment.settle(State::Authorised);
            payment.tell(Outcome::Success);
        }
        Some(_) => payment.ask(State::Authorising, now),
    }
}

/// From authorised on, where the order has ended. Nothing needs no gateway.
fn finish(payment: &mut Payment, now: DateTime<Utc>) {
    let free = payment.amount() == Some(0);
    match payment.terminal {
        None => {}
        Some(Terminal::Confirmed) if free => payment.settle(State::Captured),
        Some(Terminal::Confirmed) => payment.ask(State::Capturing, now),
        Some(Terminal::Cancelled) if free => payment.settle(State::Voided),
        Some(Terminal::Cancelled) => payment.ask(State::Voiding, now),
    }
}

fn answered(
    payment: &mut Payment,
    operation: Operation,
    answer: &Answer,
    now: DateTime<Utc>,
    retry: Retry,
) {
    if payment.wanted() != Some(operation) {
        // A second call with the same key answered after the first: the same answer, by the key.
        return;
    }
    let (approved, declined) = match operation {
        Operation::Authorise => (State::Authorised, State::Declined),
        Operation::Charge => (State::Captured, State::Declined),
        Operation::Capture => (State::Captured, State::CaptureFailed),
        Operation::Void => (State::Voided, State::VoidFailed),
    };
    let tells = match operation {
        Operation::Authorise | Operation::Charge => true,
        Operation::Capture | Operation::Void => false,
    };
    match answer {
        Answer::Unknown => {
            payment.attempts = payment.attempts.saturating_add(1);
            payment.due = Some(now + retry.after(payment.attempts));
        }
        Answer::Approved => {
            payment.settle(approved);
            if tells {
                payment.tell(Outcome::Success);
            }
        }
        Answer::Declined(why) => {
            let why = written(why, TEXT_CHARS_MAX, reason::DECLINED);
            payment.settle(declined);
            payment.refused = Some(why.clone());
            if tells {
                payment.tell(Outcome::Failure(why));
            }
        }
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
