//! A shop behind its HTTP address: started, and stopped in order. Never decides when.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::http_shell::Shell;
use crate::shop::Shop;

/// A served shop.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    shop: Shop,
    leave: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<()>>,
    drain: Duration,
}

impl Running {
    /// Serves the shop from now on. Leaving may take `drain` for open requests, and then for the
    /// services. Where it cannot be served it leaves in order, and the error says why.
    #[allow(clippy::disallowed_methods, reason = "the shell's task is outside the services")]
    pub async fn start(shell: Shell, shop: Shop, drain: Duration) -> anyhow::Result<Running> {
        let address = shell.address();
        let (leave, left) = oneshot::channel();
        let until = async move {
            // A dropped sender is a reason to leave too.
            let _ = left.await;
        };
        let serving = match shell.serve(shop.router.clone(), until, drain) {
            Ok(serving) => tokio::spawn(serving),
            Err(error) => {
                shop.stop(drain).await;
                return Err(error);
            }
        };
        Ok(Running { address, shop, leave, serving, drain })
    }

    /// No new requests, open ones finish, then the services finish what they have in hand. Whether
    /// all was done in time; what was not is done after the next start.
    pub async fn stop(self) -> anyhow::Result<bool> {
        let _ = self.leave.send(());
        self.serving.await??;
        Ok(self.shop.stop(self.drain).await)
    }
}
