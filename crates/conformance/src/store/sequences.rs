//! Sequences of store operations, and what a store answers to them. Never judges by itself: the
//! answers of two stores must be equal, and the store model is one of them.
//!
//! Sequences have one open transaction at a time, so that a store with one writer can run them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use chrono::DateTime;
use ports::{
    Channel, Fault, Key, Op, Outcome, Outgoing, Range, Reply, Row, Rows, Store, Table, Tx,
};

/// A table with two index columns.
pub static ITEMS: Table = Table { name: "items", index: &["due", "owner"] };

/// A table without an index, whose name is a word of SQL.
pub static GROUPS: Table = Table { name: "group", index: &[] };

/// The tables of all sequences.
pub const TABLES: [&Table; 2] = [&ITEMS, &GROUPS];

/// A step of a sequence.
#[derive(Debug, Clone)]
pub enum Step {
    /// A whole transaction.
    Transact(Vec<Op>),
    /// Opens a transaction.
    Begin(Vec<Op>),
    /// Goes on with it.
    Run(Vec<Op>),
    /// Commits it.
    Commit(Vec<Op>),
    /// Drops it.
    Drop,
    /// Reads beside it.
    Read(Vec<Op>),
}

/// What a store answered to a step; faults by their kind, ids of the outbox by their order (0 where
/// only a transaction saw them yet: a rollback may or may not give those back), times left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Replies, or nothing to say.
    Replies(Vec<Reply>),
    /// No effect, try again.
    Retry,
    /// No effect, ever.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// Runs a sequence on a prepared store without rows; what it answered, step by step.
///
/// A `Run` or `Commit` without an open transaction is left out.
pub async fn replay(store: &dyn Store, steps: &[Step]) -> Vec<Seen> {
    let mut ids = BTreeMap::new();
    let mut open: Option<Box<dyn Tx>> = None;
    let mut seen = Vec::new();
    for step in steps {
        let result = match step.clone() {
            Step::Transact(ops) => store.transact(renumbered(ops, &ids)).await,
            Step::Read(ops) => store.read(ops).await,
            Step::Begin(ops) => {
                drop(open.take());
                store.begin(renumbered(ops, &ids)).await.map(|(tx, replies)| {
                    open = Some(tx);
                    replies
                })
            }
            Step::Run(ops) => match &mut open {
                Some(tx) => tx.run(renumbered(ops, &ids)).await,
                None => continue,
            },
            Step::Commit(ops) => match open.take() {
                Some(tx) => tx.commit(renumbered(ops, &ids)).await.map(|()| Vec::new()),
                None => continue,
            },
            Step::Drop => {
                drop(open.take());
                Ok(Vec::new())
            }
        };
        if matches!(step, Step::Run(_)) && result.is_err() {
            open = None;
        }
        seen.push(observe(result, matches!(step, Step::Read(_)), &mut ids));
    }
    seen
}

/// Ids in [`Op::Sent`] count the outbox rows in the order in which they were first seen, from 1.
fn renumbered(mut ops: Vec<Op>, ids: &BTreeMap<i64, i64>) -> Vec<Op> {
    for op in &mut ops {
        if let Op::Sent { ids: sent } = op {
            let real = |wanted: i64| ids.iter().find(|(_, seen)| **seen == wanted);
            *sent = sent.iter().filter_map(|id| real(*id).map(|(id, _)| *id)).collect();
        }
    }
    ops
}

fn observe(result: Outcome<Vec<Reply>>, committed: bool, ids: &mut BTreeMap<i64, i64>) -> Seen {
    let mut replies = match result {
        Ok(replies) => replies,
        Err(Fault::Retry(_)) => return Seen::Retry,
        Err(Fault::Refused(_)) => return Seen::Refused,
        Err(Fault::Unknown(_)) => return Seen::Unknown,
    };
    for reply in &mut replies {
        match reply {
            Reply::Now(now) => *now = DateTime::UNIX_EPOCH,
            Reply::Outbox(rows) => {
                for row in rows {
                    row.at = DateTime::UNIX_EPOCH;
                    let next = ids.len() as i64 + 1;
                    row.id = match ids.get(&row.id) {
                        Some(known) => *known,
                        None if committed => *ids.entry(row.id).or_insert(next),
                        None => 0,
                    };
                }
            }
            Reply::Done | Reply::Rows(_) | Reply::Listed(_) => {}
        }
    }
    Seen::Replies(replies)
}

/// A row of [`ITEMS`].
pub fn item(version: i64, due: Option<&str>, owner: Option<&str>) -> Row {
    let index = vec![due.map(String::from), owner.map(String::from)];
    Row { version, index, body: format!("{{\"due\":\"{}\"}}", due.unwrap_or_default()) }
}

/// A row of [`GROUPS`].
pub fn group(version: i64) -> Row {
    Row { version, index: Vec::new(), body: format!("{{\"at\":{version}}}") }
}

