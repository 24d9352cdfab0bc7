//! What an operator sees of the whole: one request's trace in every record and in the mail, metrics that
//! are those of docs/operations.md, log lines with their order, and no secret in any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use chassis::{Ports, Trace};
use contract::{Service, Stream, Streams};
use envelope::Envelope;
use futures_util::future::{Either, select};
use local::Local;
use payments::simulated::Steering;
use ports::{Consumer, Polled};
use serde_json::{Value, json};
use shakedown::client::Client;
use shakedown::config::Config;
use shakedown::http_shell::pause;
use shakedown::local_mode;
use shakedown::shop::{Setup, Shop, meters, run_all};
use tower::ServiceExt;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The services on a folder, and a reader of all their topics.
struct Seen {
    shop: Shop,
    mails: PathBuf,
    reader: Box<dyn Consumer>,
}

impl Seen {
    async fn start(folder: &Path) -> Seen {
        let runtime = local_mode::runtime();
        let local = Local::open(folder, runtime.clone()).unwrap();
        let mut all = BTreeMap::new();
        for service in Service::ALL {
            let (log, queue, runtime) = (local.log(), local.queue(), runtime.clone());
            let store = local.store(service.name()).unwrap();
            all.insert(service, Ports { log, queue, store, runtime });
        }
        let (outside, _, mails) = local_mode::outside(folder, Steering::default()).unwrap();
        let (instance, streams) = ("local".to_owned(), Streams::default());
        let setup = Setup { instance, streams, config: Config::defaults() };
        let shop = run_all(&all, &outside, &setup).await.unwrap();
        let topics = Stream::ALL.into_iter().filter(|stream| stream.is_topic());
        let topics: Vec<Arc<str>> = topics.map(|stream| stream.name().into()).collect();
        let reader = local.log().subscribe("reader", &topics).await.unwrap();
        let seen = Seen { shop, mails, reader };
        let tea = json!({ "name": "Tea", "categoryId": "drinks", "price": 250 });
        seen.write(Method::PUT, "/catalog/products/tea", "tea", &tea, None).await;
        let ten = json!({ "delta": 10 });
        seen.write(Method::POST, "/inventory/stock/tea/adjust", "ten", &ten, None).await;
        seen
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, String) {
        let router: Router = self.shop.router.clone();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        self.send(Request::builder().uri(path).body(Body::empty()).unwrap()).await
    }

    /// Until it is done: a price may be late.
    async fn write(
        &self,
        method: Method,
        path: &str,
        key: &str,
        body: &Value,
        parent: Option<&str>,
    ) -> Value {
        for _ in 0..500 {
            let request = Request::builder()
                .method(method.clone())
                .uri(path)
                .header("content-type", "application/json")
                .header("idempotency-key", key);
            let request = match parent {
                Some(parent) => {
                    request.header("traceparent", parent).header("tracestate", "vendor=1")
                }
                None => request,
            };
            let (status, text) = self.send(request.body(body.to_string().into()).unwrap()).await;
            if status.is_success() {
                return serde_json::from_str(&text).unwrap();
            }
            pause(Duration::from_millis(20)).await;
        }
        panic!("{method} {path} is never done")
    }

    async fn order(&self, key: &str, qty: u32, parent: Option<&str>) -> String {
        let body = json!({ "lines": [{ "productId": "tea", "qty": qty }] });
        let answer = self.write(Method::POST, "/orders", key, &body, parent).await;
        answer["orderId"].as_str().unwrap().to_owned()
    }

    /// Types and traces of the records about an order, until it has ended.
    async fn records(&mut self, order: &str) -> BTreeMap<String, Trace> {
        let mut found = BTreeMap::new();
        for _ in 0..500 {
            if found.contains_key("OrderConfirmed") && found.contains_key("PaymentProcessed") {
                return found;
            }
            let Polled::Records(records) = self.reader.poll(64).await.unwrap() else { continue };
            for record in records.into_iter().filter(|it| &*it.record.key == order) {
                let envelope = Envelope::read(&record.record.payload).unwrap();
                let trace = Trace::of_headers(&record.record.headers).unwrap().unwrap();
                found.insert(envelope.event_type, trace);
            }
        }
        panic!("only {found:?} of {order}")
    }

