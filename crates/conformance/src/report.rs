//! The table statement × backend. Never hides a case: what did not apply or did not run is printed
//! with its reason.

use std::fmt;

use crate::case::{Case, Verdict};

/// A backend's verdicts, in the order of the cases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The backend.
    pub name: String,
    /// One for each case.
    pub verdicts: Vec<Verdict>,
}

impl Column {
    /// Of a backend that nobody could look at.
    pub fn not_run<B: ?Sized>(cases: &[Case<B>], name: &str, why: &str) -> Column {
        let verdicts = vec![Verdict::NotRun(why.to_owned()); cases.len()];
        Column { name: name.to_owned(), verdicts }
    }
}

/// The table of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    title: &'static str,
    /// Number, statement, versions.
    rows: Vec<(&'static str, &'static str, &'static str)>,
    columns: Vec<Column>,
}

impl Section {
    /// The cases of a port and what its backends showed.
    pub fn new<B: ?Sized>(title: &'static str, cases: &[Case<B>], columns: Vec<Column>) -> Self {
        let rows = cases.iter().map(|case| (case.id, case.statement, case.versions)).collect();
        Section { title, rows, columns }
    }

    /// The number of each case; empty where it has none.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &'static str> {
        self.rows.iter().map(|(id, ..)| *id)
    }

    /// The outcome of each case on each backend.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = &'static str> {
        self.columns.iter().flat_map(|column| column.verdicts.iter().map(cell))
    }

    /// Whether a case did not run.
    pub fn incomplete(&self) -> bool {
        let verdicts = self.columns.iter().flat_map(|column| &column.verdicts);
        verdicts.into_iter().any(|verdict| matches!(verdict, Verdict::NotRun(_)))
    }

    /// Whether a backend differs from a statement.
    pub fn differs(&self) -> bool {
        let verdicts = self.columns.iter().flat_map(|column| &column.verdicts);
        verdicts.into_iter().any(|verdict| matches!(verdict, Verdict::Differs(_)))
    }
}

/// As wide as the longest word in a cell.
const CELL: usize = 14;

fn cell(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Agrees => "agrees",
        Verdict::Differs(_) => "DIFFERS",
        Verdict::Waived(_) => "waived",
        Verdict::NotApplicable(_) => "not applicable",
        Verdict::NotRun(_) => "not run",
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let claim = |row: &(&str, &str, &str)| format!("{} ({})", row.1, row.2);
        let wide = self.rows.iter().map(|row| claim(row).chars().count()).max().unwrap_or(0);
        let mut header = format!("{:<wide$}", self.title, wide = wide + 5);
        for column in &self.columns {
            header += &format!("  {:<CELL$}", column.name);
        }
        writeln!(f, "{}", header.trim_end())?;
        for (at, row) in self.rows.iter().enumerate() {
            let mut line = format!("{:<3}  {:<wide$}", row.0, claim(row));
            for column in &self.columns {
                let width = column.name.chars().count().max(CELL);
                let cell = column.verdicts.get(at).map_or("", cell);
                line += &format!("  {cell:<width$}");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        self.notes(f)
    }
}

impl Section {
    /// One line for each verdict that needs a word, and for each reason once.
    fn notes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for column in &self.columns {
            let mut told: Vec<&str> = Vec::new();
            for (row, verdict) in self.rows.iter().zip(&column.verdicts) {
                let why = match verdict {
                    Verdict::Agrees => continue,
                    Verdict::NotApplicable(why)
                    | Verdict::NotRun(why)
                    | Verdict::Waived(why)
                    | Verdict::Differs(why) => why,
                };
                if matches!(verdict, Verdict::Differs(_) | Verdict::Waived(_)) {
                    writeln!(f, "  {} {} on {}: {why}", row.0, cell(verdict), column.name)?;
                } else if !told.contains(&why.as_str()) {
                    writeln!(f, "  {}, {}: {why}", column.name, cell(verdict))?;
                    told.push(why);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_hidden() {
        let case = |id| Case::<()>::new(id, "it holds", "all", |_: &()| Box::pin(async { Ok(()) }));
        let cases = [case("K1"), case("K2"), case("K3")];
        let no = |why: &str| Verdict::NotApplicable(why.to_owned());
        let one = vec![Verdict::Agrees, no("no clock"), no("no clock")];
        let two = vec![Verdict::Agrees, Verdict::Agrees, Verdict::Differs("left: 1".to_owned())];
        let columns = vec![
            Column { name: "model".to_owned(), verdicts: one },
            Column { name: "a server elsewhere".to_owned(), verdicts: two },
            Column::not_run(&cases, "absent", "no address"),
        ];
        let section = Section::new("EventLog", &cases, columns);
        assert!(section.differs());
        let text = section.to_string();
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "EventLog model a server elsewhere absent",
                "K1 it holds (all) agrees agrees not run",
                "K2 it holds (all) not applicable agrees not run",
                "K3 it holds (all) not applicable DIFFERS not run",
                "model, not applicable: no clock",
                "K3 DIFFERS on a server elsewhere: left: 1",
                "absent, not run: no address",
            ]
        );
    }
}
