//! The three servers: whether each answers, who it is, and how the topology on it stands.

use chrono::TimeDelta;
use ports::{Fault, Op, Outcome, Reply, Store};
use postgres::{About, PostgresStore};

use super::databases;
use super::finding::Finding;
use crate::config::Config;
use crate::local_mode;
use crate::topology::{Look, Row, State, at_queues, at_topics, cluster, server, within};
use crate::words::count;

/// The oldest release that has what a dead letter needs to be kept (broker-contract R18).
const RABBIT_LEAST: (u32, u32) = (3, 10);
/// What the store is tested on.
const POSTGRES_LEAST: u32 = 15;
/// Deadlines and leases use the store's clock; more than this makes logs hard to follow.
const CLOCKS_MAX: TimeDelta = TimeDelta::seconds(1);

/// Kafka and its topics.
pub async fn kafka(config: &Config) -> Vec<Finding> {
    const AREA: &str = "kafka";
    if config.kafka.value.reveal().is_empty() {
        return Vec::new();
    }
    let brokers = match cluster(config) {
        Ok(cluster) => within(async { cluster.brokers().await }).await,
        Err(fault) => Err(fault),
    };
    let brokers = match brokers {
        Ok(brokers) => brokers,
        Err(fault) => return vec![unreached(AREA, "--kafka", &fault)],
    };
    let said = count(brokers.unsigned_abs().into(), "broker answers", "brokers answer");
    let wanted = config.replication.value;
    let found = if brokers >= wanted {
        Finding::ok(AREA, said)
    } else {
        let next = format!(
            "good for development; in production a record wants {wanted} brokers \
             (topology.replication)"
        );
        Finding::warn(AREA, said, next)
    };
    let mut findings = vec![found];
    findings.extend(topology("topics", at_topics(config).await));
    findings
}

/// RabbitMQ and its queues.
pub async fn rabbit(config: &Config) -> Vec<Finding> {
    const AREA: &str = "rabbit";
    if config.rabbit.value.reveal().is_empty() {
        return Vec::new();
    }
    // Who it is says everybody; that it lets us in is another matter.
    let met = async {
        let server = server(config).await?;
        crate::topology::rabbit(config).await?;
        Ok(server)
    };
    let met: Outcome<rabbit::Server> = within(met).await;
    let server = match met {
        Ok(server) => server,
        Err(fault) => return vec![unreached(AREA, "--rabbit", &fault)],
    };
    let said = format!("{} {} answers", server.product, server.version);
    let found = match server.release() {
        Some(release) if release >= RABBIT_LEAST => Finding::ok(AREA, said),
        _ => {
            let (major, minor) = RABBIT_LEAST;
            let next = format!("use {major}.{minor} or later: older ones can lose dead letters");
            Finding::warn(AREA, said, next)
        }
    };
    let mut findings = vec![found];
    findings.extend(topology("queues", at_queues(config).await));
    findings
}

/// PostgreSQL, its clock, and the services' schemas.
pub async fn postgres(config: &Config) -> Vec<Finding> {
    const AREA: &str = "postgres";
    let url = config.postgres.value.reveal();
    if url.is_empty() {
        return Vec::new();
    }
    let met = async {
        let store = PostgresStore::connect_with(url, "doctor", 1).await?;
        Ok((store.about().await?, clocks(&store).await?))
    };
    let met: Outcome<(About, TimeDelta)> = within(met).await;
    let (about, apart) = match met {
        Ok(met) => met,
        Err(fault) => return vec![unreached(AREA, "--postgres", &fault)],
    };
    let said = format!("PostgreSQL {} answers", about.version);
    let major = about.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let mut findings = vec![match major {
        Some(major) if major >= POSTGRES_LEAST => Finding::ok(AREA, said),
        _ => Finding::warn(AREA, said, format!("use {POSTGRES_LEAST} or later")),
    }];
    findings.push(clock(apart));
    let schemas = databases::schemas(config).await;
    if !about.may_create
        && schemas.iter().any(|finding| finding.said.starts_with(databases::NONE_YET))
    {
        findings.push(Finding::fail(
            AREA,
            "no right to create a schema, and one is missing",
            "GRANT CREATE ON DATABASE for the first start, or have them made by its owner",
        ));
    }
    findings.extend(schemas);
    findings
}

/// How far the store's clock is ahead of ours, to half a round trip.
async fn clocks(store: &PostgresStore) -> Outcome<TimeDelta> {
    let runtime = local_mode::runtime();
    let before = runtime.now();
    let reply = store.read(vec![Op::Now]).await?.pop();
    let after = runtime.now();
    let Some(Reply::Now(theirs)) = reply else {
        return Err(Fault::retry("it does not say what time it is"));
    };
    Ok(theirs - (before + (after - before) / 2))
}

