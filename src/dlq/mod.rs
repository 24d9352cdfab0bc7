//! `shakedown dlq`: dead letters of all services, over HTTP: list, show, redrive, discard. What becomes
//! of a letter the service decides; nothing here touches a database.

mod print;

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::Method;
use clap::{Args, Subcommand};
use contract::Service;
use serde_json::{Value, json};

use crate::client::{Answer, Client, Target, escaped};
use crate::http_shell::pause;
use crate::{cannot_tell, usage};

/// What a service says of a letter that another one goes before.
const OUT_OF_ORDER: &str = "urn:shakedown:problem:redrive-out-of-order";

/// The pause before letters come again: those that only wait between them are applied by then.
const AGAIN_AFTER: Duration = Duration::from_millis(300);

/// `shakedown dlq`.
#[derive(Debug, Args)]
#[command(after_help = "\
A letter is named by its service and its id, as `dlq list` shows them. What waits behind a letter of
the same key is applied by itself once that letter is redriven or discarded.

Exit codes: 0 done, 1 there is no such letter, it is still dead, or another one goes first, 2 the
command line or the payload is wrong, 3 a service that must be asked did not answer.

Examples
  shakedown dlq list
  shakedown dlq show payments orders.events:3:1041
  shakedown dlq redrive payments orders.events:3:1041
  shakedown dlq redrive payments --all
  shakedown dlq discard query orders.events:0:7 --note 'sent by a test'")]
pub struct Dlq {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done about dead letters.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Open letters of all services, the oldest first
    List(List),
    /// One letter: where it came from, its payload, why it is dead
    Show(Letter),
    /// Apply a letter again, as it is or edited, or all open ones of a service
    Redrive(Redrive),
    /// Give a letter up
    Discard(Discard),
}

/// `shakedown dlq list`.
#[derive(Debug, Args)]
pub struct List {
    /// Of this service only
    #[arg(long, value_name = "SERVICE", value_parser = service)]
    pub service: Option<Service>,
    /// Closed ones instead, the last closed first
    #[arg(long)]
    pub closed: bool,
    /// At most so many of each service
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// Print a JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Whom to ask
    #[command(flatten)]
    pub target: Target,
}

/// Which letter.
#[derive(Debug, Args)]
pub struct Letter {
    /// Whose letter
    #[arg(value_name = "SERVICE", value_parser = service)]
    pub service: Service,
    /// Its id, such as orders.events:3:1041
    #[arg(value_name = "ID")]
    pub id: String,
    /// Whom to ask
    #[command(flatten)]
    pub target: Target,
}

/// `shakedown dlq redrive`.
#[derive(Debug, Args)]
pub struct Redrive {
    /// Whose letters
    #[arg(value_name = "SERVICE", value_parser = service)]
    pub service: Service,
    /// Which letter, such as orders.events:3:1041
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub id: Option<String>,
    /// Every open letter of the service, the oldest first
    #[arg(long)]
    pub all: bool,
    /// Apply this envelope instead, whole as it should have been; `-` reads stdin
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    pub payload: Option<PathBuf>,
    /// Whom to ask
    #[command(flatten)]
    pub target: Target,
}

/// `shakedown dlq discard`.
#[derive(Debug, Args)]
pub struct Discard {
    /// Which letter
    #[command(flatten)]
    pub letter: Letter,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    pub note: String,
}

fn service(name: &str) -> Result<Service, String> {
    let found = Service::ALL.into_iter().find(|service| service.name() == name);
    let names = Service::ALL.map(Service::name).join(", ");
    found.ok_or_else(|| format!("there is no such service; there are {names}"))
}

/// The path of a service's letters.
fn letters(service: Service) -> String {
    format!("/services/{}/dead-letters", service.name())
}

fn letter(service: Service, id: &str) -> String {
    format!("{}/{}", letters(service), escaped(id))
}

/// Open letters of a service, at most `most` of them, each with its `service`; the oldest first. What
/// may be large of them is not there.
pub async fn open(client: &Client, service: Service, most: usize) -> anyhow::Result<Vec<Value>> {
    listed(client, service, "open", most).await
}

