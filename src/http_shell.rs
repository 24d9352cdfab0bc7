//! The serving shell: the one place where HTTP meets sockets and real time. It bounds connections,
//! requests and their time, and leaves in order. It knows no route of any service.

mod taken;

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use chassis::http::{BODY_BYTES_MAX, Problem};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use http_body_util::LengthLimitError;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use taken::Taken;

/// What a connection and a request may take. A request beyond it is answered by a problem.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections that are served at a time; more wait in the listener's backlog.
    pub connections_max: u32,
    /// From a connection's begin, or its last answer, to the last byte of the next request's head. A
    /// client that sends slowly and one that keeps an idle connection are closed alike.
    pub head_timeout: Duration,
    /// From the head to the last byte of the body.
    pub body_timeout: Duration,
    /// From the body to the answer's head. Longer than a service waits for its own reply. An answer
    /// that streams may go on for as long as it likes.
    pub answer_timeout: Duration,
    /// Without a byte of an answer taken by a client that has some to take, also of one that streams.
    pub take_timeout: Duration,
    /// Bytes of the request's target (path and query).
    pub target_bytes_max: usize,
    /// Header lines.
    pub headers_max: usize,
    /// Bytes of all their names and values.
    pub header_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 1024,
            head_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(15),
            take_timeout: Duration::from_secs(30),
            target_bytes_max: 4_096,
            headers_max: 64,
            header_bytes_max: 16_384,
        }
    }
}

/// Where hyper stops reading a head, and answers 431 without words; beyond what [`Limits`] answer
/// with a problem, so that nearly everybody gets one.
const HEAD_BYTES_MAX: usize = 65_536;

/// Connections that may wait to be taken.
const BACKLOG: u32 = 1024;

/// A bound address, not yet served: whoever connects is refused, and may ask another process.
pub struct Shell {
    socket: TcpSocket,
    address: SocketAddr,
    limits: Limits,
}

/// Why it cannot listen there, and what to do.
fn taken(address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let next = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there: stop it, or choose another port with --listen \
             127.0.0.1:0 (any free one)"
        }
        io::ErrorKind::PermissionDenied => "choose a port above 1023 with --listen",
        _ => "choose another address with --listen",
    };
    anyhow!("cannot listen on {address}: {error}; {next}")
}

impl Shell {
    /// Binds the address. The error says what to do about it.
    pub async fn bind(address: SocketAddr) -> anyhow::Result<Shell> {
        let socket = bound(address).map_err(|error| taken(address, &error))?;
        let address = socket.local_addr()?;
        Ok(Shell { socket, address, limits: Limits::default() })
    }

    /// With other limits.
    pub fn with(self, limits: Limits) -> Shell {
        Shell { limits, ..self }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens from now on, and serves until `until`. Then idle connections are closed and streams end at
    /// once, and open requests finish, at most `drain`. An error where somebody else came to listen there
    /// since it was bound; it says what to do.
    pub fn serve(
        self,
        router: Router,
        until: impl Future<Output = ()> + Send + 'static,
        drain: Duration,
    ) -> anyhow::Result<impl Future<Output = io::Result<()>> + Send + 'static> {
        let Shell { socket, limits, address } = self;
        let listener = socket.listen(BACKLOG).map_err(|error| taken(address, &error))?;
        Ok(Shell::accept_all(listener, limits, router, until, drain))
    }

    async fn accept_all(
        listener: TcpListener,
        limits: Limits,
        router: Router,
        until: impl Future<Output = ()> + Send + 'static,
        drain: Duration,
    ) -> io::Result<()> {
        let connections_max = limits.connections_max;
        let permits = Arc::new(Semaphore::new(connections_max as usize));
        let (leave, leaving) = watch::channel(false);
        let connections = Connections::new(router, limits, leaving);
        {
            let accepting = async {
                loop {
                    let permit = permits.clone().acquire_owned().await;
                    let permit = permit.expect("nobody closes this semaphore");
                    let stream = accept(&listener).await;
                    connections.clone().spawn(stream, permit);
                }
            };
            match select(pin!(until), pin!(accepting)).await {
                Either::Left(((), _)) => {}
                Either::Right((never, _)) => never,
            }
        }
        drop(listener);
        leave.send_replace(true);
        let ended = permits.acquire_many(connections_max);
        if let Either::Right(_) = select(pin!(ended), pin!(pause(drain))).await {
            tracing::warn!("some requests did not finish in time; leaving without them");
        }
        Ok(())
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // What an earlier process left behind on the port is no reason to wait.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Sleeps by the real clock: allowed here, outside every service.
#[allow(clippy::disallowed_methods, reason = "the shell serves real time")]
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// The next connection. What fails is one connection's end, or a want of file descriptors that some
/// other connection's end will mend.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "no TCP_NODELAY");
                }
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                pause(Duration::from_millis(100)).await;
            }
        }
    }
}

/// How each connection is served.
#[derive(Clone)]
struct Connections {
    http: http1::Builder,
    router: Router,
    leaving: Leaving,
    take_timeout: Duration,
}

