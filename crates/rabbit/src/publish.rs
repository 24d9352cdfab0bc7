//! Publishing with confirms. Never says `Ok` for what was returned, nacked or not answered, and
//! never lets two batches share a channel.

use std::collections::BTreeMap;
use std::future::Future;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, PublisherConfirm};
use ports::{Fault, Outcome, Record};

use crate::fault::{Stage, classify, limited};
use crate::link::Link;
use crate::message::{properties, short};

/// Idle channels to keep; more batches at a time open and close their own.
const IDLE_MAX: usize = 8;

/// The publishing side of a client.
pub(crate) struct Publisher {
    link: Link,
    /// Channels in confirm mode without anything unconfirmed.
    idle: Mutex<Vec<Channel>>,
}

/// A message on its way: its queue and its id.
type Address = (Arc<str>, Arc<str>);

/// How far a record of a batch has come.
#[derive(Debug, Clone, PartialEq)]
enum Slot {
    Unsent,
    /// With lapin, or on the wire, without an answer.
    Sent,
    /// Acked. What was returned before it must still be looked at.
    Acked,
    Failed(Fault),
}

impl Publisher {
    pub(crate) fn new(link: Link) -> Self {
        Publisher { link, idle: Mutex::default() }
    }

    pub(crate) async fn blocked(&self) -> bool {
        self.link.blocked().await
    }

    /// All publishes first, then each confirm: one round trip for a batch.
    pub(crate) async fn publish(&self, batch: Vec<Record>) -> Vec<Outcome<()>> {
        let channel = match self.channel().await {
            Ok(channel) => channel,
            Err(fault) => return vec![Err(fault); batch.len()],
        };
        let mut slots = vec![Slot::Unsent; batch.len()];
        let mut returned = Vec::new();
        let run = run(&channel, &batch, &mut slots, &mut returned);
        let finished = limited(Stage::Sent, "basic.publish", run).await;
        apply_returns(&batch, &mut slots, returned);
        let answered = slots.iter().all(|slot| !matches!(slot, Slot::Sent | Slot::Unsent));
        if finished.is_ok() && answered && channel.status().connected() {
            self.keep(channel);
        }
        let cause = match finished {
            Err(Fault::Retry(cause) | Fault::Refused(cause) | Fault::Unknown(cause)) => cause,
            Ok(()) => ports::Cause("an earlier message of the batch failed".into()),
        };
        let outcome = |slot| match slot {
            Slot::Acked => Ok(()),
            Slot::Failed(fault) => Err(fault),
            Slot::Sent => Err(Fault::Unknown(cause.clone())),
            Slot::Unsent => Err(Fault::Retry(cause.clone())),
        };
        slots.into_iter().map(outcome).collect()
    }

    async fn channel(&self) -> Outcome<Channel> {
        let idle = mem::take(&mut *self.lock());
        let mut usable = idle.into_iter().filter(|channel| channel.status().connected());
        let found = usable.next();
        usable.for_each(|channel| self.keep(channel));
        if let Some(channel) = found {
            return Ok(channel);
        }
        let channel = self.link.channel().await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        limited(Stage::Ask, "confirm.select", select).await?;
        Ok(channel)
    }

