//! `shakedown doctor` in local mode: what it sees of a folder, and what it says of one that another version made.

use std::path::Path;
use std::process::{Command, Output};

use contract::{Profile, Service};
use rusqlite::Connection;
use shakedown::config::Config;
use shakedown::doctor::tables;
use shakedown::local_mode::LocalMode;
use shakedown::serve::DECLINED_ENDING;

fn run(command: &str, folder: &Path, more: &[&str]) -> (i32, String, String) {
    let mut started = Command::new(env!("CARGO_BIN_EXE_shakedown"));
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.to_string_lossy().starts_with("SHAKEDOWN_")) {
        started.env_remove(name);
    }
    started.args([command, "--data-dir"]).arg(folder).args(more).current_dir(std::env::temp_dir());
    let Output { status, stdout, stderr } = started.output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit code"), text(stdout), text(stderr))
}

/// A start that ends with these words.
fn refused(folder: &Path, words: &str) {
    let (code, _, stderr) = run("serve", folder, &["--listen", "127.0.0.1:0"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains(words), "no {words:?} in {stderr}");
}

fn says(folder: &Path, more: &[&str], code: i32, words: &[&str]) {
    let (is, said, stderr) = run("doctor", folder, more);
    assert_eq!(is, code, "{said}{stderr}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
}

fn steering() -> payments::simulated::Steering {
    payments::simulated::Steering { declined_ending: Some(DECLINED_ENDING), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_looked_at_before_during_and_after() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("data");
    says(&dir, &[], 0, &["local mode", "is not there yet and can be made", "librdkafka"]);
    assert!(!dir.exists(), "looking makes nothing");
    let config = Config::of_profile(Profile::Default);
    let local = LocalMode::start(&dir, &config, steering()).await.expect("it starts");
    says(&dir, &[], 0, &["warn  data folder", "a process uses it"]);
    assert!(local.shop.stop(std::time::Duration::from_secs(10)).await);
    drop(local);
    what_a_start_refuses_fails(&dir);
    for service in Service::ALL {
        let path = dir.join(format!("{}.db", service.name()));
        let file = Connection::open(path).expect("its database");
        let mut statement = file
            .prepare(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
            )
            .expect("a query");
        let found = statement.query_map([], |row| row.get::<_, String>(0)).expect("its tables");
        let mut found: Vec<String> = found.map(|name| name.expect("a name")).collect();
        found.retain(|name| name != "outbox");
        let mut known: Vec<String> =
            tables(service).iter().map(|table| table.name.to_owned()).collect();
        found.sort();
        known.sort();
        assert_eq!(known, found, "doctor knows the tables of {}", service.name());
    }
    says(&dir, &[], 0, &["can open brokers, catalog, orders"]);

    let orders = Connection::open(dir.join("orders.db")).expect("its database");
    orders.pragma_update(None, "user_version", 9).expect("written");
    says(
        &dir,
        &[],
        1,
        &["FAIL", "orders.db was made by a newer version: 9", "use the newer binary"],
    );
    refused(&dir, "orders.db was made by a newer version: 9");
    orders.pragma_update(None, "user_version", 1).expect("written");

    // As a build had it before an index was added.
    let query = Connection::open(dir.join("query.db")).expect("its database");
    query
        .execute_batch("DROP INDEX orders_changed; ALTER TABLE orders DROP COLUMN changed")
        .expect("done");
    says(&dir, &[], 1, &["query.db: table orders lacks changed", "an empty folder"]);
    refused(&dir, "table orders lacks changed");
}

/// The same flags and the same folder: what ends a start is a FAIL, with the same words.
fn what_a_start_refuses_fails(dir: &Path) {
    for (set, code, words) in [
        (
            "partitions=3",
            1,
            "has 6 partitions, and 3 are wanted; they are fixed when it is made: set partitions = 6",
        ),
        ("chassis.shards=8", 1, "set chassis.shards = 4"),
        ("listen=0.0.0.0:80", 2, "listens on loopback only"),
        ("payments.gateway=http://127.0.0.1:1", 2, "local mode has a gateway of its own"),
    ] {
        says(dir, &["--set", set], 1, &["FAIL", words]);
        let (is, _, stderr) = run("serve", dir, &["--set", "listen=127.0.0.1:0", "--set", set]);
        assert_eq!(is, code, "{set}: {stderr}");
        assert!(stderr.contains(words), "{set}: no {words:?} in {stderr}");
    }

    let damage = |name: &str, words: &[&str], damaged: &dyn Fn(&Path)| {
        let (path, aside) = (dir.join(name), dir.join("aside"));
        std::fs::rename(&path, &aside).expect("put aside");
        damaged(&path);
        says(dir, &[], 1, &[&["FAIL  data folder"], words].concat());
        for word in words {
            refused(dir, word);
        }
        std::fs::remove_file(&path).expect("removed");
        std::fs::rename(&aside, &path).expect("put back");
    };
    let rubbish = |path: &Path| std::fs::write(path, "rubbish\n".repeat(100)).expect("written");
    damage("mails", &["mails"], &rubbish);
    damage("gateway.jsonl", &["gateway.jsonl", "byte 0"], &rubbish);
    for name in ["orders.db", "brokers.db"] {
        damage(name, &[name, "file is not a database; restore it from a copy"], &rubbish);
    }
    says(dir, &[], 0, &["can open brokers, catalog, orders"]);
}

#[test]
fn a_wrong_address_is_not_a_missing_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let servers = [
        "--kafka",
        "kafka://127.0.0.1:9?security.protocol=rubbish",
        "--rabbit",
        "amqp://127.0.0.1:9",
        "--postgres",
        "postgres://127.0.0.1:9/none",
    ];
    let (code, said, stderr) = run("doctor", folder.path(), &servers);
    assert_eq!(code, 1, "{said}{stderr}");
    assert!(said.contains("FAIL  mode") && said.contains("security.protocol"), "{said}");
    assert!(!said.contains("give all three"), "{said}");
}

#[test]
fn a_wrong_configuration_is_a_finding_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("shop.toml");
    std::fs::write(&file, "[orders]\ndeadlin = \"1m\"\npartitions = 3\n").expect("a file");
    let file = file.to_str().expect("UTF-8");
    says(
        folder.path(),
        &["--config", file],
        1,
        &["FAIL  configuration", "shop.toml:2", "shop.toml:3"],
    );
    let wrong = ["--kafka", "kafka://127.0.0.1:9"];
    says(folder.path(), &wrong, 1, &["FAIL  mode", "--rabbit", "FAIL  kafka"]);
}
