//! How a table that exists differs from the one that is wanted, in words: for stores, which refuse it.

/// Such as `lacks a, b and has also c`; `None` where the columns are the same.
pub fn difference(wanted: &[&str], found: &[&str]) -> Option<String> {
    let only = |these: &[&str], those: &[&str]| -> Vec<String> {
        these.iter().filter(|name| !those.contains(name)).map(|name| (*name).to_owned()).collect()
    };
    let said: Vec<String> = [("lacks", only(wanted, found)), ("has also", only(found, wanted))]
        .into_iter()
        .filter(|(_, columns)| !columns.is_empty())
        .map(|(verb, columns)| format!("{verb} {}", columns.join(", ")))
        .collect();
    Some(said.join(" and ")).filter(|said| !said.is_empty())
}
