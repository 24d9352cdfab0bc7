//! The payloads, one struct a type and version. What the owner's table names is required; what was
//! added is optional. Amounts are integer minor units of the one configured currency. Nothing here
//! adds, multiplies or compares them: checked arithmetic is the services' business.

use chrono::{DateTime, Utc};
use envelope::{Payload, objects, rfc3339_millis};
use serde::{Deserialize, Serialize};

use crate::{CartId, CategoryId, OrderId, ProductId};

/// The longest `name` or `reason` that our producers write, in characters; control characters are
/// left out as well. Readers take any text without U+0000, which PostgreSQL cannot store.
pub const TEXT_CHARS_MAX: usize = 512;

/// Somebody else's reason as our producers write one: without control characters, at most `chars_max`
/// characters of it, themselves at most [`TEXT_CHARS_MAX`]; `otherwise` where nothing is left.
pub fn written(reason: &str, chars_max: usize, otherwise: &str) -> String {
    let kept: String = reason.chars().filter(|c| !c.is_control()).take(chars_max).collect();
    if kept.is_empty() { otherwise.to_owned() } else { kept }
}

/// Reasons that our services give. On the wire a reason is any text.
pub mod reason {
    /// A line asks for more than is available.
    pub const INSUFFICIENT_STOCK: &str = "insufficient_stock";
    /// A line names a product that Inventory does not know.
    pub const UNKNOWN_PRODUCT: &str = "unknown_product";
    /// The order has no amount to charge.
    pub const PRICE_UNAVAILABLE: &str = "price_unavailable";
    /// The customer cancelled.
    pub const CUSTOMER_REQUEST: &str = "customer_request";
    /// The saga's deadline passed.
    pub const DEADLINE: &str = "deadline";
    /// Stock failed, and the event did not say why.
    pub const STOCK_FAILED: &str = "stock_failed";
    /// Payment failed, and the event did not say why.
    pub const PAYMENT_FAILED: &str = "payment_failed";
    /// The gateway declined the card.
    pub const DECLINED: &str = "declined";

    /// All of them. A reason from the wire may be another text: who counts by reason counts the others
    /// together.
    pub const ALL: [&str; 8] = [
        INSUFFICIENT_STOCK,
        UNKNOWN_PRODUCT,
        PRICE_UNAVAILABLE,
        CUSTOMER_REQUEST,
        DEADLINE,
        STOCK_FAILED,
        PAYMENT_FAILED,
        DECLINED,
    ];
}

/// Full state of a product: an absent price means that none is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProductUpserted {
    /// Which product.
    pub product_id: ProductId,
    /// For people.
    pub name: String,
    /// Its category.
    pub category_id: CategoryId,
    /// Minor units, at least 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<i64>,
    /// Information; an order only where `productVersion` is absent (saga-rules 11).
    #[serde(with = "rfc3339_millis")]
    pub updated_at: DateTime<Utc>,
    /// Rises by one with each update of the product, from 1 to at most 2^63 - 1 (a database's
    /// bigint).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_version: Option<u64>,
}

/// How an order is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentMode {
    /// Charge on OrderCreated, beside the reservation.
    #[default]
    Parallel,
    /// Charge when stock is reserved.
    AfterStock,
    /// Nothing to charge.
    None,
}

/// A line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Which product.
    pub product_id: ProductId,
    /// How many: the whole range from 1 to 4,294,967,295, in the schema and on reading. A limit of
    /// business belongs to the request that orders; an event states what was ordered, and what does
    /// not fit fails as `insufficient_stock`.
    pub qty: u32,
    /// Price of one at the time of the order, minor units, at least 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_price: Option<i64>,
}

/// An order was placed: the saga starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderCreated {
    /// Which order.
    pub order_id: OrderId,
    /// The cart it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cart_id: Option<CartId>,
    /// At least one; products may repeat. Our HTTP API takes at most 100 lines an order, an event
    /// is read with as many as the envelope holds (fewer than 10,000): the sum of the quantities
    /// fits 64 bits, the sum of the prices need not.
    #[serde(deserialize_with = "objects")]
    pub lines: Vec<Line>,
    /// Σ qty × unitPrice, minor units, at least 0. It is the sum to charge, and readers take it as
    /// it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<i64>,
    /// ISO 4217 code: three capital letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Absent means parallel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_mode: Option<PaymentMode>,
}

/// All lines are reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StockReserved {
    /// Which order.
    pub order_id: OrderId,
}

/// Nothing is reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StockFailed {
    /// Which order.
    pub order_id: OrderId,
    /// Why; see [`reason`]. The owner's table demands it and the schema does too; a reader goes
    /// without, because the failure is the fact that must not be lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a payment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaymentStatus {
    /// Authorised (in profile `catalog`: paid).
    Success,
    /// Declined, or nothing to charge by.
    Failure,
}

/// The payment's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentProcessed {
    /// Which order.
    pub order_id: OrderId,
    /// How it ended.
    pub status: PaymentStatus,
    /// Why it failed; see [`reason`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinalStatus {
    /// Stock committed, payment captured.
    Confirmed,
    /// Nothing held.
    Cancelled,
}

/// The order ended well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderConfirmed {
    /// Which order.
    pub order_id: OrderId,
    /// Always `confirmed`.
    pub final_status: FinalStatus,
}

/// The order ended without a sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderCancelled {
    /// Which order.
    pub order_id: OrderId,
    /// Always `cancelled`.
    pub final_status: FinalStatus,
    /// Why; see [`reason`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a notification tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NotificationType {
    /// The order was confirmed.
    Confirmed,
    /// The order was cancelled.
    Cancelled,
}

impl NotificationType {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            NotificationType::Confirmed => "confirmed",
            NotificationType::Cancelled => "cancelled",
        }
    }
}

/// How a notification travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NotificationChannel {
    /// Email, simulated: `.eml` files.
    Email,
}

impl NotificationChannel {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            NotificationChannel::Email => "email",
        }
    }
}

/// Tell the customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotificationJob {
    /// Which order.
    pub order_id: OrderId,
    /// What to tell.
    #[serde(rename = "type")]
    pub kind: NotificationType,
    /// By which way.
    pub channel: NotificationChannel,
    /// At least 1, and 1 where absent; a wanted resend is one higher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
}

macro_rules! payloads {
    ($($name:ident $version:literal),+ $(,)?) => {$(
        impl Payload for $name {
            const TYPE: &'static str = stringify!($name);
            const VERSION: u32 = $version;
        }
    )+};
}
payloads! {
    ProductUpserted 1, OrderCreated 1, StockReserved 1, StockFailed 1, PaymentProcessed 1,
    OrderConfirmed 1, OrderCancelled 1, NotificationJob 1,
}
