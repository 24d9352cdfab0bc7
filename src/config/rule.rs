//! What a setting's value may be: read from text, shown as TOML, and said in words. Never knows
//! where a value came from.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::client::BaseUrl;

/// How a value stands in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In quotes.
    Text,
    /// Without quotes.
    Number,
    /// `true` or `false`.
    Switch,
}

impl Kind {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Text => "text in quotes",
            Kind::Number => "a number without quotes",
            Kind::Switch => "true or false without quotes",
        }
    }
}

/// What a setting takes.
pub trait Rule {
    /// As the program has it.
    type Value;
    /// As a file has it.
    const KIND: Kind;

    /// The value, where the text is one.
    fn read(&self, text: &str) -> Option<Self::Value>;

    /// The text that gives this value again; secrets are left out of it.
    fn show(&self, value: &Self::Value) -> String;

    /// What is taken, for people.
    fn allowed(&self) -> String;
}

/// A whole number within bounds.
pub struct Whole<T>(pub T, pub T);

impl<T: FromStr + PartialOrd + Display + Copy> Rule for Whole<T> {
    type Value = T;
    const KIND: Kind = Kind::Number;

    fn read(&self, text: &str) -> Option<T> {
        text.parse().ok().filter(|value| (self.0..=self.1).contains(value))
    }

    fn show(&self, value: &T) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        format!("a whole number from {} to {}", self.0, self.1)
    }
}

/// A duration within bounds, in whole milliseconds.
pub struct Span(pub Duration, pub Duration);

impl Rule for Span {
    type Value = Duration;
    const KIND: Kind = Kind::Text;

    fn read(&self, text: &str) -> Option<Duration> {
        let value = humantime::parse_duration(text).ok()?;
        let whole = value.subsec_nanos().is_multiple_of(1_000_000);
        (whole && (self.0..=self.1).contains(&value)).then_some(value)
    }

    fn show(&self, value: &Duration) -> String {
        // Whole days stay days: a month has no length of its own.
        let (s, day_s) = (value.as_secs(), 24 * 60 * 60);
        match s / day_s {
            days @ 2.. if s.is_multiple_of(day_s) && value.subsec_nanos() == 0 => {
                format!("{days}days")
            }
            _ => humantime::format_duration(*value).to_string(),
        }
    }

    fn allowed(&self) -> String {
        let Span(least, most) = self;
        format!("a duration from {} to {}", self.show(least), self.show(most))
    }
}

/// An address to call over HTTP, or none.
pub struct Http;

impl Rule for Http {
    type Value = Option<BaseUrl>;
    const KIND: Kind = Kind::Text;

    fn read(&self, text: &str) -> Option<Option<BaseUrl>> {
        match text {
            "" => Some(None),
            url => url.parse().ok().map(Some),
        }
    }

    fn show(&self, value: &Option<BaseUrl>) -> String {
        value.as_ref().map_or(String::new(), BaseUrl::to_string)
    }

    fn allowed(&self) -> String {
        "http://host:port, or nothing".to_owned()
    }
}

/// On or off.
pub struct Switch;

impl Rule for Switch {
    type Value = bool;
    const KIND: Kind = Kind::Switch;

    fn read(&self, text: &str) -> Option<bool> {
        text.parse().ok()
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }
}

/// One of these words.
pub struct Word<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Rule for Word<T> {
    type Value = T;
    const KIND: Kind = Kind::Text;

    fn read(&self, text: &str) -> Option<T> {
        self.0.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
    }

    fn show(&self, value: &T) -> String {
        let found = self.0.iter().find(|(_, of_word)| of_word == value);
        found.map_or("", |(word, _)| word).to_owned()
    }

    fn allowed(&self) -> String {
        let words: Vec<&str> = self.0.iter().map(|(word, _)| *word).collect();
        words.join(" or ")
    }
}

/// An address to listen on.
pub struct Listen;

impl Rule for Listen {
    type Value = SocketAddr;
    const KIND: Kind = Kind::Text;

    fn read(&self, text: &str) -> Option<SocketAddr> {
        text.parse().ok()
    }

    fn show(&self, value: &SocketAddr) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        "an IP address and a port, such as 127.0.0.1:8080; port 0 is any free one".to_owned()
    }
}

/// A folder.
pub struct Folder;

impl Rule for Folder {
    type Value = PathBuf;
    const KIND: Kind = Kind::Text;

    fn read(&self, text: &str) -> Option<PathBuf> {
        (!text.is_empty()).then(|| PathBuf::from(text))
    }

    fn show(&self, value: &PathBuf) -> String {
        value.display().to_string()
    }

    fn allowed(&self) -> String {
        "a path".to_owned()
    }
}

/// A text of certain characters, of which there are so many at most.
pub struct Text {
    /// Fewest.
    pub least: usize,
    /// Most.
    pub most: usize,
    /// Which ones.
    pub of: fn(&str) -> bool,
    /// In words.
    pub words: &'static str,
}

impl Rule for Text {
    type Value = String;
    const KIND: Kind = Kind::Text;

    fn read(&self, text: &str) -> Option<String> {
        let fits = (self.least..=self.most).contains(&text.len()) && (self.of)(text);
        fits.then(|| text.to_owned())
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }

    fn allowed(&self) -> String {
        self.words.to_owned()
    }
}

/// What to log.
pub struct Filter;

impl Rule for Filter {
    type Value = String;
    const KIND: Kind = Kind::Text;

    fn read(&self, text: &str) -> Option<String> {
        EnvFilter::try_new(text).is_ok().then(|| text.to_owned())
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }

    fn allowed(&self) -> String {
        "error, warn, info, debug, trace, or a tracing filter such as info,shakedown=debug"
            .to_owned()
    }
}

