//! What is ordered, drawn from the seed: baskets, and products with enough on their shelves. Pure.

use std::collections::BTreeMap;

use super::{Baskets, Load};
use crate::groceries::{self, Basket, Dice, Product};
use crate::serve::DECLINED_ENDING;

/// Most of a product in a synthetic line.
const QTY_MAX: u64 = 3;

/// Never enough of it on its shelf.
const SCARCE: &str = "load-scarce";

/// Its price makes the amount of a synthetic order end as declined ones do.
const DECLINED: &str = "load-declined";

/// The orders of a run.
pub struct Orders {
    /// In the order in which they are placed.
    pub baskets: Vec<Basket>,
    /// What they are of, and how many are put on the shelf.
    pub products: Vec<(Product, u32)>,
}

impl Orders {
    /// Draws as many as the options want.
    pub fn draw(options: &Load) -> Orders {
        let (mut baskets, catalog) = match options.baskets {
            Baskets::Groceries => {
                (groceries::baskets(options.total(), options.seed), groceries::products())
            }
            Baskets::Synthetic => (synthetic(options), products(options.products)),
        };
        let mut wanted: BTreeMap<String, u32> = BTreeMap::new();
        for (product, qty) in baskets.iter().flat_map(|basket| &basket.lines) {
            *wanted.entry(product.clone()).or_default() += qty;
        }
        let mut stocked: Vec<(Product, u32)> =
            wanted.into_iter().map(|(id, pieces)| (catalog[&id].clone(), pieces)).collect();
        spoil(&mut baskets, options);
        stocked.push((product(SCARCE, 100), 1));
        stocked.push((product(DECLINED, DECLINED_ENDING), options.total() as u32));
        Orders { baskets, products: stocked }
    }
}

fn product(id: &str, price: i64) -> Product {
    let (product_id, name, category_id) = (id.to_owned(), id.to_owned(), "load".to_owned());
    Product { product_id, name, category_id, price }
}

/// Prices in whole hundreds: amounts end as declined ones do only where one wants it.
fn products(many: u32) -> BTreeMap<String, Product> {
    let one = |k: u32| (named(k), product(&named(k), i64::from(1 + k % 99) * 100));
    (0..many).map(one).collect()
}

fn named(k: u32) -> String {
    format!("load-{k:05}")
}

fn synthetic(options: &Load) -> Vec<Basket> {
    // How much weight lies on this product and those before it; the last is all of it.
    let mut weight = 0.0;
    let weights: Vec<f64> = (0..options.products)
        .map(|k| {
            weight += f64::from(k + 1).powf(-options.skew);
            weight
        })
        .collect();
    let mut dice = Dice(options.seed);
    let mut one = |number: usize| {
        let mut lines: BTreeMap<u32, u32> = BTreeMap::new();
        while lines.len() < options.lines as usize {
            let at = dice.below(1 << 53) as f64 / (1_u64 << 53) as f64 * weight;
            let hit = weights.partition_point(|sum| *sum <= at).min(weights.len() - 1) as u32;
            // The hottest are had already where the skew is strong: then the next that is free.
            let free = (0..options.products).map(|step| (hit + step) % options.products);
            let chosen = free.into_iter().find(|k| !lines.contains_key(k));
            let chosen = chosen.expect("there are as many products as lines");
            lines.insert(chosen, 1 + dice.below(QTY_MAX) as u32);
        }
        let lines = lines.into_iter().map(|(k, qty)| (named(k), qty)).collect();
        Basket { basket_id: format!("load-{number}"), lines }
    };
    (0..options.total()).map(&mut one).collect()
}

/// Makes some orders fail.
fn spoil(baskets: &mut [Basket], options: &Load) {
    let mut dice = Dice(options.seed ^ 0x5eed);
    let (fail, decline) = (u64::from(options.fail), u64::from(options.decline));
    for basket in baskets {
        let drawn = dice.below(100);
        if drawn < fail {
            basket.lines.push((SCARCE.to_owned(), orders::http::QTY_MAX));
        } else if drawn < fail + decline {
            basket.lines.push((DECLINED.to_owned(), 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn load(flags: &str) -> Load {
        let line = format!("shakedown load --warm-up 0 {flags}");
        match Cli::parse_from(line.split_whitespace()).command {
            Some(Command::Load(load)) => load,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_seed_decides_and_lines_are_of_different_products() {
        let options = load("--rate 0 --orders 50 --products 5 --lines 5 --skew 3");
        let (one, same) = (Orders::draw(&options), Orders::draw(&options));
        assert_eq!(one.baskets, same.baskets);
        assert_ne!(one.baskets, Orders::draw(&load("--rate 0 --orders 50 --seed 2")).baskets);
        for basket in &one.baskets {
            let mut ids: Vec<&String> = basket.lines.iter().map(|(id, _)| id).collect();
            ids.dedup();
            assert_eq!(ids.len(), 5);
        }
    }

    #[test]
    fn skew_makes_some_products_hot() {
        let first = |skew: &str| {
            let options =
                load(&format!("--rate 0 --orders 500 --products 100 --lines 1 --skew {skew}"));
            let baskets = Orders::draw(&options).baskets;
            baskets.iter().filter(|basket| basket.lines[0].0 == named(0)).count()
        };
        let (even, hot) = (first("0"), first("1.5"));
        assert!(even < 20, "{even} of 500 evenly");
        assert!(hot > 100, "{hot} of 500 with skew");
    }

    #[test]
    fn shelves_are_full_and_some_orders_fail() {
        let orders = Orders::draw(&load("--rate 0 --orders 400 --fail 10 --decline 5"));
        let count = |id: &str| {
            let has = |basket: &&Basket| basket.lines.iter().any(|(line, _)| line == id);
            orders.baskets.iter().filter(has).count()
        };
        let (scarce, declined) = (count(SCARCE), count(DECLINED));
        assert!((20..=65).contains(&scarce) && (5..=40).contains(&declined), "{scarce} {declined}");
        let price: BTreeMap<&str, i64> =
            orders.products.iter().map(|(p, _)| (p.product_id.as_str(), p.price)).collect();
        for basket in &orders.baskets {
            let amount: i64 =
                basket.lines.iter().map(|(id, qty)| price[id.as_str()] * i64::from(*qty)).sum();
            let declined = basket.lines.iter().any(|(id, _)| id == DECLINED);
            assert_eq!(amount % 100 == DECLINED_ENDING, declined);
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (flags, words) in [
            ("--orders 0 --rate 0", "nothing to do"),
            ("--rate 10000 --seconds 101", "a million"),
            ("--products 2 --lines 3", "--products"),
            ("--skew 11", "--skew"),
            ("--fail 60 --decline 60", "100 percent"),
            ("--decline 1 --baskets groceries", "synthetic"),
        ] {
            let said = load(flags).contradiction().expect(flags);
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(load("--orders 1 --rate 0 --baskets groceries").contradiction(), None);
    }
}
