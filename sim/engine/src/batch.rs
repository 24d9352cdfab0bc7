//! A batch of records through the gate. It is one call, but each of its records has an outcome of its
//! own: a fault hits some or all of them (K11: later ones still go; R3). Never loses an answer.

use std::future::Future;

use ports::{Fault, Outcome, Record};

use crate::cluster::Node;
use crate::fault::{FaultKind, Site};
use crate::log::words;
use crate::touch::Touch;

/// Sends the batch by `send`, which answers record by record.
pub(crate) async fn send<F>(
    node: &Node,
    site: Site,
    batch: Vec<Record>,
    mut send: impl FnMut(Vec<Record>) -> F,
) -> Vec<Outcome<()>>
where
    F: Future<Output = Vec<Outcome<()>>>,
{
    let n = batch.len();
    let sent = match site {
        Site::Publish => Touch::Published,
        _ => Touch::Produced,
    };
    let about = || {
        node.touches(|| batch.iter().cloned().map(sent).collect());
        words(&batch)
    };
    let call = match node.enter(site, about).await {
        Ok(call) => call,
        // It never left, or was refused as a whole.
        Err(fault) => return vec![Err(fault); n],
    };
    let rejected = call.rejection(node);
    let hit = match rejected.is_some() || call.unanswered() {
        true if call.nothing_arrives() => vec![true; n],
        true => hits(node, site, n),
        false => vec![false; n],
    };
    let stays = rejected.is_some() || call.lost() || call.late().is_some();
    let (staying, arriving): (Vec<_>, Vec<_>) =
        batch.into_iter().zip(&hit).partition(|(_, hit)| stays && **hit);
    let records = |of: Vec<(Record, &bool)>| of.into_iter().map(|(record, _)| record).collect();
    let (staying, arriving): (Vec<Record>, Vec<Record>) = (records(staying), records(arriving));
    if let Some(late) = call.late() {
        node.cluster.send_late(site, &node.client, staying, late);
    }
    if let (Some(long), Some(record)) = (call.lasting(FaultKind::LeaderChange), arriving.first())
        && let Ok(partition) = node.cluster.log().with(|log| log.place(record))
    {
        node.cluster.unlead(partition.to_string(), long);
    }
    if call.duplicated() {
        send(arriving.clone()).await;
    }
    let mut answers = match arriving.is_empty() {
        true => Vec::new(),
        false => send(arriving).await,
    }
    .into_iter();
    let outcomes: Vec<Outcome<()>> = hit
        .iter()
        .map(|hit| match stays && *hit {
            true => Ok(()),
            false => answers.next().unwrap_or_else(|| Err(Fault::unknown("no answer"))),
        })
        .collect();
    let fault = match node.leave(call, Ok(())).await {
        Ok(()) => rejected,
        Err(fault) => Some(fault),
    };
    let Some(fault) = fault else { return outcomes };
    // The link or the server broke on the way back, whatever the plan had for the call: no answer comes.
    let none_comes = hit.iter().all(|hit| !hit);
    let spoilt = |(outcome, hit)| if hit || none_comes { Err(fault.clone()) } else { outcome };
    outcomes.into_iter().zip(hit).map(spoilt).collect()
}

/// Which records the fault hits: all, or some and at least one.
fn hits(node: &Node, site: Site, n: usize) -> Vec<bool> {
    let (choices, entity) = (node.cluster.choices(), &*node.name);
    let all = choices.one_in("hits", entity, 2);
    let first = choices.below("hits", entity, n as u64) as usize;
    (0..n).map(|i| all || i == first || choices.one_in(site.name(), "hit", 2)).collect()
}
