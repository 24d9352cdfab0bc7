//! Pages of a list: strict parameters, and a cursor that says where the next page begins. Never
//! counts what is on other pages.

use chassis::http::Problem;
use chassis::{Document, document};
use ports::{Key, Op, Range, Reply, Store};

/// Most rows on a page.
const LIMIT_MAX: usize = 200;
/// Rows on a page, where the caller does not say.
const LIMIT_DEFAULT: usize = 50;

/// What is listed.
#[derive(Debug)]
pub struct List {
    /// Position of the index column.
    pub column: usize,
    /// Lowest value, included.
    pub from: String,
    /// Highest value, excluded.
    pub to: String,
    /// Highest first.
    pub descending: bool,
}

/// Reads a page: its documents and the next page's cursor.
pub async fn read<D: Document>(
    store: &dyn Store,
    list: List,
    limit: Option<usize>,
    cursor: Option<&str>,
) -> Result<(Vec<D>, Option<String>), Problem> {
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::invalid(format!("limit is from 1 to {LIMIT_MAX}")));
    }
    let List { column, from, to, descending } = list;
    let after = match cursor.map(decode) {
        None => None,
        Some(Some((value, key))) if from <= value && value < to => Some((value, key)),
        Some(_) => return Err(Problem::invalid("the cursor is not one of this list")),
    };
    // One more than asked for tells whether there is a next page.
    let range = Range { column, from, to, after, descending, limit: limit + 1 };
    let mut replies = store.read(vec![Op::List { table: D::TABLE, range }]).await?;
    let Some(Reply::Listed(mut rows)) = replies.pop() else {
        return Err(Problem::unavailable("the store did not answer; try again"));
    };
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().filter(|_| more);
    let next = last.and_then(|(key, row)| Some(encode(row.index[column].as_deref()?, key)));
    Ok((rows.iter().filter_map(|(_, row)| document(row)).collect(), next))
}

/// Hexadecimal digits of `value`, a line break, and the key: neither has line breaks.
fn encode(value: &str, key: &str) -> String {
    format!("{value}\n{key}").bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(cursor: &str) -> Option<(String, Key)> {
    let digits = cursor.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    let text = String::from_utf8(digits.collect::<Option<Vec<u8>>>()?).ok()?;
    let (value, key) = text.split_once('\n')?;
    let visible = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    (visible(value) && visible(key)).then(|| (value.to_owned(), key.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let at = ("placed|2026-01-02T03:04:05.000Z".to_owned(), Key::from("o|1"));
        assert_eq!(decode(&encode(&at.0, &at.1)), Some(at));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", "6", "zz", "+1+2", "c3", "c328", "6161", "é1", "000a61"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
