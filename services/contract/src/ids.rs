//! Identifiers of this shop, and the ids of derived facts. Never draws a random one.

use envelope::EventId;
use uuid::Uuid;

envelope::id_types! {
    /// An order; the saga's correlation and partition key.
    OrderId,
    /// A product; the partition key of catalog.events.
    ProductId,
    /// A category of products.
    CategoryId,
    /// The cart an order came from.
    CartId,
}

/// Namespace of this shop's derived ids. Chosen once; never changes.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d0c_1c9e_52a6_5f0b_9e5f_2f1d_7a3b_8c41);

/// The id of a fact that an order can have once: uuid v5 of the order and the type, so that whoever
/// derives it again derives the same id (saga-rules 8).
///
/// # Panics
/// Never: a uuid is an identifier.
pub fn derived_id(order: &OrderId, fact: &str) -> EventId {
    let name = format!("{order}\n{fact}");
    EventId::parse(Uuid::new_v5(&NAMESPACE, name.as_bytes()).to_string()).expect("a uuid is an id")
}
