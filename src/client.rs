//! A small HTTP client, as a customer or an operator has it: JSON, an Idempotency-Key with every write, and
//! patience with 503. Where the services are in several processes it asks one that runs the service, and the
//! next one where nobody listens. Never looks into the processes it talks to.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use axum::http::{Method, Request, StatusCode, Uri, header};
use bytes::Bytes;
use clap::Args;
use contract::Service;
use futures_util::future::{Either, join_all, select};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as Hyper, Error as Unreached};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::http_shell::pause;
use crate::shop::service_of;

/// How long a write is tried again.
const WRITE_PATIENCE: Duration = Duration::from_secs(20);

/// The pause before a second try; each one after it is longer by as much, up to the longest.
const PAUSE: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How long one request may take: longer than the shell lets it.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// Most bytes of an answer: a page has a few hundred rows.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a process says of a service that another one runs.
const NOT_HERE: &str = "urn:shakedown:problem:not-here";

/// What a service says of a write whose first request is not done.
const IN_FLIGHT: &str = "urn:shakedown:problem:request-in-flight";

/// Most rows on a page.
const PAGE: usize = 200;

/// Where the services answer: scheme and authority, nothing behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

/// Who answers at an address: all services, or these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Nothing: all of them.
    runs: Option<BTreeSet<Who>>,
    base: BaseUrl,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Service(Service),
    /// The gateway's books and the mails.
    Gateway,
}

/// Which services a client command asks.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// Where `shakedown serve` listens. Several processes: once for each, with the services that it
    /// runs before it, as in orders,inventory=http://127.0.0.1:8081; and gateway=URL. In the variable
    /// with spaces between
    #[arg(
        long,
        value_name = "[SERVICE,..=]URL",
        env = "SHAKEDOWN_URL",
        value_delimiter = ' ',
        default_value = "http://127.0.0.1:8080"
    )]
    pub url: Vec<Address>,
}

/// A client of a shop. Cloning shares the connections.
#[derive(Clone)]
pub struct Client {
    hyper: Hyper<HttpConnector, Full<Bytes>>,
    addresses: Arc<[Address]>,
    /// Whose turn it is.
    turn: Arc<AtomicUsize>,
    /// How long a read is tried again.
    reads: Duration,
    /// How long a write is tried again.
    writes: Duration,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// The body; null where it was empty.
    pub body: Value,
}

/// A list on its way, page by page.
pub struct Pages<'a> {
    client: &'a Client,
    path: String,
    /// Where the next page begins; the whole is `None` behind the last one.
    cursor: Option<String>,
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = || format!("give it as http://host:port, such as {DEFAULT_URL}");
        let uri: Uri = text.parse().map_err(|_| plain())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err("https is not spoken here; use http on loopback".into()),
            _ => return Err(plain()),
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("leave out what stands behind the port".into());
        }
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(plain)?;
        if authority.as_str().contains('@') {
            return Err("there is no user or password to give".into());
        }
        Ok(BaseUrl(format!("http://{authority}")))
    }
}

/// Where `serve` listens unless told otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((names, url)) = text.split_once('=') else {
            return Ok(Address { runs: None, base: text.parse()? });
        };
        let who = |name: &str| match name {
            "gateway" => Ok(Who::Gateway),
            name => crate::cli::service(name).map(Who::Service),
        };
        Ok(Address {
            runs: Some(names.split(',').map(who).collect::<Result<_, _>>()?),
            base: url.parse()?,
        })
    }
}

impl Address {
    fn runs(&self, who: Who) -> bool {
        self.runs.as_ref().is_none_or(|runs| runs.contains(&who))
    }

    fn runs_services(&self) -> bool {
        self.runs.as_ref().is_none_or(|runs| runs.iter().any(|who| *who != Who::Gateway))
    }
}

/// Who has what is at this path; `None` where everybody has it.
fn who_has(path: &str) -> Option<Who> {
    let path = path.split('?').next().unwrap_or_default();
    match path.split('/').nth(1) {
        Some("gateway" | "mailbox") => Some(Who::Gateway),
        _ => service_of(path).map(Who::Service),
    }
}

