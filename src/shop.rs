//! All seven services on given ports, and their HTTP under one roof. Shared by `serve`, `demo` and
//! tests; knows neither sockets nor where the ports come from.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chassis::http::Problem;
use chassis::{Exposition, Meter, Metrics, Ports, Scrape, Settings, Stop, TEXT_FORMAT};
use chrono::TimeDelta;
use contract::{Contract, Service, Streams};
use futures_util::future::{join_all, select};
use notifications_worker::sink::MailSink;
use payments::gateway::Gateway;
use ports::{Fault, Shard, Store};
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use crate::backlog::Watched;
use crate::config::Config;
use crate::http_shell::pause;
use crate::servers::until_there;
use crate::usage;

/// Most bytes of a service's readiness.
const READY_BYTES_MAX: usize = 65_536;

/// What lies outside the shop.
#[derive(Clone)]
pub struct Outside {
    /// Whom Payments calls.
    pub gateway: Arc<dyn Gateway>,
    /// Where the Notifications Worker sends.
    pub mails: Arc<dyn MailSink>,
    /// What both of them have, for auditors.
    pub books: Router,
}

/// Who this instance is and what it promises.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Unique among the instances on the same servers: the owner of leases.
    pub instance: String,
    /// Names of topics and queues.
    pub streams: Streams,
    /// How the services are set up.
    pub config: Config,
}

/// The running services.
pub struct Shop {
    /// All their routes; see [`router`].
    pub router: Router,
    stops: Vec<Stop>,
}

type Services = Arc<BTreeMap<Service, Router>>;

/// Every metric of the services: what docs/operations.md explains.
pub fn meters() -> Vec<&'static Meter> {
    let all: [&[&'static Meter]; 6] = [
        &chassis::meters::ALL,
        &orders::meters::ALL,
        &inventory::meters::ALL,
        &payments::meters::ALL,
        &query::meters::ALL,
        &notifications_worker::meters::ALL,
    ];
    all.concat()
}

/// Starts the services that have ports.
pub async fn run_all(
    ports: &BTreeMap<Service, Ports>,
    outside: &Outside,
    setup: &Setup,
) -> anyhow::Result<Shop> {
    let mut routers = BTreeMap::new();
    let (mut stops, mut scrapes) = (Vec::new(), Vec::new());
    for (service, ports) in ports {
        let service = *service;
        let start = || run(service, ports.clone(), outside, setup);
        let started = until_there(&format!("what {} needs", service.name()), start).await;
        let started = started.with_context(|| format!("{} did not start", service.name()))?;
        routers.insert(service, started.router);
        stops.push(started.stop);
        scrapes.push(started.scrape);
    }
    let Setup { streams, config, .. } = setup;
    let (profile, shards) = (config.profile.value, config.shards.value);
    let backlog = Watched::new(ports, streams, profile, shards).router();
    let metrics = Router::new().route("/metrics", get(move || metrics(scrapes.clone())));
    let whole = metrics.merge(backlog).merge(usage::router()).merge(outside.books.clone());
    let whole = whole.method_not_allowed_fallback(no_such_method);
    Ok(Shop { router: whole.fallback_service(router(routers)), stops })
}

