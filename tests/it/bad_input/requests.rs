//! Requests that are not as they should be, for every route. After each: a problem document that says
//! what was wrong, nothing written and nothing published, and an order placed next ends as it should.

use std::collections::BTreeSet;

use model::virtual_time::VirtualTime;
use serde_json::json;

use super::fields::bodies;
use super::shop::{Ask, CASES_A_SHOP, Shop};

/// A request, and what it must be answered.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is wrong with it.
    pub name: String,
    pub method: &'static str,
    pub path: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// The status of the answer.
    pub status: u16,
    /// The last part of the problem's `type`.
    pub problem: &'static str,
}

/// Every route of the shop. `{id}` stands for the id of an order or product.
pub const ROUTES: [(&str, &str); 32] = [
    ("GET", "/catalog/products"),
    ("GET", "/catalog/products/{id}"),
    ("PUT", "/catalog/products/{id}"),
    ("GET", "/inventory/stock"),
    ("GET", "/inventory/stock/{id}"),
    ("POST", "/inventory/stock/{id}/adjust"),
    ("GET", "/inventory/reservations/{id}"),
    ("POST", "/orders"),
    ("GET", "/orders/{id}"),
    ("POST", "/orders/{id}/cancel"),
    ("GET", "/stubs"),
    ("GET", "/payments"),
    ("GET", "/payments/{id}"),
    ("GET", "/query/orders"),
    ("GET", "/query/orders/{id}"),
    ("GET", "/query/products"),
    ("GET", "/query/products/{id}"),
    ("GET", "/notifications/{id}"),
    ("POST", "/notifications/{id}/resend"),
    ("GET", "/worker/mails"),
    ("GET", "/worker/mails/{id}"),
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("POST", "/catalog/products"),
    ("POST", "/inventory/stock"),
    ("GET", "/query/orders/events"),
    ("GET", "/query/orders/{id}/events"),
    ("GET", "/services/orders/dead-letters"),
    ("GET", "/services/orders/dead-letters/{id}"),
    ("POST", "/services/orders/dead-letters/{id}/redrive"),
    ("POST", "/services/orders/dead-letters/{id}/discard"),
    ("GET", "/services/orders/parked"),
];

/// Routes that give a page of a list.
const LISTS: [&str; 9] = [
    "/catalog/products",
    "/inventory/stock",
    "/stubs",
    "/payments",
    "/query/orders",
    "/query/products",
    "/worker/mails",
    "/services/orders/dead-letters",
    "/services/orders/parked",
];

/// The whole table.
pub fn cases() -> Vec<Case> {
    let mut table = Table::default();
    table.bodies();
    table.orders();
    table.products();
    table.adjustments();
    table.empty_bodies();
    table.ids();
    table.lists();
    table.methods();
    table.keys();
    table.paths();
    table.conditions();
    table.bulk();
    table.streams();
    table.letters();
    table.cases
}

/// The table as it grows.
#[derive(Default)]
pub struct Table {
    cases: Vec<Case>,
}

impl Table {
    /// A request with a key of its own and JSON as its content type.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        (method, path): (&'static str, &str),
        body: impl Into<Vec<u8>>,
        (status, problem): (u16, &'static str),
    ) -> &mut Case {
        let key = format!("bad-{}", self.cases.len());
        let headers = vec![
            ("content-type".to_owned(), b"application/json".to_vec()),
            ("idempotency-key".to_owned(), key.into_bytes()),
        ];
        let (name, path, body) = (name.into(), path.to_owned(), body.into());
        self.cases.push(Case { name, method, path, headers, body, status, problem });
        self.cases.last_mut().expect("it was pushed")
    }

    /// Ids in paths.
    fn ids(&mut self) {
        for (method, route) in ROUTES.iter().filter(|(_, route)| route.contains("{id}")) {
            let body = bodies().into_iter().find(|(m, path, _)| {
                m == method && path.split('/').nth(1) == route.split('/').nth(1)
            });
            let body = body.map_or(String::new(), |(.., body)| body.to_string());
            // A letter's id is any text: what is none of them is not found.
            let letters = route.contains("dead-letters");
            for (name, id) in [
                ("invalid UTF-8", "%FF".to_owned()),
                ("a space", "a%20b".to_owned()),
                ("a control character", "a%00b".to_owned()),
                ("outside ASCII", "th%C3%A9".to_owned()),
                ("65 characters", "x".repeat(65)),
            ] {
                if letters && id != "%FF" {
                    continue;
                }
                let path = route.replace("{id}", &id);
                self.add(
                    format!("an id with {name}"),
                    (method, &path),
                    body.clone(),
                    (422, "invalid-request"),
                );
            }
            // Lists of what belongs to an order are empty where there is none.
            let lists = ["/notifications/{id}", "/worker/mails/{id}"];
            let found = lists.contains(route) || letters || route.ends_with("/events");
            if *method == "GET" && !found || route.ends_with("/cancel") {
                let path = route.replace("{id}", "nobody");
                self.add("an id that nobody has", (method, &path), "", (404, "not-found"));
            }
        }
    }

