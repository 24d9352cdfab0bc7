//! Bodies of requests: what no route takes, and what each field refuses.

use serde_json::{Value, json};

use super::requests::Table;

/// Routes that take a JSON body, with a good one.
pub fn bodies() -> [(&'static str, &'static str, Value); 3] {
    [
        (
            "PUT",
            "/catalog/products/coffee",
            json!({ "name": "Coffee", "categoryId": "drinks", "price": 500 }),
        ),
        ("POST", "/inventory/stock/tea/adjust", json!({ "delta": 1 })),
        ("POST", "/orders", json!({ "lines": [{ "productId": "tea", "qty": 1 }] })),
    ]
}

impl Table {
    /// What every route with a body refuses.
    pub fn bodies(&mut self) {
        for (method, path, good) in bodies() {
            let at = (method, path);
            let text = good.to_string();
            let first = good.as_object().and_then(|fields| fields.keys().next().cloned());
            let first = first.unwrap_or_default();
            let malformed = (400, "malformed-json");
            let invalid = (422, "invalid-request");
            for (name, body) in [
                ("no body", Vec::new()),
                ("no JSON", b"hello".to_vec()),
                ("half of it", text.as_bytes()[..text.len() / 2].to_vec()),
                ("something behind it", format!("{text}x").into_bytes()),
                (
                    "invalid UTF-8",
                    [b"{\"", first.as_bytes(), b"\":\"", &[0xff, 0xfe][..], b"\"}"].concat(),
                ),
                (
                    "a control character in a text",
                    format!("{{\"{first}\":\"a\u{1}b\"}}").into_bytes(),
                ),
                ("a byte order mark", [&[0xef, 0xbb, 0xbf][..], text.as_bytes()].concat()),
            ] {
                self.add(name, at, body, malformed);
            }
            let values: Vec<Value> = good
                .as_object()
                .map(|fields| fields.values().cloned().collect())
                .unwrap_or_default();
            let doubled = format!("{},\"{first}\":{}}}", &text[..text.len() - 1], good[&first]);
            for (name, body) in [
                ("null", "null".to_owned()),
                ("a text", "\"hello\"".to_owned()),
                ("a number", "7".to_owned()),
                ("an empty object", "{}".to_owned()),
                ("a list of its values", Value::from(values).to_string()),
                ("a field twice", doubled),
            ] {
                self.add(name, at, body, invalid);
            }
            let mut unknown = good.clone();
            unknown["colour"] = json!("red");
            self.add("an unknown field", at, unknown.to_string(), invalid);
            let deep = format!("{{\"{first}\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
            let too_deep = (400, "json-too-deep");
            self.add("100,000 lists in each other", at, deep, too_deep);
            let large = format!("{text}{}", " ".repeat(300_000));
            self.add("300 kB", at, large.clone(), (413, "body-too-large"));
            let length = ("content-length".to_owned(), large.len().to_string().into_bytes());
            self.add("300 kB, said ahead", at, large, (413, "body-too-large")).headers.push(length);
            for content_type in
                ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""]
            {
                let name = format!("content type \"{content_type}\"");
                let case = self.add(name, at, text.clone(), (415, "not-json"));
                case.headers[0].1 = content_type.as_bytes().to_vec();
            }
            self.add("no content type", at, text, (415, "not-json")).headers.remove(0);
        }
    }

