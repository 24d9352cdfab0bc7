//! Real baskets and products, embedded in the binary: what demos and loads order. Never touches a
//! file.

use std::collections::BTreeMap;

use serde::Deserialize;

const PRODUCTS: &str = include_str!("../fixtures/groceries/products.csv");
const BASKETS: &str = include_str!("../fixtures/groceries/baskets.csv");

/// A product of the fixtures.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Product {
    /// Its id.
    pub product_id: String,
    /// For people.
    pub name: String,
    /// Used as the category's name and, made an id, as its id.
    pub category_id: String,
    /// Cents.
    pub price: i64,
}

/// A basket: what one household bought at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Basket {
    /// Its id, the order's cart.
    pub basket_id: String,
    /// Products and how many of each.
    pub lines: Vec<(String, u32)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BasketLine {
    basket_id: String,
    product_id: String,
    qty: u32,
}

/// All products by id.
pub fn products() -> BTreeMap<String, Product> {
    let mut reader = csv::Reader::from_reader(PRODUCTS.as_bytes());
    let rows = reader.deserialize::<Product>();
    rows.map(|row| row.expect("the embedded products are read in a test"))
        .map(|product| (product.product_id.clone(), product))
        .collect()
}

/// As many baskets as wanted, the small ones first and shuffled by the seed; more than there are
/// come round again.
pub fn baskets(wanted: usize, seed: u64) -> Vec<Basket> {
    let mut baskets: Vec<Basket> = Vec::new();
    let mut reader = csv::Reader::from_reader(BASKETS.as_bytes());
    for row in reader.deserialize::<BasketLine>() {
        let row = row.expect("the embedded baskets are read in a test");
        if baskets.last().is_none_or(|basket| basket.basket_id != row.basket_id) {
            baskets.push(Basket { basket_id: row.basket_id, lines: Vec::new() });
        }
        let basket = baskets.last_mut().expect("one was pushed");
        basket.lines.push((row.product_id, row.qty));
    }
    // What Orders takes in one order.
    baskets.retain(|basket| basket.lines.len() <= orders::http::LINES_MAX);
    baskets.sort_by_key(|basket| basket.lines.len());
    let mut taken: Vec<Basket> = baskets.into_iter().cycle().take(wanted).collect();
    let mut dice = Dice(seed);
    for last in (1..taken.len()).rev() {
        taken.swap(last, dice.below(last as u64 + 1) as usize);
    }
    taken
}

/// SplitMix64: the same numbers for the same seed.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `below`, which is at least 1.
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_every_basket_names_a_product() {
        let products = products();
        let baskets = baskets(2000, 1);
        assert_eq!(baskets.len(), 2000);
        for (product, qty) in baskets.iter().flat_map(|basket| &basket.lines) {
            assert!(products.contains_key(product), "{product}");
            assert!(*qty >= 1);
        }
        assert!(products.values().all(|product| product.price >= 0));
    }

    #[test]
    fn the_seed_decides_the_order() {
        assert_eq!(baskets(50, 7), baskets(50, 7));
        assert_ne!(baskets(50, 7), baskets(50, 8));
        assert_eq!(baskets(2001, 7).len(), 2001);
    }
}