/// A server's address, which may hold a password; none where empty.
pub struct Server {
    /// In words.
    pub form: &'static str,
}

/// A server's address. Its debug form hides passwords.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// What must not be printed.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({})", redacted(&self.0))
    }
}

impl Rule for Server {
    type Value = Secret;
    const KIND: Kind = Kind::Text;

    fn read(&self, text: &str) -> Option<Secret> {
        (!text.chars().any(char::is_control)).then(|| Secret(text.to_owned()))
    }

    fn show(&self, value: &Secret) -> String {
        redacted(&value.0)
    }

    fn allowed(&self) -> String {
        format!("{}, or empty", self.form)
    }
}

/// What stands in place of a secret.
const HIDDEN: &str = "***";

/// An address without its passwords: the user's in the authority, and whatever a parameter hides
/// that is named like one, in a URL's query or in `name=value` form.
pub fn redacted(address: &str) -> String {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), address),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // A password that was not percent-encoded may hold any of these: the last @ ends it.
    let rest = match rest.rfind('@') {
        Some(at) if !scheme.is_empty() && rest[..at].contains(':') => {
            let user = rest[..at].split(':').next().unwrap_or_default();
            format!("{user}:{HIDDEN}{}", &rest[at..])
        }
        Some(at) if !scheme.is_empty() && at < end => format!("{HIDDEN}{}", &rest[at..]),
        _ => rest.to_owned(),
    };
    format!("{scheme}{}", without_parameters(&rest))
}

/// Hides the values of parameters whose names say that they are secret: to the next one that has a name, for a
/// value may hold the character that would end it.
fn without_parameters(text: &str) -> String {
    let secret = |name: &str| {
        let name = name.trim().to_ascii_lowercase();
        let words = ["password", "passwd", "pwd", "passphrase", "secret", "token", ".pem"];
        words.iter().any(|word| name.contains(word))
    };
    let ends = |c: char| matches!(c, '?' | '&' | ';') || c.is_whitespace();
    let (mut hiding, mut quoted) = (false, false);
    let pieces = text.split_inclusive(ends).map(|piece| {
        let (body, end) = match piece.char_indices().next_back().filter(|(_, c)| ends(*c)) {
            Some((at, _)) => piece.split_at(at),
            None => (piece, ""),
        };
        // `password = 'a b'` has blanks around its sign, and in its value.
        let named = body.split_once('=').filter(|(name, _)| !quoted && !name.is_empty());
        let Some((name, value)) = named else {
            if !hiding {
                hiding = secret(body);
                return piece.to_owned();
            }
            let value = body.strip_prefix('=').unwrap_or(body);
            quoted = (quoted || value.starts_with('\'')) && !closes(value);
            return format!("{HIDDEN}{end}");
        };
        hiding = secret(name);
        if !hiding {
            return piece.to_owned();
        }
        quoted = value.starts_with('\'') && !closes(value);
        format!("{name}={HIDDEN}{end}")
    });
    pieces.collect()
}

/// Whether a piece of a quoted value is its last.
fn closes(value: &str) -> bool {
    value.len() > 1 && value.ends_with('\'') && !value.ends_with("\\'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_show() {
        for (address, shown) in [
            ("", ""),
            ("kafka://a:9092,b:9092", "kafka://a:9092,b:9092"),
            ("amqp://guest:guest@host:5672/%2f", "amqp://guest:***@host:5672/%2f"),
            ("amqp://token@host/", "amqp://***@host/"),
            ("postgres://u:p@ss/w:rd@host/db", "postgres://u:***@host/db"),
            (
                "postgres://host/db?user=u&password=p&x=1",
                "postgres://host/db?user=u&password=***&x=1",
            ),
            ("host=h password=p user=u", "host=h password=*** user=u"),
            ("host=h user=u sslpassword=p", "host=h user=u sslpassword=***"),
            ("host=h password = p dbname=d", "host=h password *** *** dbname=d"),
            ("password='a b=c' user=u", "password=*** *** user=u"),
            (r"password='a\' b=c' user=u", "password=*** *** user=u"),
            (
                "kafka://h:1?sasl.username=u&sasl.password=a&b&ssl.ca.location=/ca.pem",
                "kafka://h:1?sasl.username=u&sasl.password=***&***&ssl.ca.location=/ca.pem",
            ),
            (
                "kafka://h:1?ssl.key.pem=k&client.rack=r",
                "kafka://h:1?ssl.key.pem=***&client.rack=r",
            ),
            ("amqps://u:p@h/%2f?certfile=/c.pem", "amqps://u:***@h/%2f?certfile=/c.pem"),
        ] {
            assert_eq!(redacted(address), shown);
        }
        let secret = Server { form: "" }.read("amqp://u:geheim@h").unwrap();
        assert!(!format!("{secret:?}").contains("geheim"));
    }

    #[test]
    fn durations_have_bounds_and_whole_milliseconds() {
        let rule = Span(Duration::from_millis(10), Duration::from_secs(60));
        assert_eq!(rule.read("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(rule.read("1m"), Some(Duration::from_secs(60)));
        assert_eq!(rule.read("1.5s"), Some(Duration::from_millis(1500)));
        for text in ["", "5", "9ms", "61s", "1.5ms", "10ms 1us", "-1s", "soon"] {
            assert_eq!(rule.read(text), None, "{text}");
        }
        assert_eq!(rule.allowed(), "a duration from 10ms to 1m");
    }

    #[test]
    fn numbers_have_bounds() {
        let rule = Whole(1_u16, 64);
        assert_eq!(rule.read("64"), Some(64));
        for text in ["0", "65", "-1", "65536", "1.0", "", "many"] {
            assert_eq!(rule.read(text), None, "{text}");
        }
    }
}
