//! Tables of the rules, and any interleaving against the simulated gateway: at most one charge, taken
//! only for confirmed orders, nothing held for cancelled ones.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::simulated::{Account, Passage, SimulatedGateway, Steering};

use Happened::{Created, Ended, StockReserved};
use Terminal::{Cancelled, Confirmed};

const RETRY: Retry = Retry { first: TimeDelta::milliseconds(500), max: TimeDelta::seconds(60) };

fn order_id() -> OrderId {
    OrderId::parse("o").unwrap()
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

fn order(amount: impl Into<Option<i64>>, mode: PaymentMode) -> Happened {
    Created(Order { amount: amount.into(), mode, charge_at_once: false })
}

fn answered(operation: Operation, answer: Answer) -> Happened {
    Happened::Answered(operation, answer)
}

/// One order's payment, and what was told of it.
#[derive(Default)]
struct Desk {
    payment: Option<Payment>,
    told: Vec<Outcome>,
    clock: i64,
}

impl Desk {
    fn apply(&mut self, happened: &Happened) -> Result<(), Violation> {
        self.clock += 1;
        let before = self.payment.as_ref();
        let after = decide(before, &order_id(), happened, None, at(self.clock), RETRY)?;
        let Some(after) = after else { return Ok(()) };
        assert_eq!(after.due.is_some(), after.wanted().is_some(), "{after:?}");
        if before.is_none_or(|before| before.outcome.is_none()) {
            self.told.extend(after.outcome.clone());
        }
        assert!(self.told.len() <= 1, "told twice");
        self.payment = Some(after);
        Ok(())
    }

    fn state(&self) -> State {
        self.payment.as_ref().expect("something happened").state
    }
}

fn after(facts: &[Happened]) -> Desk {
    let mut desk = Desk::default();
    for fact in facts {
        desk.apply(fact).unwrap();
    }
    desk
}

#[test]
fn whatever_a_gateway_says_can_be_published() {
    let cases = [
        ("no\0funds", "nofunds".to_owned()),
        ("a\nb\u{85}", "ab".to_owned()),
        ("\0", reason::DECLINED.to_owned()),
        (&"ü".repeat(900), "ü".repeat(TEXT_CHARS_MAX)),
    ];
    for (said, told) in cases {
        let declined = answered(Operation::Authorise, Answer::Declined(said.to_owned()));
        let desk = after(&[order(100, PaymentMode::Parallel), declined]);
        let payment = desk.payment.unwrap();
        assert_eq!(payment.state, State::Declined);
        assert_eq!(payment.outcome, Some(Outcome::Failure(told.clone())), "{said:?}");
        assert_eq!(payment.refused, Some(told));
    }
}

#[test]
fn table_of_ends() {
    use Operation::{Authorise, Capture, Void};
    let parallel = || order(100, PaymentMode::Parallel);
    let late = || order(100, PaymentMode::AfterStock);
    let yes = |operation| answered(operation, Answer::Approved);
    let no = |operation| answered(operation, Answer::Declined("x".to_owned()));
    let success = Some(Outcome::Success);
    let failure = |reason: &str| Some(Outcome::Failure(reason.to_owned()));
    let cases: Vec<(Vec<Happened>, State, Option<Outcome>)> = vec![
        (vec![parallel()], State::Authorising, None),
        (vec![parallel(), yes(Authorise)], State::Authorised, success.clone()),
        (vec![parallel(), no(Authorise)], State::Declined, failure("x")),
        (vec![parallel(), Ended(Cancelled)], State::Authorising, None),
        (vec![parallel(), Ended(Cancelled), yes(Authorise)], State::Voiding, success.clone()),
        (vec![parallel(), Ended(Cancelled), no(Authorise)], State::Declined, failure("x")),
        (vec![parallel(), Ended(Confirmed), yes(Authorise)], State::Capturing, success.clone()),
        (vec![parallel(), yes(Authorise), Ended(Confirmed)], State::Capturing, success.clone()),
        (
            vec![parallel(), yes(Authorise), Ended(Confirmed), yes(Capture)],
            State::Captured,
            success.clone(),
        ),
        (
            vec![parallel(), yes(Authorise), Ended(Confirmed), no(Capture)],
            State::CaptureFailed,
            success.clone(),
        ),
        (
            vec![parallel(), yes(Authorise), Ended(Cancelled), yes(Void)],
            State::Voided,
            success.clone(),
        ),
        (
            vec![parallel(), yes(Authorise), Ended(Cancelled), no(Void)],
            State::VoidFailed,
            success.clone(),
        ),
        (vec![Ended(Cancelled), parallel()], State::Tombstone, None),
        (vec![Ended(Confirmed), parallel()], State::Authorising, None),
        (vec![late()], State::Intent, None),
        (vec![StockReserved], State::Intent, None),
        (vec![StockReserved, late()], State::Authorising, None),
        (vec![late(), StockReserved], State::Authorising, None),
        (vec![late(), Ended(Cancelled), StockReserved], State::Tombstone, None),
        (vec![order(100, PaymentMode::None), StockReserved], State::NotRequired, None),
        (vec![order(100, PaymentMode::None), Ended(Confirmed)], State::NotRequired, None),
        (
            vec![order(None, PaymentMode::Parallel)],
            State::Declined,
            failure(reason::PRICE_UNAVAILABLE),
        ),
        (vec![order(0, PaymentMode::Parallel)], State::Authorised, success.clone()),
        (vec![order(0, PaymentMode::Parallel), Ended(Confirmed)], State::Captured, success.clone()),
        (vec![order(0, PaymentMode::Parallel), Ended(Cancelled)], State::Voided, success),
    ];
    for (facts, state, outcome) in cases {
        let desk = after(&facts);
        assert_eq!(desk.state(), state, "{facts:?}");
        assert_eq!(desk.told.first(), outcome.as_ref(), "{facts:?}");
        let open = matches!(state, State::CaptureFailed | State::VoidFailed);
        assert_eq!(desk.payment.unwrap().is_open_item(), open, "{facts:?}");
    }
}

#[test]
fn unknown_is_asked_again_later_with_the_same_key_and_never_voided() {
    let mut desk = after(&[order(100, PaymentMode::Parallel), Ended(Cancelled)]);
    let unknown = answered(Operation::Authorise, Answer::Unknown);
    let mut waits = Vec::new();
    for _ in 0..9 {
        desk.apply(&unknown).unwrap();
        let payment = desk.payment.as_ref().unwrap();
        assert_eq!(payment.wanted(), Some(Operation::Authorise));
        assert_eq!(Operation::Authorise.key(&order_id()), "o:authorise");
        waits.push((payment.due.unwrap() - at(desk.clock)).num_milliseconds());
    }
    assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]);
    for _ in 0..100 {
        desk.apply(&unknown).unwrap();
    }
    desk.apply(&answered(Operation::Authorise, Answer::Approved)).unwrap();
    let payment = desk.payment.unwrap();
    assert_eq!((payment.wanted(), payment.attempts), (Some(Operation::Void), 0));
}

