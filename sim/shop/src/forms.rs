//! Events that are wrong in one way each, by the names of their files in `fixtures/events/invalid`:
//! code, type, and what is wrong. Never read from the disk: a world has none.

/// A wrong event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// The file's name, without its ending.
    pub name: &'static str,
    /// The event.
    pub bytes: &'static [u8],
}

impl Form {
    /// The code of the dead letter that it becomes.
    pub fn code(&self) -> &'static str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// Its event type.
    pub fn event_type(&self) -> &'static str {
        self.name.split('.').nth(1).unwrap_or_default()
    }

    /// The form of this name.
    pub fn named(name: &str) -> Option<&'static Form> {
        ALL.iter().find(|form| form.name == name)
    }
}

macro_rules! forms {
    ($($name:literal)*) => {
        &[$(Form {
            name: $name,
            bytes: include_bytes!(concat!("../../../fixtures/events/invalid/", $name, ".json")),
        }),*]
    };
}

/// All of them; a test compares them with the folder.
#[rustfmt::skip]
pub const ALL: &[Form] = forms! {
    "bad_envelope.OrderCreated.causation_id_empty"
    "bad_envelope.OrderCreated.correlation_id_missing"
    "bad_envelope.OrderCreated.correlation_id_space"
    "bad_envelope.OrderCreated.event_id_65_characters"
    "bad_envelope.OrderCreated.event_id_control_character"
    "bad_envelope.OrderCreated.event_id_empty"
    "bad_envelope.OrderCreated.event_id_missing"
    "bad_envelope.OrderCreated.event_id_not_ascii"
    "bad_envelope.OrderCreated.event_id_number"
    "bad_envelope.OrderCreated.event_type_control_character"
    "bad_envelope.OrderCreated.event_type_missing"
    "bad_envelope.OrderCreated.event_version_0"
    "bad_envelope.OrderCreated.event_version_missing"
    "bad_envelope.OrderCreated.event_version_negative"
    "bad_envelope.OrderCreated.event_version_text"
    "bad_envelope.OrderCreated.occurred_at_missing"
    "bad_envelope.OrderCreated.occurred_at_no_offset"
    "bad_envelope.OrderCreated.occurred_at_no_time"
    "bad_envelope.OrderCreated.occurred_at_number"
    "bad_envelope.OrderCreated.occurred_at_year_10000"
    "bad_envelope.OrderCreated.payload_missing"
    "bad_payload.NotificationJob.channel_unknown"
    "bad_payload.NotificationJob.order_id_missing"
    "bad_payload.NotificationJob.revision_0"
    "bad_payload.NotificationJob.type_missing"
    "bad_payload.NotificationJob.type_unknown"
    "bad_payload.OrderCancelled.final_status_contradicts"
    "bad_payload.OrderCancelled.final_status_unknown"
    "bad_payload.OrderConfirmed.final_status_contradicts"
    "bad_payload.OrderConfirmed.final_status_missing"
    "bad_payload.OrderCreated.amount_fraction"
    "bad_payload.OrderCreated.amount_negative"
    "bad_payload.OrderCreated.amount_over_63_bits"
    "bad_payload.OrderCreated.amount_over_64_bits"
    "bad_payload.OrderCreated.cart_id_empty"
    "bad_payload.OrderCreated.currency_lower_case"
    "bad_payload.OrderCreated.line_as_list"
    "bad_payload.OrderCreated.line_without_product"
    "bad_payload.OrderCreated.lines_empty"
    "bad_payload.OrderCreated.lines_missing"
    "bad_payload.OrderCreated.lines_no_list"
    "bad_payload.OrderCreated.order_id_65_characters"
    "bad_payload.OrderCreated.order_id_control_character"
    "bad_payload.OrderCreated.order_id_empty"
    "bad_payload.OrderCreated.order_id_missing"
    "bad_payload.OrderCreated.order_id_number"
    "bad_payload.OrderCreated.payload_list"
    "bad_payload.OrderCreated.payload_null"
    "bad_payload.OrderCreated.payload_text"
    "bad_payload.OrderCreated.payment_mode_unknown"
    "bad_payload.OrderCreated.qty_0"
    "bad_payload.OrderCreated.qty_fraction"
    "bad_payload.OrderCreated.qty_missing"
    "bad_payload.OrderCreated.qty_negative"
    "bad_payload.OrderCreated.qty_over_32_bits"
    "bad_payload.OrderCreated.qty_text"
    "bad_payload.OrderCreated.unit_price_negative"
    "bad_payload.OrderCreated.unit_price_over_63_bits"
    "bad_payload.PaymentProcessed.status_capitals"
    "bad_payload.PaymentProcessed.status_missing"
    "bad_payload.PaymentProcessed.status_unknown"
    "bad_payload.ProductUpserted.category_id_space"
    "bad_payload.ProductUpserted.name_missing"
    "bad_payload.ProductUpserted.name_null_character"
    "bad_payload.ProductUpserted.price_fraction"
    "bad_payload.ProductUpserted.price_negative"
    "bad_payload.ProductUpserted.price_over_63_bits"
    "bad_payload.ProductUpserted.price_text"
    "bad_payload.ProductUpserted.product_id_missing"
    "bad_payload.ProductUpserted.product_version_0"
    "bad_payload.ProductUpserted.product_version_over_63_bits"
    "bad_payload.ProductUpserted.updated_at_missing"
    "bad_payload.ProductUpserted.updated_at_no_time"
    "bad_payload.StockFailed.order_id_missing"
    "bad_payload.StockFailed.reason_null_character"
    "bad_payload.StockFailed.reason_number"
    "bad_payload.StockReserved.order_id_missing"
    "unsupported_version.NotificationJob.version_2"
    "unsupported_version.OrderCancelled.version_2"
    "unsupported_version.OrderConfirmed.version_2"
    "unsupported_version.OrderCreated.version_2"
    "unsupported_version.PaymentProcessed.version_2"
    "unsupported_version.ProductUpserted.version_2"
    "unsupported_version.StockFailed.version_2"
    "unsupported_version.StockReserved.version_2"
};
