//! The payment gateway over HTTP: `shakedown gateway` is the simulated one in a process of its own, and
//! Payments calls it, or another that speaks the same, at `payments.gateway`. Never guesses: whatever is no
//! definite answer is unknown, and is asked again under the same key.

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chassis::http::{Problem, Strict};
use clap::Args;
use contract::OrderId;
use payments::gateway::Gateway as Port;
use payments::rules::{Answer, Operation};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::{BaseUrl, Client};
use crate::config::{Config, Sources};
use crate::gateway_journal::JournaledGateway;
use crate::http_shell::Shell;
use crate::local_mode;
use crate::serve::{Signals, loopback, steering};
use crate::usage;

/// Where operations are asked for.
const OPERATIONS: &str = "/gateway/operations";

/// `shakedown gateway`.
#[derive(Debug, Args)]
#[command(after_help = "\
For several processes that run Payments: they share its memory, and each is given its address as
payments.gateway. Amounts that end in 13 are declined. It shows the mails of its data folder, too.

  POST /gateway/operations      {\"operation\": \"authorise\", \"orderId\": \"…\", \"amount\": 1300}, with an
                                Idempotency-Key: a repeat gets the first answer
  GET  /gateway/accounts        what it holds for each order, and /gateway/accounts/{order}
  GET  /mailbox/mails           the mails in the data folder, and /mailbox/mails/{messageId}

Examples
  shakedown gateway --listen 127.0.0.1:8090 &
  shakedown serve --set payments.gateway=http://127.0.0.1:8090")]
pub struct Gateway {
    /// Folder of its journal and of the mails [default: shakedown-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Address to listen on; port 0 picks a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Everything else
    #[command(flatten)]
    pub sources: Sources,
}

impl Gateway {
    /// Its part of the configuration.
    pub fn configuration(&self) -> Result<Config, String> {
        let flags =
            [("data_dir", "--data-dir", &self.data_dir), ("listen", "--listen", &self.listen)];
        Config::load(&self.sources, &flags, &[])
    }
}

/// Runs until a signal of [`Signals`].
pub async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let listen = match loopback(&config) {
        Ok(listen) => listen,
        Err(text) => return Ok(usage(&text)),
    };
    let mut signals = Signals::new()?;
    let (outside, gateway, _) = local_mode::outside(&config.data_dir.value, steering())?;
    let router = router(gateway).merge(outside.books);
    let shell = Shell::bind(listen).await?;
    let address = shell.address();
    let served = shell.serve(router, async move { signals.next().await }, config.drain.value)?;
    // Whoever reads this may connect at once.
    say!("a simulated payment gateway\nlistening on http://{address}");
    served.await?;
    Ok(ExitCode::SUCCESS)
}

/// The simulated gateway's routes beside its books: operations and health.
pub fn router(gateway: Arc<JournaledGateway>) -> Router {
    let health = async || Json(json!({ "status": "ok" }));
    Router::new()
        .route("/gateway/operations", post(carry_out))
        .route("/health/live", get(health))
        .route("/health/ready", get(health))
        .with_state(gateway)
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            Problem::method_not_allowed(method.as_str(), uri.path())
        })
        .fallback(async |uri: Uri| Problem::not_found("resource", uri.path()))
}

/// What is asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    operation: Operation,
    order_id: OrderId,
    amount: Option<i64>,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    answer: Answer,
}

async fn carry_out(
    State(gateway): State<Arc<JournaledGateway>>,
    headers: HeaderMap,
    asked: Strict<Asked>,
) -> Result<Response, Problem> {
    let key = key(&headers)?;
    let Asked { operation, order_id, amount } = asked.value;
    match gateway.call(key, operation, &order_id, amount).await {
        Answer::Unknown => Err(Problem::unavailable("it may be done or not; ask again")),
        answer => Ok(Json(Said { answer }).into_response()),
    }
}

/// The Idempotency-Key, as it stands. Longer than those of the shop may be: Payments' have an order's id in them.
fn key(headers: &HeaderMap) -> Result<&str, Problem> {
    let key = headers.get("idempotency-key").ok_or_else(|| {
        let detail = "send an Idempotency-Key header: the same for each repeat of an operation";
        Problem::new(400, "idempotency-key-missing", "An Idempotency-Key is required", detail)
    })?;
    key.to_str().map_err(|_| {
        let detail = "visible ASCII characters only";
        Problem::new(400, "idempotency-key-invalid", "The Idempotency-Key is invalid", detail)
    })
}