async fn run(
    service: Service,
    ports: Ports,
    outside: &Outside,
    setup: &Setup,
) -> ports::Outcome<chassis::Service> {
    let Setup { instance, streams, config } = setup;
    let metrics = Metrics::recording();
    let settings = Settings { metrics, ..config.chassis(service.name(), instance) };
    same_shards(ports.store.as_ref(), &settings).await?;
    let (streams, profile) = (streams.clone(), config.profile.value);
    let (contract, partitions) = (Contract::default(), config.partitions.value);
    match service {
        Service::Catalog => {
            let config = catalog::Config { contract, streams, profile, partitions };
            catalog::run(ports, settings, config).await
        }
        Service::Orders => {
            let config = orders::Config {
                contract,
                streams,
                profile,
                partitions,
                deadline: config.deadline.value,
                currency: config.currency.value.clone(),
                key_required: config.key_required.value,
                ..Default::default()
            };
            orders::run(ports, settings, config).await
        }
        Service::Inventory => {
            let config = inventory::Config { contract, streams, profile, partitions };
            inventory::run(ports, settings, config).await
        }
        Service::Payments => {
            let config = payments::Config {
                contract,
                streams,
                profile,
                partitions,
                gateway: outside.gateway.clone(),
                gateway_timeout: config.gateway_timeout.value,
                retry: payments::rules::Retry {
                    first: delta(config.gateway_retry_first.value),
                    max: delta(config.gateway_retry_max.value),
                },
                parallel: config.gateway_parallel.value,
            };
            payments::run(ports, settings, config).await
        }
        Service::Query => {
            let config =
                query::Config { contract, streams, profile, partitions, ..Default::default() };
            query::run(ports, settings, config).await
        }
        Service::NotificationsApi => {
            let config = notifications_api::Config { contract, streams, profile, partitions };
            notifications_api::run(ports, settings, config).await
        }
        Service::NotificationsWorker => {
            let config = notifications_worker::Config {
                contract,
                streams,
                profile,
                partitions,
                sink: outside.mails.clone(),
                send_timeout: config.mail_timeout.value,
                retry: notifications_worker::rules::Retry {
                    first: delta(config.mail_retry_first.value),
                    max: delta(config.mail_retry_max.value),
                },
                parallel: config.mail_parallel.value,
            };
            notifications_worker::run(ports, settings, config).await
        }
    }
}

async fn same_shards(store: &dyn Store, settings: &Settings) -> ports::Outcome<()> {
    let known = chassis::known_shards(store).await?;
    other_shards(known, settings.shards).map_or(Ok(()), |text| Err(Fault::refused(text)))
}

/// Another number of shards would leave events unsent, or send a key's out of order: why it is refused.
pub(crate) fn other_shards(known: Option<Shard>, wanted: Shard) -> Option<String> {
    let known = known.filter(|known| *known != wanted)?;
    Some(format!(
        "its database was made with {known} outbox shards, and chassis.shards is {wanted}; it is \
         fixed for a database's life: set chassis.shards = {known}"
    ))
}

/// Settings are bounded to days.
fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).expect("a duration within the bounds of its setting")
}

impl Shop {
    /// Asks every service to finish what it has in hand, and waits, at most `deadline`. Returns
    /// whether all ended in time.
    pub async fn stop(&self, deadline: Duration) -> bool {
        for stop in &self.stops {
            stop.ask();
        }
        let ended = join_all(self.stops.iter().map(Stop::ended));
        let late = pause(deadline);
        matches!(select(pin!(ended), pin!(late)).await, futures_util::future::Either::Left(_))
    }
}

/// The public paths: resources of the deciding services at the root, the others under a name of
/// their own.
///
/// `/orders` `/payments` `/notifications` as the services have them; `/catalog/products`,
/// `/inventory/stock`, `/inventory/reservations`, `/query/orders`, `/query/products`,
/// `/worker/mails`; `/stubs` of Orders for operators; `/services/<service>/...` reaches all of a
/// service's own routes, `/dead-letters` among them; `/health/live` and `/health/ready` (`/health` is
/// the same) are for all of them. [`run_all`] adds what is of no single service: `/metrics`, `/backlog`,
/// `/stats`, and the outside world's `/gateway` and `/mailbox`.
pub fn router(services: BTreeMap<Service, Router>) -> Router {
    let mut router = Router::new();
    for (service, routes) in &services {
        if let Some(prefix) = prefix(*service) {
            router = nested(router, prefix, routes.clone());
        }
    }
    router
        .route("/health/live", get(async || axum::Json(json!({ "status": "ok" }))))
        .route("/health/ready", get(ready))
        .route("/health", get(ready))
        .method_not_allowed_fallback(no_such_method)
        .fallback(at_root)
        .with_state(Arc::new(services))
}