/// Rows by key.
pub fn rows<const N: usize>(rows: [(&str, Row); N]) -> Rows {
    rows.into_iter().map(|(key, row)| (key.into(), row)).collect()
}

/// Keys in order.
pub fn keys<const N: usize>(keys: [&str; N]) -> BTreeSet<Key> {
    keys.into_iter().map(Key::from).collect()
}

/// A range of the first index column, ascending, from its beginning.
pub fn range(from: &str, to: &str, limit: usize) -> Range {
    Range { column: 0, from: from.into(), to: to.into(), after: None, descending: false, limit }
}

/// A row for the outbox.
pub fn outgoing(shard: u16, key: &str) -> Outgoing {
    let header = |name: &str, value: &'static [u8]| (Arc::from(name), Bytes::from_static(value));
    Outgoing {
        shard,
        channel: if shard == 0 { Channel::Topic } else { Channel::Queue },
        to: "orders.events".into(),
        key: key.into(),
        headers: vec![header("a", b"1"), header("a", b""), header("b", &[0, 255])],
        payload: Bytes::from(format!("payload of {key}")),
    }
}

/// The hand-written sequences by name.
pub fn sequences() -> Vec<(&'static str, Vec<Step>)> {
    let mut all = writes();
    all.extend(reads());
    all.extend(endings());
    all
}

fn put<const N: usize>(given: [(&str, Row); N]) -> Op {
    Op::Put { table: &ITEMS, rows: rows(given) }
}

fn insert<const N: usize>(given: [(&str, Row); N]) -> Op {
    Op::Insert { table: &ITEMS, rows: rows(given) }
}

fn lock<const N: usize>(given: [&str; N]) -> Op {
    Op::Lock { table: &ITEMS, keys: keys(given) }
}

fn read<const N: usize>(given: [&str; N]) -> Op {
    Op::Read { table: &ITEMS, keys: keys(given) }
}

fn delete<const N: usize>(given: [&str; N]) -> Op {
    Op::Delete { table: &ITEMS, keys: keys(given) }
}

fn everything() -> Step {
    let list = |column| Op::List { table: &ITEMS, range: Range { column, ..range("", "~", 99) } };
    let unsent = |shard| Op::Unsent { shard, limit: 99 };
    let all =
        Op::Read { table: &ITEMS, keys: keys(["", "a", "B", "b", "c", "d", "ß", "'", "\\"]) };
    let groups = Op::Read { table: &GROUPS, keys: keys(["a", "b", "c", "d"]) };
    Step::Read(vec![list(0), list(1), unsent(0), unsent(1), all, groups, Op::Now])
}

fn writes() -> Vec<(&'static str, Vec<Step>)> {
    let plain = item(0, Some("1"), None);
    let insert_twice = vec![
        Step::Transact(vec![insert([("a", item(7, Some("1"), None)), ("b", plain.clone())])]),
        Step::Transact(vec![insert([("b", item(0, Some("2"), Some("x"))), ("c", plain.clone())])]),
        everything(),
    ];
    let locked_then_written = vec![
        Step::Begin(vec![lock(["a", "b", "c", "d"])]),
        everything(),
        Step::Run(vec![read(["a"]), lock(["a"])]),
        Step::Commit(vec![put([("a", plain.clone())]), insert([("b", plain.clone())])]),
        everything(),
        Step::Begin(vec![lock(["a", "b", "c"])]),
        Step::Run(vec![put([("a", item(1, Some("2"), None))])]),
        Step::Run(vec![lock(["a", "c"]), read(["a", "c"]), insert([("c", plain.clone())])]),
        Step::Run(vec![put([("a", item(2, None, Some("y"))), ("c", item(1, None, None))])]),
        Step::Commit(vec![delete(["b", "d"])]),
        everything(),
    ];
    let wrong_version = vec![
        Step::Transact(vec![put([("a", plain.clone())])]),
        Step::Transact(vec![put([("b", plain.clone())]), put([("a", plain.clone())])]),
        Step::Transact(vec![put([("b", plain.clone()), ("c", item(1, None, None))])]),
        Step::Begin(vec![insert([("b", plain.clone())])]),
        Step::Commit(vec![put([("a", item(2, None, None)), ("d", plain.clone())])]),
        Step::Begin(vec![put([("a", item(9, None, None))])]),
        Step::Transact(vec![put([("a", item(-1, None, None))])]),
        everything(),
    ];
    let deleted_and_back = vec![
        Step::Transact(vec![insert([("a", plain.clone()), ("b", plain.clone())])]),
        Step::Begin(vec![lock(["a", "b", "c"])]),
        Step::Run(vec![delete(["a", "b", "c"]), lock(["a", "c"]), read(["a", "b"])]),
        Step::Run(vec![put([("a", plain.clone())]), insert([("b", plain.clone())])]),
        Step::Commit(vec![put([("b", item(1, Some("3"), None))])]),
        everything(),
    ];
    let tables = vec![
        Step::Transact(vec![
            Op::Insert { table: &GROUPS, rows: rows([("a", group(0))]) },
            Op::Put { table: &GROUPS, rows: rows([("b", group(0)), ("c", group(0))]) },
            Op::Lock { table: &GROUPS, keys: keys(["d", "a"]) },
            Op::Delete { table: &GROUPS, keys: keys(["c"]) },
            insert([("", plain.clone()), ("ß", plain.clone()), ("'", plain.clone())]),
            put([("\\", plain)]),
        ]),
        everything(),
        Step::Transact(vec![
            Op::Lock { table: &GROUPS, keys: BTreeSet::new() },
            Op::Insert { table: &GROUPS, rows: Rows::new() },
            Op::Put { table: &GROUPS, rows: Rows::new() },
            Op::Delete { table: &GROUPS, keys: BTreeSet::new() },
            Op::Read { table: &GROUPS, keys: BTreeSet::new() },
            Op::Append { rows: Vec::new() },
            Op::Sent { ids: BTreeSet::new() },
        ]),
        Step::Transact(Vec::new()),
    ];
    vec![
        ("insert_replies_with_what_existed", insert_twice),
        ("a_locked_absent_key_can_be_written", locked_then_written),
        ("another_version_fails_the_transaction", wrong_version),
        ("a_deleted_row_starts_anew", deleted_and_back),
        ("tables_keys_and_empty_sets", tables),
    ]
}

