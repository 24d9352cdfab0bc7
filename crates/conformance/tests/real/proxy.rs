//! A TCP link that can lose what passes it, and break. Never changes a byte that it lets through.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A port in front of a server.
pub struct Proxy {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
}

#[derive(Default)]
struct State {
    /// Both ends of each link.
    links: Vec<TcpStream>,
    /// How many bytes still pass on all links together; none: all.
    requests: Option<usize>,
    replies: Option<usize>,
    /// How long each piece takes on its way.
    delay: Duration,
}

#[derive(Clone, Copy)]
enum Way {
    Request,
    Reply,
}

impl Proxy {
    /// In front of the server that this URL names, and the URL that leads through it. Without a port
    /// in the URL it is this one.
    pub fn before(url: &str, default_port: u16) -> (Proxy, String) {
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (access, server) = match authority.rsplit_once('@') {
            Some((access, server)) => (format!("{access}@"), server),
            None => (String::new(), authority),
        };
        let named = server.contains(':');
        let server = if named { server.to_owned() } else { format!("{server}:{default_port}") };
        let server = server.to_socket_addrs().unwrap().next().expect("an address of the server");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let accepting = state.clone();
        start(move || accept(&listener, server, &accepting));
        (Proxy { state, address }, format!("{scheme}://{access}{address}{path}"))
    }

    /// From now on only so many bytes of what clients send pass; nothing means all.
    pub fn limit_requests(&self, bytes: Option<usize>) {
        lock(&self.state).requests = bytes;
    }

    /// From now on only so many bytes of what the server sends pass; nothing means all.
    pub fn limit_replies(&self, bytes: Option<usize>) {
        lock(&self.state).replies = bytes;
    }

    /// From now on each piece of at most 16 KiB takes so long.
    pub fn slow(&self, delay: Duration) {
        lock(&self.state).delay = delay;
    }

    /// Breaks all links. New ones lose nothing.
    pub fn cut(&self) {
        let mut state = lock(&self.state);
        for link in state.links.drain(..) {
            // It may have ended by itself.
            let _ = link.shutdown(Shutdown::Both);
        }
        (state.requests, state.replies) = (None, None);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        // Wakes the thread that accepts; it is the last to hold the state.
        let _ = TcpStream::connect(self.address);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

// A test's own plumbing, on real sockets.
#[expect(clippy::disallowed_methods)]
fn start(work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(work);
}

#[expect(clippy::disallowed_methods)]
fn hold(delay: Duration) {
    if !delay.is_zero() {
        std::thread::sleep(delay);
    }
}

fn accept(listener: &TcpListener, server: SocketAddr, state: &Arc<Mutex<State>>) {
    for client in listener.incoming() {
        // The proxy itself is gone.
        if Arc::strong_count(state) == 1 {
            return;
        }
        let (Ok(client), Ok(server)) = (client, TcpStream::connect(server)) else { continue };
        let copy = |stream: &TcpStream| stream.try_clone().unwrap();
        lock(state).links.extend([copy(&client), copy(&server)]);
        let (of_requests, of_replies) = (Arc::downgrade(state), Arc::downgrade(state));
        let (from, to) = (copy(&client), copy(&server));
        start(move || pass(from, to, || of_requests.upgrade(), Way::Request));
        start(move || pass(server, client, || of_replies.upgrade(), Way::Reply));
    }
}

fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    state: impl Fn() -> Option<Arc<Mutex<State>>>,
    way: Way,
) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let Some(state) = state() else { break };
        let (passing, delay) = {
            let mut state = lock(&state);
            let delay = state.delay;
            let left = match way {
                Way::Request => &mut state.requests,
                Way::Reply => &mut state.replies,
            };
            let passing = left.map_or(count, |left| left.min(count));
            *left = left.map(|left| left - passing);
            (passing, delay)
        };
        hold(delay);
        if to.write_all(&bytes[..passing]).is_err() {
            break;
        }
    }
    // The other end hears of it; it may have gone first.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
