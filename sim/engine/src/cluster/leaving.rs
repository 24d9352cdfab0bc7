//! Graceful leaving: a node is asked to stop, has a while for it, and is gone. Never waits for it
//! longer than [`Settings::drain`](super::Settings).

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::{Cluster, Node};

/// Asks a node's code to finish what it has in hand and end, as SIGTERM does; the future ends when it
/// has.
pub type Leave = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// How an incarnation can be asked to leave.
pub(super) enum Manners {
    /// It has not started yet: a signal ends it at once.
    Starting,
    /// It listens.
    Listening(Leave),
    /// It was asked before.
    Leaving,
}

impl Cluster {
    /// Asks the node to leave; it starts again `down` after it has. Whether it was up and not asked
    /// before. A node that has not come up yet is killed by the signal.
    pub fn leave(&self, name: &str, down: Duration) -> bool {
        let Some(node) = self.running(name) else { return false };
        // Not in the match: it would be locked until that ends, and a kill takes it too.
        let manners = std::mem::replace(&mut *node.manners(), Manners::Leaving);
        let leave = match manners {
            Manners::Starting => return self.kill(name, down),
            Manners::Leaving => return false,
            Manners::Listening(leave) => leave,
        };
        self.note(name, "leaving", node.client.clone());
        let ended = node.handle.spawn(leave());
        let (cluster, name, drain) = (self.clone(), name.to_owned(), self.shared.settings.drain);
        self.aside(async move {
            let what = match select(pin!(ended), pin!(madsim::time::sleep(drain))).await {
                Either::Left(_) => "left",
                Either::Right(_) => "left late",
            };
            // A kill may have come first, and another incarnation may run by now.
            if cluster.runs(&name, &node) {
                cluster.end(&name, what, down);
            }
        });
        true
    }

    pub(super) fn runs(&self, name: &str, node: &Arc<Node>) -> bool {
        self.running(name).is_some_and(|running| Arc::ptr_eq(&running, node))
    }
}
