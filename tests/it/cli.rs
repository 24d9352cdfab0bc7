//! The command line as a user meets it: exit codes, and errors that say what to do.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

fn shakedown(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shakedown"));
    command.args(arguments);
    // Neither this machine's settings nor a file where the tests run.
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.to_string_lossy().starts_with("SHAKEDOWN_")) {
        command.env_remove(name);
    }
    command.current_dir(std::env::temp_dir());
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = shakedown(arguments).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit code"), text(stdout), text(stderr))
}

/// A `serve` that listens, ended at the latest when the test ends.
struct Served {
    child: Child,
    /// Held open, as a terminal is.
    _stdout: BufReader<ChildStdout>,
    url: String,
}

impl Served {
    fn start(folder: &Path) -> Served {
        let folder = folder.to_str().expect("UTF-8");
        let mut child = shakedown(&["serve", "--listen", "127.0.0.1:0", "--data-dir", folder])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = stdout.by_ref().lines().map_while(Result::ok);
        let url = lines.find_map(|line| line.strip_prefix("listening on ").map(str::to_owned));
        Served { child, _stdout: stdout, url: url.expect("it listens") }
    }

    fn terminate(mut self) -> ExitStatus {
        send("TERM", &self.child);
        self.child.wait().expect("it ends")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn without_arguments_it_says_what_there_is() {
    let (code, stdout, stderr) = run(&[]);
    assert_eq!(code, 0, "{stderr}");
    for word in ["shakedown demo", "shakedown serve", "cargo sim run"] {
        assert!(stdout.contains(word), "{stdout}");
    }
}

#[test]
fn help_names_flags_and_exit_codes() {
    assert!(run(&["--help"]).1.contains("Exit codes"));
    let (code, stdout, _) = run(&["serve", "--help"]);
    assert_eq!(code, 0);
    for word in ["--data-dir", "--listen", "SHAKEDOWN_KAFKA", "never for production", "loopback"] {
        assert!(stdout.contains(word), "{word} in {stdout}");
    }
}

#[test]
fn a_wrong_command_line_is_2() {
    for arguments in [
        &["--nonsense"][..],
        &["serve", "--listen", "somewhere"],
        &["demo", "--orders", "0"],
        &["serve", "--log", "shakedown=loud"],
        &["serve", "--set", "orders.deadline"],
        &["serve", "--config", "/nowhere/shop.toml"],
        &["demo", "--set", "chassis.shards=0"],
        &["reconcile", "--url", "127.0.0.1:8080"],
        &["reconcile", "--wait", "18446744073709551615"],
        &["saga", "show"],
        &["saga", "show", "not an id"],
        &["load", "--orders", "0", "--rate", "0"],
        &["load", "--skew", "-1"],
        &["dlq", "list", "--service", "nobody"],
        &["serve", "--only", "order"],
        &["serve", "--only", "orders"],
        &["serve", "--set", "payments.gateway=http://127.0.0.1:9"],
        &["serve", "--set", "payments.gateway=https://elsewhere"],
        &["reconcile", "--url", "nobody=http://127.0.0.1:9"],
        &["dlq", "redrive", "payments"],
        &["dlq", "redrive", "payments", "some:0:1", "--all"],
        &["dlq", "discard", "payments", "some:0:1"],
        &["dlq", "redrive", "payments", "some:0:1", "--payload", "/nowhere/event.json"],
        &["dlq", "redrive", "payments", "some:0:1", "--payload", "/proc/self/cmdline"],
        &["serve", "--set", "prefix=pg_shop."],
        &["serve", "--set", "prefix=PG."],
        &["serve", "--set", "prefix=amq."],
        &["topology"],
        &["topology", "check"],
        &["topology", "apply", "--yes", "--kafka", "kafka://127.0.0.1:9"],
        &["topology", "check", "--kafka", "127.0.0.1:9", "--rabbit", "amqp://127.0.0.1:9"],
    ] {
        let (code, _, stderr) = run(arguments);
        assert_eq!(code, 2, "{arguments:?}: {stderr}");
    }
}

#[test]
fn where_nobody_answers_nothing_can_be_told() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    for arguments in [
        &["dlq", "list"][..],
        &["dlq", "show", "query", "some:0:1"],
        &["dlq", "redrive", "query", "some:0:1"],
        &["dlq", "redrive", "query", "--all"],
        &["dlq", "discard", "query", "some:0:1", "--note", "n"],
        &["saga", "show", "01a20a3c-04ac-78e6-8c04-3ca485515032"],
        &["reconcile"],
        &["load"],
    ] {
        let (code, stdout, stderr) = run(&[arguments, &["--url", &url]].concat());
        assert_eq!((code, stdout.as_str()), (3, ""), "{arguments:?}: {stderr}");
        for words in [&url, "is `shakedown serve` running there?", "--url"] {
            assert!(stderr.contains(words), "{arguments:?}: {stderr}");
        }
    }
}

#[test]
fn nothing_listens_beyond_loopback() {
    let servers =
        ["--kafka", "kafka://k:9092", "--rabbit", "amqp://r", "--postgres", "postgres://p"];
    for more in [&[][..], &servers] {
        let (code, _, stderr) = run(&[&["serve", "--listen", "0.0.0.0:0"], more].concat());
        assert_eq!(code, 2);
        for words in ["no authentication yet", "(--listen)", "--listen 127.0.0.1:0"] {
            assert!(stderr.contains(words), "{stderr}");
        }
    }
}

#[test]
fn the_configuration_is_printed_with_its_origins() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("shakedown.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:1\"\n[orders]\ndeadline = \"1m\"\n")
        .expect("a file");
    let mut command = shakedown(&["serve", "--print-config", "--set", "mail.parallel=3"]);
    command.current_dir(folder.path());
    command
        .env("SHAKEDOWN_RABBIT", "amqp://shop:geheim@rabbit")
        .env("SHAKEDOWN_ORDERS_DEADLINE", "2m");
    let output = command.output().expect("it runs");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(0));
    let line = |start: &str| {
        let found = stdout.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no {start} in {stdout}")).split_whitespace().collect()
    };
    for (start, words) in [
        ("listen", "listen = \"127.0.0.1:1\" # shakedown.toml:1"),
        ("deadline", "deadline = \"2m\" # SHAKEDOWN_ORDERS_DEADLINE"),
        ("rabbit", "rabbit = \"amqp://shop:***@rabbit\" # SHAKEDOWN_RABBIT"),
        ("currency", "currency = \"EUR\" # default"),
    ] {
        let line: Vec<&str> = line(start);
        assert_eq!(line.join(" "), words);
    }
    assert!(stdout.contains("# --set mail.parallel"), "{stdout}");
    std::fs::write(&file, "\n[orders]\ndeadlines = \"1m\"\n").expect("a file");
    let mut command = shakedown(&["serve"]);
    let output = command.current_dir(folder.path()).output().expect("it runs");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("shakedown.toml:3") && stderr.contains("orders.deadline"), "{stderr}");
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("shop.toml"), "partitions = 7\n").expect("a file");
    for (name, words) in [("", "partitions = 6"), ("shop.toml", "partitions = 7")] {
        let mut command = shakedown(&["serve", "--print-config"]);
        command.current_dir(folder.path()).env("SHAKEDOWN_CONFIG", name);
        let output = command.output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(output.status.code(), Some(0), "{name:?}: {}", text(&output.stderr));
        let stdout = text(&output.stdout);
        assert!(stdout.contains(words), "{name:?}: no {words} in {stdout}");
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "another process starts by the real clock")]
fn who_stops_reading_ends_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8");
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let serve = ["serve", "--listen", &address, "--data-dir", path, "--log", "debug"];
    let mut child = deaf(&mut shakedown(&serve));
    for _ in 0..600 {
        if TcpStream::connect(&address).is_ok() || child.try_wait().expect("its state").is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    send("TERM", &child);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));

    let mut demo = shakedown(&["demo", "--orders", "10"]);
    let mut child = deaf(demo.env("TMPDIR", folder.path()));
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

