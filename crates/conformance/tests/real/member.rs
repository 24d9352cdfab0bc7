//! A group member in a process of its own, for the client library says goodbye on drop: only a kill
//! is silent. The test starts its own program again.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use kafka::{Assignor, Kafka, Settings};
use ports::Runtime;
use shakedown_conformance::log::{Life, before_the_kill};

/// The shortest session that a broker takes by default.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// Longer than a session.
pub const MAX_POLL_INTERVAL: Duration = Duration::from_secs(8);

/// The protocol of a group, by its word on the command line.
pub fn assignor(word: &str) -> Option<Assignor> {
    match word {
        "classic" => Some(Assignor::CooperativeSticky),
        "consumer" => Some(Assignor::Brokers),
        _ => None,
    }
}

/// Of all clients of these tests.
pub fn settings(assignor: Assignor) -> Settings {
    Settings {
        assignor,
        session_timeout: SESSION_TIMEOUT,
        heartbeat: HEARTBEAT,
        max_poll_interval: MAX_POLL_INTERVAL,
        poll_wait: Duration::from_millis(100),
        ..Settings::default()
    }
}

const WORD: &str = "member";
const HOLDS: &str = "holds its partitions";

/// What the process is told.
pub struct Member {
    pub url: String,
    pub protocol: &'static str,
    pub life: Life,
}

impl Member {
    /// If that is what these arguments of the program say.
    pub fn told(arguments: &[String]) -> Option<Member> {
        let [word, url, protocol, group, topic, records] = arguments else { return None };
        let records = records.parse().ok()?;
        let life = Life { group: group.clone(), topic: topic.as_str().into(), records };
        let protocol = ["classic", "consumer"].into_iter().find(|known| known == protocol)?;
        (word == WORD).then(|| Member { url: url.clone(), protocol, life })
    }

    /// In that process: until it is killed, or the test is gone.
    pub async fn live(self) -> ExitCode {
        let kafka = Kafka::connect(&self.url, "doomed", settings(assignor(self.protocol).unwrap()))
            .unwrap();
        let _consumer = before_the_kill(&kafka, &self.life).await;
        println!("{HOLDS}");
        // Its heartbeats go on: they have a thread of their own.
        let _ = std::io::stdin().read(&mut [0]);
        ExitCode::FAILURE
    }

    /// In the test: starts the process, waits until it holds its partitions, kills it. When.
    pub fn live_elsewhere(&self, runtime: &dyn Runtime) -> Duration {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let (Life { group, topic, records }, url) = (&self.life, &self.url);
        command.args([WORD, url, self.protocol, group, topic, &records.to_string()]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut child = Killed(child);
        let out = BufReader::new(child.0.stdout.take().unwrap());
        let told = out.lines().any(|line| line.is_ok_and(|line| line == HOLDS));
        assert!(told, "the doomed member ended before it held anything");
        let at = runtime.elapsed();
        drop(child);
        at
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
