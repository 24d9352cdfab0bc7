//! Connections: a bounded number, opened on demand. A connection that is not given back on purpose
//! is closed, and the server rolls back what it had open (broker-contract D6). Never hands out one
//! with an open transaction.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::maybe_done;
use ports::{Fault, Outcome};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, NoTls, Row, SimpleQueryMessage, Socket};

use crate::address::Address;
use crate::classify::{During, classify, silent};
use crate::pipeline::Call;
use crate::statement::Statement;

/// How long a caller waits for a free connection, or a new one for the server.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// A call that takes longer is given up: longer than the server's own time-outs, so that only a
/// silent server or network gets here.
const CALL_WAIT: Duration = Duration::from_secs(15);

/// The same for a step of the layout, and for the wait until it is our turn. The server's own limits end it first.
const STEP_WAIT: Duration = Duration::from_secs(610);

/// What each session is told.
///
/// The time-outs make a silent holder of locks let go, also one whose network is gone. Plans: rows
/// are always found by key or index; a planner that has not yet seen a table grow must not scan it,
/// and one plan fits all values. Read only unless a BEGIN says otherwise: were a BEGIN cancelled, what was sent
/// behind it would be committed statement by statement.
const SESSION: &str = "
    SET lock_timeout = '2s';
    SET statement_timeout = '5s';
    SET idle_in_transaction_session_timeout = '5s';
    SET client_connection_check_interval = '1s';
    SET synchronous_commit = on;
    SET default_transaction_isolation = 'read committed';
    SET default_transaction_read_only = on;
    SET client_min_messages = warning;
    SET plan_cache_mode = force_generic_plan;
    SET enable_seqscan = off;
    SET enable_bitmapscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET jit = off;
";

/// What a call of a statement gave.
pub(crate) type Results = Vec<Result<Vec<Row>, Error>>;

#[derive(Debug)]
pub(crate) struct Pool {
    address: Address,
    session: String,
    /// Whether a login has succeeded: the address is right, and what fails later may be mended.
    known: AtomicBool,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Pool {
    /// Of at most so many connections; their tables are in `schema`, a plain name.
    pub(crate) fn new(mut address: Address, schema: &str, connections: usize) -> Self {
        address
            .config
            .application_name(schema)
            .connect_timeout(CONNECT_WAIT)
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .tcp_user_timeout(Duration::from_secs(10));
        Pool {
            address,
            session: format!("{SESSION}SET search_path = \"{schema}\""),
            known: AtomicBool::new(false),
            idle: Mutex::new(Vec::new()),
            permits: Arc::new(Semaphore::new(connections)),
        }
    }

    /// A connection without an open transaction.
    pub(crate) async fn lease(self: &Arc<Self>) -> Outcome<Lease> {
        let permit = match limited(CONNECT_WAIT, self.permits.clone().acquire_owned()).await {
            Some(Ok(permit)) => permit,
            _ => return Err(Fault::retry("no free connection")),
        };
        let connection = match self.take_idle() {
            Some(connection) => connection,
            None => self.open().await?,
        };
        Ok(Lease { connection, pool: self.clone(), permit })
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|connection| !connection.client.is_closed())
    }

    async fn open(&self) -> Outcome<Connection> {
        #[cfg(feature = "tls")]
        let client = match self.address.connector.clone() {
            Some(tls) => self.client(tls).await?,
            None => self.client(NoTls).await?,
        };
        #[cfg(not(feature = "tls"))]
        let client = self.client(NoTls).await?;
        let told = limited(CALL_WAIT, client.batch_execute(&self.session)).await;
        told.ok_or_else(|| silent(During::Statement))?
            .map_err(|error| classify(&error, During::Statement))?;
        Ok(Connection { client, statements: BTreeMap::new() })
    }

    /// A session, with what drives it in the background.
    async fn client<T>(&self, tls: T) -> Outcome<Client>
    where
        T: MakeTlsConnect<Socket, Stream: Send + 'static>,
    {
        let connecting = limited(CONNECT_WAIT, self.address.config.connect(tls)).await;
        let (client, connection) =
            connecting.ok_or_else(|| silent(During::Statement))?.map_err(|error| {
                match self.known.load(Ordering::Relaxed) {
                    true => classify(&error, During::Statement),
                    false => classify(&error, During::Login),
                }
            })?;
        self.known.store(true, Ordering::Relaxed);
        spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to PostgreSQL ended");
            }
        });
        Ok(client)
    }
}

