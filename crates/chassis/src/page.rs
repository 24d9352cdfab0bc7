//! Reads for HTTP: a row by its key, and pages of a list, with a cursor that says where the next page
//! begins. Never locks a row, never counts what is on other pages.

use std::collections::BTreeSet;

use axum::response::Response;
use ports::{Key, Op, Range, Reply, Store};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{Problem, ok};
use crate::{Document, document};

/// Most rows on a page.
pub const LIMIT_MAX: usize = 200;
/// Rows on a page, where the caller does not say.
pub const LIMIT_DEFAULT: usize = 50;
/// Behind every key and index value: they are ASCII without control characters.
pub(crate) const BEHIND_ALL: &str = "\u{7f}";

/// Which page of a list: `?limit&cursor`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// 1 to [`LIMIT_MAX`]; [`LIMIT_DEFAULT`] where absent.
    pub limit: Option<usize>,
    /// The `next` of the page before; the first page where absent.
    pub cursor: Option<String>,
}

/// What is listed: rows by one index column.
#[derive(Debug)]
pub struct List {
    column: usize,
    from: String,
    to: String,
    descending: bool,
    /// Rows that are read at a time.
    bite: usize,
}

impl List {
    /// All rows that have a value in the column at this position, lowest first.
    pub fn all(column: usize) -> Self {
        List::between(column, (String::new(), BEHIND_ALL.to_owned()))
    }

    /// Those with a value from the lowest (included) to the highest (excluded), lowest first.
    pub fn between(column: usize, (from, to): (String, String)) -> Self {
        List { column, from, to, descending: false, bite: usize::MAX }
    }

    /// Its first rows, at most so many, as a read of a store.
    pub fn first(self, limit: usize) -> Range {
        let List { column, from, to, descending, bite: _ } = self;
        Range { column, from, to, after: None, descending, limit }
    }

    /// The same, highest first.
    pub fn descending(self) -> Self {
        List { descending: true, ..self }
    }

    /// Its pages are read so many rows at a time: for rows that are much larger than what is shown of them.
    pub(crate) fn in_bites(self, bite: usize) -> Self {
        List { bite, ..self }
    }
}

/// The document under a key as it is committed, `None` where there is none.
pub async fn read_row<D: Document>(store: &dyn Store, key: &Key) -> Result<Option<D>, Problem> {
    let keys = BTreeSet::from([key.clone()]);
    match store.read(vec![Op::Read { table: D::TABLE, keys }]).await?.pop() {
        Some(Reply::Rows(rows)) => Ok(rows.get(key).and_then(document)),
        _ => Err(no_answer()),
    }
}

/// A page as `{"items": [...], "next": cursor or null}`, each document as `shown` shows it.
pub async fn list_page<D: Document>(
    store: &dyn Store,
    list: List,
    page: Page,
    shown: impl Fn(&D) -> Value,
) -> Result<Response, Problem> {
    let limit = page.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::invalid(format!("limit is from 1 to {LIMIT_MAX}")));
    }
    let List { column, from, to, descending, bite } = list;
    let mut after = match page.cursor.as_deref().map(decode) {
        None => None,
        Some(Some((of, value, key))) if of == column && from <= value && value < to => {
            Some((value, key))
        }
        Some(_) => return Err(Problem::invalid("the cursor is not one of this list")),
    };
    let (mut items, mut listed, mut more) = (Vec::new(), 0, false);
    while !more {
        // One more than asked for tells whether there is a next page.
        let most = bite.min(limit + 1 - listed);
        let (from, to) = (from.clone(), to.clone());
        let range = Range { column, from, to, after: after.clone(), descending, limit: most };
        let replies = store.read(vec![Op::List { table: D::TABLE, range }]).await?.pop();
        let Some(Reply::Listed(mut rows)) = replies else { return Err(no_answer()) };
        let ended = rows.len() < most;
        more = listed + rows.len() > limit;
        rows.truncate(limit - listed);
        listed += rows.len();
        items.extend(rows.iter().filter_map(|(_, row)| document(row)).map(|it| shown(&it)));
        if let Some((key, row)) = rows.pop() {
            after = row.index.into_iter().nth(column).flatten().map(|value| (value, key));
        }
        if ended {
            break;
        }
    }
    let next = after.filter(|_| more).map(|(value, key)| encode(column, &value, &key));
    Ok(ok(json!({ "items": items, "next": next })))
}

fn no_answer() -> Problem {
    Problem::unavailable("the store did not answer; try again")
}

/// Hexadecimal digits of the column, which a list and its filters differ in, its value and the key: none has
/// line breaks.
fn encode(column: usize, value: &str, key: &str) -> String {
    envelope::hex(format!("{column}\n{value}\n{key}").as_bytes())
}

fn decode(cursor: &str) -> Option<(usize, String, Key)> {
    let digits = cursor.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    let text = String::from_utf8(digits.collect::<Option<Vec<u8>>>()?).ok()?;
    let (column, at) = text.split_once('\n')?;
    let (value, key) = at.split_once('\n')?;
    let readable = |text: &str| !text.is_empty() && text.bytes().all(|b| matches!(b, b' '..=b'~'));
    let column = column.parse().ok()?;
    (readable(value) && readable(key)).then(|| (column, value.to_owned(), key.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let at = (2, "placed 2026-01-02T03:04:05.000Z".to_owned(), Key::from("o|1"));
        assert_eq!(decode(&encode(at.0, &at.1, &at.2)), Some(at));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in [
            "",
            "6",
            "zz",
            "+1+2",
            "c3",
            "c328",
            "6161",
            "é1",
            "310a000a61",
            "0a",
            "610a",
            "310a61",
            "310a610a",
            "780a610a61",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
