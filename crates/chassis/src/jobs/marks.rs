//! Crash loops at the queue: a job that came back is marked before it is handled, alone, and the mark goes
//! when it was handled or the process lives. How often a job came back accuses nobody: it counts lost channels,
//! and deliveries that nobody looked at, as well as the dead (broker-contract R16, R17).

use ports::{Fault, Key, Op, Outcome, Row, Rows, Tx};
use serde::{Deserialize, Serialize};

use crate::Document;
use crate::app::Shared;
use crate::retention::Expiry;
use crate::slot::Source;
use crate::stop::Working;
use crate::tables::JOB_MARKS;
use crate::transaction::{json, rows};
use crate::trial::MARKS_MAX;

/// Tries to take away the mark of a job that was handled.
const FORGET_TRIES: u32 = 3;

/// How often a job was about to be handled alone, and neither was nor is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobMarks {
    marks: u32,
    /// When retention takes it away, RFC 3339.
    expires_at: String,
}

impl Document for JobMarks {
    const TABLE: &'static ports::Table = &JOB_MARKS;
    fn index(&self) -> Vec<Option<String>> {
        vec![Some(self.expires_at.clone())]
    }
}

/// The marks of one job.
pub(super) struct Marks<'a> {
    shared: &'a Shared,
    /// Of its row: its queue and what it says. Its id may be one that no database can keep.
    key: Key,
}

impl<'a> Marks<'a> {
    pub(super) fn of(shared: &'a Shared, queue: &str, payload: &[u8]) -> Self {
        Marks { shared, key: [queue, "|", &envelope::fingerprint(payload)].concat().into() }
    }

    /// Marks the job, or tells how often the process ended when it was handled, where that is enough. Tries for
    /// as long as it takes: what goes back to the queue for want of a database comes nearer to its limit. `None`:
    /// leaving.
    pub(super) async fn mark(&self, working: &Working) -> Option<Option<u32>> {
        let mut failures = 0;
        while !working.asked() {
            let fault = match self.try_mark().await {
                Ok(crashed) => return Some(crashed),
                Err(fault) => fault,
            };
            tracing::debug!(service = self.shared.settings.service, %fault, "a job was not marked");
            if let Fault::Unknown(_) = fault {
                self.take_back(working).await;
            }
            self.shared.back_off("mark", &mut failures).await;
        }
        None
    }

    async fn try_mark(&self) -> Outcome<Option<u32>> {
        let (tx, version, marks) = self.locked().await?;
        if marks >= MARKS_MAX {
            return Ok(Some(marks));
        }
        if marks > 0 {
            tracing::warn!(
                service = self.shared.settings.service,
                job = &*self.key,
                marks,
                "a job came again and was not handled: the process may die of it"
            );
        }
        tx.commit(vec![self.put(version, marks + 1)]).await?;
        Ok(None)
    }

    /// What it stood for was handled. Where it cannot be taken away now, it stands until retention finds it: other
    /// jobs do not wait for that.
    pub(super) async fn forget(&self) {
        for _ in 0..FORGET_TRIES {
            match self.try_change(|_| 0).await {
                Ok(()) => return,
                Err(fault) => tracing::debug!(service = self.shared.settings.service, %fault,
                    "the mark of a handled job stands"),
            }
        }
    }

    /// What it stands for was not handled, and did not end the process.
    pub(super) async fn take_back(&self, working: &Working) {
        let less = |marks: u32| marks.saturating_sub(1);
        self.shared.take_back("job", working, || Box::pin(self.try_change(less))).await;
    }

    async fn try_change(&self, to: impl Fn(u32) -> u32 + Send) -> Outcome<()> {
        let (tx, version, marks) = self.locked().await?;
        let op = match to(marks) {
            0 => Op::Delete { table: &JOB_MARKS, keys: [self.key.clone()].into() },
            left => self.put(version, left),
        };
        tx.commit(vec![op]).await
    }

    async fn locked(&self) -> Outcome<(Box<dyn Tx>, i64, u32)> {
        let lock = Op::Lock { table: &JOB_MARKS, keys: [self.key.clone()].into() };
        let (tx, replies) = self.shared.ports.store.begin(vec![lock]).await?;
        let row = rows(replies.into_iter().next()).into_iter().next().map(|(_, row)| row);
        let marks: Option<JobMarks> = row.as_ref().and_then(crate::document);
        Ok((tx, row.map_or(0, |row| row.version), marks.map_or(0, |it| it.marks)))
    }

    fn put(&self, version: i64, marks: u32) -> Op {
        let Shared { settings, ports, .. } = self.shared;
        let expires_at = Expiry::new(settings, ports.runtime.now()).of(&Source::Queue);
        let marks = JobMarks { marks, expires_at };
        let row = Row { version, index: marks.index(), body: json(&marks) };
        Op::Put { table: &JOB_MARKS, rows: Rows::from_iter([(self.key.clone(), row)]) }
    }
}