fn reads() -> Vec<(&'static str, Vec<Step>)> {
    let list = |range| Op::List { table: &ITEMS, range };
    let after = |value: &str, key: &str, descending| Range {
        after: Some((value.into(), key.into())),
        descending,
        ..range("1", "4", 2)
    };
    let ordered = vec![
        Step::Transact(vec![put([
            ("c", item(0, Some("1"), Some("x"))),
            ("a", item(0, Some("2"), None)),
            ("B", item(0, Some("2"), Some("x"))),
            ("b", item(0, Some("2"), Some("Y"))),
            ("d", item(0, Some("4"), None)),
            ("ß", item(0, None, Some("x"))),
        ])]),
        Step::Read(vec![
            list(range("1", "4", 9)),
            list(range("", "2", 9)),
            list(range("2", "2", 9)),
        ]),
        Step::Read(vec![
            list(range("3", "1", 9)),
            list(range("1", "4", 0)),
            list(range("1", "5", 2)),
        ]),
        Step::Read(vec![list(after("1", "c", false)), list(after("2", "a", false))]),
        Step::Read(vec![list(after("0", "z", false)), list(after("2", "b", false))]),
        Step::Read(vec![list(after("9", "", true)), list(after("2", "a", true))]),
        Step::Read(vec![list(after("1", "c", true)), list(after("9", "a", false))]),
        Step::Read(vec![list(Range { column: 1, descending: true, ..range("", "~", 9) })]),
        Step::Begin(vec![delete(["a"]), put([("d", item(1, Some("2"), None))])]),
        Step::Run(vec![list(range("1", "4", 2)), list(range("2", "4", 9))]),
        Step::Run(vec![list(Range { descending: true, ..range("1", "4", 3) })]),
        Step::Run(vec![Op::Claim { table: &ITEMS, range: range("1", "3", 3) }]),
        Step::Commit(vec![]),
        everything(),
    ];
    let unsent = |shard, limit| Op::Unsent { shard, limit };
    let outbox = vec![
        Step::Transact(vec![Op::Append { rows: vec![outgoing(0, "a"), outgoing(1, "b")] }]),
        Step::Transact(vec![Op::Append { rows: vec![outgoing(0, "c"), outgoing(0, "a")] }]),
        Step::Read(vec![unsent(0, 2), unsent(0, 9), unsent(1, 9), unsent(2, 9), unsent(0, 0)]),
        Step::Begin(vec![Op::Append { rows: vec![outgoing(0, "d")] }, unsent(0, 9)]),
        everything(),
        Step::Run(vec![Op::Sent { ids: BTreeSet::from([1, 3]) }, unsent(0, 9)]),
        Step::Drop,
        everything(),
        Step::Transact(vec![Op::Sent { ids: BTreeSet::from([1, 3]) }]),
        Step::Transact(vec![Op::Sent { ids: BTreeSet::from([1, 3]) }]),
        everything(),
        Step::Transact(vec![Op::Append { rows: vec![outgoing(0, "e")] }]),
        everything(),
    ];
    vec![("lists_are_ordered_by_value_and_key", ordered), ("the_outbox_keeps_its_rows", outbox)]
}

