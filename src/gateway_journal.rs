//! The simulated payment gateway with a memory that outlives the process: each definite answer is in
//! a synced, append-only file before it is given. It decides nothing; the gateway behind it does.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use anyhow::{Context, bail};
use async_trait::async_trait;
use contract::OrderId;
use payments::gateway::Gateway;
use payments::rules::{Answer, Operation};
use payments::simulated::{Ledger, Settled, SimulatedGateway, Steering};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// What a journal that cannot be written ends the process with, as a panic does: a supervisor starts it anew.
const CANNOT_BE_WRITTEN: i32 = 70;

/// A line of the journal.
#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    #[serde(flatten)]
    settled: Settled,
}

/// A line on its way to the disk, and whom to tell.
struct Append {
    line: String,
    synced: oneshot::Sender<()>,
}

/// The gateway. Calls at the same time share a sync.
pub struct JournaledGateway {
    gateway: SimulatedGateway,
    /// There until it is dropped. Locked from a decision until its line is sent: lines are in the order
    /// of decisions, as a crash may leave only the first of them.
    journal: Mutex<Option<mpsc::Sender<Append>>>,
    writer: Option<JoinHandle<()>>,
}

impl Drop for JournaledGateway {
    /// The file is closed, and free for the next one.
    fn drop(&mut self) {
        *self.journal() = None;
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the journal's thread panicked");
        }
    }
}

impl JournaledGateway {
    /// Opens the journal or creates it, replays it, and from then on answers by this steering.
    pub fn open(path: &Path, steering: Steering) -> anyhow::Result<JournaledGateway> {
        let context = || context(path);
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(path)
            .with_context(context)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "{}: another process has it. Two of them need one gateway: run `shakedown gateway`, \
                 and set payments.gateway to its address",
                context()
            ),
            Err(TryLockError::Error(error)) => return Err(error).with_context(context),
        }
        let lines = read(&mut file).with_context(context)?;
        let gateway = replay(lines).with_context(context)?;
        gateway.steer(|rules| *rules = steering);
        let (journal, appends) = mpsc::channel();
        let writer = Some(start_writer(file, appends)?);
        Ok(JournaledGateway { gateway, journal: Mutex::new(Some(journal)), writer })
    }

    /// Fails where [`Self::open`] would for what is in a file that exists; changes nothing.
    pub fn check(path: &Path) -> anyhow::Result<()> {
        let context = || context(path);
        let mut file = File::open(path).with_context(context)?;
        let (lines, _) = parse(&mut file).with_context(context)?;
        replay(lines).map(drop).with_context(context)
    }

    /// Its books.
    pub fn ledger(&self) -> Ledger {
        self.gateway.ledger()
    }

    /// Looks into its books without a copy of them.
    pub fn look<T>(&self, into: impl FnOnce(&Ledger) -> T) -> T {
        self.gateway.look(into)
    }

    /// The gateway's answer, its line sent, and what tells that it is synced. `None` where there is
    /// none to give.
    fn send(
        &self,
        key: &str,
        operation: Operation,
        order: &OrderId,
        amount: Option<i64>,
    ) -> Option<(Answer, oneshot::Receiver<()>)> {
        let journal = self.journal();
        let answer = self.gateway.answer(key, operation, order, amount);
        if answer == Answer::Unknown {
            return None;
        }
        let settled = Settled { operation, order: order.clone(), amount, answer: answer.clone() };
        let line = serde_json::to_string(&Line { key: key.to_owned(), settled }).ok()?;
        let (synced, wait) = oneshot::channel();
        journal.as_ref()?.send(Append { line, synced }).ok()?;
        Some((answer, wait))
    }

    fn journal(&self) -> MutexGuard<'_, Option<mpsc::Sender<Append>>> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Gateway for JournaledGateway {
    async fn call(
        &self,
        key: &str,
        operation: Operation,
        order: &OrderId,
        amount: Option<i64>,
    ) -> Answer {
        let sent = self.send(key, operation, order, amount);
        let Some((answer, synced)) = sent else { return Answer::Unknown };
        // Where the disk refused, the answer must not be given: the caller asks again.
        if synced.await.is_err() {
            return Answer::Unknown;
        }
        answer
    }
}

fn context(path: &Path) -> String {
    format!("the gateway's journal {}", path.display())
}

/// All whole lines. What a crash left of a last one was never answered: it is cut off.
fn read(file: &mut File) -> anyhow::Result<Vec<Line>> {
    let (lines, whole) = parse(file)?;
    file.set_len(whole)?;
    file.seek(SeekFrom::Start(whole))?;
    Ok(lines)
}

/// All whole lines, and how many bytes they are.
fn parse(file: &mut File) -> anyhow::Result<(Vec<Line>, u64)> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut lines = Vec::new();
    let mut whole = 0;
    for piece in bytes.split_inclusive(|b| *b == b'\n') {
        match serde_json::from_slice::<Line>(piece) {
            Ok(line) if piece.ends_with(b"\n") => {
                lines.push(line);
                whole += piece.len();
            }
            // Only at the end can a line be torn.
            _ if whole + piece.len() == bytes.len() => break,
            Ok(_) => bail!("byte {whole}: a line without an end"),
            Err(error) => bail!("byte {whole}: {error}"),
        }
    }
    Ok((lines, whole as u64))
}

/// A gateway that has given these answers.
fn replay(lines: Vec<Line>) -> anyhow::Result<SimulatedGateway> {
    let gateway = SimulatedGateway::default();
    for Line { key, settled } in lines {
        if let Err(why) = gateway.restore(&key, &settled) {
            bail!("{key}: {:?} cannot have been answered: {why}", settled.answer);
        }
    }
    Ok(gateway)
}