    fn keep(&self, channel: Channel) {
        let mut idle = self.lock();
        if idle.len() < IDLE_MAX {
            idle.push(channel);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends the batch and awaits its confirms. Stops sending at the first error of the link, so that
/// nothing overtakes.
async fn run(
    channel: &Channel,
    batch: &[Record],
    slots: &mut [Slot],
    returned: &mut Vec<Address>,
) -> lapin::Result<()> {
    let mut confirms = Vec::with_capacity(batch.len());
    for (record, slot) in batch.iter().zip(slots.iter_mut()) {
        *slot = Slot::Sent;
        match send(channel, record).await {
            Ok(Ok(confirm)) => confirms.push((confirm, slot)),
            Ok(Err(error)) => {
                *slot = Slot::Failed(classify(Stage::Change, &error));
                break;
            }
            Err(fault) => *slot = Slot::Failed(fault),
        }
    }
    for (confirm, slot) in confirms {
        *slot = answer(confirm, returned).await;
    }
    Ok(())
}

/// The outer fault is about the record, the inner error about the link.
async fn send(channel: &Channel, record: &Record) -> Outcome<lapin::Result<PublisherConfirm>> {
    let (queue, properties) = (short(&record.to)?, properties(record)?);
    // Mandatory: without it, a message to a missing queue is acked and dropped (R4). The default
    // exchange routes to the queue of that name.
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    Ok(channel.basic_publish("".into(), queue, options, &record.payload, properties).await)
}

async fn answer(
    confirm: impl Future<Output = lapin::Result<Confirmation>>,
    returned: &mut Vec<Address>,
) -> Slot {
    let (slot, message) = match confirm.await {
        Ok(Confirmation::Ack(message)) => (Slot::Acked, message),
        Ok(Confirmation::Nack(message)) => {
            (Slot::Failed(Fault::retry("the server nacked the message")), message)
        }
        Ok(Confirmation::NotRequested) => {
            (Slot::Failed(Fault::unknown("the channel is not in confirm mode")), None)
        }
        Err(error) => (Slot::Failed(classify(Stage::Sent, &error)), None),
    };
    if let Some(message) = message {
        let id = message.properties.message_id().as_ref().map_or("", |id| id.as_str());
        returned.push((message.routing_key.as_str().into(), id.into()));
    }
    slot
}

/// lapin hands a returned message to whichever confirm it resolves next, not to its own: of a batch
/// acked together, that is any of them. So a return is given to its message by queue and id. Where
/// several of a batch have both in common and not all came back, nobody can tell: `Unknown`.
fn apply_returns(batch: &[Record], slots: &mut [Slot], returned: Vec<Address>) {
    let mut counts: BTreeMap<Address, usize> = BTreeMap::new();
    for address in returned {
        *counts.entry(address).or_default() += 1;
    }
    for ((queue, id), count) in counts {
        let alike = |(record, slot): &(&Record, &mut Slot)| {
            record.to == queue && record.key == id && **slot == Slot::Acked
        };
        let mut found: Vec<_> = batch.iter().zip(slots.iter_mut()).filter(alike).collect();
        let all = found.len() <= count;
        for (_, slot) in &mut found {
            **slot = Slot::Failed(match all {
                true => Fault::refused(format!("returned: NO_ROUTE to queue {queue}")),
                false => Fault::unknown("one of several messages with this id was returned"),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(to: &str, key: &str) -> Record {
        Record { to: to.into(), key: key.into(), headers: vec![], payload: "p".into() }
    }

    fn kinds(slots: &[Slot]) -> String {
        let kind = |slot: &Slot| match slot {
            Slot::Acked => 'a',
            Slot::Failed(Fault::Refused(_)) => 'R',
            Slot::Failed(Fault::Unknown(_)) => 'U',
            Slot::Failed(Fault::Retry(_)) => 'T',
            Slot::Sent | Slot::Unsent => '-',
        };
        slots.iter().map(kind).collect()
    }

    #[test]
    fn a_return_belongs_to_its_message_whatever_confirm_carried_it() {
        let batch = [record("jobs", "1"), record("gone", "1"), record("jobs", "2")];
        let mut slots = vec![Slot::Acked; 3];
        apply_returns(&batch, &mut slots, vec![("gone".into(), "1".into())]);
        assert_eq!(kinds(&slots), "aRa");
    }

    #[test]
    fn equal_ids_of_which_only_some_came_back_are_unknown() {
        let batch = [record("gone", "1"), record("gone", "1"), record("gone", "2")];
        let back = ("gone".into(), "1".into());
        let mut slots = vec![Slot::Acked; 3];
        apply_returns(&batch, &mut slots, vec![back.clone()]);
        assert_eq!(kinds(&slots), "UUa");
        let mut slots = vec![Slot::Acked; 3];
        apply_returns(&batch, &mut slots, vec![back.clone(), back]);
        assert_eq!(kinds(&slots), "RRa");
    }

    #[test]
    fn only_a_plain_ack_is_an_ack() {
        let io = || lapin::Error::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        let table = [
            (Ok(Confirmation::Ack(None)), 'a'),
            (Ok(Confirmation::Nack(None)), 'T'),
            (Ok(Confirmation::NotRequested), 'U'),
            (Err(io()), 'U'),
        ];
        for (confirmation, expected) in table {
            let future = std::future::ready(confirmation);
            let slot = futures_util::FutureExt::now_or_never(answer(future, &mut Vec::new()));
            assert_eq!(kinds(&[slot.unwrap()]), expected.to_string());
        }
    }
}