    async fn mail(&self, order: &str) -> String {
        for _ in 0..500 {
            let names = fs::read_dir(&self.mails).unwrap().map(|entry| entry.unwrap().path());
            let mut mails = names.filter(|path| path.extension().is_some_and(|it| it == "eml"));
            let of_order = |path: &PathBuf| path.to_string_lossy().contains(order);
            if let Some(path) = mails.find(of_order) {
                return fs::read_to_string(path).unwrap();
            }
            pause(Duration::from_millis(20)).await;
        }
        panic!("no mail of {order}")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_is_one_trace_from_the_post_to_the_mail() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = Seen::start(folder.path()).await;
    let order = seen.order("o-1", 2, Some(PARENT)).await;
    let records = seen.records(&order).await;
    let types: Vec<&str> = records.keys().map(String::as_str).collect();
    assert_eq!(types, ["OrderConfirmed", "OrderCreated", "PaymentProcessed", "StockReserved"]);
    let id = Trace::parse(PARENT, None).unwrap().id();
    let mut spans = BTreeSet::from([PARENT.to_owned()]);
    for (kind, trace) in &records {
        assert_eq!((trace.id(), trace.tracestate()), (id.clone(), Some("vendor=1")), "{kind}");
        assert!(spans.insert(trace.traceparent()), "{kind} is a span of its own");
    }
    let mail = seen.mail(&order).await;
    let line = mail.lines().find_map(|line| line.strip_prefix("Traceparent: "));
    let trace = Trace::parse(line.expect("the mail says its trace"), None).unwrap();
    assert_eq!(trace.id(), id);
    assert!(spans.insert(trace.traceparent()), "the job is a span of its own");
    let other = seen.order("o-2", 1, None).await;
    let records = seen.records(&other).await;
    let traces: BTreeSet<String> = records.values().map(Trace::id).collect();
    assert_eq!(traces.len(), 1, "a request without a trace begins one");
    assert!(!traces.contains(&id));
    assert!(seen.shop.stop(Duration::from_secs(5)).await);
}

/// Names in the first column of the table of metrics.
fn documented() -> BTreeSet<String> {
    let text = include_str!("../../docs/operations.md");
    let (_, table) = text.split_once("## Metrics").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let name = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    table.lines().filter_map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_those_of_the_docs() {
    let known: BTreeSet<String> = meters().iter().map(|meter| meter.name.to_owned()).collect();
    assert_eq!(documented(), known, "docs/operations.md names each metric, and no other");
    let folder = tempfile::tempdir().unwrap();
    let seen = Seen::start(folder.path()).await;
    seen.order("o-1", 2, None).await;
    // More than there is: the money is given back.
    seen.order("o-2", 11, None).await;
    let mut text = String::new();
    for _ in 0..100 {
        let (status, shown) = seen.get("/metrics").await;
        assert_eq!(status, StatusCode::OK);
        text = shown;
        let ended = ["outcome=\"confirmed\"", "outcome=\"cancelled\""];
        let told = text.contains("result=\"sent\"} 2") && text.contains("kind=");
        if told && ended.iter().all(|it| text.contains(it)) {
            break;
        }
        pause(Duration::from_millis(100)).await;
    }
    let name = |line: &str| Some(line.strip_prefix("# TYPE ")?.split_once(' ')?.0.to_owned());
    let shown: Vec<String> = text.lines().filter_map(name).collect();
    assert_eq!(shown.iter().cloned().collect::<BTreeSet<_>>(), known, "{text}");
    assert_eq!(shown.len(), known.len(), "each name once");
    assert_eq!(text.lines().filter(|line| line.starts_with("# HELP ")).count(), known.len());
    for service in Service::ALL {
        assert!(text.contains(&format!("service=\"{}\"", service.name())), "{}", service.name());
    }
    assert!(text.contains("stock_oversell_total{service=\"inventory\"} 0"), "{text}");
    let (_, ready) = seen.get("/health/ready").await;
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!(ready["status"], "ok", "{ready}");
    assert!(seen.shop.stop(Duration::from_secs(5)).await);
}

/// `serve` in a process of its own, its log in a file.
fn serve(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shakedown"));
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.join("data"))
        .args(arguments)
        .env_remove("SHAKEDOWN_KAFKA")
        .env_remove("SHAKEDOWN_RABBIT")
        .env_remove("SHAKEDOWN_POSTGRES")
        .stdout(Stdio::piped())
        .stderr(File::create(folder.join("log")).unwrap());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_about_an_event_says_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--log", "shakedown=debug,shakedown_chassis=debug", "--log-format", "json"];
    let mut child = serve(folder.path(), &arguments).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut lines = stdout.by_ref().lines().map_while(Result::ok);
    let address =
        lines.find_map(|l| l.strip_prefix("listening on http://")?.parse::<SocketAddr>().ok());
    let client = Client::new(address.expect("it listens"));
    let tea = json!({ "name": "Tea", "categoryId": "drinks", "price": 250 });
    client.write(Method::PUT, "/catalog/products/tea", "tea", &tea).await.unwrap();
    let body = json!({ "delta": 10 });
    client.write(Method::POST, "/inventory/stock/tea/adjust", "ten", &body).await.unwrap();
    let body = json!({ "lines": [{ "productId": "tea", "qty": 1 }] });
    let mut order = String::new();
    for _ in 0..500 {
        let answer = client.write(Method::POST, "/orders", "o", &body).await.unwrap();
        if answer.status == StatusCode::CREATED {
            order = answer.body["orderId"].as_str().unwrap().to_owned();
            break;
        }
        pause(Duration::from_millis(20)).await;
    }
    for _ in 0..500 {
        let mails = client.get(&format!("/worker/mails/{order}")).await.unwrap();
        if mails.body["items"][0]["state"] == "sent" {
            break;
        }
        pause(Duration::from_millis(20)).await;
    }
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert!(child.wait().unwrap().success());
    let text = fs::read_to_string(folder.path().join("log")).unwrap();
    let mut about = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        if line["span"]["name"] == "event" && !line["span"]["eventType"].is_null() {
            let span = &line["span"];
            for id in ["correlationId", "eventId", "traceId", "service"] {
                assert!(span[id].is_string(), "{id} in {line}");
            }
            if span["correlationId"] == *order {
                about.insert(span["eventType"].as_str().unwrap().to_owned());
            }
        }
    }
    let expected = contract::TYPES.into_iter().map(str::to_owned);
    let expected: BTreeSet<String> = expected
        .filter(|kind| {
            !matches!(kind.as_str(), "ProductUpserted" | "StockFailed" | "OrderCancelled")
        })
        .collect();
    assert_eq!(about, expected, "one grep for the order tells its way");
}