    /// Pages of lists.
    fn lists(&mut self) {
        let invalid = (422, "invalid-request");
        let foreign: String = "zz\nyy".bytes().map(|byte| format!("{byte:02x}")).collect();
        let queries = [
            ("limit 0", "limit=0".to_owned()),
            ("limit negative", "limit=-1".to_owned()),
            ("limit 201", "limit=201".to_owned()),
            ("limit beyond 64 bits", "limit=99999999999999999999".to_owned()),
            ("limit a word", "limit=all".to_owned()),
            ("limit empty", "limit=".to_owned()),
            ("limit twice", "limit=1&limit=2".to_owned()),
            ("a cursor that is none", "cursor=here".to_owned()),
            ("a cursor that is empty", "cursor=".to_owned()),
            ("an unknown parameter", "page=2".to_owned()),
        ];
        for route in LISTS {
            for (name, query) in &queries {
                self.add(*name, ("GET", &format!("{route}?{query}")), "", invalid);
            }
        }
        let path = format!("/query/orders?status=confirmed&cursor={foreign}");
        self.add("a cursor of another list", ("GET", &path), "", invalid);
        self.add("an unknown status", ("GET", "/query/orders?status=lost"), "", invalid);
        self.add("an unknown state", ("GET", "/worker/mails?state=lost"), "", invalid);
        for route in ["/notifications/{order}", "/worker/mails/{order}"] {
            self.add("limit 0", ("GET", &format!("{route}?limit=0")), "", invalid);
            self.add(
                "a cursor that is none",
                ("GET", &format!("{route}?cursor=here")),
                "",
                invalid,
            );
        }
    }

    /// Methods that a route does not have.
    fn methods(&mut self) {
        let paths: BTreeSet<&str> = ROUTES.iter().map(|(_, path)| *path).collect();
        for path in paths {
            let path = path.replace("{id}", "tea");
            for method in ["DELETE", "PATCH"] {
                let name = format!("{method}, which it does not have");
                self.add(name, (method, &path), "", (405, "method-not-allowed"));
            }
        }
    }

    /// Idempotency-Keys.
    fn keys(&mut self) {
        let bad = (400, "idempotency-key-invalid");
        let bodiless = ["/orders/{order}/cancel", "/notifications/{order}/resend"];
        let bodiless = bodiless.map(|path| ("POST", path, String::new()));
        let with = bodies().map(|(method, path, body)| (method, path, body.to_string()));
        for (method, path, body) in with.into_iter().chain(bodiless) {
            for (name, key) in [
                ("empty", Vec::new()),
                ("of 65 characters", b"k".repeat(65)),
                ("with a space", b"a b".to_vec()),
                ("outside ASCII", "clé".as_bytes().to_vec()),
                ("with a tab", b"a\tb".to_vec()),
            ] {
                let name = format!("an Idempotency-Key {name}");
                self.add(name, (method, path), body.clone(), bad).headers[1].1 = key;
            }
            // Relative writes must have one.
            if path.ends_with("/adjust") || path.ends_with("/resend") {
                let missing = (400, "idempotency-key-missing");
                self.add("no Idempotency-Key", (method, path), body, missing).headers.remove(1);
            }
        }
        // Both keys were used when the shop opened.
        let other = json!({ "name": "Coffee", "categoryId": "drinks" }).to_string();
        let reused = (422, "idempotency-key-reused");
        let name = "an Idempotency-Key of another request";
        self.add(name, ("PUT", "/catalog/products/coffee"), other, reused).headers[1].1 =
            b"tea".to_vec();
        let at = ("POST", "/inventory/stock/tea/adjust");
        self.add(name, at, "{\"delta\":7}", reused).headers[1].1 = b"stock".to_vec();
        let body = json!({ "lines": [{ "productId": "tea", "qty": 7 }] }).to_string();
        self.add(name, ("POST", "/orders"), body, reused).headers[1].1 = b"order-0".to_vec();
    }

