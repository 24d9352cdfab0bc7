//! The contract of a release that does not exist: OrderCreated in version 2, a breaking change (items
//! instead of lines, a total with its currency), so that worlds have old and new producers and
//! consumers together. Only tests know it; the way in is the one of every version that ships.

use std::sync::LazyLock;

use contract::{CartId, Contract, Event, Line, OrderCreated, OrderId, PaymentMode, ProductId};
use contract::{Upcast, Versions};
use envelope::{Object, objects};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// The closed schema of version 2.
pub const SCHEMA: &str = include_str!("../../../fixtures/schemas/next/OrderCreated.v2.json");

/// Reads versions 1 and 2 of OrderCreated, and writes version 2.
pub fn contract() -> Contract {
    static NEXT: LazyLock<Contract> = LazyLock::new(|| {
        let upcasts: Vec<Upcast> = vec![items_for_lines];
        let versions = Versions { upcasts, read, written: 2, write };
        Contract::default().with("OrderCreated", versions)
    });
    NEXT.clone()
}

/// Version 2 on the wire.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderCreatedV2 {
    order_id: OrderId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cart_id: Option<CartId>,
    #[serde(deserialize_with = "objects")]
    items: Vec<Item>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total: Option<Total>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payment_mode: Option<PaymentMode>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    sku: ProductId,
    quantity: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit_price: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Total {
    minor: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
}

/// Version 1 to 2. A currency without an amount says nothing, and goes.
fn items_for_lines(mut payload: Value) -> Result<Value, String> {
    let order = payload.as_object_mut().ok_or("the payload is no object")?;
    if let Some(mut lines) = order.remove("lines") {
        for line in lines.as_array_mut().ok_or("lines is no list")? {
            let line = line.as_object_mut().ok_or("a line is no object")?;
            for (old, new) in [("productId", "sku"), ("qty", "quantity")] {
                if let Some(value) = line.remove(old) {
                    line.insert(new.to_owned(), value);
                }
            }
        }
        order.insert("items".to_owned(), lines);
    }
    let currency = order.remove("currency").filter(|currency| !currency.is_null());
    if let Some(minor) = order.remove("amount").filter(|amount| !amount.is_null()) {
        let mut total = serde_json::Map::from_iter([("minor".to_owned(), minor)]);
        total.extend(currency.map(|currency| ("currency".to_owned(), currency)));
        order.insert("total".to_owned(), Value::Object(total));
    }
    Ok(payload)
}

fn read(payload: &RawValue) -> Result<Event, String> {
    let Object(order) = serde_json::from_str::<Object<OrderCreatedV2>>(payload.get())
        .map_err(|error| error.to_string())?;
    let OrderCreatedV2 { order_id, cart_id, items, total, payment_mode } = order;
    let lines = items.into_iter().map(|Item { sku, quantity, unit_price }| Line {
        product_id: sku,
        qty: quantity,
        unit_price,
    });
    let (amount, currency) = match total {
        Some(Total { minor, currency }) => (Some(minor), currency),
        None => (None, None),
    };
    let lines = lines.collect();
    Ok(Event::OrderCreated(OrderCreated {
        order_id,
        cart_id,
        lines,
        amount,
        currency,
        payment_mode,
    }))
}

fn write(event: &Event) -> Option<Box<RawValue>> {
    let Event::OrderCreated(order) = event else { return None };
    let OrderCreated { order_id, cart_id, lines, amount, currency, payment_mode } = order.clone();
    let items = lines.into_iter().map(|Line { product_id, qty, unit_price }| Item {
        sku: product_id,
        quantity: qty,
        unit_price,
    });
    let items = items.collect();
    let total = amount.map(|minor| Total { minor, currency });
    let payload = OrderCreatedV2 { order_id, cart_id, items, total, payment_mode };
    Some(serde_json::value::to_raw_value(&payload).expect("it has a JSON form"))
}