    /// `POST /orders`.
    pub fn orders(&mut self) {
        let at = ("POST", "/orders");
        let invalid = (422, "invalid-request");
        let line = json!({ "productId": "tea", "qty": 1 });
        for (name, lines) in [
            ("lines null", Value::Null),
            ("lines an object", json!({ "tea": 1 })),
            ("lines a text", json!("tea")),
            ("no lines", json!([])),
            ("101 lines", vec![line.clone(); 101].into()),
            ("3,000 lines", vec![line.clone(); 3_000].into()),
            ("a line that is null", json!([null])),
            ("a line that is a list", json!([["tea", 1]])),
            ("a line that is a text", json!(["tea"])),
            ("a line without product", json!([{ "qty": 1 }])),
            ("a line without qty", json!([{ "productId": "tea" }])),
            ("a line with an unknown field", json!([{ "productId": "tea", "qty": 1, "price": 1 }])),
            ("a product that is a number", json!([{ "productId": 7, "qty": 1 }])),
            ("a product without name", json!([{ "productId": "", "qty": 1 }])),
            ("a product of 65 characters", json!([{ "productId": "x".repeat(65), "qty": 1 }])),
            ("a product with a space", json!([{ "productId": "green tea", "qty": 1 }])),
            ("a product with U+0000", json!([{ "productId": "a\u{0}", "qty": 1 }])),
            ("a product outside ASCII", json!([{ "productId": "thé", "qty": 1 }])),
            ("qty 0", json!([{ "productId": "tea", "qty": 0 }])),
            ("qty negative", json!([{ "productId": "tea", "qty": -1 }])),
            ("qty a fraction", json!([{ "productId": "tea", "qty": 1.5 }])),
            ("qty with a decimal point", json!([{ "productId": "tea", "qty": 1.0 }])),
            ("qty a text", json!([{ "productId": "tea", "qty": "1" }])),
            ("qty null", json!([{ "productId": "tea", "qty": null }])),
            ("qty over a million", json!([{ "productId": "tea", "qty": 1_000_001 }])),
            ("qty beyond 32 bits", json!([{ "productId": "tea", "qty": 4_294_967_297_u64 }])),
            ("qty beyond 64 bits", json!([{ "productId": "tea", "qty": 1e30 }])),
            ("a good line and a bad one", json!([line, { "productId": "tea", "qty": 0 }])),
        ] {
            self.add(name, at, json!({ "lines": lines }).to_string(), invalid);
        }
        let many = json!({ "lines": vec![line.clone(); 10_000] }).to_string();
        self.add("10,000 lines", at, many, (413, "body-too-large"));
        let unpriced = json!({ "lines": [line, { "productId": "nobody-sells-this", "qty": 1 }] });
        let case = (422, "price-unavailable");
        self.add("a product that nobody sells", at, unpriced.to_string(), case);
        for (field, name, value) in [
            ("cartId", "empty", json!("")),
            ("cartId", "a number", json!(7)),
            ("cartId", "of 65 characters", json!("x".repeat(65))),
            ("paymentMode", "unknown", json!("barter")),
            ("paymentMode", "in capitals", json!("PARALLEL")),
            ("paymentMode", "a number", json!(1)),
            ("amount", "of the customer's own", json!(1)),
            ("orderId", "of the customer's own", json!("mine")),
        ] {
            let mut body = json!({ "lines": [line] });
            body[field] = value;
            self.add(format!("{field} {name}"), at, body.to_string(), invalid);
        }
    }

    /// `PUT /catalog/products/{id}`.
    pub fn products(&mut self) {
        let at = ("PUT", "/catalog/products/coffee");
        for (field, name, value) in [
            ("name", "empty", json!("")),
            ("name", "of 201 characters", json!("x".repeat(201))),
            ("name", "with U+0000", json!("a\u{0}b")),
            ("name", "with a line break", json!("a\nb")),
            ("name", "null", Value::Null),
            ("name", "a number", json!(7)),
            ("categoryId", "empty", json!("")),
            ("categoryId", "with a space", json!("hot drinks")),
            ("categoryId", "null", Value::Null),
            ("price", "negative", json!(-1)),
            ("price", "a fraction", json!(0.5)),
            ("price", "a text", json!("3.50")),
            ("price", "beyond 64 bits", json!(9_223_372_036_854_775_808_u64)),
            ("price", "an object", json!({ "minor": 1 })),
            ("productId", "in the body", json!("coffee")),
            ("productVersion", "in the body", json!(7)),
        ] {
            let mut body = json!({ "name": "Coffee", "categoryId": "drinks", "price": 500 });
            body[field] = value;
            let invalid = (422, "invalid-request");
            self.add(format!("{field} {name}"), at, body.to_string(), invalid);
        }
    }

    /// `POST /inventory/stock/{id}/adjust`.
    pub fn adjustments(&mut self) {
        let at = ("POST", "/inventory/stock/tea/adjust");
        for (name, delta) in [
            ("a text", json!("1")),
            ("a fraction", json!(0.5)),
            ("null", Value::Null),
            ("beyond 64 bits", json!(9_223_372_036_854_775_808_u64)),
            ("that overflows the books", json!(i64::MAX)),
        ] {
            let body = json!({ "delta": delta }).to_string();
            self.add(format!("delta {name}"), at, body, (422, "invalid-request"));
        }
        for (name, reason) in [
            ("of 201 bytes", json!("x".repeat(201))),
            ("a number", json!(7)),
            ("with U+0000", json!("a\u{0}b")),
            ("with a line break", json!("a\nb")),
        ] {
            let body = json!({ "delta": 1, "reason": reason }).to_string();
            self.add(format!("reason {name}"), at, body, (422, "invalid-request"));
        }
        for (name, delta) in
            [("more than there is", -1_000_000_000), ("the most negative", i64::MIN)]
        {
            let body = json!({ "delta": delta }).to_string();
            self.add(format!("delta takes {name}"), at, body, (409, "insufficient-stock"));
        }
    }

    /// Commands without a body.
    pub fn empty_bodies(&mut self) {
        for path in ["/orders/{order}/cancel", "/notifications/{order}/resend"] {
            for (name, body) in [("a body", "{\"why\":1}"), ("a list", "[]"), ("no JSON", "please")]
            {
                self.add(
                    format!("{name} where none belongs"),
                    ("POST", path),
                    body,
                    (422, "invalid-request"),
                );
            }
        }
        let at = ("POST", "/notifications/nobody/resend");
        self.add("an order that nobody knows", at, "", (409, "order-not-final"));
        let at = ("POST", "/orders/{order}/cancel");
        self.add("an order that is confirmed", at, "", (409, "order-confirmed"));
    }
}
