//! The port to a payment gateway, and the worker that calls it for payments that want it. Never
//! inside a transaction, and never with another key for the same operation.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chassis::{Context, Input, Outside, document};
use contract::OrderId;
use envelope::CorrelationId;
use ports::{Key, Row, Runtime, timeout};

use crate::handler::Fact;
use crate::rules::{Answer, Happened, Operation, Payment};

/// A payment gateway.
#[async_trait]
pub trait Gateway: Send + Sync + 'static {
    /// Carries the operation out once for each key: a repeat gets the first definite answer.
    /// `amount` in minor units, `None` where the order has none (profile `catalog`). Whatever may
    /// have happened without a definite answer is [`Answer::Unknown`].
    async fn call(
        &self,
        key: &str,
        operation: Operation,
        order: &OrderId,
        amount: Option<i64>,
    ) -> Answer;
}

/// Calls the gateway for claimed payments, each call within a time-out.
pub struct Calls {
    /// Whom to call.
    pub gateway: Arc<dyn Gateway>,
    /// For the time-out.
    pub runtime: Arc<dyn Runtime>,
    /// After this a call counts as unknown.
    pub limit: Duration,
}

#[async_trait]
impl Outside<Fact> for Calls {
    async fn call(&self, _key: &Key, row: &Row) -> Vec<Input<Fact>> {
        let Some(payment) = document::<Payment>(row) else { return Vec::new() };
        let Some(operation) = payment.wanted() else { return Vec::new() };
        let order = payment.order_id.clone();
        let key = operation.key(&order);
        let call = self.gateway.call(&key, operation, &order, payment.amount());
        let answer = timeout(self.runtime.as_ref(), self.limit, call).await;
        let answer = answer.unwrap_or(Answer::Unknown);
        // No inbox id: a payment's state takes each operation's answer once.
        vec![Input {
            id: None,
            fingerprint: String::new(),
            context: Context {
                cause: payment.cause,
                correlation: CorrelationId::parse(order.as_str()).ok(),
                trace: payment.trace,
            },
            fact: Fact { order, happened: Happened::Answered(operation, answer) },
        }]
    }
}
