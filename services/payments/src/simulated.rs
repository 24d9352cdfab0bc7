//! A payment gateway in memory with books of its own, which answers by rules that tests and demos
//! steer. Deterministic. Never asks Payments what it believes: that is what its ledger is for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use contract::{OrderId, reason};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gateway::Gateway;
use crate::rules::{Answer, Operation};

/// The gateway's books of one order, minor units.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Times that money was held or taken from the customer: at most 1 where all is well.
    pub charges: u32,
    /// Times that held money was taken.
    pub captures: u32,
    /// Times that held money was given back.
    pub voids: u32,
    /// Held at some time.
    pub authorised: i64,
    /// Taken of it.
    pub captured: i64,
    /// Given back of it.
    pub voided: i64,
}

impl Account {
    /// Held now: authorised and neither taken nor given back.
    pub fn held(&self) -> i64 {
        self.authorised - self.captured - self.voided
    }

    /// Whether something is held now, be it an amount of nothing.
    pub fn is_open(&self) -> bool {
        self.charges > self.captures + self.voids
    }
}

/// A call that was answered for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    /// What was asked.
    pub operation: Operation,
    /// For which order.
    pub order: OrderId,
    /// How much.
    pub amount: Option<i64>,
    /// What is answered each time.
    pub answer: Answer,
}

/// All that the gateway knows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// Books by order.
    pub accounts: BTreeMap<OrderId, Account>,
    /// Definite answers by key.
    pub settled: BTreeMap<String, Settled>,
    /// How often each key was called.
    pub calls: BTreeMap<String, u32>,
}

/// Whether a call reaches the gateway, and its answer the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Passage {
    /// Both.
    Whole,
    /// The call is lost: no effect, and the caller does not know.
    LostBefore,
    /// The answer is lost: the effect stands, and the caller does not know.
    LostAfter,
}

/// A call as the steering sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its key.
    pub key: String,
    /// What is asked.
    pub operation: Operation,
    /// For which order.
    pub order: OrderId,
    /// How much, minor units.
    pub amount: Option<i64>,
    /// Calls with this key before this one.
    pub earlier: u32,
}

/// Decides the passage of a call; must be a function of the call alone.
pub type Passes = Arc<dyn Fn(&Call) -> Passage + Send + Sync>;

/// How the gateway answers. By default everything is approved at once.
#[derive(Clone, Default)]
pub struct Steering {
    /// These operations on these orders are declined.
    pub declined: BTreeSet<(OrderId, Operation)>,
    /// Amounts over this are declined, minor units.
    pub limit: Option<i64>,
    /// Amounts whose last two digits are these are declined (0 to 99): a card for demos.
    pub declined_ending: Option<i64>,
    /// Lost calls and answers; none where absent.
    pub passes: Option<Passes>,
}

impl Steering {
    /// Why this call is declined, if it is.
    fn declines(&self, call: &Call) -> Option<String> {
        let charges = match call.operation {
            Operation::Authorise | Operation::Charge => true,
            Operation::Capture | Operation::Void => false,
        };
        let over = self.limit.is_some_and(|limit| call.amount.is_some_and(|a| a > limit));
        let ends = self.declined_ending.is_some_and(|e| call.amount.is_some_and(|a| a % 100 == e));
        let named = self.declined.contains(&(call.order.clone(), call.operation));
        (named || charges && (over || ends)).then(|| reason::DECLINED.to_owned())
    }
}

#[derive(Default)]
struct Inside {
    ledger: Ledger,
    steering: Steering,
}

/// The simulated gateway. Clones are the same gateway.
#[derive(Clone, Default)]
pub struct SimulatedGateway {
    inside: Arc<Mutex<Inside>>,
}

impl SimulatedGateway {
    /// With an empty ledger.
    pub fn new(steering: Steering) -> Self {
        let inside = Inside { ledger: Ledger::default(), steering };
        SimulatedGateway { inside: Arc::new(Mutex::new(inside)) }
    }

    /// Changes how it answers from now on. Answers given for good stay.
    pub fn steer(&self, change: impl FnOnce(&mut Steering)) {
        change(&mut self.inside().steering);
    }

    /// Its books, for verdicts.
    pub fn ledger(&self) -> Ledger {
        self.inside().ledger.clone()
    }

    /// Looks into its books without a copy of them.
    pub fn look<T>(&self, into: impl FnOnce(&Ledger) -> T) -> T {
        into(&self.inside().ledger)
    }