/// A server that greets as RabbitMQ does, hears the client's answer, and hangs up.
#[allow(clippy::disallowed_methods, reason = "a server for a test is outside the services")]
fn rabbit() -> (u16, std::thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut header = [0; 8];
        stream.read_exact(&mut header).unwrap();
        // connection.start 0-9, no properties, PLAIN, en_US.
        let mut method = vec![0, 10, 0, 10, 0, 9, 0, 0, 0, 0];
        for text in ["PLAIN", "en_US"] {
            method.extend((text.len() as u32).to_be_bytes());
            method.extend(text.as_bytes());
        }
        let mut frame = vec![1, 0, 0];
        frame.extend((method.len() as u32).to_be_bytes());
        frame.extend(method);
        frame.push(0xce);
        stream.write_all(&frame).unwrap();
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).unwrap();
        answer.truncate(read);
        answer
    });
    (port, served)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_sent_where_it_belongs_and_never_logged() {
    let folder = tempfile::tempdir().unwrap();
    let (port, served) = rabbit();
    let rabbit = format!("amqp://shop:hunter2@127.0.0.1:{port}/%2f");
    let arguments = ["--log", "trace", "--kafka", "kafka://127.0.0.1:9", "--rabbit", &rabbit];
    let postgres = ["--postgres", "postgres://shop:hunter2@127.0.0.1:9/shop"];
    let mut serving = serve(folder.path(), &[&arguments[..], &postgres].concat()).spawn().unwrap();
    let sent = served.join().unwrap();
    let waits = async {
        let log = folder.path().join("log");
        while !fs::read_to_string(&log).unwrap_or_default().contains("waiting for RabbitMQ") {
            pause(Duration::from_millis(50)).await;
        }
    };
    let late = pause(Duration::from_secs(30));
    let said = matches!(select(pin!(waits), pin!(late)).await, Either::Left(_));
    assert!(said, "it says that RabbitMQ hung up, and waits for it");
    serving.kill().unwrap();
    let output = serving.wait_with_output().unwrap();
    assert!(sent.windows(7).any(|bytes| bytes == b"hunter2"), "the password was sent");
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("waiting for RabbitMQ"), "{log}");
    for text in [&log, &*String::from_utf8_lossy(&output.stdout)] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}
