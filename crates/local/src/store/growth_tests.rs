//! Nothing costs more for a long history: the same work on a thousand and on a million old rows.
//! Counted in steps of SQLite's machine, never in time.

use std::collections::BTreeSet;

use chrono::DateTime;
use ports::{Key, Op, Range, Reply, Row, Rows, Table};
use rusqlite::{Connection, StatementStatus, ToSql};

use super::{ops, schema};

/// As the chassis' inbox: found by key, and by the instant from which on it may go.
static OLD: Table = Table { name: "old", index: &["expires_at"] };

/// A store with so many expired rows, and as many events that were sent and are gone.
fn store(rows: u32) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    schema::prepare(&connection, &[&OLD]).unwrap();
    let insert = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
         INSERT INTO old (key, version, body, expires_at)
         SELECT printf('event-%08d', i), 1, '{}', printf('2026-01-01T00:00:%08d', i) FROM n";
    connection.execute(insert, [rows]).unwrap();
    connection
}

fn expired(limit: usize) -> Range {
    let (from, to) = (String::new(), "2027".to_owned());
    Range { column: 0, from, to, after: None, descending: false, limit }
}

fn behind(limit: usize) -> Range {
    let after = Some(("2026-01-01T00:00:00000500".to_owned(), Key::from("event-00000500")));
    Range { after, ..expired(limit) }
}

/// Each kind of statement, with values that find something.
fn statements() -> Vec<(String, Vec<Box<dyn ToSql>>)> {
    let text = |text: &str| -> Box<dyn ToSql> { Box::new(text.to_owned()) };
    let number = |number: i64| -> Box<dyn ToSql> { Box::new(number) };
    let range = |after: bool| {
        let mut values = vec![text(""), text("2027"), number(100)];
        if after {
            values.extend([text("2026-01-01T00:00:00000500"), text("event-00000500")]);
        }
        values
    };
    let backwards = Range { descending: true, ..expired(100) };
    vec![
        (ops::load_sql(&OLD), vec![text("event-00000500")]),
        (ops::insert_sql(&OLD), vec![number(1), text("{}"), text("event-00000500"), text("2030")]),
        (ops::insert_sql(&OLD), vec![number(1), text("{}"), text("new"), text("2030")]),
        (ops::update_sql(&OLD), vec![number(2), text("{}"), text("event-00000500"), text("2030")]),
        (ops::delete_sql(&OLD), vec![text("event-00000501")]),
        (ops::list_sql(&OLD, &expired(100)), range(false)),
        (ops::list_sql(&OLD, &behind(100)), range(true)),
        (ops::list_sql(&OLD, &backwards), range(false)),
        (ops::UNSENT.to_owned(), vec![number(0), number(100)]),
        (ops::SENT.to_owned(), vec![number(7)]),
    ]
}

/// Steps that the statement takes; it neither scans a table nor sorts.
fn steps(connection: &Connection, sql: &str, values: &[Box<dyn ToSql>]) -> i32 {
    let mut statement = connection.prepare(sql).unwrap();
    let values: Vec<&dyn ToSql> = values.iter().map(|value| &**value).collect();
    if statement.column_count() == 0 {
        statement.execute(&values[..]).unwrap();
    } else {
        let mut rows = statement.query(&values[..]).unwrap();
        while rows.next().unwrap().is_some() {}
    }
    let counted =
        [StatementStatus::FullscanStep, StatementStatus::Sort, StatementStatus::AutoIndex]
            .map(|status| statement.get_status(status));
    assert_eq!(counted, [0; 3], "steps of a scan, sorts, indexes made on the way: {sql}");
    statement.get_status(StatementStatus::VmStep)
}

#[test]
fn every_statement_searches_by_an_index() {
    let connection = store(1_000);
    for (sql, values) in statements() {
        let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let values: Vec<&dyn ToSql> = values.iter().map(|value| &**value).collect();
        let plan = explain.query_map(&values[..], |row| row.get::<_, String>(3)).unwrap();
        for step in plan.map(Result::unwrap) {
            assert!(step.starts_with("SEARCH"), "{step}: {sql}");
        }
    }
}

#[test]
fn a_million_old_rows_cost_a_batch_and_a_sweep_nothing() {
    let (small, large) = (store(1_000), store(1_000_000));
    for (sql, values) in statements() {
        let (few, many) = (steps(&small, &sql, &values), steps(&large, &sql, &values));
        assert_eq!(few, many, "{sql}");
    }
    // A sweep touches as many rows as it deletes: those that expired longest ago, once each.
    let now = DateTime::UNIX_EPOCH;
    let left = |connection: &Connection| -> u32 {
        connection.query_row("SELECT count(*) FROM old", [], |row| row.get(0)).unwrap()
    };
    let before = left(&large);
    let mut last = String::new();
    for _ in 0..10 {
        let claim = Op::Claim { table: &OLD, range: expired(500) };
        let replies = ops::apply(&large, vec![claim], now).unwrap();
        let Some(Reply::Listed(rows)) = replies.into_iter().next() else { panic!("no list") };
        let value = |row: &Row| row.index[0].clone().unwrap();
        assert!(rows.len() == 500 && value(&rows[0].1) > last);
        last = value(&rows[499].1);
        let keys: BTreeSet<Key> = rows.into_iter().map(|(key, _)| key).collect();
        let changes = large.total_changes();
        ops::apply(&large, vec![Op::Delete { table: &OLD, keys }], now).unwrap();
        assert_eq!(large.total_changes() - changes, 500);
    }
    assert_eq!(before - left(&large), 5_000);
    // And what a batch inserts beside it is found again.
    let row = Row { version: 0, index: vec![Some("2030".to_owned())], body: "{}".to_owned() };
    let rows = Rows::from_iter([(Key::from("event-new"), row)]);
    let insert = || vec![Op::Insert { table: &OLD, rows: rows.clone() }];
    assert_eq!(ops::apply(&large, insert(), now).unwrap(), [Reply::Rows(Rows::new())]);
    let Reply::Rows(known) = ops::apply(&large, insert(), now).unwrap().remove(0) else {
        panic!("no rows")
    };
    assert_eq!(known.len(), 1);
}
