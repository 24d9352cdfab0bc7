//! A product and its updates, as pure functions. Never touches a row, never asks for the time.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use contract::{CategoryId, ProductId};
use envelope::{EventId, rfc3339_millis};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest name, in characters.
pub const NAME_CHARS_MAX: usize = 200;

/// Namespace of the ids of product events. Chosen once; never changes.
const NAMESPACE: Uuid = Uuid::from_u128(0x2f4b_83d6_70c9_5e1a_9c3d_84a6_51e7_0b92);

/// A product as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Product {
    /// Which product.
    pub product_id: ProductId,
    /// What is said of it.
    #[serde(flatten)]
    pub content: Content,
    /// Rises with each update, even where the clock does not; information all the same.
    #[serde(with = "rfc3339_millis")]
    pub updated_at: DateTime<Utc>,
    /// From 1, by one with each update.
    pub product_version: u64,
}

/// What is said of a product: full state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// For people: 1 to [`NAME_CHARS_MAX`] characters, no control characters.
    pub name: String,
    /// Its category.
    pub category_id: CategoryId,
    /// Minor units, at least 0; `None`: no price is known, and it cannot be ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<i64>,
}

/// Everything that can happen to Catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A product shall be like this.
    Put {
        /// Which product.
        product_id: ProductId,
        /// Its new state.
        content: Content,
        /// What must be true of the product as it is.
        condition: Condition,
    },
    /// Many puts follow, each a command of its own: stands for their request as a whole.
    Import,
}

/// Which versions of a product are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Versions {
    /// Whatever there is.
    Any,
    /// These.
    These(BTreeSet<u64>),
}

impl Versions {
    /// Whether a version is meant; where there is no product, none is.
    pub fn include(&self, version: Option<u64>) -> bool {
        match (self, version) {
            (_, None) => false,
            (Versions::Any, Some(_)) => true,
            (Versions::These(these), Some(version)) => these.contains(&version),
        }
    }
}

/// What must be true of a product before something is done to it (RFC 9110, If-Match and
/// If-None-Match). Nothing, where both are absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// It is at one of these versions.
    pub only: Option<Versions>,
    /// It is at none of these.
    pub never: Option<Versions>,
}

impl Condition {
    /// Whether it is so. `version` is that of the locked row, `None` where there is no product.
    pub fn holds(&self, version: Option<u64>) -> bool {
        self.only.as_ref().is_none_or(|only| only.include(version))
            && !self.never.as_ref().is_some_and(|never| never.include(version))
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A new product: to be published.
    Created(Product),
    /// Another content: to be published.
    Updated(Product),
    /// It was like this already: nothing to write, nothing to publish.
    Same(Product),
}

impl Content {
    /// What the types alone do not say.
    pub fn check(&self) -> Result<(), String> {
        let chars = self.name.chars().count();
        if chars == 0 || chars > NAME_CHARS_MAX || self.name.chars().any(char::is_control) {
            return Err(format!("name: 1 to {NAME_CHARS_MAX} characters, no control characters"));
        }
        match self.price {
            Some(price) if price < 0 => Err("price must not be negative".to_owned()),
            Some(_) | None => Ok(()),
        }
    }
}

/// The product after a put. `known` is the locked row, `now` the store's clock.
pub fn put(
    known: Option<Product>,
    product_id: &ProductId,
    content: &Content,
    now: DateTime<Utc>,
) -> Outcome {
    // The precision in which it travels.
    let now = DateTime::from_timestamp_millis(now.timestamp_millis()).unwrap_or(now);
    let (product_id, content) = (product_id.clone(), content.clone());
    match known {
        None => {
            Outcome::Created(Product { product_id, content, updated_at: now, product_version: 1 })
        }
        Some(known) if known.content == content => Outcome::Same(known),
        // Consumers without productVersion go by updatedAt: two updates in a millisecond, or a
        // clock set back, must not turn them round.
        Some(known) => Outcome::Updated(Product {
            product_id,
            content,
            updated_at: now.max(known.updated_at + TimeDelta::milliseconds(1)),
            product_version: known.product_version + 1,
        }),
    }
}

/// The id of a version's ProductUpserted: uuid v5 of product and version, so that whoever derives
/// it again derives the same id (saga-rules 8).
///
/// # Panics
/// Never: a uuid is an identifier.
pub fn event_id(product_id: &ProductId, product_version: u64) -> EventId {
    let name = format!("{product_id}\n{product_version}");
    let id = Uuid::new_v5(&NAMESPACE, name.as_bytes());
    EventId::parse(id.to_string()).expect("a uuid is an id")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(ms).unwrap()
    }

