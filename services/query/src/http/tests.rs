use axum::body::Body;
use axum::http::Request;
use chassis::Document;
use chrono::DateTime;
use contract::{CategoryId, ProductUpserted};
use envelope::EventId;
use futures_util::FutureExt;
use model::store::{Settings, StoreServer};
use model::virtual_time::VirtualTime;
use ports::{Key, Op, Row, Rows, Runtime};
use tower::ServiceExt;

use super::*;
use crate::rows::ALL;
use crate::rules::{Line, Order, OrderFact, Placed, Terminal};

/// The outcome of what never waits.
fn now<F: Future>(future: F) -> F::Output {
    future.now_or_never().expect("it does not wait")
}

fn get_json(store: &Shared, uri: &str) -> (u16, Value) {
    let request = Request::get(uri).body(Body::empty()).unwrap();
    let pages = Router::new()
        .route("/orders", get(list_orders))
        .route("/orders/{id}", get(show_order))
        .route("/products", get(list_products))
        .route("/products/{id}", get(show_product))
        .with_state(store.clone());
    let response = now(pages.oneshot(request)).unwrap();
    let status = response.status().as_u16();
    let body = now(axum::body::to_bytes(response.into_body(), 1 << 20)).unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

fn put<D: Document>(store: &Shared, key: Key, document: &D) {
    let body = serde_json::to_string(document).unwrap();
    let rows = Rows::from_iter([(key, Row { version: 0, index: document.index(), body })]);
    now(store.transact(vec![Op::Put { table: D::TABLE, rows }])).unwrap();
}

fn order(store: &Shared, id: &str, second: i64, facts: Vec<OrderFact>) {
    let at = DateTime::from_timestamp(second, 0).unwrap();
    let order = facts.into_iter().fold(Order::default(), |order, fact| order.join(fact, at));
    let order_id = OrderId::parse(id).unwrap();
    put(store, order_id.key(), &OrderRow { order_id, order, changed: second as u64 });
}

fn placed() -> OrderFact {
    let product_id = ProductId::parse("p1").unwrap();
    OrderFact::Placed(Placed {
        cart_id: None,
        lines: vec![Line { product_id, qty: 2, unit_price: Some(150) }],
        amount: Some(300),
        currency: Some("EUR".to_owned()),
        payment_mode: contract::PaymentMode::Parallel,
    })
}

/// Orders 1 to 5, the even ones confirmed, and one whose creation is not known.
fn shop() -> Shared {
    let runtime: Arc<dyn Runtime> = Arc::new(VirtualTime::default());
    let server = StoreServer::new(Settings::default(), runtime.clone());
    let store: Shared = Arc::new(server.client("query", runtime));
    now(store.prepare(&ALL)).unwrap();
    for n in 1..=5 {
        let mut facts = vec![placed()];
        if n % 2 == 0 {
            facts.push(OrderFact::Terminal(Terminal::Confirmed));
        }
        order(&store, &format!("o{n}"), n, facts);
    }
    order(&store, "o9", 9, vec![OrderFact::Terminal(Terminal::Confirmed)]);
    store
}

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|i| i["orderId"].as_str().unwrap()).collect()
}

#[test]
fn orders_are_listed_page_by_page_the_newest_first() {
    let store = shop();
    let (status, first) = get_json(&store, "/orders?limit=2");
    assert_eq!((status, ids(&first)), (200, vec!["o5", "o4"]));
    let (_, second) = get_json(&store, &format!("/orders?limit=2&cursor={}", next(&first)));
    assert_eq!(ids(&second), ["o3", "o2"]);
    let (_, third) = get_json(&store, &format!("/orders?limit=2&cursor={}", next(&second)));
    assert_eq!(ids(&third), ["o1"]);
    assert_eq!(third["next"], Value::Null);
}

fn next(page: &Value) -> &str {
    page["next"].as_str().unwrap()
}

#[test]
fn orders_are_listed_by_status() {
    let store = shop();
    let (_, confirmed) = get_json(&store, "/orders?status=confirmed");
    assert_eq!(ids(&confirmed), ["o4", "o2"]);
    let (_, first) = get_json(&store, "/orders?status=placed&limit=2");
    assert_eq!(ids(&first), ["o5", "o3"]);
    let uri = format!("/orders?status=placed&limit=2&cursor={}", next(&first));
    assert_eq!(ids(&get_json(&store, &uri).1), ["o1"]);
    for other in ["status=confirmed&", ""] {
        let uri = format!("/orders?{other}cursor={}", next(&first));
        assert_eq!(get_json(&store, &uri).0, 422, "{uri}");
    }
}

#[test]
fn strange_parameters_are_refused() {
    let store = shop();
    for query in ["limit=0", "limit=201", "limit=x", "status=odd", "sort=asc", "cursor=zz"] {
        let (status, problem) = get_json(&store, &format!("/orders?{query}"));
        assert_eq!(status, 422, "{query}");
        assert_eq!(problem["type"], "urn:shakedown:problem:invalid-request", "{query}");
    }
}

#[test]
fn an_order_is_shown_with_what_is_known_of_it() {
    let store = shop();
    let (status, order) = get_json(&store, "/orders/o2");
    assert_eq!((status, &order["status"]), (200, &json!("confirmed")));
    assert_eq!(order["createdAt"], "1970-01-01T00:00:02.000Z");
    assert_eq!(order["amount"], 300);
    assert_eq!(order["lines"], json!([{ "productId": "p1", "qty": 2, "unitPrice": 150 }]));
    let end = json!({ "state": "confirmed", "at": "1970-01-01T00:00:02.000Z" });
    assert_eq!(order["terminal"], end);
    let (_, unknown) = get_json(&store, "/orders/o9");
    assert_eq!((&unknown["lines"], &unknown["status"]), (&Value::Null, &json!("confirmed")));
    assert_eq!(get_json(&store, "/orders/o7").0, 404);
}

#[test]
fn products_are_listed_and_shown() {
    let store = shop();
    for id in ["p2", "p1"] {
        let says = ProductUpserted {
            product_id: ProductId::parse(id).unwrap(),
            name: format!("tea {id}"),
            category_id: CategoryId::parse("c").unwrap(),
            price: None,
            updated_at: DateTime::UNIX_EPOCH,
            product_version: Some(1),
        };
        let key = says.product_id.key();
        put(&store, key, &Product { says, event_id: EventId::parse("e").unwrap() });
    }
    let (_, page) = get_json(&store, "/products");
    let names: Vec<&Value> =
        page["items"].as_array().unwrap().iter().map(|item| &item["name"]).collect();
    assert_eq!(names, ["tea p1", "tea p2"]);
    let (_, product) = get_json(&store, "/products/p2");
    assert_eq!(product["categoryId"], "c");
    assert!(product.get("eventId").is_none());
    assert_eq!(get_json(&store, "/products/p3").0, 404);
}
