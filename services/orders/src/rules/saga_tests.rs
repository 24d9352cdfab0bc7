//! The saga's rules: a table of stories, and properties of every story.

use contract::ProductId;
use proptest::prelude::*;

use super::*;

const WAIT_S: i64 = 900;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_000_000 + seconds, 0).unwrap()
}

fn unknown() -> Saga {
    Saga::unknown(OrderId::parse("o-1").unwrap(), at(0))
}

fn place(mode: PaymentMode) -> Fact {
    let product_id = ProductId::parse("tea").unwrap();
    let lines = vec![Line { product_id, qty: 2, unit_price: Some(350) }];
    let currency = Some("EUR".to_owned());
    let placed = Placed { cart_id: None, lines, amount: Some(700), currency, mode };
    Fact::Place { placed, wait: TimeDelta::seconds(WAIT_S) }
}

fn stock_failed() -> Fact {
    Fact::StockFailed { reason: Some(reason::INSUFFICIENT_STOCK.to_owned()) }
}

fn payment_failed() -> Fact {
    Fact::PaymentFailed { reason: None }
}

/// Tells it all at second 1.
fn told(mode: PaymentMode, facts: &[Fact]) -> (Saga, Vec<Action>) {
    let (mut saga, mut actions) = decide(&unknown(), &place(mode), at(0));
    for fact in facts {
        let (next, more) = decide(&saga, fact, at(1));
        saga = next;
        actions.extend(more);
    }
    (saga, actions)
}

#[test]
fn stories() {
    use Action as A;
    use Fact as F;
    use PaymentMode::{AfterStock, None as NoPayment, Parallel};
    let created = vec![A::Create];
    let confirmed = vec![A::Create, A::Confirm];
    let cancelled = vec![A::Create, A::Cancel];
    type Story<'a> = (PaymentMode, Vec<Fact>, &'a [Action], Option<&'a str>);
    let table: [Story<'_>; 17] = [
        (Parallel, vec![], &created, None),
        (Parallel, vec![F::StockReserved], &created, None),
        (Parallel, vec![F::PaymentOk], &created, None),
        (Parallel, vec![F::StockReserved, F::PaymentOk], &confirmed, None),
        (Parallel, vec![F::PaymentOk, F::StockReserved], &confirmed, None),
        (AfterStock, vec![F::StockReserved], &created, None),
        (AfterStock, vec![F::StockReserved, F::PaymentOk], &confirmed, None),
        (AfterStock, vec![stock_failed()], &cancelled, Some("insufficient_stock")),
        (NoPayment, vec![F::StockReserved], &confirmed, None),
        (NoPayment, vec![F::PaymentOk], &created, None),
        (NoPayment, vec![payment_failed()], &created, None),
        (NoPayment, vec![stock_failed()], &cancelled, Some("insufficient_stock")),
        (Parallel, vec![payment_failed()], &cancelled, Some("payment_failed")),
        (Parallel, vec![F::PaymentOk, stock_failed()], &cancelled, Some("insufficient_stock")),
        (Parallel, vec![F::StockReserved, F::Cancel], &cancelled, Some("customer_request")),
        (Parallel, vec![stock_failed(), F::Cancel], &cancelled, Some("insufficient_stock")),
        (Parallel, vec![F::StockReserved, F::DeadlinePassed], &created, None),
    ];
    for (mode, facts, actions, reason) in table {
        let (saga, did) = told(mode, &facts);
        assert_eq!((did.as_slice(), saga.reason.as_deref()), (actions, reason), "{facts:?}");
    }
}

#[test]
fn the_deadline_cancels_at_its_instant_and_not_before() {
    let (saga, _) = told(PaymentMode::Parallel, &[Fact::StockReserved]);
    assert_eq!(saga.deadline, Some(at(WAIT_S)));
    let early = at(WAIT_S) - TimeDelta::milliseconds(1);
    assert_eq!(decide(&saga, &Fact::DeadlinePassed, early), (saga.clone(), vec![]));
    let (late, actions) = decide(&saga, &Fact::DeadlinePassed, at(WAIT_S));
    assert_eq!(actions, [Action::Cancel]);
    assert_eq!(late.reason.as_deref(), Some(reason::DEADLINE));
}

