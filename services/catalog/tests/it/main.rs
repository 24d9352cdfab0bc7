//! The whole service on the broker and store models, in virtual time: HTTP in, events out.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use chassis::{Ports, Settings};
use envelope::Envelope;
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

    async fn http(&self, method: &str, path: &str, key: Option<&str>, body: &str) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = serde_json::from_slice(&to_bytes(body, 1 << 20).await.unwrap()).unwrap();
        (head.status.as_u16(), body)
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
