//! What is done to a server from outside: by commands that the environment names, for each kind of
//! machine has its own. Never touches a server that it has no command for.

use std::process::{Command, Stdio};

use shakedown_conformance::Unseen;

/// Kills RabbitMQ and starts it again; comes back when it answers.
pub const KILL_RABBIT: &str = "SHAKEDOWN_KILL_RABBIT";

/// rabbitmqctl of that server, with what it needs before its arguments.
pub const RABBITMQCTL: &str = "SHAKEDOWN_RABBITMQCTL";

/// Kills PostgreSQL and starts it again; comes back when it answers.
pub const KILL_POSTGRES: &str = "SHAKEDOWN_KILL_POSTGRES";

/// Runs the command of this name with more words behind it.
pub async fn run(name: &'static str, more: &[&str]) -> Result<(), Unseen> {
    let command = std::env::var(name).ok().filter(|command| !command.is_empty());
    let command = command.ok_or(Unseen::NotRun(match name {
        KILL_RABBIT => "no command in SHAKEDOWN_KILL_RABBIT",
        RABBITMQCTL => "no command in SHAKEDOWN_RABBITMQCTL",
        _ => "no command in SHAKEDOWN_KILL_POSTGRES",
    }))?;
    // The shell knows what the command is; the words behind it stay what they are.
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{command} \"$@\""), "sh"]).args(more);
    shell.stdin(Stdio::null());
    let ran = tokio::task::spawn_blocking(move || shell.output()).await;
    let output = ran.unwrap().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command} {more:?}: {told}");
    Ok(())
}
