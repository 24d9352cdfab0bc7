//! A story on a terminal, or as JSON. Never adds to it.

use std::fmt::Write;

use serde_json::{Value, json};

use super::facts::Facts;
use super::story::Story;

/// For people.
pub fn human(order: &str, story: &Story) -> String {
    let Story { status, happened, stands, waits_for, silent } = story;
    let mut text = format!("Order {order}: {status}\n\n");
    let began = happened.first().map(|line| line.at);
    for line in happened {
        let ms = began.map_or(0, |began| (line.at - began).num_milliseconds());
        let at = line.at.format("%Y-%m-%d %H:%M:%S%.3f");
        let _ =
            writeln!(text, "  {at}  {:>9}  {:20}  {}", format!("+{ms} ms"), line.who, line.what);
    }
    let _ = writeln!(text);
    for (what, how) in stands {
        let _ = writeln!(text, "  {what:8}  {how}");
    }
    let _ = writeln!(text);
    match waits_for.as_slice() {
        [] if silent.is_empty() => {
            let _ = writeln!(text, "It waits for nothing: all of it is done.");
        }
        [] => {}
        waits => {
            let _ = writeln!(text, "It waits for");
            for wait in waits {
                let _ = writeln!(text, "  {wait}");
            }
        }
    }
    for who in silent {
        let _ = writeln!(text, "Could not be asked: {who}");
    }
    text
}

/// For programs.
pub fn json(order: &str, story: &Story, facts: &Facts) -> Value {
    json!({
        "orderId": order,
        "status": story.status,
        "happened": story.happened,
        "stands": story.stands.iter().map(|(what, how)| json!({ "what": what, "how": how }))
            .collect::<Vec<_>>(),
        "waitsFor": story.waits_for,
        "silent": story.silent,
        "facts": facts,
    })
}