#[test]
fn an_answer_to_another_operation_means_nothing() {
    let facts = [order(100, PaymentMode::Parallel), Ended(Cancelled)];
    let mut desk = after(&facts);
    let before = desk.payment.clone();
    for operation in [Operation::Void, Operation::Capture, Operation::Charge] {
        desk.apply(&answered(operation, Answer::Approved)).unwrap();
    }
    assert_eq!(desk.payment, before);
    let nobody = answered(Operation::Authorise, Answer::Approved);
    assert_eq!(decide(None, &order_id(), &nobody, None, at(0), RETRY), Ok(None));
}

#[test]
fn what_cannot_follow_is_a_violation() {
    let parallel = || order(100, PaymentMode::Parallel);
    let mut desk = after(&[parallel(), Ended(Confirmed)]);
    assert_eq!(desk.apply(&order(101, PaymentMode::Parallel)), Err(Violation::OrderChanged));
    let twice = Violation::Contradiction(Confirmed, Cancelled);
    assert_eq!(desk.apply(&Ended(Cancelled)), Err(twice));
    assert_eq!(desk.state(), State::Authorising);
}

#[test]
fn a_charge_at_once_is_final() {
    let created =
        Created(Order { amount: None, mode: PaymentMode::Parallel, charge_at_once: true });
    let mut desk = after(&[created]);
    assert_eq!(desk.payment.as_ref().unwrap().wanted(), Some(Operation::Charge));
    desk.apply(&answered(Operation::Charge, Answer::Approved)).unwrap();
    assert_eq!((desk.state(), desk.told.clone()), (State::Captured, vec![Outcome::Success]));
}