fn clock(apart: TimeDelta) -> Finding {
    const AREA: &str = "clock";
    let said = format!("{} ms apart from PostgreSQL's", apart.num_milliseconds());
    if apart.abs() <= CLOCKS_MAX {
        return Finding::ok(AREA, said);
    }
    let next = "let both machines follow the same time server: times in logs and mails are the \
                node's, deadlines the store's";
    Finding::warn(AREA, said, next)
}

fn unreached(area: &'static str, flag: &str, fault: &Fault) -> Finding {
    let next = match fault {
        Fault::Refused(_) => format!("check the address and the credentials of {flag}"),
        Fault::Retry(_) | Fault::Unknown(_) => {
            format!("check that it runs and is reached from here, and {flag}")
        }
    };
    Finding::fail(area, fault.to_string(), next)
}

/// A line where all agrees; else one for each topic or queue that differs, and one for all that are missing.
fn topology(area: &'static str, look: Look) -> Vec<Finding> {
    let (missing, rows): (Vec<Row>, Vec<Row>) =
        look.rows.into_iter().partition(|row| row.state == State::Missing);
    let mut findings = Vec::new();
    if let Some(first) = missing.first() {
        let names: Vec<&str> = missing.iter().map(|row| row.object.as_str()).collect();
        let next = first.next.clone().unwrap_or_default();
        findings.push(Finding::warn(area, format!("missing: {}", names.join(", ")), next));
    }
    for of_object in rows.chunk_by(|a, b| a.object == b.object) {
        let right = |row: &&Row| matches!(row.state, State::Agrees | State::Ignored);
        let wrong: Vec<&Row> = of_object.iter().filter(|row| !right(row)).collect();
        let Some(first) = wrong.first() else { continue };
        let words: Vec<String> = wrong.iter().map(|row| words(row)).collect();
        let said = format!("{}: {}", first.object, words.join(", "));
        let next = wrong.iter().find_map(|row| row.next.clone()).unwrap_or_default();
        // These a start refuses.
        let refused = |row: &&Row| {
            row.state == State::Differs && (row.setting == "partitions" || area == "queues")
        };
        let finding = if wrong.iter().any(refused) {
            Finding::fail(area, said, next)
        } else {
            Finding::warn(area, said, next)
        };
        findings.push(finding);
    }
    if findings.is_empty() {
        findings.push(Finding::ok(area, "as wanted (`shakedown topology check` shows each)"));
    }
    findings
}

fn words(row: &Row) -> String {
    let Row { setting, wanted, found, state, .. } = row;
    match state {
        State::Differs => format!("{setting} is {found} instead of {wanted}"),
        State::Unknown if setting.is_empty() => "unknown".to_owned(),
        State::Agrees | State::Ignored | State::Missing | State::Unknown => {
            format!("{setting} {}", state.word())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn row(setting: &str, state: State) -> Row {
        let (wanted, found) = ("6".to_owned(), "3".to_owned());
        let (object, setting) = ("topic t".to_owned(), setting.to_owned());
        Row { object, setting, wanted, found, state, next: Some("do".to_owned()) }
    }

    fn of(area: &'static str, rows: Vec<Row>) -> (Verdict, String) {
        let mut findings = topology(area, Look { rows, changes: Vec::new() });
        assert_eq!(findings.len(), 1);
        let finding = findings.remove(0);
        (finding.verdict, finding.said)
    }

    #[test]
    fn what_a_start_refuses_fails_and_what_it_lives_with_is_a_warning() {
        let partitions = of("topics", vec![row("partitions", State::Differs)]);
        assert_eq!(partitions, (Verdict::Fail, "topic t: partitions is 3 instead of 6".into()));
        for (area, rows, verdict) in [
            ("topics", vec![row("", State::Missing)], Verdict::Warn),
            ("topics", vec![row("retention.ms", State::Differs)], Verdict::Warn),
            ("topics", vec![row("settings", State::Unknown)], Verdict::Warn),
            ("queues", vec![row("x-delivery-limit", State::Differs)], Verdict::Fail),
            ("topics", vec![row("partitions", State::Agrees)], Verdict::Ok),
        ] {
            assert_eq!(of(area, rows).0, verdict);
        }
    }

    #[test]
    fn clocks_a_second_apart_are_a_warning() {
        for (ms, verdict) in [(0, Verdict::Ok), (-1_000, Verdict::Ok), (1_001, Verdict::Warn)] {
            assert_eq!(clock(TimeDelta::milliseconds(ms)).verdict, verdict);
        }
    }
}
