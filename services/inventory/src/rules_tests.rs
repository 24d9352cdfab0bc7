//! Tables of the rules, and any history: stock is conserved, an order ends once.

use proptest::prelude::*;

use super::*;

fn product(name: &str) -> ProductId {
    ProductId::parse(name).unwrap()
}

fn lines(of: &[(&str, i64)]) -> Lines {
    of.iter().map(|(name, qty)| (product(name), *qty)).collect()
}

/// A shop in memory, with its books beside it.
#[derive(Default)]
struct Shop {
    stock: BTreeMap<ProductId, Stock>,
    adjusted: BTreeMap<ProductId, i64>,
    reservations: BTreeMap<usize, Reservation>,
    told: BTreeMap<usize, Vec<Outcome>>,
}

impl Shop {
    fn with(stock: &[(&str, i64)]) -> Shop {
        let mut shop = Shop::default();
        for (name, pieces) in stock {
            shop.adjust(&product(name), *pieces).unwrap();
        }
        shop
    }

    fn adjust(&mut self, product: &ProductId, delta: i64) -> Result<(), AdjustError> {
        let before = self.stock.get(product).copied().unwrap_or_default();
        let after = before.adjust(delta)?;
        self.stock.insert(product.clone(), after);
        *self.adjusted.entry(product.clone()).or_default() += delta;
        Ok(())
    }

    fn apply(&mut self, order: usize, fact: &OrderFact) -> Result<Option<Outcome>, Violation> {
        let read = |product: &ProductId| self.stock.get(product).copied();
        let step = decide(self.reservations.get(&order), fact, &read)?;
        self.stock.extend(step.stock);
        self.reservations.extend(step.reservation.map(|row| (order, row)));
        self.told.entry(order).or_default().extend(step.outcome);
        Ok(step.outcome)
    }

    fn state(&self, order: usize) -> State {
        self.reservations[&order].state
    }

    /// The books hold; the sums are made from the reservations alone.
    fn check(&self) {
        for (product, stock) in &self.stock {
            let sum = |state: State| -> i64 {
                let rows = self.reservations.values().filter(|row| row.state == state);
                rows.filter_map(|row| row.lines.as_ref()?.get(product)).sum()
            };
            assert!(stock.is_balanced(), "{product}: {stock:?}");
            assert_eq!(stock.on_hand, self.adjusted[product], "{product}: Σ adjustments");
            assert_eq!(stock.reserved, sum(State::Reserved), "{product}: Σ reservations");
            assert_eq!(stock.committed, sum(State::Committed), "{product}: Σ confirmed");
        }
        assert!(self.told.values().all(|told| told.len() <= 1), "told twice: {:?}", self.told);
    }
}

use OrderFact::{Cancelled, Confirmed, Created};

#[test]
fn all_lines_or_none() {
    let mut shop = Shop::with(&[("a", 5), ("b", 1)]);
    let too_much = Created(lines(&[("a", 5), ("b", 2)]));
    let failed = Outcome::Failed(reason::INSUFFICIENT_STOCK);
    assert_eq!(shop.apply(1, &too_much), Ok(Some(failed)));
    assert_eq!(shop.stock[&product("a")].available(), 5);
    let fits = Created(lines(&[("a", 5), ("b", 1)]));
    assert_eq!(shop.apply(2, &fits), Ok(Some(Outcome::Reserved)));
    assert_eq!(shop.stock[&product("a")].available(), 0);
    let unknown = Created(lines(&[("a", 9), ("z", 1)]));
    assert_eq!(shop.apply(3, &unknown), Ok(Some(Outcome::Failed(reason::UNKNOWN_PRODUCT))));
    shop.check();
}

#[test]
fn duplicate_lines_are_merged_before_they_are_compared_with_stock() {
    let line = |qty| Line { product_id: product("a"), qty, unit_price: None };
    assert_eq!(merge(&[line(2), line(3)]), Ok(lines(&[("a", 5)])));
    assert_eq!(merge(&[line(u32::MAX), line(u32::MAX)]).unwrap()[&product("a")], 8_589_934_590);
    let mut shop = Shop::with(&[("a", 4)]);
    let created = Created(merge(&[line(2), line(3)]).unwrap());
    let failed = Outcome::Failed(reason::INSUFFICIENT_STOCK);
    assert_eq!(shop.apply(1, &created), Ok(Some(failed)));
}

