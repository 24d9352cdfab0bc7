//! What a program on the event log saw, call by call. Never an opinion on it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::programs::Answer;

/// Next offsets by partition.
pub type Next = BTreeMap<i32, i64>;

/// A call and its answer. Members are numbered as they join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A record was produced.
    Produced {
        /// Its key.
        key: String,
        /// Its number, of this record only; numbers rise.
        n: u64,
        /// How that ended.
        answer: Answer,
    },
    /// These came to a member.
    Assigned {
        /// Which.
        member: u32,
        /// Which partitions.
        partitions: Vec<i32>,
    },
    /// These went from it.
    Gone {
        /// Which.
        member: u32,
        /// Which partitions.
        partitions: Vec<i32>,
    },
    /// It read a record.
    Got {
        /// Which; 0 is a group of its own that reads all.
        member: u32,
        /// Where.
        partition: i32,
        /// Where there.
        offset: i64,
        /// The record's key.
        key: String,
        /// And number.
        n: u64,
    },
    /// It committed.
    Committed {
        /// Which.
        member: u32,
        /// What.
        next: Next,
        /// How that ended.
        answer: Answer,
    },
    /// It said where to go on.
    Sought {
        /// Which.
        member: u32,
        /// Where.
        next: Next,
        /// How that ended.
        answer: Answer,
    },
    /// It stopped, or resumed, reading a partition.
    Paused {
        /// Which.
        member: u32,
        /// Which partition.
        partition: i32,
        /// Whether it stopped.
        paused: bool,
    },
    /// It left, with or without goodbye.
    Left {
        /// Which.
        member: u32,
        /// With goodbye.
        goodbye: bool,
    },
    /// What the group has committed.
    Offsets {
        /// By partition.
        next: Next,
    },
    /// First and next offsets.
    Watermarks {
        /// By partition.
        marks: BTreeMap<i32, (i64, i64)>,
    },
    /// All was read, or no more came: by the group of its own, and by the last member of the other.
    Drained {
        /// That last member.
        heir: u32,
    },
}

impl Event {
    /// The request and its answer, for counting.
    pub(super) fn met(&self) -> String {
        match self {
            Event::Produced { answer, .. } => answer.to("produce"),
            Event::Assigned { .. } => "assigned".into(),
            Event::Gone { .. } => "revoked or lost".into(),
            Event::Got { .. } => "record".into(),
            Event::Committed { answer, .. } => answer.to("commit"),
            Event::Sought { answer, .. } => answer.to("seek"),
            Event::Paused { paused: true, .. } => "pause".into(),
            Event::Paused { paused: false, .. } => "resume".into(),
            Event::Left { goodbye: true, .. } => "close".into(),
            Event::Left { goodbye: false, .. } => "kill".into(),
            Event::Offsets { .. } => "committed".into(),
            Event::Watermarks { .. } => "watermarks".into(),
            Event::Drained { .. } => "drain".into(),
        }
    }
}
