//! Requests that nodes serve, and calls of theirs to the outside. Both pass the gate.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use ports::{Fault, Outcome};

use super::{Cluster, NodePorts};
use crate::fault::Site;

/// How long a customer waits for an answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

impl Cluster {
    /// Serves a request on a node: `work` runs there, after and before a network's delay. `Retry`:
    /// the node is down, nothing happened. `Unknown`: the reply was lost, the node died, or it does not
    /// answer in time.
    pub async fn request<T: Send + 'static>(
        &self,
        name: &str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Outcome<T> {
        self.request_about(name, String::new(), work).await
    }

    /// The same, and the trace says what it is about: the last word is the id that the node knows the
    /// request by, if it has one.
    pub async fn request_about<T: Send + 'static>(
        &self,
        name: &str,
        about: String,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Outcome<T> {
        let Some(node) = self.running(name) else {
            madsim::time::sleep(Duration::from_millis(1)).await;
            return Err(Fault::retry("connection refused"));
        };
        let gate = node.clone();
        let mut served = node.handle.spawn(async move {
            let call = gate.enter(Site::Http, || about).await?;
            if call.lost() {
                return gate.leave(call, Err(Fault::unknown("lost"))).await;
            }
            let answer = work.await;
            gate.leave(call, Ok(answer)).await
        });
        let patience = madsim::time::sleep(REQUEST_TIMEOUT);
        match select(&mut served, pin!(patience)).await {
            Either::Left((answer, _)) => {
                answer.unwrap_or_else(|_| Err(Fault::unknown("the connection was reset")))
            }
            Either::Right(_) => {
                // Nobody waits for its answer any more: the server drops what it works at.
                served.abort();
                Err(Fault::unknown("no answer in time"))
            }
        }
    }
}

impl NodePorts {
    /// Calls something outside, through the gate: `Unknown` where the reply is lost. `effect` is
    /// what happens there; twice, or late, where the plan says so.
    pub async fn outside<T>(
        &self,
        about: String,
        mut effect: impl FnMut() -> T + Send + 'static,
    ) -> Outcome<T> {
        let node = &self.node;
        let call = node.enter(Site::Outside, || about).await?;
        if call.lost() {
            return node.leave(call, Err(Fault::unknown("lost"))).await;
        }
        if let Some(late) = call.late() {
            node.cluster.aside(async move {
                madsim::time::sleep(late).await;
                effect();
            });
            return node.leave(call, Err(Fault::unknown("late"))).await;
        }
        if call.duplicated() {
            effect();
        }
        let answer = effect();
        node.leave(call, Ok(answer)).await
    }
}