async fn listed(
    client: &Client,
    service: Service,
    state: &str,
    most: usize,
) -> anyhow::Result<Vec<Value>> {
    let path = format!("{}?state={state}", letters(service));
    let mut found = client.first(&path, most).await?;
    for letter in &mut found {
        letter["service"] = json!(service.name());
    }
    Ok(found)
}

/// Does it.
pub async fn run(options: Dlq) -> anyhow::Result<ExitCode> {
    Ok(carry_out(options.command).await.unwrap_or_else(|error| cannot_tell(&error)))
}

/// An error where it was not heard how a letter stands.
async fn carry_out(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(options) => list(options).await,
        Command::Show(Letter { service, id, target }) => {
            let client = Client::of(target);
            Ok(match client.find(&letter(service, &id)).await? {
                Some(found) => {
                    println!("{found:#}");
                    ExitCode::SUCCESS
                }
                None => failed(&no_such(service, &id)),
            })
        }
        Command::Redrive(options) => redrive(options).await,
        Command::Discard(Discard { letter: Letter { service, id, target }, note }) => {
            let client = Client::of(target);
            let body = json!({ "note": note });
            told(service, &id, &settle(&client, service, &id, "discard", &body).await?)
        }
    }
}

fn failed(text: &str) -> ExitCode {
    eprintln!("error: {text}");
    ExitCode::FAILURE
}

fn no_such(service: Service, id: &str) -> String {
    format!(
        "{} has no dead letter {id}: `shakedown dlq list` shows those that are open",
        service.name()
    )
}

async fn list(List { service, closed, limit, json, target }: List) -> anyhow::Result<ExitCode> {
    let client = Client::of(target);
    let state = if closed { "closed" } else { "open" };
    let mut found = Vec::new();
    for service in Service::ALL.into_iter().filter(|one| service.is_none_or(|only| *one == only)) {
        found.extend(listed(&client, service, state, limit).await?);
    }
    if json {
        found.iter().for_each(|letter| println!("{letter}"));
    } else {
        print!("{}", print::table(&found, state));
    }
    Ok(ExitCode::SUCCESS)
}

/// Asking twice changes nothing, so no key is needed.
async fn settle(
    client: &Client,
    service: Service,
    id: &str,
    verb: &str,
    body: &Value,
) -> anyhow::Result<Answer> {
    let path = format!("{}/{verb}", letter(service, id));
    client.once(Method::POST, &path, None, body).await
}

/// How it ended; an error where the answer does not say.
fn told(service: Service, id: &str, answer: &Answer) -> anyhow::Result<ExitCode> {
    if answer.status.is_success() {
        let state = answer.body["state"].as_str().unwrap_or("settled");
        println!("{} {id}: {state}", service.name());
        return Ok(ExitCode::SUCCESS);
    }
    if answer.is_missing() {
        return Ok(failed(&no_such(service, id)));
    }
    let detail = answer.body["detail"].as_str().map(str::to_owned);
    let text =
        format!("{} {id}: {}", service.name(), detail.unwrap_or_else(|| answer.body.to_string()));
    match answer.is_definite() {
        true => Ok(failed(&text)),
        false => bail!("{text}"),
    }
}

async fn redrive(options: Redrive) -> anyhow::Result<ExitCode> {
    let Redrive { service, id, all: _, payload, target } = options;
    let client = Client::of(target);
    let Some(id) = id else { return redrive_all(&client, service).await };
    let body = match payload {
        None => json!({}),
        Some(path) => {
            let read = read(&path).map_err(|error| error.to_string()).and_then(|text| {
                serde_json::from_str::<Value>(&text)
                    .map_err(|error| format!("give the whole envelope as JSON: {error}"))
            });
            match read {
                Ok(envelope) => json!({ "payload": envelope }),
                Err(error) => return Ok(usage(&format!("--payload {}: {error}", path.display()))),
            }
        }
    };
    told(service, &id, &settle(&client, service, &id, "redrive", &body).await?)
}

