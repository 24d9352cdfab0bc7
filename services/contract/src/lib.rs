//! This shop's contract: its events and jobs, where they travel, their versions, and who produces and
//! consumes them. Never decides anything.
#![warn(missing_docs)]

mod event;
mod ids;
mod payload;
mod schema;
mod stream;
mod table;
mod versions;

pub use event::{ContractError, Event, TYPES, ends_order};
pub use ids::{CartId, CategoryId, OrderId, ProductId, derived_id};
pub use payload::{
    FinalStatus, Line, NotificationChannel, NotificationJob, NotificationType, OrderCancelled,
    OrderConfirmed, OrderCreated, PaymentMode, PaymentProcessed, PaymentStatus, ProductUpserted,
    StockFailed, StockReserved, TEXT_CHARS_MAX, reason, written,
};
pub use schema::schema;
pub use stream::{JobsQueue, Profile, Stream, Streams};
pub use table::{CATALOG, Row, Service};
pub use versions::{Contract, ReadPayload, Reading, Upcast, Versions, WritePayload};
