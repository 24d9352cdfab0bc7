//! Bulk requests: one request, one command a line, one answer a line in the same order. The body is
//! newline-delimited JSON: a line that is no JSON spoils itself alone, and has a number that people
//! find in their editor. Lines share transactions because they wait in the batch's own queue; a
//! window keeps them from filling it. Never one transaction for all lines, never a line twice.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use ports::Key;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Problem, keyed_id, media_type, ok, request_fingerprint, strict_json, whole_body};
use crate::commands::Started;
use crate::{Busy, Commands, Context, Input, Reply};

/// Most lines of a bulk request.
pub const LINES_MAX: usize = 1_000;
/// Most commands of one bulk request in the queue. With `Settings::bulks_max` it bounds how long
/// another command waits behind bulk requests.
const IN_FLIGHT_MAX: usize = 32;

/// A body of newline-delimited JSON, each line read strictly: give the type
/// `#[serde(deny_unknown_fields)]`.
#[derive(Debug)]
pub struct Lines<T> {
    /// What each line says, or what is wrong with it.
    pub lines: Vec<Result<T, Problem>>,
    /// All of it, for a fingerprint.
    pub bytes: Bytes,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Lines<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        if !matches!(media_type(&request), "application/x-ndjson" | "application/ndjson") {
            let detail = "send one JSON object a line, with Content-Type: application/x-ndjson";
            return Err(Problem::new(415, "not-ndjson", "Unsupported media type", detail));
        }
        let bytes = whole_body(request).await?;
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        if text.trim_ascii().is_empty() {
            return Err(Problem::invalid("there is no line"));
        }
        let count = text.iter().filter(|byte| **byte == b'\n').count() + 1;
        if count > LINES_MAX {
            let detail = format!("{count} lines; send at most {LINES_MAX} in a request");
            return Err(Problem::new(413, "too-many-lines", "There are too many lines", detail));
        }
        let lines = text.split(|byte| *byte == b'\n').map(strict_json).collect();
        Ok(Lines { lines, bytes })
    }
}

/// A bulk request, to be carried out.
pub struct Bulk<F> {
    /// The command that stands for the request as a whole: it decides nothing. Its inbox row holds
    /// the Idempotency-Key to this very payload.
    began: Input<F>,
    lines: Vec<Result<Input<F>, Problem>>,
}

impl<F> Bulk<F> {
    /// A bulk request on `path` under its required Idempotency-Key. `began` is the fact that stands
    /// for all of it: it must be answered by a kept reply. `fact` makes a line's fact, which gets the
    /// line's own id too.
    pub fn new<T>(
        route: &'static str,
        path: &str,
        key: &Key,
        body: Lines<T>,
        began: F,
        fact: impl Fn(T, &Key) -> Result<F, Problem>,
    ) -> Self {
        let fingerprint = request_fingerprint("POST", path, &body.bytes);
        let id = keyed_id(route, key);
        let input = |id: Key, fact: F| {
            let (fingerprint, context) = (fingerprint.clone(), Context::default());
            Input { id: Some(id), fingerprint, context, fact }
        };
        let line = |(at, line): (usize, Result<T, Problem>)| {
            let id: Key = format!("{id} {}", at + 1).into();
            line.and_then(|line| fact(line, &id)).map(|fact| input(id, fact))
        };
        let lines = body.lines.into_iter().enumerate().map(line).collect();
        Bulk { began: input(id.clone(), began), lines }
    }

    /// The same, with the request's own trace and cause in all that follows.
    pub fn within(mut self, context: &Context) -> Self {
        let inputs = self.lines.iter_mut().filter_map(|line| line.as_mut().ok());
        for input in inputs.chain([&mut self.began]) {
            input.context = context.clone();
        }
        self
    }

    /// Carries it out, line by line, and answers 200 with a status and a result or a problem for
    /// each. Lines that are not reached in time, or meet a full queue, say so: a repeat of the
    /// request does those, and gets the stored replies of the others.
    pub async fn carry_out(self, commands: &Commands<F>) -> Result<Response, Problem> {
        let Ok(_permit) = commands.bulks.clone().try_acquire_owned() else {
            let detail = "as many bulk requests as may run at a time are running; nothing was done";
            return Err(Problem::unavailable(detail));
        };
        let until = commands.patience();
        let began = commands.submit(self.began).await?;
        if began.status >= 400 {
            return Ok(began.into_response());
        }
        let mut progress = Progress::default();
        for line in self.lines {
            progress.settle(IN_FLIGHT_MAX - 1).await;
            // Others filled the queue: then with the room that its own earlier lines give back.
            while !commands.has_room() && !progress.open.is_empty() {
                progress.settle(progress.open.len() - 1).await;
            }
            progress.take(commands, line, until);
        }
        progress.settle(0).await;
        Ok(progress.answer())
    }
}

/// How far a bulk request is.
#[derive(Default)]
struct Progress {
    /// Lines without an answer yet, in order; some have one and wait for their turn.
    open: VecDeque<Line>,
    answers: Vec<Value>,
    failed: usize,
    /// Why no further line is started.
    stopped: bool,
}

enum Line {
    Started(Started),
    Failed(Problem),
}