/// What the world does next to one order.
#[derive(Debug, Clone)]
enum Does {
    /// Delivers one of the order's facts.
    Fact(usize),
    /// Calls the gateway for what is wanted, and keeps the answer under way.
    Call(Passage),
    /// Hands in an answer that is under way, leaving it there to come again or not.
    HandIn(usize, bool),
}

fn does() -> impl Strategy<Value = Does> {
    let passage =
        prop_oneof![Just(Passage::Whole), Just(Passage::LostBefore), Just(Passage::LostAfter),];
    prop_oneof![
        (0..3_usize).prop_map(Does::Fact),
        passage.prop_map(Does::Call),
        (0..4_usize, any::<bool>()).prop_map(|(i, again)| Does::HandIn(i, again)),
    ]
}

fn mode() -> impl Strategy<Value = PaymentMode> {
    prop_oneof![
        4 => Just(PaymentMode::Parallel),
        4 => Just(PaymentMode::AfterStock),
        1 => Just(PaymentMode::None),
    ]
}

fn call(desk: &Desk, gateway: &SimulatedGateway) -> Option<Happened> {
    let payment = desk.payment.as_ref()?;
    let operation = payment.wanted()?;
    let key = operation.key(&payment.order_id);
    let answer = gateway.answer(&key, operation, &payment.order_id, payment.amount());
    Some(answered(operation, answer))
}

proptest! {
    #[test]
    fn any_interleaving_conserves_money(
        history in prop::collection::vec(does(), 0..40),
        mode in mode(),
        amount in prop_oneof![Just(None), Just(Some(0)), Just(Some(100))],
        end in prop_oneof![Just(Confirmed), Just(Cancelled)],
        declines in any::<bool>(),
    ) {
        let steering = Steering { limit: declines.then_some(99), ..Steering::default() };
        let gateway = SimulatedGateway::new(steering);
        let facts = [order(amount, mode), StockReserved, Ended(end)];
        let mut desk = Desk::default();
        let mut under_way: Vec<Happened> = Vec::new();
        for does in history {
            match does {
                Does::Fact(i) => desk.apply(&facts[i]).unwrap(),
                Does::Call(passage) => {
                    gateway.steer(|s| s.passes = Some(Arc::new(move |_| passage)));
                    under_way.extend(call(&desk, &gateway));
                }
                Does::HandIn(i, again) if i < under_way.len() => {
                    let answer = if again { under_way[i].clone() } else { under_way.remove(i) };
                    desk.apply(&answer).unwrap();
                }
                Does::HandIn(..) => {}
            }
        }
        // Everything arrives, answers become definite.
        gateway.steer(|s| s.passes = None);
        for happened in facts.iter().chain(&under_way) {
            desk.apply(happened).unwrap();
        }
        for _ in 0..3 {
            if let Some(answer) = call(&desk, &gateway) {
                desk.apply(&answer).unwrap();
            }
        }
        let rest = desk.payment.clone();
        for happened in facts.iter().chain(&under_way) {
            desk.apply(happened).unwrap();
        }
        prop_assert_eq!(&rest, &desk.payment, "a repeat changed what had ended");

        let payment = desk.payment.unwrap();
        prop_assert_eq!(payment.wanted(), None);
        let ledger = gateway.ledger();
        let account = ledger.accounts.get(&order_id()).cloned().unwrap_or_default();
        prop_assert!(account.charges <= 1, "charged twice");
        prop_assert_eq!(account.held(), 0, "something is still held");
        let approved = desk.told == [Outcome::Success];
        let paid = match (end, mode) {
            (Confirmed, PaymentMode::Parallel | PaymentMode::AfterStock) if approved => {
                prop_assert_eq!(payment.state, State::Captured);
                amount.unwrap_or(0)
            }
            (Confirmed, _) => {
                prop_assert!(matches!(payment.state, State::Declined | State::NotRequired));
                0
            }
            (Cancelled, _) => {
                prop_assert!(matches!(
                    payment.state,
                    State::Voided | State::Declined | State::Tombstone | State::NotRequired
                ));
                0
            }
        };
        prop_assert_eq!(account.captured, paid);
        // Success is told where the gateway approved or had nothing to do; failure where it declined.
        match amount {
            Some(100) => prop_assert_eq!(approved, account.charges == 1),
            _ => prop_assert_eq!(account, Account::default()),
        }
        if end == Confirmed && mode != PaymentMode::None {
            let pays = amount.is_some_and(|a| a == 0 || !declines);
            prop_assert_eq!(approved, pays);
            prop_assert_eq!(desk.told.len(), 1);
        }
    }
}
