//! Letters as a table. Never shows a payload: `dlq show` does.

use serde_json::Value;

/// A line a letter, and what to do about them.
pub fn table(letters: &[Value], state: &str) -> String {
    if letters.is_empty() {
        return format!("no {state} dead letters\n");
    }
    let head = ["service", "id", "state", "key", "type", "code", "tries", "since"];
    let mut rows: Vec<[String; 8]> = vec![head.map(str::to_owned)];
    rows.extend(letters.iter().map(row));
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<String>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn row(letter: &Value) -> [String; 8] {
    let text = |field: &str| match &letter[field] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.escape_default().to_string(),
        other => other.to_string(),
    };
    [
        text("service"),
        text("id"),
        text("state"),
        text("key"),
        text("eventType"),
        text("code"),
        text("attempts"),
        text("firstFailedAt"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_a_letter() {
        assert_eq!(table(&[], "open"), "no open dead letters\n");
        let letter = json!({ "service": "query", "id": "orders.events:0:7", "state": "dead", "key": "o\n",
            "eventType": null, "code": "malformed", "attempts": 1, "firstFailedAt": "2026-01-02" });
        let expected = "\
service  id                 state  key  type  code       tries  since
query    orders.events:0:7  dead   o\\n  -     malformed  1      2026-01-02
";
        assert_eq!(table(&[letter], "open"), expected);
    }
}