impl From<SocketAddr> for BaseUrl {
    fn from(address: SocketAddr) -> Self {
        BaseUrl(format!("http://{address}"))
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Client {
    /// A client for the services behind this address.
    pub fn new(base: impl Into<BaseUrl>) -> Client {
        Client::over(vec![Address { runs: None, base: base.into() }])
    }

    /// A client of whom a command was told to ask.
    pub fn of(target: Target) -> Client {
        Client::over(target.url)
    }

    fn over(addresses: Vec<Address>) -> Client {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let hyper = Hyper::builder(TokioExecutor::new()).build(connector);
        Client {
            hyper,
            addresses: addresses.into(),
            turn: Arc::default(),
            reads: Duration::ZERO,
            writes: WRITE_PATIENCE,
        }
    }

    /// As patient as this with reads and writes: for who must not stop where a process or a server
    /// is killed.
    pub fn patient(self, patience: Duration) -> Client {
        Client { reads: patience, writes: patience, ..self }
    }

    /// Whom it asks, for people.
    pub fn whom(&self) -> String {
        let all: Vec<String> = self.addresses.iter().map(|it| it.base.to_string()).collect();
        all.join(", ")
    }

    /// One GET; a patient client repeats it as a write.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.repeated(Method::GET, path, None, &Value::Null, self.reads).await
    }

    /// What each process that runs services says at a path that all have.
    pub async fn each(&self, path: &str) -> Vec<anyhow::Result<Value>> {
        let asked = self.addresses.iter().filter(|address| address.runs_services());
        let asked = asked.map(|address| async {
            let answer = self.at(&address.base, Method::GET, path, None, &Value::Null).await?;
            answer.expect(StatusCode::OK).with_context(|| format!("GET {path}"))
        });
        join_all(asked).await
    }

    /// One GET of a thing that may not exist: `None` on 404, an error on anything else but 200.
    pub async fn find(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let answer = self.get(path).await?;
        if answer.is_missing() {
            return Ok(None);
        }
        answer.expect(StatusCode::OK).with_context(|| format!("GET {path}")).map(Some)
    }

    /// A write, repeated with the same Idempotency-Key while nobody answers, or only that it is too
    /// early to tell.
    pub async fn write(
        &self,
        method: Method,
        path: &str,
        key: &str,
        body: &Value,
    ) -> anyhow::Result<Answer> {
        self.repeated(method, path, Some(key), body, self.writes).await
    }

    async fn repeated(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: &Value,
        patience: Duration,
    ) -> anyhow::Result<Answer> {
        let mut over = pin!(pause(patience));
        let mut wait = PAUSE;
        loop {
            let answer = self.once(method.clone(), path, key, body).await;
            let again = answer.as_ref().map_or(true, Answer::is_for_now);
            if !again || matches!(select(&mut over, pin!(pause(wait))).await, Either::Left(_)) {
                return answer;
            }
            wait = (wait + PAUSE).min(PAUSE_MAX);
        }
    }

    /// One request, taken once: where nobody listens, or the service is not, the next address is asked.
    pub async fn once(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: &Value,
    ) -> anyhow::Result<Answer> {
        let who = who_has(path);
        let able = |address: &&Address| who.is_none_or(|who| address.runs(who));
        let mut able: Vec<&Address> = self.addresses.iter().filter(able).collect();
        if able.is_empty() {
            // They say that they have it not.
            able = self.addresses.iter().collect();
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % able.len();
        able.rotate_left(first);
        let mut answer = None;
        for address in able {
            let asked = self.at(&address.base, method.clone(), path, key, body).await;
            let elsewhere = match &asked {
                Ok(said) => said.is_not_here(),
                // What was only read may be read again, what was written not without being asked to.
                Err(error) => method == Method::GET || nobody_listens(error),
            };
            answer = Some(asked);
            if !elsewhere {
                break;
            }
        }
        answer.context("an address to ask")?
    }

    async fn at(
        &self,
        base: &BaseUrl,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: &Value,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(&method).uri(format!("{base}{path}"));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let content = if body.is_null() {
            Bytes::new()
        } else {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Bytes::from(body.to_string())
        };
        let request = request.body(Full::new(content))?;
        let asked = async {
            let response = self.hyper.request(request).await.map_err(|e| unreached(base, e))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let bytes = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
            anyhow::Ok((status, bytes))
        };
        let context = || format!("{method} {path}");
        let (status, bytes) = match select(pin!(asked), pin!(pause(REQUEST_MAX))).await {
            Either::Left((answered, _)) => answered.with_context(context)?,
            Either::Right(_) => bail!("{method} {path}: no answer within {REQUEST_MAX:?}"),
        };
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            let not_json = || {
                format!(
                    "{method} {path}: the answer ({status}) is not JSON; is {base} a \
                                       `shakedown serve`?"
                )
            };
            serde_json::from_slice(&bytes).with_context(not_json)?
        };
        Ok(Answer { status, body })
    }

    /// A list, page by page.
    pub fn pages(&self, path: &str) -> Pages<'_> {
        self.pages_of(path, PAGE)
    }

