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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List {
    /// Whose.
    pub service: Service,
    /// Path and filter.
    pub path: &'static str,
    /// Its order.
    pub by: By,
}

/// The order of a list, by a field of its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// None that is promised.
    Nothing,
    /// The least first.
    Rising(&'static str),
    /// The most first.
    Falling(&'static str),
}

const fn list(service: Service, path: &'static str, by: By) -> List {
    List { service, path, by }
}

/// All lists that show rows of the shop.
const OF_THE_SHOP: [List; 14] = [
    list(Service::Catalog, "/products", By::Rising("productId")),
    list(Service::Orders, "/orders", By::Falling("createdAt")),
    list(Service::Orders, "/stubs", By::Rising("since")),
    list(Service::Inventory, "/stock", By::Rising("productId")),
    list(Service::Inventory, "/adjustments", By::Rising("productId")),
    list(Service::Inventory, "/reservations", By::Rising("state")),
    list(Service::Inventory, "/reservations?state=released", By::Nothing),
    list(Service::Payments, "/payments", By::Falling("createdAt")),
    list(Service::Query, "/orders", By::Falling("createdAt")),
    list(Service::Query, "/orders?status=cancelled", By::Falling("createdAt")),
    list(Service::Query, "/products", By::Rising("productId")),
    list(Service::NotificationsWorker, "/mails", By::Nothing),
    list(Service::NotificationsWorker, "/mails?state=sent", By::Nothing),
    list(Service::NotificationsWorker, "/mails?state=undeliverable", By::Nothing),
];

/// Those that each service has, of what it did not apply.
fn of_letters(service: Service) -> [List; 3] {
    [
        list(service, "/dead-letters", By::Rising("firstFailedAt")),
        list(service, "/dead-letters?state=closed", By::Falling("closedAt")),
        list(service, "/parked", By::Rising("since")),
    ]
}

/// What a list showed.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Which.
    pub list: List,
    /// Its entries, page after page.
    pub items: Vec<Value>,
    /// What was answered instead of a page.
    pub refused: Option<String>,
}

impl Customers {
    /// Looks at everything.
    pub async fn visit(&self) {
        let of_letters = Service::ALL.into_iter().flat_map(of_letters);
        for list in OF_THE_SHOP.into_iter().chain(of_letters) {
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

    async fn read_list(&self, list: List) -> Listed {
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