fn endings() -> Vec<(&'static str, Vec<Step>)> {
    static MISSING: Table = Table { name: "missing", index: &[] };
    let plain = item(0, Some("1"), None);
    let wrong = Range { column: 2, ..range("", "~", 9) };
    let dropped = vec![
        Step::Begin(vec![lock(["a"]), insert([("b", plain.clone())])]),
        Step::Run(vec![put([("a", plain.clone())])]),
        Step::Drop,
        everything(),
        Step::Begin(vec![put([("a", plain.clone())])]),
        Step::Commit(vec![Op::Now]),
        everything(),
    ];
    let refused = vec![
        Step::Transact(vec![Op::Read { table: &MISSING, keys: keys(["a"]) }]),
        Step::Transact(vec![put([("b", plain.clone())]), put([("a", group(0))])]),
        Step::Transact(vec![insert([("a", group(0))])]),
        Step::Transact(vec![Op::List { table: &ITEMS, range: wrong.clone() }]),
        Step::Transact(vec![Op::Claim { table: &ITEMS, range: wrong }]),
        Step::Read(vec![lock(["a"])]),
        Step::Read(vec![put([("a", plain)])]),
        everything(),
    ];
    vec![("a_dropped_transaction_did_nothing", dropped), ("what_does_not_fit_is_refused", refused)]
}

/// A sequence drawn from the seed: few keys, all operations, versions that are mostly right.
pub fn random_sequence(seed: u64, length: usize) -> Vec<Step> {
    let mut draw =
        Draw { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, versions: BTreeMap::new() };
    let mut open = false;
    let mut steps = Vec::new();
    for _ in 0..length {
        if draw.below(8) == 0 {
            // A failed put leaves the guesses too high: begin anew.
            draw.versions.clear();
            open = false;
            steps.extend([Step::Drop, Step::Transact(vec![delete(["B", "a", "b", "c", "d"])])]);
        }
        let count = draw.below(3) as usize + 1;
        let ops = (0..count).map(|_| draw.op()).collect();
        let step = match (open, draw.below(4)) {
            (false, 0 | 1) => Step::Begin(ops),
            (false, _) => Step::Transact(ops),
            (true, 0) => Step::Drop,
            (true, 1) => Step::Commit(ops),
            (true, _) => Step::Run(ops),
        };
        open = matches!(step, Step::Begin(_) | Step::Run(_));
        steps.push(step);
        if draw.below(3) == 0 {
            steps.push(everything());
        }
    }
    steps.extend([Step::Drop, everything()]);
    steps
}

struct Draw {
    state: u64,
    /// A guess at the present version by key.
    versions: BTreeMap<Key, i64>,
}

impl Draw {
    fn below(&mut self, below: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % below
    }

    fn key(&mut self) -> Key {
        ["a", "B", "b", "c", "d"][self.below(5) as usize].into()
    }

    fn keys(&mut self) -> BTreeSet<Key> {
        (0..self.below(3) + 1).map(|_| self.key()).collect()
    }

    fn value(&mut self) -> Option<String> {
        (self.below(4) > 0).then(|| self.below(4).to_string())
    }

    fn rows(&mut self, put: bool) -> Rows {
        let keys = self.keys();
        let row = |key: Key| {
            let guess = self.versions.entry(key.clone()).or_insert(0);
            let version = *guess;
            *guess += 1;
            let off = i64::from(self.below(12) == 0);
            let index = vec![self.value(), self.value()];
            let body = format!("{{\"n\":{}}}", self.below(100));
            (key, Row { version: if put { version + off } else { 0 }, index, body })
        };
        keys.into_iter().map(row).collect()
    }

    fn range(&mut self) -> Range {
        let after = (self.below(3) == 0).then(|| (self.below(4).to_string(), self.key()));
        Range {
            column: self.below(2) as usize,
            from: self.below(3).to_string(),
            to: self.below(5).to_string(),
            after,
            descending: self.below(2) == 0,
            limit: self.below(4) as usize,
        }
    }

    fn op(&mut self) -> Op {
        match self.below(10) {
            0 => Op::Insert { table: &ITEMS, rows: self.rows(false) },
            1 | 2 => Op::Put { table: &ITEMS, rows: self.rows(true) },
            3 => Op::Lock { table: &ITEMS, keys: self.keys() },
            4 => {
                let keys = self.keys();
                self.versions.retain(|key, _| !keys.contains(key));
                Op::Delete { table: &ITEMS, keys }
            }
            5 => Op::Append { rows: vec![outgoing(self.below(2) as u16, "a")] },
            6 => Op::Sent { ids: BTreeSet::from([self.below(6) as i64]) },
            7 => Op::Claim { table: &ITEMS, range: self.range() },
            8 => Op::List { table: &ITEMS, range: self.range() },
            _ => Op::Unsent { shard: 0, limit: self.below(4) as usize },
        }
    }
}