#[test]
fn a_repeat_changes_nothing_and_tells_nothing() {
    let mut shop = Shop::with(&[("a", 5)]);
    let created = Created(lines(&[("a", 2)]));
    assert_eq!(shop.apply(1, &created), Ok(Some(Outcome::Reserved)));
    for fact in [&created, &Confirmed, &Confirmed, &created] {
        assert_eq!(shop.apply(1, fact), Ok(None));
    }
    assert_eq!(shop.state(1), State::Committed);
    let stock = shop.stock[&product("a")];
    assert_eq!((stock.on_hand(), stock.available(), stock.committed()), (5, 3, 2));
    shop.check();
}

#[test]
fn a_cancelled_order_that_comes_later_reserves_nothing() {
    let mut shop = Shop::with(&[("a", 5)]);
    assert_eq!(shop.apply(1, &Cancelled), Ok(None));
    assert_eq!(shop.apply(1, &Created(lines(&[("a", 2)]))), Ok(None));
    assert_eq!(shop.state(1), State::Tombstone);
    assert_eq!(shop.stock[&product("a")].available(), 5);
    shop.check();
}

#[test]
fn a_confirmation_that_comes_first_is_kept() {
    let mut shop = Shop::with(&[("a", 5)]);
    assert_eq!(shop.apply(1, &Confirmed), Ok(None));
    assert_eq!(shop.state(1), State::Pending);
    let created = Created(lines(&[("a", 2)]));
    assert_eq!(shop.apply(1, &created), Ok(Some(Outcome::Reserved)));
    assert_eq!(shop.state(1), State::Committed);
    assert_eq!(shop.apply(2, &Confirmed), Ok(None));
    assert!(!shop.reservations[&2].is_open_item());
    let failed = Outcome::Failed(reason::INSUFFICIENT_STOCK);
    assert_eq!(shop.apply(2, &Created(lines(&[("a", 4)]))), Ok(Some(failed)));
    assert!(shop.reservations[&2].is_open_item());
    shop.check();
}

#[test]
fn what_cannot_follow_is_a_violation_and_changes_nothing() {
    let mut shop = Shop::with(&[("a", 50)]);
    let created = Created(lines(&[("a", 2)]));
    let cases: [(&[&OrderFact], &OrderFact, &str); 5] = [
        (&[&created], &Created(lines(&[("a", 3)])), "order_changed"),
        (&[&created, &Confirmed], &Cancelled, "contradiction"),
        (&[&created, &Cancelled], &Confirmed, "contradiction"),
        (&[&Cancelled], &Confirmed, "contradiction"),
        (&[&Confirmed], &Cancelled, "contradiction"),
    ];
    for (order, (before, fact, code)) in cases.into_iter().enumerate() {
        for fact in before {
            shop.apply(order, fact).unwrap();
        }
        let row = shop.reservations[&order].clone();
        assert_eq!(shop.apply(order, fact).unwrap_err().code(), code, "case {order}");
        assert_eq!(shop.reservations[&order], row, "case {order}");
        shop.check();
    }
}

#[test]
fn adjustments_never_take_what_is_held() {
    let mut shop = Shop::with(&[("a", 5)]);
    shop.apply(1, &Created(lines(&[("a", 4)]))).unwrap();
    let refused = AdjustError::Insufficient { available: 1 };
    assert_eq!(shop.adjust(&product("a"), -2), Err(refused));
    assert_eq!(shop.adjust(&product("a"), -1), Ok(()));
    assert_eq!(shop.adjust(&product("a"), i64::MAX), Err(AdjustError::Overflow));
    assert!(shop.adjust(&product("b"), i64::MIN).is_err());
    shop.check();
}