impl Connections {
    fn new(router: Router, limits: Limits, leaving: watch::Receiver<bool>) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout);
        http.max_header_size(HEAD_BYTES_MAX);
        let leaving = Leaving(leaving);
        let take_timeout = limits.take_timeout;
        let bounds = Arc::new(Bounds { limits, leaving: leaving.clone() });
        let router = router
            .layer(middleware::from_fn_with_state(bounds, bounded))
            // The bound is in `bounded`; axum's own one, on what it already read, only costs.
            .layer(DefaultBodyLimit::disable());
        Connections { http, router, leaving, take_timeout }
    }

    #[allow(clippy::disallowed_methods, reason = "a connection is a task outside the services")]
    fn spawn(self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        tokio::spawn(async move {
            let Connections { http, router, leaving, take_timeout } = self;
            let service = TowerToHyperService::new(router);
            let stream = TokioIo::new(Taken::new(stream, take_timeout));
            let mut served = pin!(http.serve_connection(stream, service));
            let ended = match select(served.as_mut(), pin!(leaving.begun())).await {
                Either::Left((ended, _)) => ended,
                Either::Right(_) => {
                    served.as_mut().graceful_shutdown();
                    served.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(permit);
        });
    }
}

/// Whether the shell is leaving.
#[derive(Clone)]
struct Leaving(watch::Receiver<bool>);

impl Leaving {
    async fn begun(mut self) {
        // A dropped sender is a shell that is gone: that is leaving too.
        let _ = self.0.wait_for(|leaving| *leaving).await;
    }
}

/// What every request is held to.
struct Bounds {
    limits: Limits,
    leaving: Leaving,
}

/// Holds a request to its bounds, and has a stream of events end when the shell leaves.
async fn bounded(State(bounds): State<Arc<Bounds>>, request: Request, next: Next) -> Response {
    let Bounds { limits, leaving } = &*bounds;
    let request = match within(limits, request).await {
        Ok(request) => request,
        // What follows on the connection is the rest of a request that nobody reads.
        Err(problem) => {
            let mut response = problem.into_response();
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
    };
    match select(pin!(next.run(request)), pin!(pause(limits.answer_timeout))).await {
        Either::Left((response, _)) if is_stream(response.headers()) => response.map(|body| {
            Body::from_stream(body.into_data_stream().take_until(Box::pin(leaving.clone().begun())))
        }),
        Either::Left((response, _)) => response,
        Either::Right(_) => {
            let detail = "the request took too long and may still be carried out; repeat it with \
                          the same Idempotency-Key to learn how it ended";
            Problem::new(504, "timeout", "No answer in time", detail).into_response()
        }
    }
}

fn is_stream(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|sort| sort == "text/event-stream")
}

/// Why a request may be a page's that a browser on this machine shows: a name of somebody's that leads here (DNS
/// rebinding), or a change from another origin. Loopback is no protection from these.
fn from_elsewhere(request: &Request) -> Option<Problem> {
    let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or(""));
    let host = header(header::HOST);
    if host.is_some_and(|host| !is_loopback(host)) {
        let detail =
            "ask it as localhost or by a loopback address: it is not there for other names";
        return Some(Problem::new(421, "foreign-host", "Not served under this name", detail));
    }
    let own = format!("http://{}", host.unwrap_or_default());
    let foreign = header(header::ORIGIN).is_some_and(|origin| origin != own);
    (foreign && !request.method().is_safe()).then(|| {
        let detail = "a page of another origin may not change anything here";
        Problem::new(403, "foreign-origin", "Not allowed from this origin", detail)
    })
}

/// Whether a Host (RFC 9110, 7.2) names this machine.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let address = name.parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// The request with its whole body, where it keeps to the limits.
async fn within(limits: &Limits, request: Request) -> Result<Request, Problem> {
    if let Some(problem) = from_elsewhere(&request) {
        return Err(problem);
    }
    let Limits { target_bytes_max, headers_max, header_bytes_max, .. } = limits;
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > *target_bytes_max {
        let detail = format!("path and query have at most {target_bytes_max} bytes");
        return Err(Problem::new(414, "target-too-long", "The target is too long", detail));
    }
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > *headers_max || bytes > *header_bytes_max {
        let detail = format!(
            "a request has at most {headers_max} headers of {header_bytes_max} bytes together"
        );
        let title = "The headers are too large";
        return Err(Problem::new(431, "headers-too-large", title, detail));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|value| value.parse::<usize>().ok()).is_some_and(|n| n > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    let (head, body) = request.into_parts();
    let read = axum::body::to_bytes(body, BODY_BYTES_MAX);
    match select(pin!(read), pin!(pause(limits.body_timeout))).await {
        Either::Left((Ok(bytes), _)) => Ok(Request::from_parts(head, Body::from(bytes))),
        Either::Left((Err(error), _))
            if error.source().is_some_and(|cause| cause.is::<LengthLimitError>()) =>
        {
            Err(too_large())
        }
        Either::Left((Err(_), _)) => {
            let detail = "the body broke off, or its chunks are not well-formed";
            Err(Problem::new(400, "body-malformed", "The body is malformed", detail))
        }
        Either::Right(_) => {
            let seconds = limits.body_timeout.as_secs_f32();
            let detail = format!("send the whole body within {seconds} s of the head");
            Err(Problem::new(408, "body-timeout", "The body came too slowly", detail))
        }
    }
}

fn too_large() -> Problem {
    let detail = format!("a body has at most {BODY_BYTES_MAX} bytes");
    Problem::new(413, "body-too-large", "The body is too large", detail)
}

#[cfg(test)]
mod tests;