impl Progress {
    /// Starts a line, unless it is wrong, or an earlier one found no room or no answer.
    fn take<F>(
        &mut self,
        commands: &Commands<F>,
        line: Result<Input<F>, Problem>,
        until: Duration,
    ) {
        self.stopped |= commands.runtime().elapsed() >= until;
        let line = match line {
            Err(problem) => Line::Failed(problem),
            Ok(_) if self.stopped => Line::Failed(not_tried()),
            Ok(input) => match commands.start(input) {
                Ok(started) => Line::Started(started),
                Err(_) => {
                    self.stopped = true;
                    Line::Failed(not_tried())
                }
            },
        };
        self.open.push_back(line);
    }

    /// Waits until at most so many lines are open.
    async fn settle(&mut self, open: usize) {
        while self.open.len() > open {
            let Some(line) = self.open.pop_front() else { return };
            let reply = match line {
                Line::Failed(problem) => problem.into_reply(),
                Line::Started(started) => match started.reply().await {
                    Ok(reply) => reply,
                    Err(busy @ (Busy::Full | Busy::Late | Busy::Twin)) => {
                        self.stopped = true;
                        Problem::from(busy).into_reply()
                    }
                },
            };
            self.note(reply);
        }
    }

    fn note(&mut self, reply: Reply) {
        let Reply { status, body, .. } = reply;
        let line = self.answers.len() + 1;
        self.answers.push(if status < 400 {
            json!({ "line": line, "status": status, "result": body })
        } else {
            self.failed += 1;
            json!({ "line": line, "status": status, "problem": body })
        });
    }

    fn answer(self) -> Response {
        let done = self.answers.len() - self.failed;
        ok(json!({ "done": done, "failed": self.failed, "lines": self.answers }))
    }
}

fn not_tried() -> Problem {
    Problem::unavailable(
        "the service is busy, and this line was not tried; repeat the whole request with the same \
         Idempotency-Key: what is done is not done again",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::{Body, to_bytes};
    use axum::http::header;
    use futures_util::FutureExt;
    use model::virtual_time::VirtualTime;
    use ports::Runtime;
    use tokio::sync::mpsc;

    use super::*;
    use crate::Settings;
    use crate::commands::Command;

    #[derive(serde::Deserialize)]
    struct Piece {
        n: i64,
    }

    fn lines(content_type: &str, body: &str) -> Result<Vec<Result<i64, Problem>>, Problem> {
        let request = Request::post("/").header(header::CONTENT_TYPE, content_type);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let read = Lines::<Piece>::from_request(request, &()).now_or_never().unwrap();
        read.map(|body| body.lines.into_iter().map(|line| line.map(|piece| piece.n)).collect())
    }

    #[test]
    fn each_line_is_read_for_itself() {
        let read = lines("application/x-ndjson", "{\"n\":1}\r\nx\n\n[5]\n{\"n\":5}\n").unwrap();
        let kinds: Vec<Result<i64, &str>> =
            read.into_iter().map(|line| line.map_err(|problem| problem.kind)).collect();
        let (bad, wrong) = (Err("malformed-json"), Err("invalid-request"));
        assert_eq!(kinds, [Ok(1), bad, bad, wrong, Ok(5)]);
    }

    #[test]
    fn a_full_queue_ends_it_where_it_stands() {
        let runtime = VirtualTime::default();
        runtime.clone().run(async move {
            let clock: Arc<dyn Runtime> = Arc::new(runtime.clone());
            let (queue, mut waiting) = mpsc::channel::<Command<()>>(2);
            let commands = Commands::new(queue, clock, &Settings::new("test", "test-0"));
            let (other, others) = (commands.clone(), Vec::new());
            // The request as a whole is answered; by then others have taken all the room.
            let batch = async move {
                let (first, mut others) = (waiting.recv().await.unwrap(), others);
                for _ in 0..2 {
                    let input = Input {
                        id: None,
                        fingerprint: String::new(),
                        context: Context::default(),
                        fact: (),
                    };
                    others.push(other.start(input).unwrap());
                }
                first.reply.send(Some(Reply::kept(200, json!({}))));
                let _in_the_way = (waiting, others);
                std::future::pending::<()>().await;
            };
            runtime.spawn("batch", Box::pin(batch));
            let body = Lines { lines: vec![Ok(1), Ok(2)], bytes: Bytes::from_static(b"1\n2") };
            let bulk = Bulk::new("bulk", "/", &"k".into(), body, (), |_: i32, _| Ok(()));
            let response = bulk.carry_out(&commands).await.unwrap();
            let body = to_bytes(response.into_body(), 10_000).await.unwrap();
            let answer: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((&answer["done"], &answer["failed"]), (&json!(0), &json!(2)));
            for line in answer["lines"].as_array().unwrap() {
                assert_eq!(line["status"], 503);
                let said = line["problem"]["detail"].as_str().unwrap();
                assert!(said.contains("not tried"), "{said}");
            }
        });
    }

    #[test]
    fn bodies_are_lines_within_their_bounds() {
        let ndjson = "application/x-ndjson";
        assert_eq!(lines(ndjson, &"1\n".repeat(LINES_MAX)).unwrap().len(), LINES_MAX);
        let kind = |content_type, body: &str| {
            let problem = lines(content_type, body).unwrap_err();
            (problem.status, problem.kind)
        };
        assert_eq!(kind(ndjson, &"1\n".repeat(LINES_MAX + 1)), (413, "too-many-lines"));
        assert_eq!(kind(ndjson, &"1".repeat(262_145)), (413, "body-too-large"));
        assert_eq!(kind(ndjson, "\n"), (422, "invalid-request"));
        assert_eq!(kind("application/json", "1"), (415, "not-ndjson"));
    }
}
