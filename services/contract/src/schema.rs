//! The closed JSON Schemas of the events and jobs: what our producers write. Never used to read:
//! consumers are tolerant ([`Event::read`](crate::Event::read)).

macro_rules! schemas {
    ($($event:literal $version:literal),+ $(,)?) => {
        /// The JSON Schema (draft 2020-12) of a version of an event or job, envelope included, as
        /// text. It is closed: a field that it does not name is an error.
        pub fn schema(event_type: &str, version: u32) -> Option<&'static str> {
            match (event_type, version) {
                $(($event, $version) => Some(include_str!(concat!(
                    "../schemas/", $event, ".v", $version, ".json"
                ))),)+
                _ => None,
            }
        }
    };
}
schemas! {
    "ProductUpserted" 1, "OrderCreated" 1, "StockReserved" 1, "StockFailed" 1,
    "PaymentProcessed" 1, "OrderConfirmed" 1, "OrderCancelled" 1, "NotificationJob" 1,
}