#[test]
fn a_timer_after_the_end_changes_nothing() {
    let (saga, _) = told(PaymentMode::None, &[Fact::StockReserved]);
    assert_eq!(decide(&saga, &Fact::DeadlinePassed, at(WAIT_S * 2)), (saga.clone(), vec![]));
}

#[test]
fn late_facts_are_recorded_and_counted() {
    let (saga, actions) =
        told(PaymentMode::Parallel, &[stock_failed(), Fact::PaymentOk, Fact::PaymentOk]);
    assert_eq!(actions, [Action::Create, Action::Cancel]);
    assert_eq!((saga.payment, saga.late), (Payment::Ok, Late { stock: 0, payment: 1 }));
    let (saga, _) = decide(&saga, &Fact::StockReserved, at(2));
    assert_eq!((saga.stock, saga.late.stock), (Stock::Failed, 1));
    assert_eq!(saga.reason.as_deref(), Some(reason::INSUFFICIENT_STOCK));
}

#[test]
fn a_payment_that_nobody_asked_for_is_counted() {
    let (saga, actions) = told(PaymentMode::None, &[payment_failed(), Fact::StockReserved]);
    assert_eq!(actions, [Action::Create, Action::Confirm]);
    assert_eq!((saga.payment, saga.late.payment), (Payment::NotRequired, 1));
}

#[test]
fn a_stub_is_recorded_and_never_decided() {
    let mut saga = unknown();
    for fact in [Fact::StockReserved, Fact::PaymentOk, Fact::DeadlinePassed, Fact::Cancel] {
        let (next, actions) = decide(&saga, &fact, at(WAIT_S * 9));
        assert_eq!(actions, []);
        saga = next;
    }
    assert_eq!((saga.stock, saga.payment, saga.version), (Stock::Reserved, Payment::Ok, 2));
    assert_eq!((saga.terminal, saga.cancel, saga.deadline), (Terminal::None, Cancel::None, None));
    assert_eq!(decide(&saga, &place(PaymentMode::Parallel), at(1)), (saga.clone(), vec![]));
}

#[test]
fn a_request_for_an_unknown_order_makes_no_row() {
    for fact in [Fact::Cancel, Fact::DeadlinePassed] {
        assert_eq!(decide(&unknown(), &fact, at(5)), (unknown(), vec![]));
    }
}

#[test]
fn a_foreign_reason_is_cut() {
    let (saga, _) =
        told(PaymentMode::Parallel, &[Fact::StockFailed { reason: Some("ü".repeat(900)) }]);
    assert_eq!(saga.reason.map(|r| r.chars().count()), Some(REASON_CHARS_MAX));
    let (saga, _) =
        told(PaymentMode::Parallel, &[Fact::StockFailed { reason: Some(String::new()) }]);
    assert_eq!(saga.reason.as_deref(), Some(reason::STOCK_FAILED));
}

#[test]
fn a_foreign_reason_loses_its_control_characters() {
    for (said, kept) in [("sold\nout\u{85}", "soldout"), ("\u{7f}\t", reason::STOCK_FAILED)] {
        let failed = Fact::StockFailed { reason: Some(said.to_owned()) };
        assert_eq!(told(PaymentMode::Parallel, &[failed]).0.reason.as_deref(), Some(kept));
    }
}

#[test]
fn a_row_comes_back_as_it_was() {
    let (saga, _) = told(PaymentMode::AfterStock, &[stock_failed()]);
    let text = serde_json::to_string(&saga).unwrap();
    assert_eq!(serde_json::from_str::<Saga>(&text).unwrap(), saga);
}

fn modes() -> impl Strategy<Value = PaymentMode> {
    prop::sample::select(vec![PaymentMode::Parallel, PaymentMode::AfterStock, PaymentMode::None])
}

/// A fact and the second in which it comes; some before the deadline, some after.
fn facts() -> impl Strategy<Value = Vec<(Fact, i64)>> {
    let fact = prop::sample::select(vec![
        Fact::StockReserved,
        stock_failed(),
        Fact::PaymentOk,
        payment_failed(),
        Fact::Cancel,
        Fact::DeadlinePassed,
        place(PaymentMode::Parallel),
    ]);
    prop::collection::vec((fact, 0..2 * WAIT_S), 0..12)
}

