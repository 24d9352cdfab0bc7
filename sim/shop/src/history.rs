//! What the databases hold when a world begins: outcomes that have expired, for retention to sweep
//! while orders run.

use chassis::{Document, INBOX, InboxRow};
use contract::Service;
use ports::{Key, Op, Row, Rows, Store};
use sim_engine::Cluster;

use crate::nodes::World;
use crate::workload::Workload;

const OLD: &str = "old-";

/// Writes it, before any node starts.
pub async fn write(cluster: &Cluster, workload: &Workload) {
    let Some(retention) = &workload.retention else { return };
    let row = InboxRow::Applied {
        fingerprint: OLD.to_owned(),
        expires_at: "2000-01-01T00:00:00.000Z".to_owned(),
        reply: None,
    };
    let body = serde_json::to_string(&row).expect("an inbox row has a JSON form");
    let row = Row { version: 0, index: row.index(), body };
    let rows: Rows =
        (0..retention.old_rows).map(|n| (Key::from(format!("{OLD}{n}")), row.clone())).collect();
    for service in Service::ALL {
        let database = cluster.database(service.name());
        let store = database.client("history", cluster.server_runtime());
        let insert = vec![Op::Insert { table: &INBOX, rows: rows.clone() }];
        let written = match store.prepare(&[&INBOX]).await {
            Ok(()) => store.transact(insert).await.map(drop),
            failed => failed,
        };
        written.expect("nothing fails before the world begins");
    }
}

/// How many old rows are still there.
pub fn left(world: &World) -> usize {
    let of = |service: Service| {
        let old = |(key, _): &(&Key, &Row)| key.starts_with(OLD);
        world.database(service).with(|db| db.rows(&INBOX).filter(old).count())
    };
    Service::ALL.into_iter().map(of).sum()
}
