//! The effective configuration as TOML, with the origin of each value. Never prints a secret.

use std::fmt::Write;

use super::rule::Kind;
use super::settings::{Config, Shown};

impl Config {
    /// As a file that gives the same configuration again, but for passwords.
    pub fn to_toml(&self) -> String {
        let shown = self.shown();
        let lines: Vec<(&str, String, String)> = shown
            .iter()
            .map(|setting| {
                let (section, name) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
                (section, format!("{name} = {}", literal(setting)), setting.origin.to_string())
            })
            .collect();
        let width = lines.iter().map(|(_, line, _)| line.chars().count()).max().unwrap_or(0);
        let mut text = String::from("# The effective configuration. Passwords are not shown.\n");
        let mut in_section = "";
        for (section, line, origin) in &lines {
            if *section != in_section {
                in_section = section;
                let _ = write!(text, "\n[{section}]\n");
            }
            let _ = writeln!(text, "{line:width$}  # {origin}");
        }
        text
    }
}

fn literal(setting: &Shown) -> String {
    match setting.kind {
        Kind::Number | Kind::Switch => setting.value.clone(),
        Kind::Text => toml::Value::String(setting.value.clone()).to_string(),
    }
}