fn read(path: &PathBuf) -> std::io::Result<String> {
    if path.as_os_str() != "-" {
        return std::fs::read_to_string(path);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

/// Each open letter, the oldest first: what waits behind another is applied with that one. Letters that
/// failed together come in no order of their own: one that was out of turn comes again once others are
/// applied.
async fn redrive_all(client: &Client, service: Service) -> anyhow::Result<ExitCode> {
    let (mut applied, mut still) = (0_u64, 0_u64);
    let open = open(client, service, usize::MAX).await?;
    let dead = open.iter().filter(|letter| letter["state"] != "parked");
    let ids = dead.map(|letter| letter["id"].as_str().context("the id of a letter"));
    let mut ids: Vec<&str> = ids.collect::<Result<_, _>>()?;
    loop {
        let (before, mut early) = (applied, Vec::new());
        for id in ids {
            let answer = settle(client, service, id, "redrive", &json!({})).await?;
            if answer.body["type"] == OUT_OF_ORDER {
                early.push((id, answer));
                continue;
            }
            match told(service, id, &answer)? == ExitCode::SUCCESS {
                true => applied += 1,
                false => still += 1,
            }
        }
        if early.is_empty() {
            break;
        }
        if applied == before {
            for (id, answer) in early {
                told(service, id, &answer)?;
                still += 1;
            }
            break;
        }
        ids = early.into_iter().map(|(id, _)| id).collect();
        pause(AGAIN_AFTER).await;
    }
    println!("{applied} redriven, {still} still dead");
    Ok(if still == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::http::{StatusCode, Uri};
    use futures_util::future::{Either, select};

    use super::*;
    use crate::http_shell::Shell;

    /// How `redrive --all` ends with these letters, listed as they stand here, where each is applied only
    /// once the one of that place is; and what was asked for, in its order.
    async fn redriven(letters: &'static [(&str, Option<usize>)]) -> (ExitCode, Vec<String>) {
        let asked = Arc::new(Mutex::new(Vec::<String>::new()));
        let answer = {
            let asked = asked.clone();
            async move |method: Method, uri: Uri| {
                let items: Vec<Value> =
                    letters.iter().map(|(id, _)| json!({ "id": id, "state": "dead" })).collect();
                if method == Method::GET {
                    return (StatusCode::OK, json!({ "items": items }).to_string());
                }
                let id = uri.path().split('/').nth(4).unwrap().to_owned();
                let (_, first) = letters.iter().find(|(it, _)| *it == id).unwrap();
                let mut asked = asked.lock().unwrap();
                let in_turn = first.is_none_or(|at| asked.iter().any(|it| *it == letters[at].0));
                asked.push(if in_turn { id } else { format!("{id} too early") });
                match in_turn {
                    true => (StatusCode::OK, json!({ "state": "applied" }).to_string()),
                    false => (StatusCode::CONFLICT, json!({ "type": OUT_OF_ORDER }).to_string()),
                }
            }
        };
        let shell = Shell::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let client = Client::new(shell.address());
        let router = Router::new().fallback(answer);
        let serving = pin!(shell.serve(router, std::future::pending(), Duration::ZERO).unwrap());
        let code = match select(pin!(redrive_all(&client, Service::Orders)), serving).await {
            Either::Left((code, _)) => code.unwrap(),
            Either::Right(_) => panic!("it is served"),
        };
        let asked = asked.lock().unwrap().clone();
        (code, asked)
    }

    #[tokio::test]
    async fn letters_out_of_turn_come_again_once_others_are_applied() {
        // By their text: offsets 10 and 11 of a key stand before its 9.
        let (code, asked) =
            redriven(&[("t-10", Some(2)), ("t-11", Some(0)), ("t-9", None), ("u-1", None)]).await;
        assert_eq!(code, ExitCode::SUCCESS);
        let order = ["t-10 too early", "t-11 too early", "t-9", "u-1", "t-10", "t-11"];
        assert_eq!(asked, order);
        // Nothing helps those that wait for each other: that ends, too.
        let (code, asked) = redriven(&[("t-1", Some(1)), ("t-2", Some(0))]).await;
        assert_eq!((code, asked.len()), (ExitCode::FAILURE, 2));
    }
}