/// Started, and both of its pipes closed.
fn deaf(command: &mut Command) -> Child {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop((child.stdout.take(), child.stderr.take()));
    child
}

fn send(signal: &str, to: &Child) {
    let arguments = [format!("-{signal}"), to.id().to_string()];
    assert!(Command::new("kill").args(arguments).status().expect("kill runs").success());
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    // Started by nohup, it outlives its terminal.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let odd = ['1', '3', '5', '7', '9', 'b', 'd', 'f'];
    let ignored = status.lines().any(|line| line.starts_with("SigIgn:") && line.ends_with(odd));
    let signals = if ignored { &["INT", "TERM"][..] } else { &["INT", "TERM", "HUP"] };
    for signal in signals {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = shakedown(&["demo", "--orders", "20000"]);
        command.env("TMPDIR", folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        // The first thing that it says once there is a folder.
        stdout.read_line(&mut String::new()).expect("a line");
        send(signal, &child);
        let output = child.wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{signal}: {stderr}");
        assert!(stderr.contains("interrupted"), "{signal}: {stderr}");
        let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").collect();
        assert!(left.is_empty(), "{signal}: {left:?}");
    }
}

#[test]
fn the_number_of_shards_is_fixed() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(Served::start(folder.path()).terminate().code(), Some(0));
    let path = folder.path().to_str().expect("UTF-8");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", path];
    let (code, _, stderr) = run(&[&serve[..], &["--set", "chassis.shards=8"]].concat());
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("set chassis.shards = 4"), "{stderr}");
}

