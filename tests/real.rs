//! `topology` and `doctor` on real servers, at the addresses in SHAKEDOWN_KAFKA, SHAKEDOWN_RABBIT and
//! SHAKEDOWN_POSTGRES. Without them the tests say so and pass, unless SHAKEDOWN_REQUIRE_SERVERS=1. Topics and queues
//! have names that no other run has, and stay behind: nothing here deletes one.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

const NAMES: [&str; 3] = ["SHAKEDOWN_KAFKA", "SHAKEDOWN_RABBIT", "SHAKEDOWN_POSTGRES"];

/// The servers, and names of our own on them.
struct Shop {
    addresses: [String; 3],
    prefix: String,
    folder: tempfile::TempDir,
}

impl Shop {
    #[expect(clippy::disallowed_methods, reason = "a name that no other run has")]
    fn new() -> Option<Shop> {
        let addresses = NAMES.map(|name| std::env::var(name).unwrap_or_default());
        if addresses.iter().any(String::is_empty) {
            let required =
                std::env::var("SHAKEDOWN_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
            assert!(!required, "SHAKEDOWN_REQUIRE_SERVERS=1 wants all of {}", NAMES.join(", "));
            eprintln!("not run: {} are not all set", NAMES.join(", "));
            return None;
        }
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_micros();
        let folder = tempfile::tempdir().expect("a folder");
        Some(Shop { addresses, prefix: format!("real.{now_us}."), folder })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shakedown"));
        command.args(arguments).args(["--prefix", &self.prefix]);
        let ours = std::env::vars_os().map(|(name, _)| name);
        for name in ours.filter(|name| name.to_string_lossy().starts_with("SHAKEDOWN_")) {
            command.env_remove(name);
        }
        command.envs(NAMES.iter().zip(&self.addresses)).current_dir(self.folder.path());
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (status.code().expect("an exit code"), text(stdout), text(stderr))
    }

    /// Exit code and words of an invocation, all of which are expected on stdout.
    fn says(&self, arguments: &[&str], code: i32, words: &[&str]) -> String {
        let (is, stdout, stderr) = self.run(arguments);
        assert_eq!(is, code, "{arguments:?}: {stdout}{stderr}");
        for word in words {
            assert!(stdout.contains(word), "{arguments:?}: no {word:?} in {stdout}{stderr}");
        }
        stdout
    }
}

/// A `serve` that leaves with its test, and says goodbye: the groups of a killed one stand still for 45 s.
struct Served {
    child: Child,
    /// Held open: a process that writes to nobody dies of it.
    stderr: BufReader<ChildStderr>,
}

impl Served {
    fn start(shop: &Shop, arguments: &[&str]) -> Served {
        let mut command = shop.command(arguments);
        let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        Served { child, stderr }
    }

    /// The first line of its log with these words.
    fn says(&mut self, words: &str) -> String {
        let mut lines = self.stderr.by_ref().lines().map_while(Result::ok);
        lines.find(|line| line.contains(words)).expect("it says so before it ends")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

#[test]
fn the_topology_is_shown_and_changed_only_when_asked() {
    let Some(shop) = Shop::new() else { return };
    shop.says(&["topology", "check"], 1, &["orders.events", "notifications.jobs", "missing"]);
    let (code, stdout, stderr) = shop.run(&["topology", "apply"]);
    assert_eq!(code, 2, "{stdout}{stderr}");
    assert!(stderr.contains("nothing was changed; --yes"), "{stderr}");
    shop.says(&["topology", "check"], 1, &["missing"]);
    shop.says(&["topology", "apply", "--yes"], 0, &["done: create topic", "all agrees"]);
    shop.says(&["topology", "check"], 0, &["compact", "30 days", "all agrees"]);

    // What can be changed without loss, and only by `apply`.
    let longer = ["--set", "topology.retention=40days"];
    let check = [&["topology", "check"][..], &longer].concat();
    shop.says(
        &check,
        1,
        &["retention.ms", "40 days", "differs", "`shakedown topology apply` sets"],
    );
    let arguments = [&["serve", "--listen", "127.0.0.1:0"][..], &longer].concat();
    let warned = Served::start(&shop, &arguments).says("nothing was changed");
    assert!(warned.contains("retention.ms is 30 days, and 40 days is wanted"), "{warned}");
    shop.says(&check, 1, &["retention.ms", "differs"]);
    let apply = [&["topology", "apply", "--yes"][..], &longer].concat();
    shop.says(&apply, 0, &["retention.ms 30 days → 40 days", "all agrees"]);
    shop.says(&check, 0, &["all agrees"]);

    // What would lose something is said, and not done.
    let (shorter, more) = (["--set", "topology.retention=20days"], ["--set", "partitions=12"]);
    for (set, words) in [(&shorter, "it deletes records"), (&more, "keys would move")] {
        let before = shop.says(&[&["topology", "check"][..], set].concat(), 1, &[words]);
        let apply = [&["topology", "apply", "--yes"][..], set].concat();
        shop.says(&apply, 1, &[words, "nothing can be changed here"]);
        assert_eq!(shop.says(&[&["topology", "check"][..], set].concat(), 1, &[]), before);
    }
    let doctor = [&["doctor"][..], &more].concat();
    shop.says(&doctor, 1, &["FAIL  topics", "partitions is 6 instead of 12"]);
    let json = shop.says(&["topology", "check", "--json"], 1, &[]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json["verdict"], &json["rows"][0]["state"]),
        (&"differs".into(), &"agrees".into())
    );
}

/// The limits are real time: five seconds for a server.
#[test]
#[expect(clippy::disallowed_methods, reason = "a limit in real time")]
fn a_server_that_is_away_leaves_the_others_to_be_looked_at() {
    let Some(mut shop) = Shop::new() else { return };
    shop.says(&["topology", "apply", "--yes"], 0, &[]);
    let [kafka, _, postgres] = shop.addresses.clone();
    let begun = Instant::now();
    shop.addresses = [kafka, "amqp://shop:geheim@127.0.0.1:9/%2f".into(), postgres];
    let said = shop.says(&["topology", "check"], 3, &["agrees", "unknown", "could not be told"]);
    let more = shop.says(&["doctor"], 1, &["ok    topics", "FAIL  rabbit", "PostgreSQL", "clock"]);
    shop.addresses[0] = "kafka://127.0.0.1:9?sasl.password=geheim".into();
    shop.addresses[2] = "postgres://shop:geheim@127.0.0.1:9/shop".into();
    let all = shop.says(&["doctor"], 1, &["FAIL  kafka", "FAIL  rabbit", "FAIL  postgres"]);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    for said in [said, more, all] {
        assert!(!said.contains("geheim"), "{said}");
    }
}

#[test]
fn doctor_sees_the_servers_and_what_a_start_has_made() {
    let Some(shop) = Shop::new() else { return };
    let json = shop.says(&["doctor", "--json"], 0, &[]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["ok"], true);
    let areas: Vec<&str> = json["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|f| f["area"].as_str())
        .collect();
    for area in
        ["versions", "configuration", "kafka", "topics", "rabbit", "queues", "postgres", "clock"]
    {
        assert!(areas.contains(&area), "{areas:?}");
    }
}
