//! What Inventory measures. Never decides.

use chassis::Meter;

/// Confirmed orders whose lines did not fit: open items, an operator's to settle.
pub static STOCK_OVERSELL: Meter =
    Meter::counter("stock_oversell_total", "Confirmed orders that have no stock. Must be 0.", &[]);

/// All of them.
pub static ALL: [&Meter; 1] = [&STOCK_OVERSELL];