/// A gateway that is called over HTTP.
pub struct HttpGateway(Client);

impl HttpGateway {
    /// At this address.
    pub fn at(base: BaseUrl) -> HttpGateway {
        HttpGateway(Client::new(base))
    }
}

#[async_trait]
impl Port for HttpGateway {
    async fn call(
        &self,
        key: &str,
        operation: Operation,
        order: &OrderId,
        amount: Option<i64>,
    ) -> Answer {
        let asked = json!(Asked { operation, order_id: order.clone(), amount });
        match self.0.once(Method::POST, OPERATIONS, Some(key), &asked).await {
            Ok(said) if said.status == StatusCode::OK => {
                let said = serde_json::from_value(said.body);
                said.map_or(Answer::Unknown, |Said { answer }| answer)
            }
            Ok(said) => {
                tracing::warn!(status = %said.status, "the payment gateway gave no answer");
                Answer::Unknown
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the payment gateway gave no answer");
                Answer::Unknown
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use futures_util::future::{Either, select};
    use payments::simulated::Steering;

    use super::*;

    async fn ask(gateway: &HttpGateway, operation: Operation, amount: i64) -> Answer {
        let order = OrderId::parse("o").unwrap();
        gateway.call(&operation.key(&order), operation, &order, Some(amount)).await
    }

    #[tokio::test]
    async fn what_is_no_definite_answer_is_unknown() {
        let approved = r#"{"answer":"approved"}"#;
        for (status, body) in [(500, approved), (200, "<p>approved</p>"), (200, ""), (200, "{}")] {
            let answer = async move || (StatusCode::from_u16(status).unwrap(), body);
            let router = Router::new().fallback(answer);
            let shell = Shell::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
            let gateway = HttpGateway::at(shell.address().into());
            let serving =
                pin!(shell.serve(router, std::future::pending(), Duration::ZERO).unwrap());
            let asked = pin!(ask(&gateway, Operation::Authorise, 100));
            match select(asked, serving).await {
                Either::Left((said, _)) => {
                    assert_eq!(said, Answer::Unknown, "{body}")
                }
                Either::Right(_) => panic!("it is served"),
            }
        }
    }

    #[tokio::test]
    async fn over_http_it_answers_as_it_does_in_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.jsonl");
        let steering = Steering { declined_ending: Some(13), ..Steering::default() };
        let journaled = Arc::new(JournaledGateway::open(&path, steering).unwrap());
        let shell = Shell::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = shell.address();
        let serving =
            shell.serve(router(journaled), std::future::pending(), Duration::ZERO).unwrap();
        #[allow(clippy::disallowed_methods, reason = "a test on real sockets")]
        let serving = tokio::spawn(serving);
        let gateway = HttpGateway::at(address.into());
        assert_eq!(ask(&gateway, Operation::Authorise, 100).await, Answer::Approved);
        assert_eq!(ask(&gateway, Operation::Capture, 100).await, Answer::Approved);
        let order = OrderId::parse("p").unwrap();
        let said = gateway.call("p:authorise", Operation::Authorise, &order, Some(113)).await;
        assert!(matches!(said, Answer::Declined(_)), "{said:?}");
        let client = Client::new(address);
        let asked = json!({ "operation": "authorise", "orderId": "q", "amount": 100 });
        let unkeyed = client.once(Method::POST, OPERATIONS, None, &asked).await.unwrap();
        assert_eq!(unkeyed.status, StatusCode::BAD_REQUEST);
        assert_eq!(unkeyed.body["type"], "urn:shakedown:problem:idempotency-key-missing");
        let second = JournaledGateway::open(&path, Steering::default()).err().unwrap();
        assert!(format!("{second:#}").contains("another process has it"), "{second:#}");
        serving.abort();
        // Nobody listens any more.
        let _ = serving.await;
        assert_eq!(ask(&gateway, Operation::Void, 100).await, Answer::Unknown);
    }
}
