//! The shell on real sockets of the loopback. Times are short, and nothing is asserted of them but
//! that what is bounded ends at all.

use axum::body::Bytes;
use axum::routing::{get, post};
use futures_util::future::join;
use futures_util::stream;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};

use super::*;

/// Longer than anything here takes on the slowest machine.
const ENOUGH: Duration = Duration::from_secs(60);

/// Limits that nobody meets by chance.
fn generous() -> Limits {
    Limits {
        head_timeout: ENOUGH,
        body_timeout: ENOUGH,
        answer_timeout: ENOUGH,
        take_timeout: ENOUGH,
        ..Limits::default()
    }
}

#[tokio::test]
async fn who_came_to_listen_since_it_was_bound_is_told_of() {
    let shell = Shell::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let other = TcpSocket::new_v4().unwrap();
    other.set_reuseaddr(true).unwrap();
    other.bind(shell.address()).unwrap();
    let _listener = other.listen(1).unwrap();
    let refused = shell.serve(Router::new(), std::future::pending(), Duration::ZERO);
    let text = refused.err().expect("an error").to_string();
    assert!(text.contains("another process listens there"), "{text}");
}

/// A served router, and how to end it.
struct Served {
    address: SocketAddr,
    leave: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Served {
    #[allow(clippy::disallowed_methods, reason = "a test of the shell is outside the services")]
    async fn start(router: Router, limits: Limits) -> Served {
        let shell = Shell::bind(([127, 0, 0, 1], 0).into()).await.unwrap().with(limits);
        let address = shell.address();
        let ((leave, left), (end, ended)) = (oneshot::channel(), oneshot::channel());
        let until = async { drop(left.await) };
        // A drain that waits for what has to end at once is noticed: it waits for ever.
        let serving = shell.serve(router, until, Duration::from_secs(86_400)).unwrap();
        tokio::spawn(async move {
            serving.await.unwrap();
            let _ = end.send(());
        });
        Served { address, leave, ended }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends these bytes and reads to the end of the connection.
    async fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // A server that has refused already may have closed.
        let _ = stream.write_all(bytes).await;
        to_end(&mut stream).await
    }

    async fn leave(self) {
        let _ = self.leave.send(());
        within_enough(self.ended).await.unwrap();
    }
}

async fn within_enough<F: Future>(future: F) -> F::Output {
    match select(pin!(future), pin!(pause(ENOUGH))).await {
        Either::Left((output, _)) => output,
        Either::Right(_) => panic!("it does not end"),
    }
}

async fn to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end as well; what came before it is kept.
    let _ = within_enough(stream.read_to_end(&mut bytes)).await;
    String::from_utf8(bytes).unwrap()
}

/// Reads until this has come.
async fn until(stream: &mut TcpStream, wanted: &str) -> String {
    let (mut text, mut bytes) = (String::new(), [0; 1024]);
    while !text.contains(wanted) {
        let n = within_enough(stream.read(&mut bytes)).await.unwrap();
        assert!(n > 0, "it ended with {text:?}");
        text.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
    }
    text
}

fn hello() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/", post(|_: Bytes| async { "took" }))
}