/// Whether the facts so far, each question answered by its first answer, allow a sale.
fn may_confirm(mode: PaymentMode, facts: &[(Fact, i64)]) -> bool {
    let stock = facts.iter().find_map(|(fact, _)| match fact {
        Fact::StockReserved => Some(true),
        Fact::StockFailed { .. } => Some(false),
        _ => None,
    });
    let payment = facts.iter().find_map(|(fact, _)| match fact {
        Fact::PaymentOk => Some(true),
        Fact::PaymentFailed { .. } => Some(false),
        _ => None,
    });
    stock == Some(true) && (mode == PaymentMode::None || payment == Some(true))
}

/// Whether the facts so far hold a reason to cancel.
fn may_cancel(mode: PaymentMode, facts: &[(Fact, i64)]) -> bool {
    facts.iter().any(|(fact, second)| match fact {
        Fact::StockFailed { .. } | Fact::Cancel => true,
        Fact::PaymentFailed { .. } => mode != PaymentMode::None,
        Fact::DeadlinePassed => *second >= WAIT_S,
        Fact::Place { .. } | Fact::StockReserved | Fact::PaymentOk => false,
    })
}

proptest! {
    #[test]
    fn every_interleaving_ends_at_most_once_and_for_a_reason(mode in modes(), facts in facts()) {
        let (mut saga, actions) = decide(&unknown(), &place(mode), at(0));
        prop_assert_eq!(actions, vec![Action::Create]);
        let mut ends = Vec::new();
        for (count, (fact, second)) in facts.iter().enumerate() {
            let before = saga.clone();
            let (next, actions) = decide(&saga, fact, at(*second));
            saga = next;
            let so_far = &facts[..=count];
            for action in actions {
                match action {
                    Action::Create => prop_assert!(false, "created twice"),
                    Action::Confirm => prop_assert!(may_confirm(mode, so_far)),
                    Action::Cancel => prop_assert!(may_cancel(mode, so_far)),
                }
                ends.push(action);
            }
            if before.terminal != Terminal::None {
                prop_assert_eq!(saga.terminal, before.terminal);
                prop_assert_eq!(&saga.reason, &before.reason);
            }
            let reason = matches!(saga.terminal, Terminal::Cancelled);
            prop_assert_eq!(saga.reason.is_some(), reason);
            // The same again: nothing is published, and no answer changes.
            let (again, actions) = decide(&saga, fact, at(*second));
            prop_assert_eq!(actions, vec![]);
            let same = Saga { late: saga.late, version: saga.version, ..again };
            prop_assert_eq!(&same, &saga);
        }
        let ended = match saga.terminal {
            Terminal::None => vec![],
            Terminal::Confirmed => vec![Action::Confirm],
            Terminal::Cancelled => vec![Action::Cancel],
        };
        prop_assert_eq!(ends, ended);
        // Whatever happened, the deadline ends it.
        let (last, _) = decide(&saga, &Fact::DeadlinePassed, at(WAIT_S));
        prop_assert_ne!(last.terminal, Terminal::None);
    }

    #[test]
    fn without_cancel_and_deadline_the_end_does_not_depend_on_the_order(
        mode in modes(),
        reserved: bool,
        paid: bool,
        order in prop::collection::vec(0..2_usize, 0..6),
    ) {
        let stock = if reserved { Fact::StockReserved } else { stock_failed() };
        let payment = if paid { Fact::PaymentOk } else { payment_failed() };
        let both = [stock, payment];
        // Any duplicates in any order, and then each at least once.
        let mut facts: Vec<Fact> = order.iter().map(|at| both[*at].clone()).collect();
        facts.extend(both);
        let sale = reserved && (paid || mode == PaymentMode::None);
        let expected = if sale { Terminal::Confirmed } else { Terminal::Cancelled };
        prop_assert_eq!(told(mode, &facts).0.terminal, expected);
    }

    #[test]
    fn a_stub_never_decides(facts in facts()) {
        let (mut saga, _) = decide(&unknown(), &Fact::StockReserved, at(0));
        for (fact, second) in facts {
            let (next, actions) = decide(&saga, &fact, at(second));
            saga = next;
            prop_assert_eq!(actions, vec![]);
            prop_assert_eq!((saga.terminal, saga.deadline), (Terminal::None, None));
            prop_assert!(saga.placed.is_none());
        }
    }
}