#[test]
fn real_servers_come_all_three_or_not_at_all() {
    let (code, _, stderr) = run(&["serve", "--kafka", "kafka://127.0.0.1:9"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("--rabbit") && stderr.contains("--postgres"), "{stderr}");
}

#[test]
fn each_command_has_a_help_with_examples() {
    for (command, words) in [
        (&["serve"][..], &["--print-config", "--set <KEY=VALUE>", "Examples"][..]),
        (&["demo"], &["--orders", "Examples"]),
        (&["load"], &["closed loop", "open loop", "--skew", "Examples"]),
        (&["reconcile"], &["Exit codes", "--wait <SECONDS>", "SHAKEDOWN_URL", "Examples"]),
        (&["saga", "show"], &["Exit codes", "--json", "Examples"]),
        (&["dlq"], &["list", "show", "redrive", "discard", "Examples"]),
        (&["topology"], &["check", "apply", "Exit codes", "Examples"]),
        (&["doctor"], &["--json", "Exit codes", "Examples"]),
    ] {
        let (code, stdout, _) = run(&[command, &["--help"]].concat());
        assert_eq!(code, 0);
        for word in words {
            assert!(stdout.to_lowercase().contains(&word.to_lowercase()), "{word} in {stdout}");
        }
    }
}

/// The client commands beside one running shop.
#[test]
fn a_running_shop_is_loaded_and_looked_into() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::start(folder.path());
    let url = ["--url", served.url.as_str()];
    let with = |arguments: &[&str]| run(&[arguments, &url].concat());

    let small = ["load", "--orders", "30", "--warm-up", "5", "--rate", "20", "--seconds", "1"];
    let (code, stdout, stderr) = with(
        &[&small[..], &["--fail", "20", "--decline", "20", "--products", "10", "--json"]].concat(),
    );
    assert_eq!(code, 0, "{stdout}{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).expect("JSON alone on stdout");
    assert_eq!((&report["complete"], &report["correct"]), (&true.into(), &true.into()), "{stdout}");
    assert_eq!((&report["n"], &report["latency_seen"]), (&30.into(), &20.into()), "{stdout}");
    let (code, stdout, stderr) = with(&[
        "load",
        "--orders",
        "10",
        "--rate",
        "0",
        "--warm-up",
        "0",
        "--baskets",
        "groceries",
    ]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.contains("10 orders by 16 clients"), "{stdout}");

    let (code, stdout, stderr) = with(&["reconcile", "--wait", "30"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.ends_with("the books balance\n"), "{stdout}");
    let mut mails = std::fs::read_dir(folder.path().join("mails")).expect("the mails");
    let mail = mails.next().expect("a mail").expect("its entry").path();
    let name = mail.file_name().expect("its name").to_string_lossy().into_owned();
    let order = name.split('.').next().expect("the order's id");

    let (code, stdout, stderr) = with(&["saga", "show", order]);
    assert_eq!(code, 0, "{stderr}");
    for words in [order, "OrderCreated", "gateway", "It waits for nothing"] {
        assert!(stdout.contains(words), "{words} in {stdout}");
    }
    let (code, stdout, _) = with(&["saga", "show", order, "--json"]);
    let story: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((code, &story["orderId"]), (0, &order.into()));
    let (code, _, stderr) = with(&["saga", "show", "nobody"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("no service knows an order nobody"), "{stderr}");

    let (code, stdout, _) = with(&["dlq", "list"]);
    assert_eq!((code, stdout.as_str()), (0, "no open dead letters\n"));
    for arguments in [&["dlq", "show"][..], &["dlq", "redrive"], &["dlq", "discard", "--note", "n"]]
    {
        let (code, _, stderr) = with(&[arguments, &["query", "orders.events:0:7"]].concat());
        assert_eq!(code, 1);
        assert!(stderr.contains("query has no dead letter orders.events:0:7"), "{stderr}");
    }

    std::fs::remove_file(&mail).expect("removed");
    let (code, stdout, _) = with(&["reconcile"]);
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("DO NOT BALANCE") && stdout.contains(order), "{stdout}");
    let (code, stdout, _) = with(&["reconcile", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((code, &report["verdict"]), (1, &"wrong".into()));
    assert_eq!(served.terminate().code(), Some(0));
}

#[test]
fn a_port_in_use_is_named_with_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().to_str().expect("UTF-8");
    let (code, _, stderr) = run(&["serve", "--listen", &address, "--data-dir", folder]);
    assert_eq!(code, 1);
    assert!(stderr.contains(&address) && stderr.contains("another port"), "{stderr}");
}

#[test]
fn a_folder_has_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Served::start(folder.path());
    let path = folder.path().to_str().expect("UTF-8");
    let (code, _, stderr) = run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", path]);
    assert_eq!(code, 1);
    assert!(stderr.contains("another process uses this folder"), "{stderr}");
    assert!(stderr.contains(path), "{stderr}");
    assert_eq!(first.terminate().code(), Some(0));
    let again = Served::start(folder.path());
    assert_eq!(again.terminate().code(), Some(0));
}

#[test]
fn the_demo_ends_with_balanced_books_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = shakedown(&["demo", "--orders", "40"]);
    let output = command.env("TMPDIR", folder.path()).output().expect("it runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    for words in ["the books balance", "One order went through", "not for production", ".eml"] {
        assert!(stdout.contains(words), "{words} in {stdout}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
}
