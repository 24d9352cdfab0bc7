//! Local mode as a whole: orders over HTTP to their ends, and a process that is killed in the middle
//! of them and started again.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use contract::Profile;
use futures_util::future::{join, join_all};
use payments::simulated::Steering;
use serde_json::{Value, json};
use shakedown::client::Client;
use shakedown::config::Config;
use shakedown::http_shell::{Shell, pause};
use shakedown::local_mode::LocalMode;
use shakedown::reconcile::{self, Report, Verdict};
use shakedown::running::Running;

const PRODUCTS: usize = 5;

const DRAIN: Duration = Duration::from_secs(5);

/// Five products, the last of which is scarce.
async fn stock_up(client: &Client) {
    for product in 0..PRODUCTS {
        let body = json!({ "name": "Tea", "categoryId": "drinks", "price": 100 + product });
        let path = format!("/catalog/products/p{product}");
        let key = format!("product-{product}");
        let answer = client.write(Method::PUT, &path, &key, &body).await.unwrap();
        assert!(answer.status.is_success(), "{answer:?}");
        let delta = if product + 1 == PRODUCTS { 5 } else { 1000 };
        let path = format!("/inventory/stock/p{product}/adjust");
        let body = json!({ "delta": delta });
        let answer = client.write(Method::POST, &path, &format!("stock-{product}"), &body).await;
        answer.unwrap().expect(StatusCode::OK).unwrap();
    }
}

fn order(number: usize) -> Value {
    json!({ "lines": [
        { "productId": format!("p{}", number % PRODUCTS), "qty": 1 + number % 3 },
        { "productId": format!("p{}", (number + 1) % PRODUCTS), "qty": 1 },
    ] })
}

/// The order's id, once it was answered 201. `None` where nobody answers any more.
async fn place(client: &Client, number: usize) -> Option<String> {
    let key = format!("order-{number}");
    loop {
        let answer = client.once(Method::POST, "/orders", Some(&key), &order(number)).await.ok()?;
        match answer.status.as_u16() {
            201 => return Some(answer.body["orderId"].as_str().unwrap().to_owned()),
            // A price has not arrived yet, or the service is busy.
            422 | 503 => pause(Duration::from_millis(20)).await,
            _ => panic!("{answer:?}"),
        }
    }
}

/// The books of the shop, once nothing is under way any more.
async fn settle(client: &Client) -> Report {
    let report = reconcile::audit(client, Duration::from_secs(60), false).await.unwrap();
    assert_eq!(report.verdict(), Verdict::Balanced, "{}", report.table());
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_ends_and_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let steering = Steering { limit: Some(400), ..Steering::default() };
    let local = LocalMode::start(folder.path(), &Config::defaults(), steering).await.unwrap();
    let shell = Shell::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let running = Running::start(shell, local.shop, DRAIN).await.unwrap();
    let client = Client::new(running.address);
    stock_up(&client).await;
    let placed = join_all((0..60).map(|number| place(&client, number))).await;
    let placed: BTreeSet<String> = placed.into_iter().map(|id| id.expect("answered")).collect();
    assert_eq!(placed.len(), 60);
    let again = place(&client, 7).await.unwrap();
    assert!(placed.contains(&again), "the same Idempotency-Key is the same order");
    let totals = settle(&client).await.totals;
    assert_eq!((totals.orders, totals.confirmed + totals.cancelled, totals.mails), (60, 60, 60));
    let orders = client.list("/query/orders").await.unwrap();
    let reasons: BTreeSet<&str> =
        orders.iter().map(|order| order["terminal"]["reason"].as_str().unwrap_or("none")).collect();
    assert_eq!(reasons, BTreeSet::from(["declined", "insufficient_stock", "none"]));
    routes_that_are_offered_are_there(&client, orders[0]["orderId"].as_str().unwrap()).await;
    let health = client.get("/health").await.unwrap();
    assert_eq!(health.expect(StatusCode::OK).unwrap()["status"], "ok");
    assert!(running.stop().await.unwrap(), "it stops in time");
}

