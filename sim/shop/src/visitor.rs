//! Somebody who looks at every list of every service once all is done, page by page, as whoever runs the
//! shop does. Never judged here.

use contract::Service;
use serde_json::Value;

use crate::customers::Customers;

/// Entries a page: few, so that lists have several.
const PAGE: usize = 7;
/// More pages than any list has.
const PAGES_MAX: usize = 100;

/// A list of a service.
#[derive(Debug, PartialEq, Eq)]
pub struct List {
    /// Whose.
    pub service: Service,
    /// Path and filter.
    pub path: &'static str,
    /// What tells its entries apart.
    pub id: &'static str,
    /// What an entry says of it, for one.
    pub says: &'static str,
}

const fn list(service: Service, path: &'static str, id: &'static str, says: &'static str) -> List {
    List { service, path, id, says }
}

/// All lists that show rows of the shop.
pub const LISTS: [List; 13] = [
    list(Service::Catalog, "/products", "productId", "productVersion"),
    list(Service::Orders, "/orders", "orderId", "status"),
    list(Service::Orders, "/stubs", "orderId", "stock"),
    list(Service::Inventory, "/stock", "productId", "onHand"),
    list(Service::Inventory, "/reservations", "orderId", "state"),
    list(Service::Inventory, "/reservations?state=released", "orderId", "state"),
    list(Service::Payments, "/payments", "orderId", "state"),
    list(Service::Query, "/orders", "orderId", "status"),
    list(Service::Query, "/orders?status=cancelled", "orderId", "status"),
    list(Service::Query, "/products", "productId", "price"),
    list(Service::NotificationsWorker, "/mails", "messageId", "state"),
    list(Service::NotificationsWorker, "/mails?state=sent", "messageId", "state"),
    list(Service::NotificationsWorker, "/mails?state=undeliverable", "messageId", "state"),
];

/// What a list showed.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Which.
    pub list: &'static List,
    /// Its entries, page after page.
    pub items: Vec<Value>,
    /// What was answered instead of a page.
    pub refused: Option<String>,
}

impl Customers {
    /// Looks at everything.
    pub async fn visit(&self) {
        for list in &LISTS {
            let listed = self.read_list(list).await;
            self.note_told(|told| told.lists.push(listed));
        }
        let ahead = self.followers().ask_ahead().await;
        self.note_told(|told| told.ahead = ahead);
        let promised = self.answered().into_iter().filter(|it| it.promised() > 0);
        for order in promised.filter_map(|it| it.order_id) {
            let (path, service) = (format!("/notifications/{order}"), Service::NotificationsApi);
            let answer = self.until_answered(service, "GET", &path, "visitor", None).await;
            let items = answer.and_then(|(_, body)| body["items"].as_array().cloned());
            let revisions = items.unwrap_or_default();
            let revisions = revisions.iter().filter_map(|it| it["revision"].as_u64()).collect();
            self.note_told(|told| drop(told.notified.insert(order, revisions)));
        }
    }

    async fn read_list(&self, list: &'static List) -> Listed {
        let mut listed = Listed { list, items: Vec::new(), refused: None };
        let and = if list.path.contains('?') { '&' } else { '?' };
        let first = format!("{}{and}limit={PAGE}", list.path);
        let mut path = first.clone();
        for _ in 0..PAGES_MAX {
            let answer = self.until_answered(list.service, "GET", &path, "visitor", None).await;
            let Some((200, Value::Object(mut page))) = answer else {
                listed.refused = Some(format!("{path}: {answer:?}"));
                return listed;
            };
            if let Some(Value::Array(items)) = page.remove("items") {
                listed.items.extend(items);
            }
            match page.remove("next") {
                Some(Value::String(next)) => path = format!("{first}&cursor={next}"),
                _ => return listed,
            }
        }
        listed.refused = Some(format!("{path}: a page without an end"));
        listed
    }
}