#[test]
fn books_that_do_not_balance_are_unreadable() {
    let good = r#"{"onHand":5,"available":1,"reserved":2,"committed":2}"#;
    let stock: Stock = serde_json::from_str(good).unwrap();
    assert_eq!(serde_json::to_string(&stock).unwrap(), good);
    for bad in [
        r#"{"onHand":5,"available":1,"reserved":2,"committed":1}"#,
        r#"{"onHand":0,"available":-1,"reserved":1,"committed":0}"#,
        r#"{"onHand":-2,"available":9223372036854775807,"reserved":9223372036854775807,"committed":0}"#,
    ] {
        assert!(serde_json::from_str::<Stock>(bad).is_err(), "{bad}");
    }
}

#[derive(Debug, Clone)]
enum Happens {
    Adjust(usize, i64),
    Fact(usize, u8),
}

const PRODUCTS: [&str; 3] = ["a", "b", "c"];
const ORDERS: usize = 5;

fn wants(order: usize) -> Lines {
    let one = (PRODUCTS[order % 3], 1 + order as i64);
    let other = (PRODUCTS[(order + 1) % 3], 2);
    lines(&[one, other])
}

fn fact(order: usize, kind: u8) -> OrderFact {
    match kind {
        0 => Created(wants(order)),
        1 => Confirmed,
        _ => Cancelled,
    }
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (0..PRODUCTS.len(), -6_i64..12).prop_map(|(p, delta)| Happens::Adjust(p, delta)),
        (0..ORDERS, 0_u8..3).prop_map(|(order, kind)| Happens::Fact(order, kind)),
        (0..ORDERS, 0_u8..3).prop_map(|(order, kind)| Happens::Fact(order, kind)),
    ]
}

proptest! {
    #[test]
    fn any_history_conserves_stock(history in prop::collection::vec(happens(), 0..60)) {
        let mut shop = Shop::default();
        for event in history {
            match event {
                Happens::Adjust(p, delta) => {
                    let available =
                        shop.stock.get(&product(PRODUCTS[p])).map_or(0, Stock::available);
                    let taken = shop.adjust(&product(PRODUCTS[p]), delta);
                    prop_assert_eq!(taken.is_ok(), available + delta >= 0);
                }
                Happens::Fact(order, kind) => {
                    let fits = wants(order).iter().all(|(p, qty)| {
                        shop.stock.get(p).is_some_and(|stock| stock.available() >= *qty)
                    });
                    if let Ok(Some(outcome)) = shop.apply(order, &fact(order, kind)) {
                        prop_assert_eq!(outcome == Outcome::Reserved, fits);
                    }
                }
            }
            shop.check();
        }
        // Every order becomes known and final, one way or the other: nothing stays reserved.
        for order in 0..ORDERS {
            for kind in [0, 1, 2] {
                let _ = shop.apply(order, &fact(order, kind));
            }
        }
        shop.check();
        prop_assert!(shop.stock.values().all(|stock| stock.reserved() == 0));
    }

    #[test]
    fn any_order_of_one_orders_facts_ends_the_same(
        end in 1_u8..3,
        facts in prop::collection::vec(any::<bool>(), 0..8),
        ample in any::<bool>(),
    ) {
        let pieces = if ample { 100 } else { 0 };
        let mut shop = Shop::with(&PRODUCTS.map(|name| (name, pieces)));
        // Any duplicates in any order, then each once more, so that all have come.
        let kinds = facts.iter().map(|created| if *created { 0 } else { end });
        for kind in kinds.chain([0, end]) {
            shop.apply(1, &fact(1, kind)).unwrap();
        }
        shop.check();
        let committed = shop.stock.values().map(Stock::committed).sum::<i64>();
        match (end, ample) {
            (1, true) => prop_assert_eq!(shop.state(1), State::Committed),
            (1, false) => {
                prop_assert_eq!(shop.state(1), State::Pending);
                prop_assert!(shop.reservations[&1].is_open_item());
            }
            _ => prop_assert!(matches!(
                shop.state(1), State::Released | State::Failed | State::Tombstone
            )),
        }
        prop_assert_eq!(committed, if end == 1 && ample { 2 + 2 } else { 0 });
        prop_assert!(shop.stock.values().all(|stock| stock.reserved() == 0));
    }
}