/// The services that have their resources at the root. They get the request as it is.
async fn at_root(State(services): State<Services>, mut request: Request) -> Response {
    if let Some((service, uri)) = of_service(request.uri())
        && let Some(routes) = services.get(&service)
    {
        *request.uri_mut() = uri;
        return routes.clone().oneshot(request).await.into_response();
    }
    let path = request.uri().path();
    let Some(service) = service_of(path) else { return no_such_route(path).into_response() };
    match services.get(&service) {
        Some(routes) if prefix(service).is_none() => {
            routes.clone().oneshot(request).await.into_response()
        }
        // Below its own prefix, which it has not got.
        Some(_) => no_such_route(path).into_response(),
        None => {
            let name = service.name();
            let detail = format!("this process does not run {name}: ask one that does (--only)");
            Problem::new(404, "not-here", "Another process runs that service", detail)
                .into_response()
        }
    }
}

/// Whose resources these are; see [`router`].
pub(crate) fn service_of(path: &str) -> Option<Service> {
    let mut parts = path.trim_start_matches('/').split('/');
    Some(match parts.next()? {
        "services" => Service::named(parts.next()?)?,
        "orders" | "stubs" => Service::Orders,
        "payments" => Service::Payments,
        "notifications" => Service::NotificationsApi,
        below => {
            let has = |service: &Service| prefix(*service).is_some_and(|it| it[1..] == *below);
            Service::ALL.into_iter().find(has)?
        }
    })
}

/// Below what a service has its resources; `None` at the root.
fn prefix(service: Service) -> Option<&'static str> {
    match service {
        Service::Orders | Service::Payments | Service::NotificationsApi => None,
        Service::Catalog => Some("/catalog"),
        Service::Inventory => Some("/inventory"),
        Service::Query => Some("/query"),
        Service::NotificationsWorker => Some("/worker"),
    }
}

/// The service that `/services/<service>/...` names, and the rest as its own.
fn of_service(uri: &Uri) -> Option<(Service, Uri)> {
    let (name, rest) = uri.path().strip_prefix("/services/")?.split_once('/')?;
    let service = Service::named(name)?;
    let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
    Some((service, format!("/{rest}{query}").parse().ok()?))
}

/// Under a prefix; what the service says of its locations gets the prefix too.
fn nested(router: Router<Services>, prefix: &'static str, routes: Router) -> Router<Services> {
    let located = move |mut response: Response| async move {
        if let Some(location) = response.headers().get(header::LOCATION)
            && let Ok(location) = location.to_str()
            && location.starts_with('/')
            && let Ok(whole) = HeaderValue::from_str(&format!("{prefix}{location}"))
        {
            response.headers_mut().insert(header::LOCATION, whole);
        }
        response
    };
    router.nest_service(prefix, routes.layer(map_response(located)))
}

/// What each service says of its readiness: 503 where one of them is unavailable.
async fn ready(State(services): State<Services>) -> Response {
    let asked = services.iter().map(|(service, router)| async move {
        let request = Request::builder().uri("/health/ready").body(Body::empty());
        let Ok(response) = router.clone().oneshot(request.expect("a constant request")).await;
        let well = response.status() == StatusCode::OK;
        let body = axum::body::to_bytes(response.into_body(), READY_BYTES_MAX).await;
        let said = body.ok().and_then(|body| serde_json::from_slice::<Value>(&body).ok());
        let said = said.unwrap_or_else(|| json!({ "status": word(well) }));
        (service.name(), well, said)
    });
    let (mut all_well, mut all_ok) = (true, true);
    let mut services = Map::new();
    for (name, well, said) in join_all(asked).await {
        all_well &= well;
        all_ok &= said["status"] == "ok";
        services.insert(name.to_owned(), said);
    }
    let (code, status) = match (all_well, all_ok) {
        (true, true) => (StatusCode::OK, "ok"),
        (true, false) => (StatusCode::OK, "degraded"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    (code, axum::Json(json!({ "status": status, "services": services }))).into_response()
}

fn word(well: bool) -> &'static str {
    if well { "ok" } else { "unavailable" }
}

/// The metrics of all services, each name once.
async fn metrics(scrapes: Vec<Scrape>) -> Response {
    let all = join_all(scrapes.iter().map(Scrape::look)).await;
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], Exposition::merged(all).text()).into_response()
}

