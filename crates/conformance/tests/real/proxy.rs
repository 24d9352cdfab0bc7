//! A TCP link that can lose what passes it, and break. Changes nothing that it lets through but the address
//! that a Kafka broker says it has: clients would go there and leave the link out.

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
    /// From the next request of this kind on, Kafka's number of it, the one or the other is lost.
    trigger: Option<(i16, Way)>,
    /// What Kafka's brokers say, and what is said instead.
    addresses: Vec<(Vec<u8>, Vec<u8>)>,
    /// How long each piece takes on its way.
    delay: Duration,
}

/// Which way what is lost was going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
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
        let proxy = Proxy::of(server);
        let url = format!("{scheme}://{access}{}{path}", proxy.address);
        (proxy, url)
    }

    /// In front of Kafka's brokers, by host and port, each; clients that come through one of them find
    /// the others only through theirs. And the brokers' addresses for clients.
    pub fn before_brokers(brokers: &[(String, u16)]) -> (Vec<Proxy>, String) {
        let address = |(host, port): &(String, u16)| {
            (&**host, *port).to_socket_addrs().unwrap().find(SocketAddr::is_ipv4).unwrap()
        };
        let proxies: Vec<Proxy> = brokers.iter().map(|it| Proxy::of(address(it))).collect();
        let said =
            |host: &str, port: u16| [host.as_bytes(), &u32::from(port).to_be_bytes()].concat();
        let addresses = brokers.iter().zip(&proxies);
        let addresses: Vec<_> = addresses
            .map(|((host, port), proxy)| (said(host, *port), said(host, proxy.address.port())))
            .collect();
        for proxy in &proxies {
            lock(&proxy.state).addresses = addresses.clone();
        }
        let urls: Vec<String> = proxies.iter().map(|proxy| proxy.address.to_string()).collect();
        (proxies, urls.join(","))
    }

    fn of(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let accepting = state.clone();
        start(move || accept(&listener, server, &accepting));
        Proxy { state, address }
    }

    /// From the next request of this kind on, by Kafka's number of it, all that goes this way is lost.
    pub fn lose_from(&self, kind: i16, way: Way) {
        lock(&self.state).trigger = Some((kind, way));
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
        (state.requests, state.replies, state.trigger) = (None, None, None);
        state.delay = Duration::ZERO;
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
    let mut waiting = Vec::new();
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        waiting.extend(&bytes[..count]);
        let Some(state) = state() else { break };
        let (ready, passing, delay) = {
            let mut state = lock(&state);
            let delay = state.delay;
            let whole = if state.addresses.is_empty() { waiting.len() } else { whole(&waiting) };
            let mut ready: Vec<u8> = waiting.drain(..whole).collect();
            match way {
                Way::Request => state.look_at(&ready),
                Way::Reply => state.rename(&mut ready),
            }
            let left = match way {
                Way::Request => &mut state.requests,
                Way::Reply => &mut state.replies,
            };
            let passing = left.map_or(ready.len(), |left| left.min(ready.len()));
            *left = left.map(|left| left - passing);
            (ready, passing, delay)
        };
        hold(delay);
        if to.write_all(&ready[..passing]).is_err() {
            break;
        }
    }
    // The other end hears of it; it may have gone first.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// How many of these bytes are whole frames of Kafka: four bytes with a length, then so many.
fn whole(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Some((length, rest)) = bytes[end..].split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        if rest.len() < length {
            break;
        }
        end += 4 + length;
    }
    end
}

impl State {
    /// Whether the request that sets it off is among these.
    fn look_at(&mut self, mut frames: &[u8]) {
        let Some((kind, way)) = self.trigger else { return };
        while let Some((length, rest)) = frames.split_first_chunk() {
            let (frame, behind) = rest.split_at(u32::from_be_bytes(*length) as usize);
            if frame.starts_with(&kind.to_be_bytes()) {
                match way {
                    Way::Request => self.requests = Some(0),
                    Way::Reply => self.replies = Some(0),
                }
                self.trigger = None;
                return;
            }
            frames = behind;
        }
    }

    /// Says other addresses, which are as long.
    fn rename(&self, frames: &mut [u8]) {
        for (old, new) in &self.addresses {
            let found = frames.windows(old.len()).enumerate().filter(|(_, part)| part == old);
            let found: Vec<usize> = found.map(|(at, _)| at).collect();
            found.into_iter().for_each(|at| frames[at..][..new.len()].copy_from_slice(new));
        }
    }
}
