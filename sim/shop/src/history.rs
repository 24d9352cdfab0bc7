//! What the databases hold when a world begins: outcomes and letters that have expired, for retention to
//! sweep while orders run, and letters as old that are open, which it leaves alone.

use chassis::{
    DEAD_LETTERS, DeadLetter, Document, INBOX, InboxRow, LetterState, LetterText, Marker, PARKED,
    Waiting,
};
use contract::{Service, Stream};
use ports::{Key, Op, Row, Rows, Store};
use serde::Serialize;
use sim_engine::Cluster;

use crate::nodes::World;
use crate::poison::PLANTED;
use crate::workload::Workload;

const OLD: &str = "old-";

/// When all of it came about.
const LONG_AGO: &str = "2000-01-01T00:00:00.000Z";
/// Longer ago than an event's outcome is kept, and not as long as a closed letter is (90 days).
const A_MONTH_AGO: &str = "2025-12-01T00:00:00.000Z";

/// Writes it, before any node starts.
pub async fn write(cluster: &Cluster, workload: &Workload) {
    let Some(retention) = &workload.retention else { return };
    let expired = InboxRow::Applied {
        fingerprint: OLD.to_owned(),
        expires_at: LONG_AGO.to_owned(),
        reply: None,
    };
    let key = |n: u32| Key::from(format!("{OLD}{n}"));
    let inbox: Rows = (0..retention.old_rows).map(|n| (key(n), row(&expired))).collect();
    let mut ops = vec![Op::Insert { table: &INBOX, rows: inbox }];
    if retention.letters {
        let closed = letter("closed", LetterState::Superseded);
        let open = letter("open", LetterState::Dead);
        let kept = letter("kept", LetterState::Superseded);
        let kept = DeadLetter { closed_at: Some(A_MONTH_AGO.to_owned()), ..kept };
        let waiting = Waiting { id: open.id.clone(), dead: true };
        let (key, since) = (open.key.clone(), LONG_AGO.to_owned());
        let marker = Marker { key, since, letters: vec![waiting], tried: None };
        let markers = [(Key::from(marker.key.as_str()), row(&marker))].into_iter().collect();
        let letters = [closed, open, kept];
        let letters = letters.iter().map(|it| (Key::from(it.id.as_str()), row(it))).collect();
        ops.push(Op::Insert { table: &DEAD_LETTERS, rows: letters });
        ops.push(Op::Insert { table: &PARKED, rows: markers });
    }
    for service in Service::ALL {
        let database = cluster.database(service.name());
        let store = database.client("history", cluster.server_runtime());
        let written = match store.prepare(&[&INBOX, &DEAD_LETTERS, &PARKED]).await {
            Ok(()) => store.transact(ops.clone()).await.map(drop),
            failed => failed,
        };
        written.expect("nothing fails before the world begins");
    }
}

fn row<D: Document + Serialize>(document: &D) -> Row {
    let body = serde_json::to_string(document).expect("a document has a JSON form");
    Row { version: 0, index: document.index(), body }
}

/// What a stranger sent long ago, and nobody can read.
fn letter(name: &str, state: LetterState) -> DeadLetter {
    let id = format!("{OLD}{name}");
    DeadLetter {
        key: id.clone(),
        inbox_id: id.clone(),
        id,
        state,
        from: Stream::OrdersEvents.name().to_owned(),
        partition: Some(0),
        offset: Some(0),
        produced_at: None,
        headers: vec![(PLANTED.to_owned(), LetterText::of(OLD.as_bytes()))],
        payload: LetterText::of(OLD.as_bytes()),
        edited: None,
        event_id: None,
        event_type: None,
        correlation_id: None,
        code: "bad_envelope".to_owned(),
        error: "it is no JSON".to_owned(),
        attempts: 1,
        first_failed_at: LONG_AGO.to_owned(),
        last_failed_at: LONG_AGO.to_owned(),
        closed_at: (!state.is_open()).then(|| LONG_AGO.to_owned()),
        note: None,
    }
}

/// Whether a letter is the closed one whose time has not come.
pub fn is_kept(letter: &DeadLetter) -> bool {
    is_old(letter) && letter.closed_at.as_deref() == Some(A_MONTH_AGO)
}

/// Whether a letter is of what a world began with.
pub fn is_old(letter: &DeadLetter) -> bool {
    letter.id.starts_with(OLD)
}

/// How many rows are still there that have expired.
pub fn left(world: &World) -> usize {
    let of = |service: Service| {
        let old = |(key, _): &(&Key, &Row)| key.starts_with(OLD);
        // Of its second index column: when it was closed.
        let closed = |(_, row): &(&Key, &Row)| row.index[1].as_deref() == Some(LONG_AGO);
        world.database(service).with(|db| {
            let letters = db.rows(&DEAD_LETTERS).filter(closed).count();
            db.rows(&INBOX).filter(old).count() + letters
        })
    };
    Service::ALL.into_iter().map(of).sum()
}
