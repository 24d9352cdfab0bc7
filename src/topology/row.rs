//! What is wanted of a topic or queue against what is there, one thing a row. Never asks a server.

use serde::Serialize;

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is as wanted.
    Agrees,
    /// It is not.
    Differs,
    /// The server accepts any value: it counts neither way.
    Ignored,
    /// Topic or queue does not exist.
    Missing,
    /// Nobody could tell.
    Unknown,
}

/// One thing of a topic or queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Topic or queue, with its name.
    pub object: String,
    /// What of it; empty for the whole.
    pub setting: String,
    /// As it should be.
    pub wanted: String,
    /// As it is; empty where nobody could tell.
    pub found: String,
    /// How it stands.
    pub state: State,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Of all rows, the one state that tells most.
pub fn verdict(rows: &[Row]) -> State {
    let any = |state| rows.iter().any(|row| row.state == state);
    if any(State::Differs) || any(State::Missing) {
        State::Differs
    } else if any(State::Unknown) {
        State::Unknown
    } else {
        State::Agrees
    }
}

impl State {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            State::Agrees => "agrees",
            State::Differs => "differs",
            State::Ignored => "ignored",
            State::Missing => "missing",
            State::Unknown => "unknown",
        }
    }
}

/// A table for each topic and queue, and what to do behind it.
pub fn table(rows: &[Row]) -> String {
    let width = |of: fn(&Row) -> &str| rows.iter().map(|row| of(row).chars().count()).max();
    let objects = width(|row| &row.object).unwrap_or(0);
    let settings = width(|row| &row.setting).unwrap_or(0).max(objects.saturating_sub(2));
    let wanted = width(|row| &row.wanted).unwrap_or(0).max("wanted".len());
    let found = width(|row| &row.found).unwrap_or(0).max("found".len());
    let mut text = String::new();
    let mut line = |line: String| text += &format!("{}\n", line.trim_end());
    for of_object in rows.chunk_by(|a, b| a.object == b.object) {
        let object = &of_object[0].object;
        line(format!("{object:0$}  {1:wanted$}  {2}", settings + 2, "wanted", "found"));
        for row in of_object {
            let Row { setting, wanted: want, found: is, state, .. } = row;
            let state = state.word();
            line(format!("  {setting:settings$}  {want:wanted$}  {is:found$}  {state}"));
        }
        let mut said: Vec<&String> = Vec::new();
        for next in of_object.iter().filter_map(|row| row.next.as_ref()) {
            if !said.contains(&next) {
                said.push(next);
                line(format!("  → {next}"));
            }
        }
        line(String::new());
    }
    text
}
