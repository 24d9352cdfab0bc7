//! What the demo will order, what will lie on the shelves, and which cards are good. Pure: the same
//! seed gives the same plan.

use std::collections::BTreeMap;

use crate::groceries::{self, Basket, Dice, Product};

/// Of so many orders one meets an empty shelf, about.
const SHORT_ONE_IN: usize = 20;

/// Of so many orders one is over the card's limit, about.
const DECLINED_ONE_IN: usize = 33;

/// A demo's plan.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In the order in which they are placed.
    pub baskets: Vec<Basket>,
    /// Every product of the baskets, and how many are put on the shelf.
    pub products: Vec<(Product, u32)>,
    /// Amounts over this are declined, in cents.
    pub card_limit: i64,
}

impl Plan {
    /// Draws the plan for so many orders.
    pub fn draw(orders: usize, seed: u64) -> Plan {
        let baskets = groceries::baskets(orders, seed);
        let all = groceries::products();
        let mut wanted: BTreeMap<&str, (u32, usize)> = BTreeMap::new();
        for (product, qty) in baskets.iter().flat_map(|basket| &basket.lines) {
            let (pieces, times) = wanted.entry(product).or_default();
            *pieces += qty;
            *times += 1;
        }
        let mut shelves: BTreeMap<&str, u32> =
            wanted.iter().map(|(product, (pieces, _))| (*product, *pieces)).collect();
        // Only what is wanted more than once can run out, rather than be missing.
        let mut scarce: Vec<&str> = wanted
            .iter()
            .filter(|(_, (_, times))| *times > 1)
            .map(|(product, _)| *product)
            .collect();
        let mut dice = Dice(seed);
        let mut unlucky = 0;
        while unlucky < orders.div_ceil(SHORT_ONE_IN) && !scarce.is_empty() {
            let product = scarce.swap_remove(dice.below(scarce.len() as u64) as usize);
            let (pieces, times) = wanted[product];
            shelves.insert(product, pieces / 2);
            unlucky += times.div_ceil(2);
        }
        let mut amounts: Vec<i64> = baskets.iter().map(|basket| amount(basket, &all)).collect();
        amounts.sort_unstable();
        let good = amounts.len() - amounts.len().div_ceil(DECLINED_ONE_IN);
        let card_limit = good.checked_sub(1).map_or(i64::MAX, |last| amounts[last]);
        let products = shelves.iter().map(|(id, pieces)| (all[*id].clone(), *pieces)).collect();
        Plan { products, card_limit, baskets: baskets.clone() }
    }
}

fn amount(basket: &Basket, products: &BTreeMap<String, Product>) -> i64 {
    basket.lines.iter().map(|(product, qty)| products[product].price * i64::from(*qty)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_orders_run_out_and_some_cards_are_declined() {
        let plan = Plan::draw(1000, 1);
        let all = groceries::products();
        let declined = plan.baskets.iter().filter(|b| amount(b, &all) > plan.card_limit).count();
        assert!((20..=40).contains(&declined), "{declined}");
        let mut left: BTreeMap<&str, i64> =
            plan.products.iter().map(|(p, n)| (p.product_id.as_str(), i64::from(*n))).collect();
        let mut short = 0;
        for basket in &plan.baskets {
            let fits = basket.lines.iter().all(|(p, qty)| left[p.as_str()] >= i64::from(*qty));
            short += usize::from(!fits);
            for (product, qty) in basket.lines.iter().filter(|_| fits) {
                *left.get_mut(product.as_str()).unwrap() -= i64::from(*qty);
            }
        }
        assert!((20..=80).contains(&short), "{short}");
    }

    #[test]
    fn one_order_is_a_plan_too() {
        let plan = Plan::draw(1, 9);
        assert_eq!(plan.baskets.len(), 1);
        assert!(!plan.products.is_empty());
        assert_eq!(plan.card_limit, i64::MAX, "the only order is not declined");
    }
}