/// What a 404 says that there is.
async fn routes_that_are_offered_are_there(client: &Client, order: &str) {
    let answer = client.get("/nowhere").await.unwrap();
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let said = answer.body["detail"].as_str().unwrap();
    let offered = said.split("there are ").nth(1).unwrap();
    let paths: Vec<&str> = offered.split([' ', ',']).filter(|it| it.starts_with('/')).collect();
    assert!(paths.contains(&"/services/{service}/dead-letters"), "{said}");
    // Metrics are no JSON, which this client reads.
    for path in paths.into_iter().filter(|path| *path != "/metrics") {
        let path = path.replace("{order}", order).replace("{service}", "orders");
        let answer = client.get(&path).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn profile_catalog_runs_without_prices() {
    let folder = tempfile::tempdir().unwrap();
    let steering = Steering::default();
    let local = LocalMode::start(folder.path(), &Config::of_profile(Profile::Catalog), steering)
        .await
        .unwrap();
    let shell = Shell::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let running = Running::start(shell, local.shop, DRAIN).await.unwrap();
    let client = Client::new(running.address);
    let body = json!({ "delta": 9 });
    let answer = client.write(Method::POST, "/inventory/stock/p0/adjust", "s", &body).await;
    answer.unwrap().expect(StatusCode::OK).unwrap();
    let body = json!({ "lines": [{ "productId": "p0", "qty": 2 }] });
    let answer = client.write(Method::POST, "/orders", "o", &body).await.unwrap();
    let order = answer.expect(StatusCode::CREATED).unwrap();
    let path = format!("/query/orders/{}", order["orderId"].as_str().unwrap());
    for _ in 0..200 {
        if client.get(&path).await.unwrap().body["status"] == "confirmed" {
            assert!(running.stop().await.unwrap());
            return;
        }
        pause(Duration::from_millis(20)).await;
    }
    panic!("{:?}", client.get(&path).await.unwrap());
}

/// A `serve` in a process of its own.
struct Served {
    child: Child,
    /// Held open, as a terminal is.
    _stdout: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Served {
    fn start(folder: &Path) -> Served {
        let mut child = Command::new(env!("CARGO_BIN_EXE_shakedown"))
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--data-dir"])
            .arg(folder)
            .env_remove("SHAKEDOWN_KAFKA")
            .env_remove("SHAKEDOWN_RABBIT")
            .env_remove("SHAKEDOWN_POSTGRES")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines = stdout.by_ref().lines().map_while(Result::ok);
        let address = lines.find_map(|l| l.strip_prefix("listening on http://")?.parse().ok());
        Served { child, _stdout: stdout, address: address.expect("it listens") }
    }

    /// SIGKILL: no goodbye to anybody.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_journal_cannot_be_written_ends() {
    let folder = tempfile::tempdir().unwrap();
    // No file grows beyond a block or two.
    let script =
        "trap '' XFSZ; ulimit -f 1; exec \"$0\" gateway --listen 127.0.0.1:0 --data-dir \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_shakedown")]).arg(folder.path());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut lines = stdout.by_ref().lines().map_while(Result::ok);
    let address: Option<SocketAddr> =
        lines.find_map(|l| l.strip_prefix("listening on http://")?.parse().ok());
    let client = Client::new(address.expect("it listens"));
    let mut answered = 0;
    for number in 0..100 {
        let order = format!("order-{number}");
        let asked = json!({ "operation": "authorise", "orderId": order, "amount": 100 });
        let answer = client.once(Method::POST, "/gateway/operations", Some(&order), &asked).await;
        if !answer.is_ok_and(|answer| answer.status == StatusCode::OK) {
            break;
        }
        answered += 1;
    }
    assert!((1..100).contains(&answered), "{answered}");
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(70), "{stderr}");
    assert!(stderr.contains("the gateway's journal"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut answered = BTreeSet::new();
    for round in 0..3 {
        let mut served = Served::start(folder.path());
        let client = Client::new(served.address);
        stock_up(&client).await;
        let (count, dead) = (AtomicUsize::new(0), AtomicBool::new(false));
        let customers = join_all((0..8).map(|customer| {
            let (client, count, dead) = (&client, &count, &dead);
            async move {
                let mut mine = Vec::new();
                for turn in 0.. {
                    let number = round * 100_000 + turn * 8 + customer;
                    let Some(id) = place(client, number).await else { break };
                    count.fetch_add(1, Ordering::Relaxed);
                    mine.push(id);
                    if dead.load(Ordering::Relaxed) {
                        break;
                    }
                }
                mine
            }
        }));
        let killer = async {
            while count.load(Ordering::Relaxed) < 60 {
                pause(Duration::from_millis(1)).await;
            }
            served.kill();
            dead.store(true, Ordering::Relaxed);
        };
        let (placed, ()) = join(customers, killer).await;
        let before = answered.len();
        answered.extend(placed.into_iter().flatten());
        assert!(answered.len() >= before + 60);
    }
    let served = Served::start(folder.path());
    let client = Client::new(served.address);
    for order in &answered {
        let answer = client.get(&format!("/orders/{order}")).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{order} was answered 201 and is gone");
    }
    // Orders whose answer was lost count too: all that Query knows.
    let mut all: BTreeSet<String> = BTreeSet::new();
    for _ in 0..100 {
        let known = client.list("/query/orders").await.unwrap();
        all = known.iter().map(|o| o["orderId"].as_str().unwrap().to_owned()).collect();
        if all.is_superset(&answered) && known.iter().all(|order| !order["terminal"].is_null()) {
            break;
        }
        pause(Duration::from_millis(100)).await;
    }
    assert!(all.is_superset(&answered));
    let totals = settle(&client).await.totals;
    assert_eq!(totals.orders, all.len() as u64, "Query knows what Orders knows");
    assert_eq!(totals.mails, totals.orders, "one Message-ID a final order");
}