#[tokio::test]
async fn a_slow_loris_is_shut_out() {
    let head_timeout = Duration::from_millis(200);
    let served = Served::start(hello(), Limits { head_timeout, ..generous() }).await;
    let mut loris = served.connect().await;
    let trickle = async {
        loris.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await.unwrap();
        // A byte now and then, for ever: what ends it is the server.
        while loris.write_all(b"a").await.is_ok() {
            pause(Duration::from_millis(20)).await;
        }
    };
    within_enough(trickle).await;
    assert!(!to_end(&mut loris).await.contains("200 OK"));
    let answer =
        served.send(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    assert!(answer.ends_with("hello"), "others are served: {answer}");
    served.leave().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_a_while() {
    let head_timeout = Duration::from_millis(200);
    let served = Served::start(hello(), Limits { head_timeout, ..generous() }).await;
    let mut idle = served.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert!(to_end(&mut idle).await.ends_with("hello"));
    served.leave().await;
}

/// An answer that has no end.
fn endless() -> Router {
    let chunk = || Ok::<_, io::Error>(Bytes::from_static(&[b'x'; 65_536]));
    let body = move || async move { Body::from_stream(stream::repeat_with(chunk)) };
    hello().route("/endless", get(body))
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_holds_no_place() {
    let take_timeout = Duration::from_millis(200);
    let limits = Limits { connections_max: 1, take_timeout, ..generous() };
    let served = Served::start(endless(), limits).await;
    let mut deaf = served.connect().await;
    deaf.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let answer =
        served.send(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    assert!(answer.ends_with("hello"), "there is one place: {answer}");
    to_end(&mut deaf).await;
    served.leave().await;
}

#[tokio::test]
async fn who_takes_an_answer_slowly_gets_it() {
    let take_timeout = Duration::from_secs(2);
    let (ours, mut theirs) = tokio::io::duplex(1);
    let mut ours = Taken::new(ours, take_timeout);
    let text = b"slower in all than is waited";
    let taking = async {
        let mut taken = Vec::new();
        while taken.len() < text.len() {
            pause(Duration::from_millis(100)).await;
            taken.push(theirs.read_u8().await.unwrap());
        }
        taken
    };
    let (sent, taken) = join(ours.write_all(text), taking).await;
    assert_eq!((sent.unwrap(), &taken[..]), ((), &text[..]));
    let sent = within_enough(ours.write_all(text)).await;
    assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

/// Status and kind of the problem that these bytes get.
async fn problem(served: &Served, bytes: &[u8]) -> (String, String) {
    let answer = served.send(bytes).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    assert!(head.contains("connection: close"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().to_owned();
    (status, body["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned())
}

#[tokio::test]
async fn requests_beyond_their_bounds_are_problems() {
    let body_timeout = Duration::from_millis(200);
    let served = Served::start(hello(), Limits { body_timeout, ..generous() }).await;
    let of = |status: &str, kind: &str| (status.to_owned(), kind.to_owned());
    let long = format!("GET /?{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(5_000));
    assert_eq!(problem(&served, long.as_bytes()).await, of("414", "target-too-long"));
    let many = format!("GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "a: b\r\n".repeat(70));
    assert_eq!(problem(&served, many.as_bytes()).await, of("431", "headers-too-large"));
    let wide = format!("GET / HTTP/1.1\r\nhost: localhost\r\na: {}\r\n\r\n", "b".repeat(20_000));
    assert_eq!(problem(&served, wide.as_bytes()).await, of("431", "headers-too-large"));
    let head = "POST / HTTP/1.1\r\nhost: localhost\r\n";
    let announced = format!("{head}content-length: 262145\r\n\r\n");
    assert_eq!(problem(&served, announced.as_bytes()).await, of("413", "body-too-large"));
    let chunk = format!("{:x}\r\n{}\r\n", 65_536, "a".repeat(65_536));
    let chunks = format!("{head}transfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(5));
    assert_eq!(problem(&served, chunks.as_bytes()).await, of("413", "body-too-large"));
    let short = format!("{head}content-length: 9\r\n\r\nhalf");
    assert_eq!(problem(&served, short.as_bytes()).await, of("408", "body-timeout"));
    let broken = format!("{head}transfer-encoding: chunked\r\n\r\nx\r\n");
    assert_eq!(problem(&served, broken.as_bytes()).await, of("400", "body-malformed"));
    let full = format!("{head}connection: close\r\ncontent-length: 262144\r\n\r\n");
    let answer = served.send((full + &"a".repeat(262_144)).as_bytes()).await;
    assert!(answer.ends_with("took"), "{answer}");
    served.leave().await;
}

#[tokio::test]
async fn a_page_from_elsewhere_is_refused() {
    let served = Served::start(hello(), generous()).await;
    let of = |status: &str, kind: &str| (status.to_owned(), kind.to_owned());
    for host in
        ["shop.example", "127.0.0.1.shop.example:8080", "192.0.2.1", "localhost.", "", "[::2]"]
    {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let refused = problem(&served, request.as_bytes()).await;
        assert_eq!(refused, of("421", "foreign-host"), "{host}");
    }
    for origin in
        ["http://shop.example", "null", "http://localhost:3000", "http://localhost.example"]
    {
        let head = format!("host: localhost\r\norigin: {origin}\r\nconnection: close\r\n\r\n");
        let refused = problem(&served, format!("POST / HTTP/1.1\r\n{head}").as_bytes()).await;
        assert_eq!(refused, of("403", "foreign-origin"), "{origin}");
        let read = served.send(format!("GET / HTTP/1.1\r\n{head}").as_bytes()).await;
        assert!(
            read.starts_with("HTTP/1.1 200"),
            "what only reads is the browser's to keep: {read}"
        );
    }
    for host in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080"] {
        let head = format!("host: {host}\r\norigin: http://{host}\r\nconnection: close\r\n\r\n");
        let answer = served.send(format!("POST / HTTP/1.1\r\n{head}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
    }
    served.leave().await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_504_and_a_stream_may_take_its_time() {
    let slow = stream::unfold(0, |n| async move {
        pause(Duration::from_millis(50)).await;
        (n < 10).then(|| (Ok::<_, io::Error>(format!("data: {n}\n\n")), n + 1))
    });
    let slow = std::sync::Mutex::new(Some(slow));
    let events = move || {
        let body = Body::from_stream(slow.lock().unwrap().take().unwrap());
        async { ([(header::CONTENT_TYPE, "text/event-stream")], body) }
    };
    let router = Router::new().route("/never", get(std::future::pending::<()>)).route(
        "/events",
        get({
            let events = Arc::new(events);
            move || events()
        }),
    );
    let answer_timeout = Duration::from_millis(100);
    let served = Served::start(router, Limits { answer_timeout, ..generous() }).await;
    let ask =
        |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let answer = served.send(ask("/never").as_bytes()).await;
    assert!(answer.contains(" 504 ") && answer.contains("problem:timeout"), "{answer}");
    let answer = served.send(ask("/events").as_bytes()).await;
    assert!(answer.contains("data: 9\n\n"), "to its own end: {answer}");
    served.leave().await;
}

#[tokio::test]
async fn leaving_lets_requests_finish_and_closes_the_rest_at_once() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (at_work, on) = (begun.clone(), go.clone());
    let work = move || {
        let (at_work, on) = (at_work.clone(), on.clone());
        async move {
            at_work.notify_one();
            on.notified().await;
            "done"
        }
    };
    let events = || async {
        let hello = stream::iter([Ok::<_, io::Error>(":\n\n")]);
        let body = Body::from_stream(hello.chain(stream::pending()));
        ([(header::CONTENT_TYPE, "text/event-stream")], body)
    };
    let router = hello().route("/work", get(work)).route("/events", get(events));
    let served = Served::start(router, generous()).await;
    let _fresh = served.connect().await;
    let mut idle = served.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    until(&mut idle, "hello").await;
    let mut follower = served.connect().await;
    follower.write_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    until(&mut follower, ":\n\n").await;
    let mut working = served.connect().await;
    working.write_all(b"GET /work HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    begun.notified().await;

    let Served { leave, ended, .. } = served;
    leave.send(()).unwrap();
    assert_eq!(to_end(&mut idle).await, "", "closed while the request is at work");
    to_end(&mut follower).await;
    go.notify_one();
    assert!(to_end(&mut working).await.ends_with("done"));
    within_enough(ended).await.unwrap();
}
