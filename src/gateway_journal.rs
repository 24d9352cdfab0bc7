//! The simulated payment gateway with a memory that outlives the process: each definite answer is in
//! a synced, append-only file before it is given. It decides nothing; the gateway behind it does.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use contract::{OrderId, reason};
use payments::gateway::Gateway;
use payments::rules::{Answer, Operation};
use payments::simulated::{Ledger, Settled, SimulatedGateway, Steering};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

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
    /// There until it is dropped.
    journal: Option<mpsc::Sender<Append>>,
    writer: Option<JoinHandle<()>>,
}

impl Drop for JournaledGateway {
    /// The file is closed, and free for the next one.
    fn drop(&mut self) {
        self.journal = None;
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the journal's thread panicked");
        }
    }
}

impl JournaledGateway {
    /// Opens the journal or creates it, replays it, and from then on answers by this steering.
    pub fn open(path: &Path, steering: Steering) -> anyhow::Result<JournaledGateway> {
        let context = || format!("the gateway's journal {}", path.display());
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
        Ok(JournaledGateway { gateway, journal: Some(journal), writer })
    }

    /// Its books.
    pub fn ledger(&self) -> Ledger {
        self.gateway.ledger()
    }

    /// Looks into its books without a copy of them.
    pub fn look<T>(&self, into: impl FnOnce(&Ledger) -> T) -> T {
        self.gateway.look(into)
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
        let answer = self.gateway.answer(key, operation, order, amount);
        if answer == Answer::Unknown {
            return answer;
        }
        let settled = Settled { operation, order: order.clone(), amount, answer: answer.clone() };
        let Ok(line) = serde_json::to_string(&Line { key: key.to_owned(), settled }) else {
            return Answer::Unknown;
        };
        let (synced, wait) = oneshot::channel();
        // Where the disk refused, the answer must not be given: the caller asks again.
        let sent = self.journal.as_ref().is_some_and(|to| to.send(Append { line, synced }).is_ok());
        if !sent || wait.await.is_err() {
            return Answer::Unknown;
        }
        answer
    }
}

/// All whole lines. What a crash left of a last one was never answered: it is cut off.
fn read(file: &mut File) -> anyhow::Result<Vec<Line>> {
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
    file.set_len(whole as u64)?;
    file.seek(SeekFrom::Start(whole as u64))?;
    Ok(lines)
}

/// A gateway that has given these answers.
fn replay(lines: Vec<Line>) -> anyhow::Result<SimulatedGateway> {
    let declined = |line: &&Line| line.settled.answer == Answer::Declined(reason::DECLINED.into());
    let declined: BTreeSet<(OrderId, Operation)> = lines
        .iter()
        .filter(declined)
        .map(|line| (line.settled.order.clone(), line.settled.operation))
        .collect();
    let gateway = SimulatedGateway::new(Steering { declined, ..Steering::default() });
    for Line { key, settled } in lines {
        let Settled { operation, order, amount, answer } = settled;
        let again = gateway.answer(&key, operation, &order, amount);
        ensure!(again == answer, "{key}: {answer:?} was answered, its replay gives {again:?}");
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
                tracing::error!(%error, "the gateway's journal failed; it answers nothing more");
                return;
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
    use super::*;

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

    #[test]
    fn damage_in_the_middle_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.jsonl");
        std::fs::write(&path, "rubbish\n{}\n").unwrap();
        let error = JournaledGateway::open(&path, Steering::default()).err().unwrap();
        assert!(format!("{error:#}").contains("byte 0"), "{error:#}");
    }
}
