//! kill -9 at any moment loses nothing that was confirmed. A program of its own, not the harness's:
//! it starts itself again as the process that is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ports::{
    Delivered, Fault, JobQueue, Offsets, Outcome, Polled, QueueSpec, Record, Runtime, TopicSpec,
};
use rusqlite::Connection;
use shakedown_local::{Local, TokioRuntime};

/// After how many lines of the child it is killed, one child after the other on the same folder.
const KILLS: [usize; 5] = [40, 3, 400, 150, 800];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["child", dir, round] => {
            on_tokio(|runtime| work(dir.to_owned(), round.to_owned(), runtime))
        }
        ["open", dir] => on_tokio(|runtime| open_only(dir.to_owned(), runtime)),
        ["panic"] => on_tokio(panic_in_a_task),
        ["write", dir] => on_tokio(|runtime| write_one(dir.to_owned(), runtime)),
        _ => {
            kill_9_loses_nothing_confirmed();
            a_second_process_is_refused();
            a_panic_in_a_task_ends_the_process();
            a_journal_that_cannot_be_written_ends_the_process();
            a_journal_that_another_holds_is_waited_for();
            println!("crash: 5 passed");
        }
    }
}

fn on_tokio<F: Future<Output = ()>>(main: impl FnOnce(Arc<dyn Runtime>) -> F) {
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    tokio.block_on(main(Arc::new(TokioRuntime::new(tokio.handle().clone()))));
}

fn again(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments);
    command
}

fn record(to: &str, key: String) -> Record {
    Record { to: to.into(), key: key.into(), headers: vec![], payload: "payload".into() }
}

// --- the process that is killed ---

async fn work(dir: String, round: String, runtime: Arc<dyn Runtime>) {
    let local = Local::open(Path::new(&dir), runtime.clone()).unwrap();
    local.log().declare(&[TopicSpec { name: "log".into(), partitions: 3 }]).await.unwrap();
    let limit = QueueSpec { name: "jobs".into(), delivery_limit: 1_000, dead_letters: None };
    local.queue().declare(&limit).await.unwrap();
    for writer in 0..4 {
        let (log, queue, round) = (local.log(), local.queue(), round.clone());
        let write = async move {
            for n in 0.. {
                let keys: Vec<String> =
                    (0..3).map(|i| format!("{round}-{writer}-{n}-{i}")).collect();
                let batch = |to| keys.iter().map(|key| record(to, key.clone())).collect();
                if writer % 2 == 0 {
                    tell("log", &keys, log.produce(batch("log")).await);
                } else {
                    tell("queue", &keys, queue.publish(batch("jobs")).await);
                }
            }
        };
        runtime.spawn("writer", Box::pin(write));
    }
    runtime.spawn("worker", Box::pin(ack(local.queue())));
    let mut consumer = local.log().subscribe("group", &["log".into()]).await.unwrap();
    loop {
        let Polled::Records(records) = consumer.poll(50).await.unwrap() else { continue };
        let next: Offsets =
            records.into_iter().map(|record| (record.partition, record.offset + 1)).collect();
        consumer.commit(&next).await.unwrap();
        next.iter().for_each(|(partition, next)| println!("committed {} {next}", partition.index));
    }
}

async fn ack(queue: Arc<dyn JobQueue>) {
    let mut channel = queue.consume("jobs", 20).await.unwrap();
    loop {
        let Delivered::Batch(batch) = channel.next(10).await.unwrap() else { panic!("lost") };
        batch.iter().for_each(|delivery| println!("acking {}", delivery.record.key));
        let tags: Vec<u64> = batch.iter().map(|delivery| delivery.tag).collect();
        channel.settle(&tags, &[]).await.unwrap();
        batch.iter().for_each(|delivery| println!("acked {}", delivery.record.key));
    }
}

fn tell(what: &str, keys: &[String], outcomes: Vec<Outcome<()>>) {
    for (key, outcome) in keys.iter().zip(outcomes) {
        outcome.unwrap();
        println!("{what} {key}");
    }
}

// --- the one that kills and looks ---

/// What the killed processes said, by its first word.
type Said = BTreeMap<String, BTreeSet<String>>;

fn kill_9_loses_nothing_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let mut said = Said::new();
    for (round, lines) in KILLS.into_iter().enumerate() {
        let mut command = again(&["child", dir, &round.to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut heard = 0;
        let mut line = String::new();
        // A line without an end was cut by the kill.
        while output.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
            let (what, rest) = line.trim_end().split_once(' ').unwrap();
            said.entry(what.to_owned()).or_default().insert(rest.to_owned());
            heard += 1;
            if heard == lines {
                child.kill().unwrap();
            }
            line.clear();
        }
        assert!(heard >= lines, "child {round} ended by itself");
        child.wait().unwrap();
        on_tokio(|runtime| verify(dir.to_owned(), said.clone(), runtime));
    }
    for what in ["log", "queue", "acked", "committed"] {
        assert!(said.contains_key(what), "nothing was {what}");
    }
}