    /// Conditional requests on products.
    fn conditions(&mut self) {
        let good = json!({ "name": "Tea", "categoryId": "drinks", "price": 351 }).to_string();
        let put = ("PUT", "/catalog/products/tea");
        let get = ("GET", "/catalog/products/tea");
        for (name, at, header, value, answer) in [
            ("If-Match without quotes", put, "if-match", "1", (400, "entity-tag-invalid")),
            ("If-Match that is empty", put, "if-match", "", (400, "entity-tag-invalid")),
            ("a weak If-Match", put, "if-match", "W/\"1\"", (400, "entity-tag-invalid")),
            (
                "If-Match of another version",
                put,
                "if-match",
                "\"99\"",
                (412, "precondition-failed"),
            ),
            (
                "If-None-Match * of what there is",
                put,
                "if-none-match",
                "*",
                (412, "precondition-failed"),
            ),
            (
                "If-None-Match without quotes",
                get,
                "if-none-match",
                "1",
                (400, "entity-tag-invalid"),
            ),
            (
                "If-Match of another version",
                get,
                "if-match",
                "\"99\"",
                (412, "precondition-failed"),
            ),
        ] {
            let body = if at.0 == "PUT" { good.clone() } else { String::new() };
            let case = self.add(name, at, body, answer);
            case.headers.push((header.to_owned(), value.as_bytes().to_vec()));
        }
    }

    /// Bulk requests as a whole; their lines have a test of their own.
    fn bulk(&mut self) {
        for (path, line) in [
            (
                "/catalog/products",
                "{\"productId\":\"coffee\",\"name\":\"Coffee\",\"categoryId\":\"drinks\"}\n",
            ),
            ("/inventory/stock", "{\"productId\":\"tea\",\"delta\":1}\n"),
        ] {
            let at = ("POST", path);
            let ndjson = |case: &mut Case| case.headers[0].1 = b"application/x-ndjson".to_vec();
            self.add("content type \"application/json\"", at, line, (415, "not-ndjson"));
            self.add("no content type", at, line, (415, "not-ndjson")).headers.remove(0);
            ndjson(self.add("1,001 lines", at, line.repeat(1_001), (413, "too-many-lines")));
            let large = format!("{line}{}", " ".repeat(300_000));
            ndjson(self.add("300 kB", at, large, (413, "body-too-large")));
            let missing = (400, "idempotency-key-missing");
            let case = self.add("no Idempotency-Key", at, line, missing);
            ndjson(case);
            case.headers.remove(1);
            let case = self.add(
                "an Idempotency-Key with a space",
                at,
                line,
                (400, "idempotency-key-invalid"),
            );
            ndjson(case);
            case.headers[1].1 = b"a b".to_vec();
        }
    }

    /// Streams of changes.
    fn streams(&mut self) {
        for path in ["/query/orders/events", "/query/orders/{order}/events"] {
            for (name, value) in [
                ("that is no number", "here"),
                ("that is negative", "-1"),
                ("ahead of all changes", "999999999"),
            ] {
                let name = format!("a Last-Event-ID {name}");
                let case = self.add(name, ("GET", path), "", (422, "invalid-request"));
                case.headers.push(("last-event-id".to_owned(), value.as_bytes().to_vec()));
            }
        }
    }

    /// Dead letters: the same in every service.
    fn letters(&mut self) {
        let (invalid, unknown) = ((422, "invalid-request"), (404, "not-found"));
        let list = "/services/orders/dead-letters";
        self.add("an unknown state", ("GET", &format!("{list}?state=lost")), "", invalid);
        self.add("a letter that nobody has", ("GET", &format!("{list}/nobody")), "", unknown);
        self.add("a letter with U+0000", ("GET", &format!("{list}/a%00b")), "", unknown);
        for (verb, good) in [("redrive", "{}"), ("discard", "{\"note\":\"a test\"}")] {
            let path = format!("{list}/nobody/{verb}");
            let at = ("POST", path.as_str());
            self.add("a letter that nobody has", at, good, unknown);
            self.add("no body", at, "", (400, "malformed-json"));
            self.add("a list", at, "[null]", invalid);
            self.add("an unknown field", at, "{\"why\":1,\"note\":\"x\"}", invalid);
            let case = self.add("no content type", at, good, (415, "not-json"));
            case.headers.remove(0);
        }
        let path = format!("{list}/nobody/discard");
        for (name, body) in [
            ("no note", "{}"),
            ("an empty note", "{\"note\":\" \"}"),
            ("a note that is a number", "{\"note\":7}"),
            ("a note with U+0000", "{\"note\":\"a\\u0000\"}"),
        ] {
            self.add(name, ("POST", &path), body, invalid);
        }
        for path in ["/services/nobody/orders", "/services/orders", "/services/"] {
            self.add("a service that there is not", ("GET", path), "", unknown);
        }
    }

