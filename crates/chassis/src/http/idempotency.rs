//! The Idempotency-Key of a request (saga-rules 17, draft-ietf-httpapi-idempotency-key-header-06): how
//! it is read, and by what a repeat is known. Never stores anything: key, effect and reply are one
//! transaction of the batch.

use axum::http::{HeaderMap, HeaderValue};
use envelope::EventId;
use ports::Key;

use super::Problem;

/// The request's Idempotency-Key, if it has one; 400 where it has none and needs one. It is at most
/// 64 visible characters, as every id here. As the draft has it, it is a quoted string (`\"` and
/// `\\` within it are a quote and a backslash); without quotes it is taken as it stands.
pub fn idempotency_key(headers: &HeaderMap, required: bool) -> Result<Option<Key>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return if required { Err(missing()) } else { Ok(None) };
    };
    if values.next().is_some() {
        return Err(bad("send it once"));
    }
    let id = EventId::parse(unquoted(value)?).map_err(|cause| bad(&cause.to_string()))?;
    Ok(Some(id.key()))
}

/// The Idempotency-Key of a request that must not be done twice by mistake: a relative write.
pub fn required_key(headers: &HeaderMap) -> Result<Key, Problem> {
    idempotency_key(headers, true)?.ok_or_else(missing)
}

/// The key without its quotes.
fn unquoted(value: &HeaderValue) -> Result<String, Problem> {
    let text = value.to_str().map_err(|_| bad("visible ASCII characters only"))?.trim();
    let Some(rest) = text.strip_prefix('"') else { return Ok(text.to_owned()) };
    let mut key = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    loop {
        match chars.next() {
            Some('"') if chars.as_str().is_empty() => return Ok(key),
            Some('\\') => match chars.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err(bad("a backslash stands before a quote or a backslash only")),
            },
            Some('"') => return Err(bad("nothing follows the closing quote")),
            None => return Err(bad("the closing quote is missing")),
            Some(other) => key.push(other),
        }
    }
}

fn missing() -> Problem {
    let detail = "send an Idempotency-Key header: a value of your own, new for each request";
    Problem::new(400, "idempotency-key-missing", "An Idempotency-Key is required", detail)
}

fn bad(cause: &str) -> Problem {
    let detail = format!("Idempotency-Key: {cause}");
    Problem::new(400, "idempotency-key-invalid", "The Idempotency-Key is invalid", detail)
}

/// A command's id in the inbox: its route with the Idempotency-Key, or the request's own fresh id.
/// The space keeps it apart from the id of every event, which has none.
pub fn command_id(route: &'static str, key: Option<&Key>, request: &EventId) -> Key {
    match key {
        Some(key) => keyed_id(route, key),
        None => format!("{FRESH}{request}").into(),
    }
}

/// What an id begins with that is the request's own.
const FRESH: &str = "req ";

/// Whether a command's id was made of a key that its sender gave.
pub(crate) fn is_given(id: &Key) -> bool {
    !id.starts_with(FRESH)
}

/// A command's id in the inbox, where the route requires a key.
pub fn keyed_id(route: &'static str, key: &Key) -> Key {
    format!("{route} {key}").into()
}

/// The fingerprint of a request: the same Idempotency-Key with another one is refused. Two requests
/// are the same if method, path and the bytes of the body are; other headers do not count. `path` is
/// the route's own in one spelling, whatever prefix it is mounted under and however it was escaped.
pub fn request_fingerprint(method: &str, path: &str, body: &[u8]) -> String {
    let mut said = format!("{method} {path}\n").into_bytes();
    said.extend_from_slice(body);
    envelope::fingerprint(&said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[&str]) -> Result<Option<Key>, Problem> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("idempotency-key", HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        idempotency_key(&headers, true)
    }

    #[test]
    fn keys_are_quoted_or_bare() {
        let long = "k".repeat(64);
        for (value, key) in [
            ("k-1", "k-1"),
            ("\"k-1\"", "k-1"),
            (" \"k-1\" ", "k-1"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (r"a\b", r"a\b"),
            (long.as_str(), long.as_str()),
        ] {
            assert_eq!(with(&[value]), Ok(Some(key.into())), "{value}");
        }
        assert_eq!(idempotency_key(&HeaderMap::new(), false), Ok(None));
    }

    #[test]
    fn an_id_tells_whether_a_key_was_given() {
        let request = EventId::parse("r-1").unwrap();
        assert!(!is_given(&command_id("place", None, &request)));
        assert!(is_given(&command_id("place", Some(&"k-1".into()), &request)));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "k".repeat(65);
        for value in
            ["", "\"\"", "a b", "\"", "\"a", "\"a\"b\"", "\"a\";p=1", r#""a\b""#, "é", &long]
        {
            let problem = with(&[value]).unwrap_err();
            assert_eq!((problem.status, problem.kind), (400, "idempotency-key-invalid"), "{value}");
        }
        assert_eq!(with(&["a", "a"]).unwrap_err().kind, "idempotency-key-invalid");
        let missing = idempotency_key(&HeaderMap::new(), true).unwrap_err();
        assert_eq!((missing.status, missing.kind), (400, "idempotency-key-missing"));
    }

    #[test]
    fn no_command_has_the_id_of_an_event() {
        let request = EventId::parse("r").unwrap();
        for id in
            [command_id("place", Some(&"k".into()), &request), command_id("p", None, &request)]
        {
            assert!(EventId::parse(&*id).is_err(), "{id}");
        }
    }
}
