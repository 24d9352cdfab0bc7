//! What each service says of one order, asked all at once. Never judges it.

use contract::Service;
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::Value;

use crate::client::{Client, escaped};
use crate::dlq;

/// Most dead letters of a service that are searched, the oldest first.
const DEAD_LETTERS_MAX: usize = 5_000;

/// What was heard from one place.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// It said this.
    Known(Value),
    /// It knows of no such order, or there is no such place.
    Absent,
    /// It did not answer, or not sensibly.
    Silent(String),
}

/// All that was heard of an order.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Orders: the saga.
    pub order: Part,
    /// Query: the read model.
    pub view: Part,
    /// Inventory: the reservation.
    pub reservation: Part,
    /// Payments: the payment.
    pub payment: Part,
    /// The simulated gateway: its books.
    pub account: Part,
    /// Notifications API: a list.
    pub notifications: Part,
    /// Notifications Worker: a list.
    pub mails: Part,
    /// Dead letters of this order: a list.
    pub dead_letters: Part,
    /// What is under way between the services.
    pub backlog: Part,
}

impl Part {
    /// What was said; null where nothing was.
    pub fn value(&self) -> &Value {
        match self {
            Part::Known(value) => value,
            Part::Absent | Part::Silent(_) => &Value::Null,
        }
    }

    /// What was said as a list; empty where nothing was.
    pub fn items(&self) -> &[Value] {
        self.value().as_array().map_or(&[], Vec::as_slice)
    }
}

/// Asks everybody. An error only where nobody can be asked.
pub async fn read(client: &Client, order: &str) -> anyhow::Result<Facts> {
    // One that is never silent: a refused connection is everybody's.
    client.get("/health").await?;
    let id = escaped(order);
    let single = [
        format!("/orders/{id}"),
        format!("/query/orders/{id}"),
        format!("/inventory/reservations/{id}"),
        format!("/payments/{id}"),
        format!("/gateway/accounts/{id}"),
        "/backlog".to_owned(),
    ];
    let single = join_all(single.iter().map(|path| one(client, path)));
    let lists = [format!("/notifications/{id}"), format!("/worker/mails/{id}")];
    let lists = join_all(lists.iter().map(|path| list(client, path)));
    let mut single = single.await.into_iter();
    let mut lists = lists.await.into_iter();
    let mut next = || single.next().expect("an answer for each path");
    let (order_part, view, reservation, payment) = (next(), next(), next(), next());
    let (account, backlog) = (next(), next());
    let mut next = || lists.next().expect("an answer for each path");
    let (notifications, mails) = (next(), next());
    let dead_letters = dead_letters(client, order).await;
    let order = order_part;
    Ok(Facts {
        order,
        view,
        reservation,
        payment,
        account,
        notifications,
        mails,
        dead_letters,
        backlog,
    })
}

async fn one(client: &Client, path: &str) -> Part {
    match client.find(path).await {
        Ok(Some(value)) => Part::Known(value),
        Ok(None) => Part::Absent,
        Err(error) => Part::Silent(format!("{error:#}")),
    }
}

async fn list(client: &Client, path: &str) -> Part {
    match client.list(path).await {
        Ok(items) if items.is_empty() => Part::Absent,
        Ok(items) => Part::Known(Value::Array(items)),
        Err(error) => Part::Silent(format!("{error:#}")),
    }
}

/// The open dead letters of any service that belong to the order.
async fn dead_letters(client: &Client, order: &str) -> Part {
    let all = Service::ALL.map(|service| dlq::open(client, service, DEAD_LETTERS_MAX));
    let mut found = Vec::new();
    for letters in join_all(all).await {
        match letters {
            Ok(letters) => found.extend(
                letters
                    .into_iter()
                    .filter(|letter| letter["key"] == order || letter["correlationId"] == order),
            ),
            Err(error) => return Part::Silent(format!("{error:#}")),
        }
    }
    if found.is_empty() { Part::Absent } else { Part::Known(Value::Array(found)) }
}