/// One thread owns the file: it writes what is there, syncs once, and tells all of them.
#[allow(clippy::disallowed_methods, reason = "a sync blocks; the gateway is outside the services")]
fn start_writer(
    mut file: File,
    appends: mpsc::Receiver<Append>,
) -> std::io::Result<JoinHandle<()>> {
    let write = move || {
        while let Ok(first) = appends.recv() {
            let batch: Vec<Append> = std::iter::once(first).chain(appends.try_iter()).collect();
            let text: String = batch.iter().flat_map(|a| [a.line.as_str(), "\n"]).collect();
            if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_data()) {
                // A half-written file takes nothing more; a restart cuts the torn line.
                note!("the gateway's journal: {error}: ending this process");
                std::process::exit(CANNOT_BE_WRITTEN);
            }
            for Append { synced, .. } in batch {
                let _ = synced.send(());
            }
        }
    };
    std::thread::Builder::new().name("gateway-journal".to_owned()).spawn(write)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contract::reason;
    use futures_util::future::join_all;

    use super::*;
    use crate::local_mode::runtime;

    fn order() -> OrderId {
        OrderId::parse("o").unwrap()
    }

    async fn ask(gateway: &JournaledGateway, operation: Operation, amount: i64) -> Answer {
        let order = order();
        gateway.call(&operation.key(&order), operation, &order, Some(amount)).await
    }

    #[tokio::test]
    async fn answers_outlive_the_process_and_its_rules() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.jsonl");
        let gateway = JournaledGateway::open(&path, Steering::default()).unwrap();
        assert_eq!(ask(&gateway, Operation::Authorise, 100).await, Answer::Approved);
        drop(gateway);
        // A last line that a crash tore was never answered.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"key\":\"o:cap").unwrap();
        let strict = Steering { limit: Some(0), ..Steering::default() };
        let gateway = JournaledGateway::open(&path, strict).unwrap();
        assert_eq!(ask(&gateway, Operation::Authorise, 100).await, Answer::Approved);
        assert_eq!(ask(&gateway, Operation::Capture, 100).await, Answer::Approved);
        drop(gateway);
        let gateway = JournaledGateway::open(&path, Steering::default()).unwrap();
        let account = &gateway.ledger().accounts[&order()];
        assert_eq!((account.charges, account.captured, account.held()), (1, 100, 0));
    }

    #[tokio::test]
    async fn a_declined_card_stays_declined() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.jsonl");
        let strict = Steering { limit: Some(0), ..Steering::default() };
        let declined = Answer::Declined(reason::DECLINED.to_owned());
        let gateway = JournaledGateway::open(&path, strict).unwrap();
        assert_eq!(ask(&gateway, Operation::Authorise, 100).await, declined);
        drop(gateway);
        let gateway = JournaledGateway::open(&path, Steering::default()).unwrap();
        assert_eq!(ask(&gateway, Operation::Authorise, 100).await, declined);
    }

    #[tokio::test]
    async fn an_order_is_declined_and_then_approved_under_another_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.jsonl");
        let steering = || Steering { declined_ending: Some(13), ..Steering::default() };
        let gateway = JournaledGateway::open(&path, steering()).unwrap();
        let declined = gateway.call("k1", Operation::Authorise, &order(), Some(1313)).await;
        assert_eq!(declined, Answer::Declined(reason::DECLINED.to_owned()));
        let approved = gateway.call("k2", Operation::Authorise, &order(), Some(1300)).await;
        assert_eq!(approved, Answer::Approved);
        let before = gateway.ledger();
        drop(gateway);
        let gateway = JournaledGateway::open(&path, steering()).unwrap();
        assert_eq!(gateway.ledger(), before);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn lines_are_in_the_order_of_decisions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.jsonl");
        let gateway = Arc::new(JournaledGateway::open(&path, Steering::default()).unwrap());
        // Of two calls under a key the first one counts: the file must tell which that was.
        let rivals = [1, 2].map(|amount| {
            let (gateway, (done, wait)) = (gateway.clone(), oneshot::channel());
            let calls = async move {
                let (to, order) = (&gateway, &order());
                let calls = (0..5000).map(|number: i32| async move {
                    to.call(&number.to_string(), Operation::Authorise, order, Some(amount)).await
                });
                join_all(calls).await;
                let _ = done.send(gateway);
            };
            runtime().spawn("rival", Box::pin(calls));
            wait
        });
        drop(join_all(rivals).await);
        let before = gateway.ledger();
        drop(gateway);
        let gateway = JournaledGateway::open(&path, Steering::default()).unwrap();
        assert_eq!(gateway.ledger(), before);
    }

    #[test]
    fn damage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.jsonl");
        let capture =
            r#"{"key":"k","operation":"capture","order":"o","amount":1,"answer":"approved"}"#;
        for (text, words) in [
            ("rubbish\n{}\n".to_owned(), "byte 0"),
            (format!("{capture}\n"), "k: Approved cannot have been answered: nothing_authorised"),
            (format!("{}\n", capture.replace("approved", "unknown")), "no definite answer"),
        ] {
            std::fs::write(&path, text).unwrap();
            let looked = JournaledGateway::check(&path).err().unwrap();
            let opened = JournaledGateway::open(&path, Steering::default()).err().unwrap();
            for error in [looked, opened] {
                assert!(format!("{error:#}").contains(words), "{error:#}");
            }
        }
    }
}
