//! What an order costs by the price replica: all lines or none (saga-rules 5). Never charges, never
//! guesses a price.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use contract::{Line, ProductId};
use envelope::EventId;
use serde::{Deserialize, Serialize};

/// When a product was said to be so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stamp {
    /// `productVersion`.
    pub version: Option<u64>,
    /// `updatedAt`.
    #[serde(with = "envelope::rfc3339")]
    pub updated_at: DateTime<Utc>,
    /// Of the event that said it.
    pub event_id: EventId,
}

/// What is known of a product's price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Price {
    /// Minor units, at least 0; `None` where the product has no price.
    pub price: Option<i64>,
    /// Since which event.
    pub stamp: Stamp,
}

impl Price {
    /// Which of two statements about a product is newer: by its version, and where one has none by
    /// (updatedAt, eventId), below every version (saga-rules 11). Whatever breaks the contract, two events
    /// of one version or two prices of one id, is put in order by the rest. A total order, so that every
    /// order of arrival ends in the same price, and, but for two contents of one id, in that of Query.
    fn rank(&self) -> impl Ord {
        let Price { price, stamp } = self;
        let time = stamp.version.is_none().then_some(stamp.updated_at);
        (stamp.version, time, &stamp.event_id, *price, stamp.updated_at)
    }
}

/// Whether `told` replaces what is known.
pub fn newer(known: Option<&Price>, told: &Price) -> bool {
    known.is_none_or(|known| told.rank() > known.rank())
}

/// Why an order has no price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unpriced {
    /// No price is known for these products; the replica may lag.
    #[error("no price is known for {}", list(.0))]
    Unknown(BTreeSet<ProductId>),
    /// The amount does not fit 64 bits.
    #[error("the amount is too large")]
    TooLarge,
}

/// Names at most this many products in a message.
const NAMED_MAX: usize = 5;

fn list(products: &BTreeSet<ProductId>) -> String {
    let mut text: Vec<&str> = products.iter().take(NAMED_MAX).map(ProductId::as_str).collect();
    if products.len() > NAMED_MAX {
        text.push("and others");
    }
    text.join(", ")
}

/// The lines with their prices, and the amount Σ qty × unitPrice in minor units.
pub fn price(
    lines: &[Line],
    price_of: impl Fn(&ProductId) -> Option<i64>,
) -> Result<(Vec<Line>, i64), Unpriced> {
    let mut priced = Vec::with_capacity(lines.len());
    let mut unknown = BTreeSet::new();
    let mut amount = Some(0_i64);
    for line in lines {
        let Some(unit_price) = price_of(&line.product_id) else {
            unknown.insert(line.product_id.clone());
            continue;
        };
        let cost = unit_price.checked_mul(i64::from(line.qty));
        amount = amount.zip(cost).and_then(|(sum, cost)| sum.checked_add(cost));
        priced.push(Line { unit_price: Some(unit_price), ..line.clone() });
    }
    if !unknown.is_empty() {
        return Err(Unpriced::Unknown(unknown));
    }
    amount.map(|amount| (priced, amount)).ok_or(Unpriced::TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn product(id: &str) -> ProductId {
        ProductId::parse(id).unwrap()
    }

    fn line(id: &str, qty: u32) -> Line {
        Line { product_id: product(id), qty, unit_price: None }
    }

    fn prices(id: &ProductId) -> Option<i64> {
        match id.as_str() {
            "tea" => Some(350),
            "gift" => Some(0),
            "gold" => Some(i64::MAX / 2),
            _ => None,
        }
    }

    #[test]
    fn all_lines_or_none() {
        let (lines, amount) = price(&[line("tea", 2), line("gift", 9)], prices).unwrap();
        assert_eq!(amount, 700);
        assert_eq!(lines[0].unit_price, Some(350));
        assert_eq!(lines[1].unit_price, Some(0));
        let unknown = price(&[line("tea", 2), line("new", 1), line("rare", 1)], prices);
        let missing = BTreeSet::from([product("new"), product("rare")]);
        assert_eq!(unknown, Err(Unpriced::Unknown(missing)));
        assert_eq!(unknown.unwrap_err().to_string(), "no price is known for new, rare");
    }

    #[test]
    fn an_amount_that_does_not_fit_is_refused_whether_by_product_or_by_sum() {
        assert!(price(&[line("gold", 2)], prices).is_ok());
        assert_eq!(price(&[line("gold", 3)], prices), Err(Unpriced::TooLarge));
        let sum = [line("gold", 1), line("gold", 1), line("gold", 1)];
        assert_eq!(price(&sum, prices), Err(Unpriced::TooLarge));
    }

    fn told(version: Option<u64>, ms: i64, event: u8) -> Price {
        let stamp = Stamp {
            version,
            updated_at: DateTime::from_timestamp_millis(ms).unwrap(),
            event_id: EventId::parse(format!("e{event}")).unwrap(),
        };
        Price { price: Some(i64::from(event)), stamp }
    }

    #[test]
    fn versions_rule_and_times_only_break_the_tie_where_there_is_none() {
        let known = told(Some(3), 900, 1);
        assert!(newer(None, &known));
        assert!(!newer(Some(&known), &known));
        assert!(!newer(Some(&known), &told(Some(2), 999, 2)));
        assert!(newer(Some(&known), &told(Some(4), 100, 2)));
        assert!(!newer(Some(&known), &told(None, 999, 2)));
        assert!(newer(Some(&told(None, 5, 1)), &told(None, 6, 0)));
        assert!(newer(Some(&told(None, 5, 1)), &told(None, 5, 2)));
        assert!(newer(Some(&told(Some(3), 5, 1)), &told(Some(3), 4, 2)), "a version has no time");
    }

    proptest! {
        #[test]
        fn every_order_of_arrival_ends_in_the_same_price(
            told in prop::collection::vec(
                (prop::option::of(1..4_u64), 0..3_i64, 0..4_u8, 0..3_i64),
                1..8,
            ),
            order in Just((0..8_usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let one = super::tests::told;
            // One event may say two things, as that of a database that was restored.
            let told = told.into_iter().map(|(v, ms, e, p)| Price { price: Some(p), ..one(v, ms, e) });
            let told: Vec<Price> = told.collect();
            let learn = |facts: &mut dyn Iterator<Item = &Price>| {
                let mut known: Option<Price> = None;
                for fact in facts {
                    if newer(known.as_ref(), fact) {
                        known = Some(fact.clone());
                    }
                }
                known
            };
            let shuffled = order.iter().filter_map(|at| told.get(*at));
            let twice = shuffled.clone().chain(told.iter());
            prop_assert_eq!(learn(&mut told.iter()), learn(&mut shuffled.into_iter()));
            prop_assert_eq!(learn(&mut told.iter()), learn(&mut twice.into_iter()));
        }
    }
}
