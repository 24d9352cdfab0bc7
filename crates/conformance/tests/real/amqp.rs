//! AMQP itself through lapin: a channel in confirm mode on a connection of its own.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions,
    BasicQosOptions, BasicRejectOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::protocol::AMQPErrorKind;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind,
    ExchangeKind,
};
use ports::{Fault, Outcome};
use shakedown_conformance::queue::{
    Amqp, Argument, Arguments, Confirmed, Consuming, Death, Got, Message,
};
use tokio::sync::Mutex;

pub struct RealChannel {
    channel: Channel,
    consumer: Mutex<Option<Consumer>>,
    // Behind the channel: dropped after it.
    connection: Connection,
}

impl RealChannel {
    pub async fn open(url: &str) -> RealChannel {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        RealChannel { channel, consumer: Mutex::default(), connection }
    }
}

impl RealChannel {
    /// `queue.delete`, which no case does: an operator would.
    pub async fn delete(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }
}

/// What the server says no to is `Refused`; what it left unanswered is `Unknown`.
fn refused<T>(stage_is_sent: bool, result: lapin::Result<T>) -> Outcome<T> {
    result.map_err(|error| match error.kind() {
        ErrorKind::ProtocolError(protocol) if !stage_is_sent => match protocol.kind() {
            AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => Fault::refused(error.to_string()),
        },
        _ => Fault::unknown(error.to_string()),
    })
}

fn table(arguments: &Arguments) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, argument) in arguments {
        let value = match argument {
            Argument::Number(number) => AMQPValue::LongInt(*number),
            Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Argument::Flag(flag) => AMQPValue::Boolean(*flag),
        };
        table.insert((*name).into(), value);
    }
    table
}

fn got(delivery: &Delivery) -> Got {
    let properties = &delivery.properties;
    let text = |value: &lapin::types::ShortString| value.to_string();
    let headers = properties.headers().clone().unwrap_or_default();
    let deaths = match headers.inner().get("x-death") {
        Some(AMQPValue::FieldArray(deaths)) => deaths.as_slice().iter().filter_map(death).collect(),
        _ => Vec::new(),
    };
    Got {
        tag: delivery.delivery_tag,
        key: properties.message_id().as_ref().map(text).unwrap_or_default(),
        redelivered: delivery.redelivered,
        expiration: properties.expiration().as_ref().map(text),
        deaths,
    }
}

fn death(entry: &AMQPValue) -> Option<Death> {
    let AMQPValue::FieldTable(entry) = entry else { return None };
    let text = |name: &str| match entry.inner().get(name) {
        Some(AMQPValue::LongString(text)) => Some(text.to_string()),
        _ => None,
    };
    let Some(AMQPValue::LongLongInt(count)) = entry.inner().get("count") else { return None };
    Some(Death { reason: text("reason")?, queue: text("queue")?, count: *count })
}

fn properties(message: &Message) -> BasicProperties {
    let mut properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(message.key.as_str().into());
    if let Some(ttl_ms) = message.ttl_ms {
        properties = properties.with_expiration(ttl_ms.to_string().into());
    }
    if let Some(priority) = message.priority {
        properties = properties.with_priority(priority);
    }
    properties
}

#[async_trait]
impl Amqp for RealChannel {
    async fn declare(&self, queue: &str, arguments: &Arguments) -> Outcome<()> {
        let (options, table) = (QueueDeclareOptions::durable(), table(arguments));
        refused(false, self.channel.queue_declare(queue.into(), options, table).await).map(drop)
    }

    async fn fan_out(&self, exchange: &str, queues: &[Arc<str>]) {
        let (options, none) = (ExchangeDeclareOptions::default(), FieldTable::default);
        let declared =
            self.channel.exchange_declare(exchange.into(), ExchangeKind::Fanout, options, none());
        declared.await.unwrap();
        for queue in queues {
            let (queue, options) = ((**queue).into(), QueueBindOptions::default());
            let bound = self.channel.queue_bind(queue, exchange.into(), "".into(), options, none());
            bound.await.unwrap();
        }
    }

    async fn publish(
        &self,
        exchange: &str,
        key: &str,
        mandatory: bool,
        message: Message,
    ) -> Outcome<Confirmed> {
        let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
        let (exchange, key) = (exchange.into(), key.into());
        let sent = self.channel.basic_publish(exchange, key, options, b"", properties(&message));
        match refused(true, refused(true, sent.await)?.await)? {
            Confirmation::Ack(None) => Ok(Confirmed::Acked),
            Confirmation::Ack(Some(_)) => Ok(Confirmed::Returned),
            Confirmation::Nack(_) => Ok(Confirmed::Nacked),
            Confirmation::NotRequested => panic!("the channel is in confirm mode"),
        }
    }

    async fn transact(&self, exchange: &str, key: &str, message: Message) -> Outcome<()> {
        let channel = refused(false, self.connection.create_channel().await)?;
        refused(false, channel.tx_select().await)?;
        let options = BasicPublishOptions::default();
        let (exchange, key) = (exchange.into(), key.into());
        let sent = channel.basic_publish(exchange, key, options, b"", properties(&message));
        refused(true, sent.await)?;
        refused(false, channel.tx_commit().await)
    }

    async fn depth(&self, queue: &str) -> u64 {
        let options = QueueDeclareOptions::durable().passive();
        let asked = self.channel.queue_declare(queue.into(), options, FieldTable::default());
        asked.await.unwrap().message_count().into()
    }

    async fn get(&self, queue: &str) -> Option<Got> {
        let message = self.channel.basic_get(queue.into(), BasicGetOptions::default()).await;
        message.unwrap().map(|message| got(&message.delivery))
    }

    async fn consume(&self, queue: &str, how: Consuming) -> Outcome<()> {
        let Consuming { prefetch, exclusive, auto_ack } = how;
        refused(false, self.channel.basic_qos(prefetch, BasicQosOptions::default()).await)?;
        let options = BasicConsumeOptions { exclusive, no_ack: auto_ack, ..Default::default() };
        let (queue, none) = (queue.into(), FieldTable::default());
        let consumer = self.channel.basic_consume(queue, "".into(), options, none).await;
        *self.consumer.lock().await = Some(refused(false, consumer)?);
        Ok(())
    }

    async fn cancel(&self) {
        let tag = self.consumer.lock().await.as_ref().expect("a consumer").tag();
        self.channel.basic_cancel(tag, BasicCancelOptions::default()).await.unwrap();
    }

    async fn next(&self) -> Option<Got> {
        let mut consumer = self.consumer.lock().await;
        let delivery = consumer.as_mut().expect("a consumer").next().await?;
        delivery.ok().map(|delivery| got(&delivery))
    }

    async fn ack(&self, tag: u64, multiple: bool) {
        self.channel.basic_ack(tag, BasicAckOptions { multiple }).await.unwrap();
    }

    async fn reject(&self, tag: u64, requeue: bool) {
        self.channel.basic_reject(tag, BasicRejectOptions { requeue }).await.unwrap();
    }
}