/// A connection on loan. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Connection,
    pool: Arc<Pool>,
    permit: OwnedSemaphorePermit,
}

impl Lease {
    /// For the next one. Only without an open transaction and without an answer to come.
    pub(crate) fn give_back(self) {
        let Lease { connection, pool, permit } = self;
        pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        drop(permit);
    }

    /// Rolls back in the background and then gives back; closes it where that does not work.
    pub(crate) fn roll_back(mut self) {
        spawn(async move {
            let call = [Call::bare(Statement::Rollback)];
            if self.connection.prepare(&call).await.is_ok()
                && self.run(&call).await.is_some_and(|results| results.iter().all(Result::is_ok))
            {
                self.give_back();
            }
        });
    }

    /// Whether the session is known to have ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.connection.client.is_closed()
    }

    /// Makes sure that these statements are known to the server: a round trip for new ones only.
    pub(crate) async fn prepare(&mut self, calls: &[Call<'_>]) -> Outcome<()> {
        match limited(CALL_WAIT, self.connection.prepare(calls)).await {
            Some(prepared) => prepared.map_err(|error| classify(&error, During::Statement)),
            None => Err(silent(During::Statement)),
        }
    }

    /// Sends all prepared calls at once and takes all answers, in the same order. `None`: no answer
    /// came in time.
    pub(crate) async fn run(&self, calls: &[Call<'_>]) -> Option<Results> {
        limited(CALL_WAIT, self.connection.run(calls)).await
    }

    /// Runs several statements without values, which may take their time. `during`: whether a COMMIT is
    /// among them.
    pub(crate) async fn run_text(&self, sql: &str, during: During) -> Outcome<()> {
        match limited(STEP_WAIT, self.connection.client.batch_execute(sql)).await {
            Some(done) => done.map_err(|error| classify(&error, during)),
            None => Err(silent(during)),
        }
    }

    /// The rows of a query without values, as text.
    pub(crate) async fn ask(&self, sql: &str) -> Outcome<Vec<Vec<Option<String>>>> {
        let answer = limited(CALL_WAIT, self.connection.client.simple_query(sql)).await;
        let messages = answer
            .ok_or_else(|| silent(During::Statement))?
            .map_err(|error| classify(&error, During::Statement))?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
            }
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }
}

#[derive(Debug)]
struct Connection {
    client: Client,
    statements: BTreeMap<Statement, tokio_postgres::Statement>,
}

impl Connection {
    async fn prepare(&mut self, calls: &[Call<'_>]) -> Result<(), Error> {
        let mut missing: Vec<Statement> = calls.iter().map(|call| call.statement).collect();
        missing.sort();
        missing.dedup();
        missing.retain(|statement| !self.statements.contains_key(statement));
        if missing.is_empty() {
            return Ok(());
        }
        let texts: Vec<String> = missing.iter().map(|statement| statement.sql()).collect();
        let prepared = pipelined(texts.iter().map(|sql| self.client.prepare(sql))).await;
        for (statement, prepared) in missing.into_iter().zip(prepared) {
            self.statements.insert(statement, prepared?);
        }
        Ok(())
    }

    async fn run(&self, calls: &[Call<'_>]) -> Results {
        pipelined(calls.iter().map(|call| async move {
            let parameters: Vec<&(dyn ToSql + Sync)> =
                call.parameters.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
            match self.statements.get(&call.statement) {
                Some(statement) => self.client.query(statement, &parameters).await,
                None => self.client.query(&call.statement.sql(), &parameters).await,
            }
        }))
        .await
    }
}

/// Polls all futures together, always in their order: the driver sends a request when its future is
/// first polled, and does not wait for the answers before it.
async fn pipelined<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = futures.map(|future| Box::pin(maybe_done(future))).collect();
    poll_fn(|context| {
        let mut pending = false;
        for future in &mut all {
            pending |= future.as_mut().poll(context).is_pending();
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    all.iter_mut().filter_map(|future| future.as_mut().take_output()).collect()
}

#[expect(clippy::disallowed_methods, reason = "an adapter on tokio's own time")]
async fn limited<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}

/// Without a runtime there is nothing to run on: the task is dropped, which closes its connection.
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        drop(runtime.spawn(task));
    }
}
