//! What Query measures. Never decides.

use chassis::Meter;

/// Products that say they were changed in the future.
pub static PRODUCT_FROM_THE_FUTURE: Meter = Meter::counter(
    "product_from_the_future_total",
    "Products taken over whose updatedAt was over five minutes ahead of the store's clock.",
    &[],
);

/// All of them.
pub static ALL: [&Meter; 1] = [&PRODUCT_FROM_THE_FUTURE];