    fn pages_of(&self, path: &str, limit: usize) -> Pages<'_> {
        let sign = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{sign}limit={limit}");
        Pages { client: self, path, cursor: Some(String::new()) }
    }

    /// All items of a list.
    pub async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        self.first(path, usize::MAX).await
    }

    /// The first items of a list, at most so many.
    pub async fn first(&self, path: &str, most: usize) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut pages = self.pages_of(path, most.min(PAGE));
        while items.len() < most {
            let Some(page) = pages.next().await? else { break };
            items.extend(page);
        }
        items.truncate(most);
        Ok(items)
    }
}

/// What to do where no answer came.
fn unreached(base: &BaseUrl, error: Unreached) -> anyhow::Error {
    if error.is_connect() {
        return anyhow!(error).context(format!(
            "nobody listens on {base}: is `shakedown serve` running there? --url says where to look"
        ));
    }
    anyhow!(error).context(format!("{base} took the request and gave no answer; see its log"))
}

impl Pages<'_> {
    /// The next page; `None` behind the last one. An empty list has one empty page.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<Value>>> {
        let Some(cursor) = self.cursor.take() else { return Ok(None) };
        let path = &self.path;
        let answer = self.client.get(&format!("{path}{cursor}")).await?;
        let mut body = answer.expect(StatusCode::OK).with_context(|| format!("GET {path}"))?;
        let Value::Array(items) = body["items"].take() else {
            bail!("GET {path}: no items in {body}");
        };
        self.cursor = body["next"].as_str().map(|next| format!("&cursor={}", escaped(next)));
        Ok(Some(items))
    }
}

/// Whether the request was sent to nobody.
fn nobody_listens(error: &anyhow::Error) -> bool {
    let unreached = error.chain().find_map(|cause| cause.downcast_ref::<Unreached>());
    unreached.is_some_and(Unreached::is_connect)
}

impl Answer {
    /// Whether the same request may get another answer by and by.
    fn is_for_now(&self) -> bool {
        matches!(self.status.as_u16(), 503 | 504) || self.body["type"] == IN_FLIGHT
    }

    /// Whether there is no such thing.
    pub fn is_missing(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && !self.is_not_here()
    }

    /// Whether the service decided about the request, and will not say otherwise by and by.
    pub fn is_definite(&self) -> bool {
        !self.status.is_server_error() && !self.is_for_now() && !self.is_not_here()
    }

    /// Whether another process runs that service.
    fn is_not_here(&self) -> bool {
        self.body["type"] == NOT_HERE
    }

    /// The body, if this is the status; else an error that shows what came.
    pub fn expect(self, status: StatusCode) -> anyhow::Result<Value> {
        if self.status != status {
            bail!("answered {} instead of {status}: {}", self.status, self.body);
        }
        Ok(self.body)
    }
}

