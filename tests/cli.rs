//! The command line as a user meets it: exit codes, and errors that say what to do.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};

fn shakedown(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shakedown"));
    command.args(arguments);
    for server in ["SHAKEDOWN_KAFKA", "SHAKEDOWN_RABBIT", "SHAKEDOWN_POSTGRES"] {
        command.env_remove(server);
    }
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
    /// Held open: a process that writes to nobody dies of it.
    _stdout: BufReader<ChildStdout>,
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
        assert!(lines.any(|line| line.starts_with("listening on http://127.0.0.1:")));
        Served { child, _stdout: stdout }
    }

    fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(killed.success());
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
    for word in ["--data-dir", "--listen", "SHAKEDOWN_KAFKA", "never for production"] {
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
    ] {
        let (code, _, stderr) = run(arguments);
        assert_eq!(code, 2, "{arguments:?}: {stderr}");
    }
}

#[test]
fn local_mode_stays_on_loopback() {
    let (code, _, stderr) = run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("loopback") && stderr.contains("--listen 127.0.0.1:0"), "{stderr}");
}

#[test]
fn real_servers_come_all_three_or_not_at_all() {
    let (code, _, stderr) = run(&["serve", "--kafka", "kafka://127.0.0.1:9"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("--rabbit") && stderr.contains("--postgres"), "{stderr}");
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