    fn tea() -> ProductId {
        ProductId::parse("tea").unwrap()
    }

    fn content(name: &str, price: Option<i64>) -> Content {
        let category_id = CategoryId::parse("drinks").unwrap();
        Content { name: name.to_owned(), category_id, price }
    }

    fn product(outcome: Outcome) -> Product {
        match outcome {
            Outcome::Created(product) | Outcome::Updated(product) | Outcome::Same(product) => {
                product
            }
        }
    }

    #[test]
    fn versions_count_the_changes() {
        let Outcome::Created(first) = put(None, &tea(), &content("Tea", Some(1)), at(5)) else {
            panic!("a new product is created")
        };
        assert_eq!((first.product_version, first.updated_at), (1, at(5)));
        let same = put(Some(first.clone()), &tea(), &content("Tea", Some(1)), at(9));
        assert_eq!(same, Outcome::Same(first.clone()));
        let Outcome::Updated(second) = put(Some(first), &tea(), &content("Tea", None), at(9))
        else {
            panic!("an absent price is a change")
        };
        assert_eq!((second.product_version, second.updated_at), (2, at(9)));
    }

    #[test]
    fn updated_at_rises_even_where_the_clock_does_not() {
        let first = product(put(None, &tea(), &content("a", None), at(5)));
        let second = product(put(Some(first), &tea(), &content("b", None), at(5)));
        assert_eq!(second.updated_at, at(6));
        let third = product(put(Some(second), &tea(), &content("c", None), at(1)));
        assert_eq!(third.updated_at, at(7));
    }

    #[test]
    fn contents_are_checked() {
        assert_eq!(content("Tea", Some(0)).check(), Ok(()));
        assert_eq!(content(&"ü".repeat(200), None).check(), Ok(()));
        for bad in [content("", None), content(&"x".repeat(201), None), content("a\u{0}", None)] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!(content("Tea", Some(-1)).check().is_err());
    }

    #[test]
    fn conditions_are_of_the_present_version() {
        let any = || Some(Versions::Any);
        let these = |these: &[u64]| Some(Versions::These(these.iter().copied().collect()));
        for (only, never, at, holds) in [
            (None, None, None, true),
            (None, None, Some(3), true),
            (any(), None, None, false),
            (any(), None, Some(3), true),
            (these(&[2, 3]), None, Some(3), true),
            (these(&[2]), None, Some(3), false),
            (these(&[2]), None, None, false),
            (these(&[]), None, Some(3), false),
            (None, any(), None, true),
            (None, any(), Some(3), false),
            (None, these(&[3]), Some(3), false),
            (None, these(&[2]), Some(3), true),
            (these(&[3]), these(&[3]), Some(3), false),
        ] {
            let condition = Condition { only, never };
            assert_eq!(condition.holds(at), holds, "{condition:?} at {at:?}");
        }
    }

    #[test]
    fn event_ids_are_of_product_and_version() {
        let other = ProductId::parse("tea1").unwrap();
        assert_eq!(event_id(&tea(), 1), event_id(&tea(), 1));
        assert_ne!(event_id(&tea(), 1), event_id(&tea(), 2));
        assert_ne!(event_id(&tea(), 11), event_id(&other, 1));
    }

    #[test]
    fn a_row_comes_back_as_it_was() {
        let first = product(put(None, &tea(), &content("Tea", Some(350)), at(5)));
        let text = serde_json::to_string(&first).unwrap();
        assert_eq!(serde_json::from_str::<Product>(&text).unwrap(), first);
    }

    proptest! {
        #[test]
        fn every_change_is_one_version_and_the_last_content_stays(
            puts in prop::collection::vec((0..3_i64, 0..50_i64), 1..12),
        ) {
            let mut known: Option<Product> = None;
            let mut versions = Vec::new();
            for (price, ms) in &puts {
                let before = known.clone();
                let wanted = content("Tea", Some(*price));
                let after = match put(known, &tea(), &wanted, at(*ms)) {
                    Outcome::Created(product) => {
                        prop_assert!(before.is_none());
                        versions.push(product.product_version);
                        product
                    }
                    Outcome::Updated(product) => {
                        let before = before.expect("an update is of something");
                        prop_assert!(before.content != product.content);
                        prop_assert!(before.updated_at < product.updated_at);
                        versions.push(product.product_version);
                        product
                    }
                    Outcome::Same(product) => {
                        prop_assert_eq!(Some(&product), before.as_ref());
                        product
                    }
                };
                prop_assert_eq!(&after.content, &wanted);
                known = Some(after);
            }
            let counted: Vec<u64> = (1..=versions.len() as u64).collect();
            prop_assert_eq!(versions, counted);
        }
    }
}