async fn no_such_method(method: Method, uri: Uri) -> Problem {
    Problem::method_not_allowed(method.as_str(), uri.path())
}

fn no_such_route(path: &str) -> Problem {
    let detail = format!(
        "there is no {path}; there are /catalog/products, /inventory/stock, /orders, /payments, \
         /query/orders, /notifications/{{order}}, /worker/mails, /services/{{service}}/dead-letters, \
         /health/ready, /metrics and /backlog"
    );
    Problem { detail, ..Problem::not_found("resource", path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn shop(services: &[Service]) -> Router {
        let routes = |service: Service| {
            let at = move |uri: axum::http::Uri| async move {
                let name = service.name();
                let location = [(header::LOCATION, uri.path().to_owned())];
                (location, format!("{name} {}", uri.path()))
            };
            let ill = service == Service::Query;
            let ready = move || async move {
                let status = if ill { "degraded" } else { "ok" };
                axum::Json(json!({ "status": status }))
            };
            Router::new().route("/health/ready", get(ready)).fallback(at)
        };
        router(services.iter().map(|service| (*service, routes(*service))).collect())
    }

    async fn ask(path: &str) -> (StatusCode, String, String) {
        ask_of(&Service::ALL, path).await
    }

    async fn ask_of(services: &[Service], path: &str) -> (StatusCode, String, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = shop(services).oneshot(request).await.unwrap();
        let status = response.status();
        let location = response.headers().get(header::LOCATION);
        let location = location.map_or(String::new(), |l| l.to_str().unwrap().to_owned());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap(), location)
    }

    #[tokio::test]
    async fn what_runs_elsewhere_is_not_here() {
        let some = [Service::Orders, Service::Query];
        assert_eq!(ask_of(&some, "/orders/1").await.1, "orders /orders/1");
        assert_eq!(ask_of(&some, "/query/orders").await.1, "query /orders");
        for path in ["/payments/1", "/inventory/stock", "/services/catalog/dead-letters"] {
            let (status, body, _) = ask_of(&some, path).await;
            assert_eq!(status, StatusCode::NOT_FOUND);
            assert!(body.contains("urn:shakedown:problem:not-here"), "{path}: {body}");
        }
        let (_, body, _) = ask_of(&some, "/nothing").await;
        assert!(body.contains("urn:shakedown:problem:not-found"), "{body}");
    }

    #[tokio::test]
    async fn each_path_reaches_its_service() {
        for (path, reached) in [
            ("/orders", "orders /orders"),
            ("/orders/1/cancel", "orders /orders/1/cancel"),
            ("/payments/1", "payments /payments/1"),
            ("/notifications/1", "notifications-api /notifications/1"),
            ("/catalog/products/1", "catalog /products/1"),
            ("/inventory/stock", "inventory /stock"),
            ("/query/orders/1", "query /orders/1"),
            ("/worker/mails/1", "notifications-worker /mails/1"),
        ] {
            let (_, body, location) = ask(path).await;
            assert_eq!(body, reached);
            assert_eq!(location, path);
        }
        for (path, reached) in [
            ("/services/payments/dead-letters?state=open", "payments /dead-letters"),
            ("/services/orders/dead-letters/a:0:1/redrive", "orders /dead-letters/a:0:1/redrive"),
        ] {
            assert_eq!(ask(path).await.1, reached);
        }
        assert_eq!(ask("/services/nobody/dead-letters").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn health_is_of_all_and_unknown_paths_say_what_there_is() {
        for path in ["/health", "/health/ready"] {
            let (status, body, _) = ask(path).await;
            assert_eq!(status, StatusCode::OK);
            let said: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(said["status"], "degraded", "{body}");
            assert_eq!(said["services"]["query"]["status"], "degraded");
            assert_eq!(body.matches("\"ok\"").count(), 6, "{body}");
        }
        assert_eq!(ask("/health/live").await.0, StatusCode::OK);
        let (status, body, _) = ask("/nothing").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body.contains("/catalog/products"), "{body}");
    }
}
