//! Customers who order without an Idempotency-Key, the same thing each. Never judged here.

use std::time::Duration;

use contract::Service;
use ports::Fault;
use serde_json::json;

use crate::customers::{ATTEMPTS_MAX, Customers, one};
use crate::workload::WALK_INS_CART;

/// A customer who orders without a key, and asks again where no answer comes.
#[derive(Debug, Clone)]
pub struct WalkIn {
    /// The order that was accepted; `None`: never answered for good.
    pub order_id: Option<String>,
    /// Requests that may have made an order of which nobody was told.
    pub lost: usize,
}

impl Customers {
    /// Orders without a key: the same as others do. Who asks again may have ordered twice.
    pub async fn walk_in(self, number: u32) {
        let choices = self.world().cluster.choices();
        let at_ms = choices.below("walk-in", "at", 4_000);
        madsim::time::sleep(Duration::from_millis(at_ms)).await;
        let line = json!({ "productId": "p0", "qty": 1 });
        let body = one(&json!({ "lines": [line], "cartId": WALK_INS_CART })).keyless();
        let (mut lost, whose) = (0, format!("walk-in-{number}"));
        let mut order_id = None;
        for _ in 0..ATTEMPTS_MAX {
            let node = self.node_of(Service::Orders, &whose);
            match self.request(&node, "POST", "/orders", &whose, Some(body.clone())).await {
                Ok((201, answer)) => {
                    order_id = answer["orderId"].as_str().map(str::to_owned);
                    break;
                }
                Ok((503, _)) | Err(Fault::Unknown(_)) => lost += 1,
                Ok(_) | Err(Fault::Retry(_) | Fault::Refused(_)) => {}
            }
            let pause_ms = 100 + choices.below("customer pause", &whose, 400);
            madsim::time::sleep(Duration::from_millis(pause_ms)).await;
        }
        self.note_told(|told| told.walk_ins.push(WalkIn { order_id, lost }));
    }
}
