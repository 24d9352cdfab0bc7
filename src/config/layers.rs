//! Where settings come from: flags, then environment variables, then a file, then defaults. Never
//! knows what a value means.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::rule::{Kind, Rule};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A file, and the line in it.
    File(Arc<str>, usize),
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, line) => write!(f, "{path}:{line}"),
            Origin::Variable(name) => f.write_str(name),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A value, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// As the program has it.
    pub value: T,
    /// Who set it.
    pub origin: Origin,
}

/// A value as somebody wrote it.
#[derive(Debug, Clone)]
struct Given {
    text: String,
    /// What it is in a file; elsewhere all is text.
    kind: Option<Kind>,
    origin: Origin,
}

/// What was given for each key. What is added later outranks what was there.
#[derive(Debug, Default)]
pub struct Layers {
    given: BTreeMap<String, Given>,
}

impl Layers {
    /// Adds a file's values, which keys are known. An error is a list: every line that is wrong.
    pub fn add_file(&mut self, path: &Path, text: &str, known: &[&str]) -> Result<(), Vec<String>> {
        let name: Arc<str> = path.display().to_string().into();
        let line = |at: usize| 1 + text[..at].bytes().filter(|b| *b == b'\n').count();
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            vec![format!("{name}:{}: {}", line(at), error.message())]
        })?;
        let mut wrong = Vec::new();
        let mut todo: Vec<(String, Spanned<DeTable<'_>>)> = vec![(String::new(), table)];
        while let Some((prefix, table)) = todo.pop() {
            for (key, value) in table.into_inner() {
                let at = line(key.span().start);
                let key = format!("{prefix}{}", key.into_inner());
                if let DeValue::Table(_) = value.get_ref() {
                    if known.contains(&key.as_str()) {
                        wrong.push(format!("{name}:{at}: {key} is a setting, not a section"));
                    }
                    let span = value.span();
                    let DeValue::Table(inner) = value.into_inner() else { continue };
                    todo.push((format!("{key}."), Spanned::new(span, inner)));
                    continue;
                }
                if !known.contains(&key.as_str()) {
                    wrong.push(format!("{name}:{at}: {}", unknown(&key, known)));
                    continue;
                }
                let origin = Origin::File(name.clone(), at);
                let Some((text, kind)) = scalar(value.get_ref()) else {
                    wrong.push(format!("{name}:{at}: {key} takes one value, not a list or a date"));
                    continue;
                };
                self.given.insert(key, Given { text, kind: Some(kind), origin });
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Adds what the environment has. An empty variable is as good as none. Returns warnings about
    /// variables that are nearly one of ours.
    pub fn add_environment(
        &mut self,
        environment: impl Iterator<Item = (String, String)>,
        known: &[&str],
    ) -> Vec<String> {
        let names: BTreeMap<String, &str> = known.iter().map(|key| (variable(key), *key)).collect();
        let mut warnings = Vec::new();
        for (name, text) in environment.filter(|(name, _)| name.starts_with("SHAKEDOWN_")) {
            if let Some(key) = names.get(&name) {
                if !text.is_empty() {
                    let origin = Origin::Variable(name);
                    self.given.insert((*key).to_owned(), Given { text, kind: None, origin });
                }
                continue;
            }
            // Others may be anybody's: an orchestrator makes SHAKEDOWN_PORT of a service's name.
            let near = |(_, distance): &(&String, usize)| *distance <= 2;
            let distances = names.keys().map(|known| (known, strsim::osa_distance(known, &name)));
            if let Some((meant, _)) = distances.min_by_key(|(_, distance)| *distance).filter(near) {
                warnings.push(format!("{name} is not read; did you mean {meant}?"));
            }
        }
        warnings
    }

    /// Gives a key another default.
    pub fn add_default(&mut self, key: &str, text: &str) {
        let given = Given { text: text.to_owned(), kind: None, origin: Origin::Default };
        self.given.insert(key.to_owned(), given);
    }

    /// Adds a flag's value.
    pub fn add_flag(&mut self, key: &str, flag: &str, text: &str) {
        let (text, origin) = (text.to_owned(), Origin::Flag(flag.to_owned()));
        self.given.insert(key.to_owned(), Given { text, kind: None, origin });
    }

    /// Adds a `--set KEY=VALUE`.
    pub fn add_set(&mut self, pair: &str, known: &[&str]) -> Result<(), String> {
        let Some((key, text)) = pair.split_once('=') else {
            return Err(format!("--set {pair}: give it as KEY=VALUE, such as orders.deadline=5m"));
        };
        let key = key.trim();
        if !known.contains(&key) {
            return Err(format!("--set {key}: {}", unknown(key, known)));
        }
        self.add_flag(key, &format!("--set {key}"), text.trim());
        Ok(())
    }

    /// The value of a key by its rule, its default where nobody gave one.
    pub fn take<R: Rule>(
        &self,
        key: &str,
        default: &str,
        rule: &R,
    ) -> Result<Setting<R::Value>, String> {
        let Some(Given { text, kind, origin }) = self.given.get(key) else {
            let value = rule.read(default);
            let value = value.unwrap_or_else(|| panic!("{key}: its default {default} is no value"));
            return Ok(Setting { value, origin: Origin::Default });
        };
        if let Some(kind) = kind
            && *kind != R::KIND
        {
            return Err(format!("{origin}: {key} takes {}", R::KIND.name()));
        }
        match rule.read(text) {
            Some(value) => Ok(Setting { value, origin: origin.clone() }),
            None => {
                let shown = super::rule::redacted(text);
                Err(format!(
                    "{origin}: {key} = {shown} is not possible; it takes {}",
                    rule.allowed()
                ))
            }
        }
    }
}

/// The environment variable of a key: `orders.deadline` is `SHAKEDOWN_ORDERS_DEADLINE`.
pub fn variable(key: &str) -> String {
    format!("SHAKEDOWN_{}", key.replace('.', "_").to_ascii_uppercase())
}

fn scalar(value: &DeValue<'_>) -> Option<(String, Kind)> {
    match value {
        DeValue::String(text) => Some((text.to_string(), Kind::Text)),
        DeValue::Integer(number) => {
            let value = i64::from_str_radix(number.as_str(), number.radix());
            // Beyond 64 bits: the rule refuses it as it was written.
            let text = value.map_or_else(|_| number.as_str().to_owned(), |value| value.to_string());
            Some((text, Kind::Number))
        }
        DeValue::Float(number) => Some((number.as_str().to_owned(), Kind::Number)),
        DeValue::Boolean(switch) => Some((switch.to_string(), Kind::Switch)),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn unknown(key: &str, known: &[&str]) -> String {
    let nearest = known.iter().max_by(|a, b| {
        let alike = |known: &str| strsim::normalized_damerau_levenshtein(known, key);
        alike(a).total_cmp(&alike(b))
    });
    match nearest {
        Some(nearest) => format!("there is no setting {key}; the nearest is {nearest}"),
        None => format!("there is no setting {key}"),
    }
}