    /// Paths that lead nowhere.
    fn paths(&mut self) {
        for path in [
            "/",
            "/nothing",
            "/orders/a/b/c",
            "/orders/",
            "/catalog",
            "/catalog/nothing",
            "/query/../orders",
            "/%FF",
        ] {
            self.add("a path that leads nowhere", ("GET", path), "", (404, "not-found"));
        }
    }
}

#[test]
fn every_request_is_answered_as_the_table_says() {
    let mut wrong = Vec::new();
    for cases in cases().chunks(CASES_A_SHOP) {
        let (runtime, cases) = (VirtualTime::default(), cases.to_vec());
        let found = runtime.clone().run(async move {
            let mut shop = Shop::open(runtime).await;
            let order = shop.order().await;
            shop.quiet("the first order").await;
            let mut wrong = Vec::new();
            for case in cases {
                if let Err(cause) = try_one(&mut shop, &order, &case).await {
                    wrong.push(format!("{} {}: {}: {cause}", case.method, case.path, case.name));
                }
            }
            wrong
        });
        wrong.extend(found);
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// What the answer, or what it left behind, does against the table.
async fn try_one(shop: &mut Shop, order: &str, case: &Case) -> Result<(), String> {
    let path = case.path.replace("{order}", order);
    let before = shop.books();
    let ask = Ask { method: case.method, path: &path, headers: &case.headers, body: &case.body };
    let answer = shop.ask(ask).await;
    shop.quiet(&case.name).await;
    let json = answer.json();
    if shop.books() != before {
        return Err(format!("it was answered {} and left something behind: {json}", answer.status));
    }
    let problem = format!("urn:shakedown:problem:{}", case.problem);
    if answer.status != case.status || json["type"] != problem.as_str() {
        let text = String::from_utf8_lossy(&answer.body);
        return Err(format!(
            "wanted {} {}, got {} {text}",
            case.status, case.problem, answer.status
        ));
    }
    if answer.content_type != "application/problem+json" {
        return Err(format!("its content type is {}", answer.content_type));
    }
    let said = |field: &str| {
        json[field].as_str().is_some_and(|text| !text.is_empty() && text.len() < 1_000)
    };
    if !said("title") || !said("detail") || json["status"] != case.status {
        return Err(format!("it is no whole problem: {json}"));
    }
    if answer.status == 405 && answer.allow.is_empty() {
        return Err("it does not say which methods there are".to_owned());
    }
    shop.order().await;
    shop.quiet(&case.name).await;
    Ok(())
}

#[test]
fn a_bad_line_of_a_bulk_request_spoils_itself_alone() {
    let lines = [
        (400, "malformed-json", "hello"),
        (422, "invalid-request", "null"),
        (422, "invalid-request", "[\"tea\", 1]"),
        (422, "invalid-request", "{\"productId\":\"tea\",\"delta\":1,\"colour\":\"red\"}"),
        (422, "invalid-request", "{\"productId\":\"\",\"delta\":1}"),
        (422, "invalid-request", "{\"productId\":\"tea\",\"delta\":\"1\"}"),
        (422, "invalid-request", "{\"productId\":\"tea\",\"delta\":9223372036854775807}"),
        (409, "insufficient-stock", "{\"productId\":\"tea\",\"delta\":-9000000}"),
        (200, "", "{\"productId\":\"tea\",\"delta\":1}"),
    ];
    let runtime = VirtualTime::default();
    runtime.clone().run(async move {
        let mut shop = Shop::open(runtime).await;
        let headers = [
            ("content-type".to_owned(), b"application/x-ndjson".to_vec()),
            ("idempotency-key".to_owned(), b"bulk".to_vec()),
        ];
        let body = lines.map(|(.., line)| line).join("\n");
        let (method, path) = ("POST", "/inventory/stock");
        let ask = Ask { method, path, headers: &headers, body: body.as_bytes() };
        let answer = shop.ask(ask).await;
        let json = answer.json();
        assert_eq!((answer.status, &json["done"], &json["failed"]), (200, &json!(1), &json!(8)));
        for (said, (status, problem, line)) in json["lines"].as_array().unwrap().iter().zip(lines) {
            assert_eq!(said["status"], status, "{line}: {said}");
            let kind = said["problem"]["type"].as_str().unwrap_or("");
            assert!(kind.ends_with(problem), "{line}: {said}");
        }
        let headers = [];
        let ask = Ask { method: "GET", path: "/inventory/stock/tea", headers: &headers, body: b"" };
        assert_eq!(shop.ask(ask).await.json()["onHand"], 1_000_001);
        shop.order().await;
        shop.quiet("a bulk request").await;
    });
}
