//! Queues as they should be and as they are. AMQP shows no argument of a queue: a server only says which one of a
//! declaration differs. Never declares what does not exist, and never deletes.

use std::sync::Arc;

use lapin::options::QueueDeclareOptions;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Error, ErrorKind};
use ports::{Outcome, QueueSpec};

use crate::fault::{Stage, classify, limited_raw};
use crate::message::{self, short};
use crate::{Rabbit, Server};

/// Differences that are looked for in one queue: more than it has arguments.
const DIFFERENCES_MAX: usize = 16;

/// Since which release a server knows an argument; those that are not here are older than 3.10.
const SINCE: [(&str, (u32, u32)); 2] =
    [("x-dead-letter-strategy", (3, 10)), ("x-consumer-timeout", (3, 12))];

/// Known, and yet 4.0 takes a declaration with another value for the same queue.
const NOT_COMPARED: &str = "x-consumer-timeout";

/// A queue, or the dead-letter queue that is declared with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// Its name.
    pub name: Arc<str>,
    arguments: FieldTable,
}

/// An argument that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its name; also `durable`.
    pub argument: String,
    /// As it should be.
    pub wanted: String,
    /// As it is.
    pub found: String,
}

/// A queue as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundQueue {
    /// It does not exist.
    Missing,
    /// It exists, with these differences.
    Exists(Vec<Difference>),
    /// It exists, and we may not find out more. Why.
    Hidden(Arc<str>),
}

impl Queue {
    /// The queues of a declaration, in the order in which they are declared. The arguments are the same for every
    /// release of the server: what it does not know it ignores, and a queue that is made today must not stop the
    /// shop when the server is upgraded.
    pub fn of(spec: &QueueSpec) -> Vec<Queue> {
        let dead = spec
            .dead_letters
            .iter()
            .map(|name| Queue { name: name.clone(), arguments: message::dead_letter_arguments() });
        let arguments = message::arguments(spec);
        dead.chain([Queue { name: spec.name.clone(), arguments }]).collect()
    }

    /// Its arguments, for people.
    pub fn arguments(&self) -> Vec<(String, String)> {
        let all = self.arguments.inner().iter();
        all.map(|(name, value)| (name.to_string(), shown(value))).collect()
    }

    /// Those of its arguments that this server accepts whatever they are, and why.
    pub fn ignored(&self, server: &Server) -> Vec<(&'static str, String)> {
        let why = |name: &str, (major, minor): (u32, u32)| {
            if server.release().is_some_and(|release| release < (major, minor)) {
                return Some(format!("{} does not know it, {major}.{minor} does", server.version));
            }
            let known = || format!("{} does not compare it", server.version);
            (name == NOT_COMPARED).then(known)
        };
        let ours = SINCE.into_iter().filter(|(name, _)| self.arguments.contains_key(name));
        ours.filter_map(|(name, since)| Some((name, why(name, since)?))).collect()
    }
}

