//! The whole service on the broker and store models, in virtual time: HTTP in, events out.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use chassis::{Ports, Settings};
use envelope::Envelope;
use futures_util::future::{join, join_all};
use model::log::LogServer;
use model::queue::QueueServer;
use model::store::StoreServer;
use model::virtual_time::VirtualTime;
use ports::Runtime;
use serde_json::{Value, json};
use shakedown_catalog::Config;
use tower::ServiceExt;

struct World {
    runtime: VirtualTime,
    log: LogServer,
    router: Router,
}

impl World {
    async fn start(runtime: VirtualTime) -> World {
        let clock: Arc<dyn Runtime> = Arc::new(runtime.clone());
        let log = LogServer::new(Default::default());
        let queue = QueueServer::new(Default::default(), clock.clone());
        let store = StoreServer::new(Default::default(), clock.clone());
        let ports = Ports {
            log: Arc::new(log.client("catalog", clock.clone())),
            queue: Arc::new(queue.client("catalog", clock.clone())),
            store: Arc::new(store.client("catalog", clock.clone())),
            runtime: clock,
        };
        let settings = Settings::new("catalog", "catalog-0");
        let service = shakedown_catalog::run(ports, settings, Config::default()).await.unwrap();
        World { runtime, log, router: service.router }
    }

    /// Status, entity tag, body; null where it is empty.
    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, Option<String>, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if headers.iter().all(|(name, _)| *name != "content-type") {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        let body =
            if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        let tag = head.headers.get(header::ETAG).map(|tag| tag.to_str().unwrap().to_owned());
        (head.status.as_u16(), tag, body)
    }

    async fn http(&self, method: &str, path: &str, key: Option<&str>, body: &str) -> (u16, Value) {
        let headers: Vec<(&str, &str)> =
            key.map(|key| ("idempotency-key", key)).into_iter().collect();
        let (status, _, body) = self.send(method, path, &headers, body).await;
        (status, body)
    }

    async fn import(&self, key: &str, body: &str) -> (u16, Value) {
        let headers = [("idempotency-key", key), ("content-type", "application/x-ndjson")];
        let (status, _, body) = self.send("POST", "/products", &headers, body).await;
        (status, body)
    }

    async fn put(&self, id: &str, body: &str) -> (u16, Value) {
        self.http("PUT", &format!("/products/{id}"), None, body).await
    }

    /// The payloads that were published under this key, in order.
    async fn told(&self, key: &str) -> Vec<Value> {
        self.runtime.sleep(Duration::from_secs(2)).await;
        self.log.with(|log| {
            let records = log.records("catalog.events");
            let records = records.filter(|fetched| &*fetched.record.key == key);
            let envelopes = records.map(|f| Envelope::read(&f.record.payload).unwrap());
            envelopes.map(|e| serde_json::from_str(e.payload.get()).unwrap()).collect()
        })
    }
}

fn run<F: Future<Output = ()> + Send + 'static>(story: impl FnOnce(World) -> F + Send + 'static) {
    let runtime = VirtualTime::default();
    runtime.clone().run(async move { story(World::start(runtime).await).await });
}