    /// Its books as JSON, to be kept by whoever wants them kept.
    ///
    /// # Panics
    /// Never: a ledger has a JSON form.
    pub fn export(&self) -> Value {
        serde_json::to_value(&self.inside().ledger).expect("a ledger has a JSON form")
    }

    /// Puts exported books in place of its own.
    pub fn import(&self, exported: Value) -> Result<(), serde_json::Error> {
        let ledger = serde_json::from_value(exported)?;
        self.inside().ledger = ledger;
        Ok(())
    }

    /// Puts back an answer that it gave, with its effect, whatever it would answer now. Of those under one
    /// key the first one counts. The error says why it cannot have been given.
    pub fn restore(&self, key: &str, settled: &Settled) -> Result<(), &'static str> {
        self.inside().ledger.restore(key, settled)
    }

    /// Carries a call out and answers it at once.
    pub fn answer(
        &self,
        key: &str,
        operation: Operation,
        order: &OrderId,
        amount: Option<i64>,
    ) -> Answer {
        let Inside { ledger, steering } = &mut *self.inside();
        let calls = ledger.calls.entry(key.to_owned()).or_default();
        let (key, order) = (key.to_owned(), order.clone());
        let call = Call { key, operation, order, amount, earlier: *calls };
        *calls = calls.saturating_add(1);
        match steering.passes.as_ref().map_or(Passage::Whole, |passes| passes(&call)) {
            Passage::Whole => ledger.settle(&call, steering),
            Passage::LostBefore => Answer::Unknown,
            Passage::LostAfter => {
                ledger.settle(&call, steering);
                Answer::Unknown
            }
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// The definite answer: the first one of this key, or a new one with its effect.
    fn settle(&mut self, call: &Call, steering: &Steering) -> Answer {
        let Call { key, operation, order, amount, .. } = call;
        if let Some(settled) = self.settled.get(key) {
            let same = (&settled.operation, &settled.order, &settled.amount);
            return match same == (operation, order, amount) {
                true => settled.answer.clone(),
                false => Answer::Declined("key_reused".to_owned()),
            };
        }
        let account = self.accounts.entry(order.clone()).or_default();
        let answer = match steering.declines(call) {
            Some(reason) => Answer::Declined(reason),
            None => match account.carry_out(*operation, amount.unwrap_or(0)) {
                Ok(()) => Answer::Approved,
                Err(reason) => Answer::Declined(reason.to_owned()),
            },
        };
        let (operation, order, amount) = (*operation, order.clone(), *amount);
        let settled = Settled { operation, order, amount, answer: answer.clone() };
        self.settled.insert(key.clone(), settled);
        answer
    }

    fn restore(&mut self, key: &str, settled: &Settled) -> Result<(), &'static str> {
        let calls = self.calls.entry(key.to_owned()).or_default();
        *calls = calls.saturating_add(1);
        if self.settled.contains_key(key) {
            return Ok(());
        }
        let account = self.accounts.entry(settled.order.clone()).or_default();
        match settled.answer {
            Answer::Approved => {
                account.carry_out(settled.operation, settled.amount.unwrap_or(0))?
            }
            Answer::Declined(_) => {}
            Answer::Unknown => return Err("no definite answer"),
        }
        self.settled.insert(key.to_owned(), settled.clone());
        Ok(())
    }
}

