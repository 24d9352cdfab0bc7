//! Queues: what the shop wants of them. An argument of a queue that exists can never be changed. Never asks a server.

use contract::{JobsQueue, Streams};
use ports::{Fault, Outcome, QueueSpec};
use rabbit::{FoundQueue, Queue, Server};

use super::change::Change;
use super::row::{Row, State};
use super::topics::CREATED;
use crate::config::Config;

/// The queue of jobs, as both its sides declare it.
pub fn wanted(config: &Config) -> QueueSpec {
    let JobsQueue { name, delivery_limit, dead_letters } =
        Streams::prefixed(&config.prefix.value).jobs();
    QueueSpec { name, delivery_limit, dead_letters: Some(dead_letters) }
}

/// How a queue stands on this server.
pub fn compare(queue: &Queue, found: Outcome<FoundQueue>, server: &Server) -> Vec<Row> {
    let object = format!("queue {}", queue.name);
    let row = |setting: &str, wanted: &str, found: &str, state: State, next: Option<String>| Row {
        object: object.clone(),
        setting: setting.to_owned(),
        wanted: wanted.to_owned(),
        found: found.to_owned(),
        state,
        next,
    };
    let differences = match found {
        Ok(FoundQueue::Exists(differences)) => differences,
        Ok(FoundQueue::Missing) => {
            let next = Some(CREATED.to_owned());
            return vec![row("", "a quorum queue", "", State::Missing, next)];
        }
        Ok(FoundQueue::Hidden(why)) => {
            let next = format!("its arguments may not be compared ({why}): grant configure on it");
            return vec![row("", "a quorum queue", "it exists", State::Unknown, Some(next))];
        }
        Err(fault) => {
            return vec![row("", "a quorum queue", "", State::Unknown, Some(unseen(&fault)))];
        }
    };
    let other_type = differences.iter().any(|difference| {
        difference.argument == "x-queue-type" || !difference.argument.starts_with("x-")
    });
    let ignored = queue.ignored(server);
    let next = format!(
        "no argument of a queue can be changed: stop the services, let the worker empty it, then \
         `rabbitmqctl delete_queue {} --if-empty` and `shakedown topology apply`",
        queue.name
    );
    let mut rows: Vec<Row> = queue
        .arguments()
        .into_iter()
        .filter(|(name, _)| !differences.iter().any(|difference| difference.argument == *name))
        .map(|(name, wanted)| {
            match ignored.iter().find(|(ignored, _)| *ignored == name) {
                Some((_, why)) => row(&name, &wanted, why, State::Ignored, None),
                // With another type the server compares nothing more.
                None if other_type => row(&name, &wanted, "", State::Unknown, None),
                None => row(&name, &wanted, &wanted, State::Agrees, None),
            }
        })
        .collect();
    for difference in differences {
        let next = Some(next.clone());
        let rabbit::Difference { argument, wanted, found } = difference;
        rows.push(row(&argument, &wanted, &found, State::Differs, next));
    }
    rows
}

/// What may be changed: the queues that do not exist are declared, both or none.
pub fn changes(spec: &QueueSpec, rows: &[Row]) -> Vec<Change> {
    let missing = rows.iter().any(|row| row.state == State::Missing);
    missing.then(|| Change::Declare(spec.clone())).into_iter().collect()
}

fn unseen(fault: &Fault) -> String {
    format!("{fault}; check --rabbit, and that it runs")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::row::verdict;

    fn rows(found: Outcome<FoundQueue>, version: &str) -> Vec<Row> {
        let spec = wanted(&Config::defaults());
        let server = Server { product: "RabbitMQ".into(), version: version.into() };
        compare(&Queue::of(&spec)[1], found, &server)
    }

    fn differs(argument: &str) -> rabbit::Difference {
        let (wanted, found) = ("10".into(), "5".into());
        rabbit::Difference { argument: argument.into(), wanted, found }
    }

    #[test]
    fn an_argument_that_differs_has_a_way_out_and_the_others_agree() {
        let rows = rows(Ok(FoundQueue::Exists(vec![differs("x-delivery-limit")])), "4.0.9");
        let wrong: Vec<&Row> = rows.iter().filter(|row| row.state == State::Differs).collect();
        assert_eq!(wrong.len(), 1);
        assert_eq!((&*wrong[0].setting, &*wrong[0].found), ("x-delivery-limit", "5"));
        let next = wrong[0].next.as_deref().unwrap();
        assert!(next.contains("delete_queue notifications.jobs --if-empty"), "{next}");
    }

    #[test]
    fn what_a_server_ignores_is_said_and_is_no_difference() {
        for (version, words) in [
            ("3.10.8", "3.10.8 does not know it, 3.12 does"),
            ("4.0.5", "4.0.5 does not compare it"),
        ] {
            let rows = rows(Ok(FoundQueue::Exists(vec![])), version);
            assert_eq!(verdict(&rows), State::Agrees);
            let ignored = rows.iter().find(|row| row.setting == "x-consumer-timeout").unwrap();
            assert_eq!((&*ignored.found, ignored.state), (words, State::Ignored));
        }
    }

    #[test]
    fn what_could_not_be_compared_is_not_called_right() {
        for found in [
            Ok(FoundQueue::Hidden("ACCESS_REFUSED".into())),
            Err(Fault::retry("connection refused")),
        ] {
            assert_eq!(verdict(&rows(found, "4.0.9")), State::Unknown);
        }
        let rows = rows(Ok(FoundQueue::Exists(vec![differs("x-queue-type")])), "4.0.9");
        assert!(!rows.iter().any(|row| row.state == State::Agrees), "{rows:?}");
        assert_eq!(verdict(&rows), State::Differs);
    }
}