#[test]
fn each_change_is_a_version_and_an_event() {
    run(|world| async move {
        let tea = r#"{"name":"Tea","categoryId":"drinks","price":350}"#;
        let (status, first) = world.put("tea", tea).await;
        assert_eq!((status, &first["productVersion"]), (201, &json!(1)));
        assert_eq!(world.put("tea", tea).await, (200, first.clone()));
        let dearer = tea.replace("350", "400");
        let (status, second) = world.put("tea", &dearer).await;
        assert_eq!((status, &second["productVersion"]), (200, &json!(2)));
        // Back again is a change like any other.
        assert_eq!(world.put("tea", tea).await.1["productVersion"], 3);
        let (_, bare) = world.put("tea", r#"{"name":"Tea","categoryId":"drinks"}"#).await;
        assert_eq!((bare.get("price"), &bare["productVersion"]), (None, &json!(4)));
        assert_eq!(world.http("GET", "/products/tea", None, "").await, (200, bare));
        let told = world.told("tea").await;
        let versions: Vec<&Value> = told.iter().map(|e| &e["productVersion"]).collect();
        assert_eq!(versions, [&json!(1), &json!(2), &json!(3), &json!(4)]);
        let prices: Vec<Option<&Value>> = told.iter().map(|e| e.get("price")).collect();
        let (old, new) = (json!(350), json!(400));
        assert_eq!(prices, [Some(&old), Some(&new), Some(&old), None]);
    });
}

#[test]
fn a_repeated_key_gets_the_first_answer() {
    run(|world| async move {
        let put = |key, name: &str| {
            let body = json!({ "name": name, "categoryId": "drinks" }).to_string();
            let world = &world;
            async move { world.http("PUT", "/products/tea", Some(key), &body).await }
        };
        let first = put("k-1", "Tea").await;
        assert_eq!(first.0, 201);
        assert_eq!(put("k-2", "Green tea").await.0, 200);
        assert_eq!(put("k-1", "Tea").await, first, "late, and without effect");
        assert_eq!(put("k-1", "Coffee").await.0, 422);
        let (_, now) = world.http("GET", "/products/tea", None, "").await;
        assert_eq!((&now["name"], &now["productVersion"]), (&json!("Green tea"), &json!(2)));
        assert_eq!(world.told("tea").await.len(), 2);
    });
}

#[test]
fn products_are_listed_by_id_in_pages() {
    run(|world| async move {
        for id in ["b", "a", "~", "c%2Fd"] {
            assert_eq!(world.put(id, r#"{"name":"x","categoryId":"c"}"#).await.0, 201);
        }
        let mut seen = Vec::new();
        let mut path = "/products?limit=3".to_owned();
        loop {
            let (status, page) = world.http("GET", &path, None, "").await;
            assert_eq!(status, 200);
            let items = page["items"].as_array().unwrap();
            seen.extend(items.iter().map(|item| item["productId"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/products?limit=3&cursor={}", next.replace('/', "%2F"));
        }
        assert_eq!(seen, ["a", "b", "c/d", "~"]);
        for bad in ["limit=0", "limit=201", "limit=x", "cursor=", "cursor=a%20b", "page=2"] {
            assert_eq!(world.http("GET", &format!("/products?{bad}"), None, "").await.0, 422);
        }
    });
}

#[test]
fn requests_are_strict() {
    run(|world| async move {
        let bad = [
            (400, "{"),
            (422, "{}"),
            (422, r#"{"name":"","categoryId":"c"}"#),
            (422, r#"{"name":"x","categoryId":"c d"}"#),
            (422, r#"{"name":"x","categoryId":"c","price":-1}"#),
            (422, r#"{"name":"x","categoryId":"c","price":1.5}"#),
            (422, r#"{"name":"x","categoryId":"c","colour":"red"}"#),
        ];
        for (status, body) in bad {
            assert_eq!(world.put("tea", body).await.0, status, "{body}");
        }
        assert_eq!(world.put("a%20b", r#"{"name":"x","categoryId":"c"}"#).await.0, 422);
        assert_eq!(world.http("GET", "/products/tea", None, "").await.0, 404);
        assert_eq!(world.http("GET", "/products/%FF", None, "").await.0, 422);
        assert!(world.told("tea").await.is_empty());
    });
}

#[test]
fn products_are_looked_at_and_put_on_conditions() {
    run(|world| async move {
        let tea = r#"{"name":"Tea","categoryId":"drinks"}"#;
        let send = |method, headers: &'static [(&'static str, &'static str)], body: &str| {
            let (world, body) = (&world, body.to_owned());
            async move { world.send(method, "/products/tea", headers, &body).await }
        };
        let tag = |version: u64| Some(format!("\"{version}\""));
        let (status, none, problem) = send("PUT", &[("if-match", "*")], tea).await;
        assert_eq!((status, none, &problem["productVersion"]), (412, None, &Value::Null));
        let create = &[("if-none-match", "*")];
        let (status, first, body) = send("PUT", create, tea).await;
        assert_eq!((status, first), (201, tag(1)));
        assert_eq!(send("GET", &[], "").await, (200, tag(1), body));
        let (status, now, problem) = send("PUT", create, tea).await;
        assert_eq!((status, now, &problem["productVersion"]), (412, tag(1), &json!(1)));
        assert_eq!(problem["type"], "urn:shakedown:problem:precondition-failed");

        let green = tea.replace("Tea", "Green tea");
        let (status, second, _) = send("PUT", &[("if-match", "\"7\", \"1\"")], &green).await;
        assert_eq!((status, second), (200, tag(2)));
        let (status, now, _) = send("PUT", &[("if-match", "\"1\"")], tea).await;
        assert_eq!((status, now), (412, tag(2)), "somebody else was here");

        let unmodified = (304, tag(2), Value::Null);
        for known in [&[("if-none-match", "\"2\"")], &[("if-none-match", "W/\"2\"")]] {
            assert_eq!(send("GET", known, "").await, unmodified);
        }
        assert_eq!(send("GET", &[("if-none-match", "\"1\"")], "").await.0, 200);
        assert_eq!(send("GET", &[("if-match", "\"1\"")], "").await.0, 412);
        for (method, headers) in [
            ("PUT", [("if-match", "2")]),
            ("PUT", [("if-match", "W/\"2\"")]),
            ("PUT", [("if-none-match", "\"")]),
            ("GET", [("if-none-match", "2")]),
        ] {
            let (status, _, problem) = world.send(method, "/products/tea", &headers, tea).await;
            let kind = "urn:shakedown:problem:entity-tag-invalid";
            assert_eq!((status, &problem["type"]), (400, &json!(kind)), "{method} {headers:?}");
        }
        assert_eq!(world.told("tea").await.len(), 2);
    });
}

#[test]
fn of_all_who_saw_a_version_one_changes_it() {
    run(|world| async move {
        world.put("tea", r#"{"name":"Tea","categoryId":"drinks"}"#).await;
        let puts =
            (0..20).map(|n| {
                let body =
                    json!({ "name": format!("Tea {n}"), "categoryId": "drinks" }).to_string();
                let world = &world;
                async move {
                    world.send("PUT", "/products/tea", &[("if-match", "\"1\"")], &body).await.0
                }
            });
        let mut statuses = join_all(puts).await;
        statuses.sort_unstable();
        assert_eq!((statuses[0], statuses[1], statuses[19]), (200, 412, 412));
        assert_eq!(world.told("tea").await.len(), 2);
    });
}

#[test]
fn a_condition_is_a_part_of_the_request() {
    run(|world| async move {
        let tea = r#"{"name":"Tea","categoryId":"drinks"}"#;
        let put = |tag: &'static str| {
            let headers = [("idempotency-key", "k"), ("if-match", tag)];
            let world = &world;
            async move { world.send("PUT", "/products/tea", &headers, tea).await.0 }
        };
        assert_eq!(put("*").await, 412, "in passing");
        world.put("tea", &tea.replace("Tea", "Coffee")).await;
        assert_eq!(put("*").await, 200);
        assert_eq!(put("*").await, 200, "the stored reply");
        assert_eq!(put("\"2\"").await, 422);
    });
}

#[test]
fn many_products_are_put_in_one_request() {
    run(|world| async move {
        let line = |id: &str, name: &str| {
            json!({ "productId": id, "name": name, "categoryId": "drinks" }).to_string()
        };
        let body = [
            line("tea", "Tea"),
            line("tea", ""),
            "{".to_owned(),
            line("tea", "Tea").replace('}', ",\"x\":1}"),
            line("cup", "Cup"),
            line("tea", "Green tea"),
        ]
        .join("\n");
        let (status, first) = world.import("k", &body).await;
        assert_eq!((status, &first["done"], &first["failed"]), (200, &json!(3), &json!(3)));
        let statuses: Vec<_> =
            first["lines"].as_array().unwrap().iter().map(|line| &line["status"]).collect();
        assert_eq!(statuses, [201, 422, 400, 422, 201, 200]);
        assert_eq!(first["lines"][1]["line"], 2);
        assert_eq!(first["lines"][2]["problem"]["type"], "urn:shakedown:problem:malformed-json");
        assert_eq!(first["lines"][5]["result"]["productVersion"], 2);
        assert_eq!(world.import("k", &body).await, (200, first), "once, however often it is sent");
        let (status, reused) = world.import("k", &format!("{body}\n")).await;
        assert_eq!((status, &reused["status"]), (422, &json!(422)), "another payload");
        assert_eq!(world.told("tea").await.len(), 2);
        let headers = [("content-type", "application/x-ndjson")];
        let (status, _, problem) = world.send("POST", "/products", &headers, &body).await;
        let kind = "urn:shakedown:problem:idempotency-key-missing";
        assert_eq!((status, &problem["type"]), (400, &json!(kind)));
        assert_eq!(world.http("DELETE", "/products", None, "").await.0, 405);
    });
}

#[test]
fn a_long_import_leaves_room_for_others() {
    run(|world| async move {
        let line = |n| json!({ "productId": format!("p{n}"), "name": "x", "categoryId": "c" });
        let body: Vec<String> = (0..1_000).map(|n| line(n).to_string()).collect();
        let body = body.join("\n");
        let imports = (0..6).map(|n| {
            let (world, key, body) = (&world, format!("k{n}"), &body);
            async move { world.import(&key, body).await }
        });
        let put = world.put("tea", r#"{"name":"Tea","categoryId":"drinks"}"#);
        let (imports, put) = join(join_all(imports), put).await;
        assert_eq!(put.0, 201);
        let done: Vec<(u16, Value)> =
            imports.into_iter().map(|(status, body)| (status, body["done"].clone())).collect();
        let all = (200, json!(1_000));
        assert_eq!(done[..4], [all.clone(), all.clone(), all.clone(), all]);
        assert_eq!((done[4].0, done[5].0), (503, 503), "no more at a time, and nothing was done");
    });
}