impl Account {
    fn carry_out(&mut self, operation: Operation, amount: i64) -> Result<(), &'static str> {
        if amount < 0 {
            return Err("amount_negative");
        }
        match operation {
            Operation::Authorise | Operation::Charge => {
                let sum = self.authorised.checked_add(amount).ok_or("amount_too_large")?;
                (self.charges, self.authorised) = (self.charges + 1, sum);
                if operation == Operation::Charge {
                    (self.captures, self.captured) = (self.captures + 1, self.captured + amount);
                }
            }
            Operation::Capture | Operation::Void => {
                if !self.is_open() {
                    return Err("nothing_authorised");
                }
                if amount > self.held() {
                    return Err("amount_over_authorised");
                }
                if operation == Operation::Capture {
                    (self.captures, self.captured) = (self.captures + 1, self.captured + amount);
                } else {
                    (self.voids, self.voided) = (self.voids + 1, self.voided + amount);
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Gateway for SimulatedGateway {
    async fn call(
        &self,
        key: &str,
        operation: Operation,
        order: &OrderId,
        amount: Option<i64>,
    ) -> Answer {
        self.answer(key, operation, order, amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operation::{Authorise, Capture, Charge, Void};

    fn order(name: &str) -> OrderId {
        OrderId::parse(name).unwrap()
    }

    fn ask(gateway: &SimulatedGateway, operation: Operation) -> Answer {
        let order = order("o");
        gateway.answer(&operation.key(&order), operation, &order, Some(100))
    }

    #[test]
    fn a_key_has_one_effect_and_one_answer() {
        let gateway = SimulatedGateway::default();
        assert_eq!(ask(&gateway, Authorise), Answer::Approved);
        assert_eq!(ask(&gateway, Authorise), Answer::Approved);
        assert_eq!(ask(&gateway, Void), Answer::Approved);
        assert_eq!(ask(&gateway, Authorise), Answer::Approved);
        let account = &gateway.ledger().accounts[&order("o")];
        assert_eq!((account.charges, account.voided, account.held()), (1, 100, 0));
        let reused = gateway.answer("o:authorise", Authorise, &order("o"), Some(7));
        assert_eq!(reused, Answer::Declined("key_reused".to_owned()));
        assert_eq!(ask(&gateway, Capture), Answer::Declined("nothing_authorised".to_owned()));
    }

    #[test]
    fn another_key_charges_again_and_shows() {
        let gateway = SimulatedGateway::default();
        for key in ["k1", "k2"] {
            gateway.answer(key, Charge, &order("o"), Some(100));
        }
        assert_eq!(gateway.ledger().accounts[&order("o")].charges, 2);
    }

    #[test]
    fn a_void_before_the_authorisation_gives_nothing_back() {
        let gateway = SimulatedGateway::default();
        assert_eq!(ask(&gateway, Void), Answer::Declined("nothing_authorised".to_owned()));
        assert_eq!(ask(&gateway, Authorise), Answer::Approved);
        assert_eq!(ask(&gateway, Void), Answer::Declined("nothing_authorised".to_owned()));
        assert_eq!(gateway.ledger().accounts[&order("o")].held(), 100);
    }

    #[test]
    fn lost_calls_have_no_effect_and_lost_answers_have() {
        let gateway = SimulatedGateway::default();
        gateway.steer(|steering| {
            steering.passes = Some(Arc::new(|call| match call.earlier {
                0 => Passage::LostBefore,
                1 => Passage::LostAfter,
                _ => Passage::Whole,
            }));
        });
        assert_eq!(ask(&gateway, Authorise), Answer::Unknown);
        assert!(gateway.ledger().accounts.is_empty());
        assert_eq!(ask(&gateway, Authorise), Answer::Unknown);
        assert_eq!(gateway.ledger().accounts[&order("o")].held(), 100);
        assert_eq!(ask(&gateway, Authorise), Answer::Approved);
        assert_eq!(gateway.ledger().accounts[&order("o")].charges, 1);
    }

    #[test]
    fn declines_by_rule() {
        let steering = Steering {
            declined: BTreeSet::from([(order("bad"), Authorise), (order("stuck"), Capture)]),
            limit: Some(10_000),
            declined_ending: Some(13),
            passes: None,
        };
        let gateway = SimulatedGateway::new(steering);
        let ask = |name: &str, operation: Operation, amount| {
            let order = order(name);
            gateway.answer(&operation.key(&order), operation, &order, amount)
        };
        let declined = Answer::Declined("declined".to_owned());
        assert_eq!(ask("bad", Authorise, Some(1)), declined);
        assert_eq!(ask("a", Authorise, Some(10_001)), declined);
        assert_eq!(ask("b", Authorise, Some(10_000)), Answer::Approved);
        assert_eq!(ask("c", Authorise, Some(1_213)), declined);
        assert_eq!(ask("stuck", Authorise, Some(5)), Answer::Approved);
        assert_eq!(ask("stuck", Capture, Some(5)), declined);
        assert_eq!(ask("d", Charge, None), Answer::Approved);
    }

    #[test]
    fn exported_books_come_back_whole() {
        let gateway = SimulatedGateway::default();
        ask(&gateway, Authorise);
        let other = SimulatedGateway::default();
        other.import(gateway.export()).unwrap();
        assert_eq!(other.ledger(), gateway.ledger());
        assert!(other.import(Value::from(3)).is_err());
        assert_eq!(other.ledger(), gateway.ledger());
    }
}