/// Percent-encodes what has a meaning of its own in a path or a query (RFC 3986).
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use axum::Router;

    use super::*;
    use crate::http_shell::Shell;

    /// What a client so patient is told of a read and of a write in the end, by a shop that answers
    /// each of them with these in turn, and then with the last one only.
    async fn told(answers: &'static [(u16, &str)], patience: Duration) -> [u16; 2] {
        let turn = Arc::new(AtomicUsize::new(0));
        let answer = {
            let turn = turn.clone();
            async move || {
                let now = turn.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
                let (status, kind) = answers[now];
                let body = format!(r#"{{"type":"urn:shakedown:problem:{kind}"}}"#);
                (StatusCode::from_u16(status).unwrap(), body)
            }
        };
        let shell = Shell::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let client = Client::new(shell.address()).patient(patience);
        let router = Router::new().fallback(answer);
        let serving = pin!(shell.serve(router, std::future::pending(), Duration::ZERO).unwrap());
        let asked = async {
            let read = client.get("/orders/o").await.unwrap();
            turn.store(0, Ordering::Relaxed);
            let body = Value::from(1);
            let write = client.write(Method::POST, "/orders", "k", &body).await.unwrap();
            [read, write].map(|answer| answer.status.as_u16())
        };
        match select(pin!(asked), serving).await {
            Either::Left((told, _)) => told,
            Either::Right(_) => panic!("it is served"),
        }
    }

    #[tokio::test]
    async fn what_is_so_for_now_is_asked_again_until_patience_ends() {
        const MINUTE: Duration = Duration::from_secs(60);
        let mends =
            &[(503, "unavailable"), (504, "timeout"), (409, "request-in-flight"), (201, "")];
        assert_eq!(told(mends, MINUTE).await, [201; 2]);
        assert_eq!(told(mends, Duration::ZERO).await, [503; 2]);
        assert_eq!(told(&[(503, "unavailable")], Duration::from_millis(60)).await, [503; 2]);
        assert_eq!(told(&[(409, "order-not-final"), (201, "")], MINUTE).await, [409; 2]);
    }

    #[tokio::test]
    async fn no_more_is_asked_for_than_is_wanted() {
        // A list of 450, each with its number.
        let list = async |uri: Uri| {
            let number = |name: &str| {
                let mut all = uri.query().unwrap().split('&').filter_map(|it| it.split_once('='));
                all.find(|(it, _)| *it == name).map(|(_, number)| number.parse::<usize>().unwrap())
            };
            let (from, limit) = (number("cursor").unwrap_or(0), number("limit").unwrap());
            assert!(limit <= PAGE);
            let items: Vec<_> = (from..450.min(from + limit)).map(|n| vec![n, limit]).collect();
            let next = (from + limit < 450).then(|| (from + limit).to_string());
            serde_json::json!({ "items": items, "next": next }).to_string()
        };
        let shell = Shell::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let client = Client::new(shell.address());
        let router = Router::new().fallback(list);
        let serving = pin!(shell.serve(router, std::future::pending(), Duration::ZERO).unwrap());
        let asked = async {
            for (most, found, limit) in
                [(0, 0, 0), (1, 1, 1), (199, 199, 199), (250, 250, 200), (usize::MAX, 450, 200)]
            {
                let items = client.first("/list?state=open", most).await.unwrap();
                let all: Vec<Value> = (0..found).map(|n| vec![n, limit].into()).collect();
                assert_eq!(items, all, "{most}");
            }
            assert_eq!(client.list("/list").await.unwrap().len(), 450);
        };
        match select(pin!(asked), serving).await {
            Either::Left(_) => {}
            Either::Right(_) => panic!("it is served"),
        }
    }

    #[test]
    fn a_path_belongs_to_who_runs_its_service() {
        let all: Address = "http://h:1".parse().unwrap();
        let some: Address = "orders,query=http://h:2".parse().unwrap();
        let books: Address = "gateway=http://h:3".parse().unwrap();
        let asked = |path: &str| {
            let who = who_has(path);
            [&all, &some, &books].map(|address| who.is_none_or(|who| address.runs(who)))
        };
        assert_eq!(asked("/orders/1?limit=2"), [true, true, false]);
        assert_eq!(asked("/query/orders"), [true, true, false]);
        assert_eq!(asked("/services/query/dead-letters"), [true, true, false]);
        assert_eq!(asked("/inventory/stock"), [true, false, false]);
        assert_eq!(asked("/mailbox/mails?limit=1"), [true, false, true]);
        assert_eq!(asked("/health"), [true; 3]);
        assert!(some.runs_services() && !books.runs_services());
        let wrong = Address::from_str("order=http://h:2").unwrap_err();
        assert!(wrong.contains("there are catalog, orders"), "{wrong}");
    }

    #[test]
    fn an_address_is_scheme_host_and_port() {
        for (text, base) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://localhost:1/", "http://localhost:1"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(BaseUrl::from_str(text).unwrap().to_string(), base);
        }
        for (text, advice) in [
            ("127.0.0.1:8080", "http://host:port"),
            ("", "http://host:port"),
            ("ftp://host", "http://host:port"),
            ("https://host", "https is not spoken"),
            ("http://host/orders", "leave out"),
            ("http://host?x=1", "leave out"),
            ("http://me:secret@host", "no user or password"),
        ] {
            let error = BaseUrl::from_str(text).unwrap_err();
            assert!(error.contains(advice), "{text}: {error}");
        }
    }
}