impl Rabbit {
    /// The queue as it is. Each question has a channel of its own, which a refusal closes (broker-contract R5).
    pub async fn find(&self, queue: &Queue) -> Outcome<FoundQueue> {
        let passive = QueueDeclareOptions::durable().passive();
        match self.try_declare(queue, passive, FieldTable::default()).await? {
            Answer::Done => {}
            Answer::NoQueue => return Ok(FoundQueue::Missing),
            Answer::Refused(why) => return Ok(FoundQueue::Hidden(why)),
            Answer::Differs(difference) => {
                return Ok(FoundQueue::Exists(vec![difference.said()]));
            }
        }
        let (mut arguments, mut differences) = (queue.arguments.clone(), Vec::new());
        while differences.len() < DIFFERENCES_MAX {
            let options = QueueDeclareOptions::durable();
            match self.try_declare(queue, options, arguments.clone()).await? {
                Answer::Done => break,
                Answer::NoQueue => return Ok(FoundQueue::Missing),
                Answer::Refused(why) => return Ok(FoundQueue::Hidden(why)),
                Answer::Differs(difference) => {
                    // The server names the first one only: agree to it, and ask for the next.
                    let goes_on = agree(&mut arguments, &difference);
                    differences.push(difference.said());
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        Ok(FoundQueue::Exists(differences))
    }

    async fn try_declare(
        &self,
        queue: &Queue,
        options: QueueDeclareOptions,
        arguments: FieldTable,
    ) -> Outcome<Answer> {
        let name = short(&queue.name)?;
        let channel = self.consumers.channel().await?;
        let declared = channel.queue_declare(name, options, arguments);
        let answer = limited_raw(Stage::Ask, "queue.declare", declared).await?;
        match answer {
            Ok(_) => Ok(Answer::Done),
            Err(error) => Answer::read(&error).ok_or_else(|| classify(Stage::Ask, &error)),
        }
    }
}

/// What a declaration was answered.
#[derive(Debug, PartialEq)]
enum Answer {
    Done,
    NoQueue,
    Differs(Inequivalent),
    Refused(Arc<str>),
}

impl Answer {
    fn read(error: &Error) -> Option<Answer> {
        let ErrorKind::ProtocolError(protocol) = error.kind() else { return None };
        let text = protocol.get_message().as_str();
        match protocol.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Some(Answer::NoQueue),
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => Some(
                Inequivalent::read(text)
                    .map_or_else(|| Answer::Refused(text.into()), Answer::Differs),
            ),
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => Some(Answer::Refused(text.into())),
            _ => None,
        }
    }
}

/// What the server says of an argument that differs.
#[derive(Debug, PartialEq)]
struct Inequivalent {
    argument: String,
    received: Said,
    current: Said,
}

/// A value in the server's words.
#[derive(Debug, PartialEq)]
enum Said {
    None,
    /// With its type, where the server tells it.
    Value(String, Option<String>),
}

impl Inequivalent {
    /// From `inequivalent arg 'A' for queue 'Q' in vhost 'V': received R but current is C`.
    fn read(text: &str) -> Option<Inequivalent> {
        let (_, rest) = text.split_once("inequivalent arg '")?;
        let (argument, rest) = rest.split_once('\'')?;
        let (_, rest) = rest.split_once("': received ")?;
        let (received, current) = rest.split_once(" but current is ")?;
        let (received, current) = (Said::read(received)?, Said::read(current)?);
        Some(Inequivalent { argument: argument.to_owned(), received, current })
    }

    fn said(self) -> Difference {
        let words = |said| match said {
            Said::None => "not set".to_owned(),
            Said::Value(value, _) if value.is_empty() => "\"\"".to_owned(),
            Said::Value(value, _) => value,
        };
        let (wanted, found) = (words(self.received), words(self.current));
        Difference { argument: self.argument, wanted, found }
    }
}

impl Said {
    /// From `none`, `'V'` or `the value 'V' of type 'T'`.
    fn read(text: &str) -> Option<Said> {
        if text == "none" {
            return Some(Said::None);
        }
        let text = text.strip_prefix("the value ").unwrap_or(text);
        let (value, kind) = match text.rsplit_once(" of type ") {
            Some((value, kind)) => (value, Some(kind)),
            None => (text, None),
        };
        let bare = |text: &str| Some(text.strip_prefix('\'')?.strip_suffix('\'')?.to_owned());
        Some(Said::Value(bare(value)?, kind.and_then(bare)))
    }
}

/// Makes the arguments as the server has this one. `false` where the rest of them says nothing more.
fn agree(arguments: &mut FieldTable, difference: &Inequivalent) -> bool {
    let name = difference.argument.as_str();
    // A queue of another type has other arguments altogether; durable is none.
    if name == "x-queue-type" || !name.starts_with("x-") {
        return false;
    }
    let mut table = arguments.inner().clone();
    let known = table.remove(name);
    if let Said::Value(value, kind) = &difference.current {
        // Where no type is told, it is the one that we have sent.
        let text = match kind.as_deref() {
            Some(kind) => kind == "longstr",
            None => matches!(known, Some(AMQPValue::LongString(_))),
        };
        let value = match (text, value.as_str()) {
            (true, value) => AMQPValue::LongString(value.into()),
            (false, "true") => AMQPValue::Boolean(true),
            (false, "false") => AMQPValue::Boolean(false),
            (false, number) => match number.parse() {
                Ok(number) => AMQPValue::LongLongInt(number),
                Err(_) => return false,
            },
        };
        table.insert(name.into(), value);
    }
    *arguments = table.into();
    true
}

fn shown(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) if text.as_bytes().is_empty() => "\"\"".to_owned(),
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': ";

    fn read(rest: &str) -> (Inequivalent, String) {
        let read = || Inequivalent::read(&format!("{HEAD}{rest}")).unwrap();
        let Difference { argument, wanted, found } = read().said();
        assert_eq!(argument, "x-max-length");
        (read(), format!("{wanted} {found}"))
    }

    #[test]
    fn a_servers_words_name_what_is_wanted_and_what_is_there() {
        for (rest, words) in [
            ("received '11' but current is '10'", "11 10"),
            ("received none but current is the value '10' of type 'signedint'", "not set 10"),
            ("received the value '5' of type 'signedint' but current is none", "5 not set"),
        ] {
            assert_eq!(read(rest).1, words);
        }
        assert_eq!(Inequivalent::read("PRECONDITION_FAILED - invalid arg 'x-a'"), None);
    }

    #[test]
    fn what_differs_is_agreed_to_so_that_the_next_can_be_seen() {
        let spec = QueueSpec { name: "q".into(), delivery_limit: 10, dead_letters: None };
        let mut arguments = message::arguments(&spec);
        let agreed = |arguments: &mut FieldTable, rest: &str| {
            assert!(agree(arguments, &read(rest).0));
            arguments.inner().get("x-max-length").cloned()
        };
        let seven = agreed(&mut arguments, "received '1000000' but current is '7'");
        assert_eq!(seven, Some(AMQPValue::LongLongInt(7)));
        let text = "received none but current is the value 'a' of type 'longstr'";
        assert_eq!(agreed(&mut arguments, text), Some(AMQPValue::LongString("a".into())));
        let none = "received the value '5' of type 'signedint' but current is none";
        assert_eq!(agreed(&mut arguments, none), None);
        let of = |argument: &str| Inequivalent {
            argument: argument.to_owned(),
            received: Said::None,
            current: Said::None,
        };
        assert!(
            !agree(&mut arguments, &of("x-queue-type")) && !agree(&mut arguments, &of("durable"))
        );
    }

    #[test]
    fn what_a_server_accepts_whatever_it_is_is_known() {
        let spec =
            QueueSpec { name: "q".into(), delivery_limit: 10, dead_letters: Some("d".into()) };
        let [dead, jobs] = &Queue::of(&spec)[..] else { panic!("two queues") };
        let server = |version: &str| Server { product: "RabbitMQ".into(), version: version.into() };
        let timeout = |why: &str| ("x-consumer-timeout", why.to_owned());
        assert_eq!(jobs.ignored(&server("3.9.1")).len(), 2);
        let old = timeout("3.10.8 does not know it, 3.12 does");
        assert_eq!(jobs.ignored(&server("3.10.8")), [old]);
        assert_eq!(jobs.ignored(&server("4.0.5")), [timeout("4.0.5 does not compare it")]);
        assert_eq!(dead.ignored(&server("3.10.8")), []);
        assert!(jobs.arguments().contains(&("x-delivery-limit".into(), "10".into())));
    }
}
