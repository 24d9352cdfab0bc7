//! The books of stock: what shelves say against adjustments, reservations and confirmed orders. Holds
//! four numbers a product, and nothing of an order. Never asks anybody.

use std::collections::BTreeMap;

use serde_json::Value;

use super::report::{Finding, Invariant, Report};

/// What a product's stock is held against. Each of what is added up has 63 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    adjusted: i128,
    reserved: i128,
    sold: i128,
}

/// A service's number, as what it can be added to.
pub fn number(value: &Value) -> i128 {
    value.as_i64().unwrap_or(0).into()
}

/// All products.
#[derive(Debug, Clone, Default)]
pub struct Tallies {
    products: BTreeMap<String, Tally>,
}

impl Tallies {
    fn of(&mut self, product: &str) -> &mut Tally {
        self.products.entry(product.to_owned()).or_default()
    }

    /// An adjustment.
    pub fn adjusted(&mut self, row: &Value) {
        self.of(row["productId"].as_str().unwrap_or_default()).adjusted += number(&row["delta"]);
    }

    /// A reservation that holds its lines.
    pub fn reserved(&mut self, row: &Value) {
        for (product, qty) in row["lines"].as_object().into_iter().flatten() {
            self.of(product).reserved += number(qty);
        }
    }

    /// A confirmed order. Returns its pieces.
    pub fn sold(&mut self, order: &Value) -> i128 {
        let mut pieces = 0;
        for line in order["lines"].as_array().into_iter().flatten() {
            let qty = number(&line["qty"]);
            self.of(line["productId"].as_str().unwrap_or_default()).sold += qty;
            pieces += qty;
        }
        pieces
    }

    /// Holds a shelf against all of it. `flowing`: what is sold or held may still be on its way.
    pub fn shelf(&mut self, shelf: &Value, flowing: bool, report: &mut Report) {
        let product = shelf["productId"].as_str().unwrap_or_default();
        let tally = self.products.remove(product).unwrap_or_default();
        let of = |field: &str| number(&shelf[field]);
        let (on_hand, available) = (of("onHand"), of("available"));
        let (reserved, committed) = (of("reserved"), of("committed"));
        report.totals.on_hand += on_hand;
        report.totals.available += available;
        report.totals.reserved += reserved;
        report.totals.committed += committed;
        let parts = available + reserved + committed;
        let sound = parts == on_hand && available.min(reserved).min(committed) >= 0;
        let adds_up = format!(
            "product {product}: {on_hand} on hand, {available} available, {reserved} reserved, \
             {committed} committed"
        );
        for (invariant, holds, may_flow, text) in [
            (Invariant::StockAddsUp, sound, false, adds_up),
            (
                Invariant::StockAdjusted,
                on_hand == tally.adjusted,
                false,
                format!("product {product}: {on_hand} on hand, {} adjusted", tally.adjusted),
            ),
            (
                Invariant::StockReserved,
                reserved == tally.reserved,
                flowing,
                format!(
                    "product {product}: {reserved} reserved, reservations of {}",
                    tally.reserved
                ),
            ),
            (
                Invariant::StockCommitted,
                committed == tally.sold,
                flowing,
                format!("product {product}: {committed} committed, {} sold", tally.sold),
            ),
        ] {
            report.checked(invariant);
            match (holds, may_flow) {
                (true, _) => {}
                (false, true) => report.add(Finding::Unsettled(text)),
                (false, false) => report.add(Finding::Wrong(invariant, text)),
            }
        }
    }

    /// When all shelves were seen: what has none.
    pub fn finish(self, report: &mut Report) {
        for (product, Tally { adjusted, reserved, sold }) in self.products {
            if (adjusted, reserved, sold) != (0, 0, 0) {
                let text = format!(
                    "product {product}: no stock row, and {adjusted} adjusted, {reserved} reserved, \
                     {sold} sold"
                );
                report.add(Finding::Wrong(Invariant::StockAddsUp, text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reconcile::report::Verdict;

    fn shelf(on_hand: i64, available: i64, reserved: i64, committed: i64) -> Value {
        json!({ "productId": "p", "onHand": on_hand, "available": available, "reserved": reserved,
            "committed": committed })
    }

    fn tallies() -> Tallies {
        let mut tallies = Tallies::default();
        tallies.adjusted(&json!({ "productId": "p", "delta": 12 }));
        tallies.adjusted(&json!({ "productId": "p", "delta": -2 }));
        tallies.reserved(&json!({ "lines": { "p": 1 } }));
        let lines = json!([{ "productId": "p", "qty": 2 }, { "productId": "p", "qty": 1 }]);
        assert_eq!(tallies.sold(&json!({ "lines": lines })), 3);
        tallies
    }

    #[test]
    fn sums_have_no_end() {
        let (mut report, mut tallies) = (Report::default(), Tallies::default());
        for (product, delta) in
            [("a", i64::MAX), ("a", i64::MAX), ("a", -i64::MAX), ("b", i64::MAX)]
        {
            tallies.adjusted(&json!({ "productId": product, "delta": delta }));
        }
        for product in ["a", "b"] {
            let full = json!({ "productId": product, "onHand": i64::MAX, "available": i64::MAX,
                "reserved": 0, "committed": 0 });
            tallies.shelf(&full, false, &mut report);
        }
        tallies.finish(&mut report);
        assert_eq!(report.verdict(), Verdict::Balanced, "{}", report.table());
        assert_eq!(report.totals.on_hand, 2 * i128::from(i64::MAX));
        let text = report.json();
        for part in ["\"verdict\": \"balanced\"", "\"onHand\": 18446744073709551614"] {
            assert!(text.contains(part), "{text}");
        }
        report.totals.earned = i128::from(i64::MAX) * 1_000;
        assert!(report.json().contains("\"earned\": 9223372036854775807000"));
    }

    #[test]
    fn each_way_to_be_off_shows() {
        for (row, flowing, wrong) in [
            (shelf(10, 6, 1, 3), false, &[][..]),
            (shelf(10, 7, 1, 3), false, &[Invariant::StockAddsUp]),
            (shelf(11, 7, 1, 3), false, &[Invariant::StockAdjusted]),
            (shelf(10, 5, 2, 3), false, &[Invariant::StockReserved]),
            (shelf(10, 5, 1, 4), false, &[Invariant::StockCommitted]),
            (shelf(10, 5, 1, 4), true, &[]),
            (shelf(10, -1, 1, 10), true, &[Invariant::StockAddsUp]),
        ] {
            let mut report = Report::default();
            let mut tallies = tallies();
            tallies.shelf(&row, flowing, &mut report);
            tallies.finish(&mut report);
            let found: Vec<Invariant> = report.wrong().map(|(invariant, _)| invariant).collect();
            assert_eq!(found, wrong, "{row}");
        }
        let mut report = Report::default();
        tallies().finish(&mut report);
        assert_eq!(report.verdict(), Verdict::Wrong, "a product without its row");
    }
}
