//! The table of Catalog. Never holds a row that no rule wrote.

use chassis::Document;
use ports::Table;

use crate::rules::Product;

/// One row a product, listed by its id.
pub static PRODUCTS: Table = Table { name: "products", index: &["product"] };
/// Position of `product` in the index of [`PRODUCTS`].
pub const PRODUCT: usize = 0;

/// In the order in which they are locked.
pub static TABLES: [&Table; 1] = [&PRODUCTS];

impl Document for Product {
    const TABLE: &'static Table = &PRODUCTS;

    fn index(&self) -> Vec<Option<String>> {
        vec![Some(self.product_id.as_str().to_owned())]
    }
}