async fn verify(dir: String, said: Said, runtime: Arc<dyn Runtime>) {
    let of = |what: &str| said.get(what).cloned().unwrap_or_default();
    let local = Local::open(Path::new(&dir), runtime).unwrap();
    let log = local.log();
    let marks = log.watermarks("log").await.unwrap();
    let total: i64 = marks.values().map(|(_, high)| high).sum();
    let mut consumer = log.subscribe("verify", &["log".into()]).await.unwrap();
    let mut keys = Vec::new();
    while (keys.len() as i64) < total {
        if let Polled::Records(records) = consumer.poll(1_000).await.unwrap() {
            keys.extend(records.iter().map(|fetched| fetched.record.key.to_string()));
        }
    }
    let found: BTreeSet<String> = keys.iter().cloned().collect();
    assert_eq!(found.len(), keys.len(), "a record is there twice");
    assert_eq!(of("log").difference(&found).next(), None, "a confirmed record is gone");

    let committed = log.committed("group", &["log".into()]).await.unwrap();
    for (partition, next) in of("committed").iter().map(|text| text.split_once(' ').unwrap()) {
        let index: i32 = partition.parse().unwrap();
        let found = committed.iter().find(|(partition, _)| partition.index == index).unwrap().1;
        assert!(*found >= next.parse().unwrap(), "{partition}: {found} after {next}");
        let high = marks.iter().find(|(partition, _)| partition.index == index).unwrap().1.1;
        assert!(*found <= high, "{partition}: {found} beyond {high}");
    }

    let queue = local.queue();
    let depth = queue.depth("jobs").await.unwrap() as usize;
    assert!(depth <= 2_000, "more than one channel can hold");
    let mut channel = queue.consume("jobs", 2_000).await.unwrap();
    let mut left = BTreeSet::new();
    while left.len() < depth {
        let Delivered::Batch(batch) = channel.next(1_000).await.unwrap() else { panic!("lost") };
        for delivery in batch {
            assert!(delivery.redelivered && delivery.returns > 0);
            assert!(left.insert(delivery.record.key.to_string()), "a message is there twice");
        }
    }
    assert_eq!(of("acked").intersection(&left).next(), None, "an acked message is back");
    let gone: BTreeSet<String> = of("queue").difference(&left).cloned().collect();
    assert_eq!(gone.difference(&of("acking")).next(), None, "a confirmed message is gone");
}

fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    on_tokio(|runtime| async move {
        let local = Local::open(Path::new(dir), runtime).unwrap();
        let open = || String::from_utf8(again(&["open", dir]).output().unwrap().stdout).unwrap();
        let answer = open();
        assert!(answer.contains("refused") && answer.contains(dir), "{answer}");
        drop(local);
        assert_eq!(open(), "opened\n");
    });
}

async fn open_only(dir: String, runtime: Arc<dyn Runtime>) {
    match Local::open(Path::new(&dir), runtime) {
        Ok(_) => println!("opened"),
        Err(fault @ Fault::Refused(_)) => println!("{fault}"),
        Err(fault) => println!("not as expected: {fault}"),
    }
}

fn a_panic_in_a_task_ends_the_process() {
    let ended = again(&["panic"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(70));
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(text.contains("on purpose") && text.contains("\"doomed\""), "{text}");
}

async fn panic_in_a_task(runtime: Arc<dyn Runtime>) {
    runtime.spawn("doomed", Box::pin(async { panic!("on purpose") }));
    runtime.sleep(Duration::from_secs(10)).await;
}

/// A process that says `opened`, waits for a line, and then writes one record.
async fn write_one(dir: String, runtime: Arc<dyn Runtime>) {
    let local = Local::open(Path::new(&dir), runtime).unwrap();
    local.log().declare(&[TopicSpec { name: "log".into(), partitions: 3 }]).await.unwrap();
    println!("opened");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let outcomes = local.log().produce(vec![record("log", "key".into())]).await;
    println!("{outcomes:?}");
}

/// Lets such a process write once `other` is done, and what it ended with.
#[allow(clippy::disallowed_methods, reason = "SQLite waits by the real clock")]
fn written(dir: &str, other: impl FnOnce(&Connection)) -> (Option<i32>, String, String) {
    let mut command = again(&["write", dir]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    stdout.read_line(&mut said).unwrap();
    assert_eq!(said, "opened\n");
    let connection = Connection::open(Path::new(dir).join("brokers.db")).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    other(&connection);
    stdin.write_all(b"\n").unwrap();
    if !connection.is_autocommit() {
        // Longer than SQLite waits by itself.
        std::thread::sleep(Duration::from_secs(6));
        connection.execute_batch("COMMIT").unwrap();
    }
    let mut said = String::new();
    stdout.read_to_string(&mut said).unwrap();
    let ended = child.wait_with_output().unwrap();
    (ended.status.code(), said, String::from_utf8_lossy(&ended.stderr).into_owned())
}

fn a_journal_that_cannot_be_written_ends_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let (code, said, stderr) = written(dir, |file| {
        file.execute_batch(
            "CREATE TRIGGER full BEFORE INSERT ON records BEGIN SELECT RAISE(ABORT, 'no room'); END",
        )
        .unwrap();
    });
    assert_eq!((code, said.as_str()), (Some(70), ""), "nothing is answered: {stderr}");
    for words in ["brokers.db", "no room", "ending this process"] {
        assert!(stderr.contains(words), "{stderr}");
    }
    let (code, said, stderr) =
        written(dir, |file| file.execute_batch("DROP TRIGGER full").unwrap());
    assert_eq!((code, said.as_str()), (Some(0), "[Ok(())]\n"), "{stderr}");
    on_tokio(|runtime| async move {
        let local = Local::open(Path::new(dir), runtime).unwrap();
        let marks = local.log().watermarks("log").await.unwrap();
        assert_eq!(marks.values().map(|(_, high)| high).sum::<i64>(), 1, "the second one alone");
    });
}

fn a_journal_that_another_holds_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let (code, said, stderr) = written(dir, |file| file.execute_batch("BEGIN IMMEDIATE").unwrap());
    assert_eq!((code, said.as_str()), (Some(0), "[Ok(())]\n"), "{stderr}");
}
