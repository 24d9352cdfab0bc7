//! The serving shell: the one place where HTTP meets sockets and real time. It bounds connections,
//! time and bodies, and leaves in order. It knows no route of any service.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use chassis::http::{BODY_BYTES_MAX, Problem};
use futures_util::future::{Either, select};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a request may take. Longer than a service waits for its own reply.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How many connections are served at a time; more wait in the listener's backlog.
pub const CONNECTIONS_MAX: usize = 1024;

/// A bound address, not yet served.
pub struct Shell {
    listener: TcpListener,
    address: SocketAddr,
}

impl Shell {
    /// Binds the address. The error says what to do about it.
    pub async fn bind(address: SocketAddr) -> anyhow::Result<Shell> {
        let next = |error: &io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another process listens there: stop it, or choose another port with --listen \
                 127.0.0.1:0 (any free one)"
            }
            io::ErrorKind::PermissionDenied => "choose a port above 1023 with --listen",
            _ => "choose another address with --listen",
        };
        let listener = TcpListener::bind(address).await;
        let listener = listener
            .map_err(|e| anyhow::anyhow!("cannot listen on {address}: {e}; {}", next(&e)))?;
        let address = listener.local_addr()?;
        Ok(Shell { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `until`, then lets open requests finish, at most `drain`.
    pub async fn serve(
        self,
        router: Router,
        until: impl Future<Output = ()> + Send + 'static,
        drain: Duration,
    ) -> io::Result<()> {
        let router =
            router.layer(middleware::from_fn(in_time)).layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
        let (leaving, left) = tokio::sync::oneshot::channel();
        let signal = async move {
            until.await;
            let _ = leaving.send(());
        };
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let listener = Bounded { listener: self.listener, permits };
        let serving = async { axum::serve(listener, router).with_graceful_shutdown(signal).await };
        let deadline = async {
            if left.await.is_err() {
                std::future::pending::<()>().await;
            }
            pause(drain).await;
        };
        match select(pin!(serving), pin!(deadline)).await {
            Either::Left((served, _)) => served,
            Either::Right(_) => {
                tracing::warn!("some requests did not finish in time; leaving without them");
                Ok(())
            }
        }
    }
}

/// Sleeps by the real clock: allowed here, outside every service.
#[allow(clippy::disallowed_methods, reason = "the shell serves real time")]
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Answers 504 when a request takes too long.
async fn in_time(request: Request, next: Next) -> Response {
    match select(pin!(next.run(request)), pin!(pause(REQUEST_TIMEOUT))).await {
        Either::Left((response, _)) => response,
        Either::Right(_) => {
            let detail = "the request took too long and may still be carried out; repeat it with \
                          the same Idempotency-Key to learn how it ended";
            Problem::new(504, "timeout", "No answer in time", detail).into_response()
        }
    }
}

/// A listener that holds a permit for each open connection.
struct Bounded {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Held;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Held, SocketAddr) {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.expect("nobody closes this semaphore");
        let (stream, address) = Listener::accept(&mut self.listener).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        (Held { stream, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with its permit.
struct Held {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
