//! What a program on the job queue saw, call by call. Never an opinion on it.

use serde::{Deserialize, Serialize};

use crate::Release;
use crate::programs::Answer;

/// A queue of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The queue.
    Jobs,
    /// Its dead-letter queue.
    Dead,
    /// One that nobody declared.
    Nowhere,
}

/// A call and its answer. Channels are numbered as they are opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The queue is there, with this limit. The first event.
    Begun {
        /// Returns that a message may have.
        limit: u32,
        /// Whether there is a dead-letter queue.
        dead_letters: bool,
        /// Of the server; of a model, the one that is modelled.
        release: Release,
        /// Whether a channel that was dropped has ended when the drop returns; else it ends later.
        prompt: bool,
    },
    /// It was declared again.
    Declared {
        /// Returns that a message may have.
        limit: u32,
        /// How that ended.
        answer: Answer,
    },
    /// A message was published.
    Published {
        /// Its id, of this message only.
        key: String,
        /// Where to.
        to: Place,
        /// Whether the link was to be lost meanwhile.
        lossy: bool,
        /// How that ended.
        answer: Answer,
    },
    /// A channel began to consume.
    Opened {
        /// Its number.
        channel: u32,
        /// Its queue.
        from: Place,
        /// Its prefetch.
        prefetch: u16,
        /// How that ended.
        answer: Answer,
    },
    /// A delivery came.
    Delivered {
        /// On which channel.
        channel: u32,
        /// Its tag.
        tag: u64,
        /// The message.
        key: String,
        /// What the server says of it.
        redelivered: bool,
        /// How often it came back, as the server counts.
        returns: u32,
        /// Why it died, where it says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        died: Option<String>,
        /// Whether payload and headers are those that were published.
        intact: bool,
    },
    /// Deliveries were settled.
    Settled {
        /// On which channel.
        channel: u32,
        /// These are done.
        acked: Vec<u64>,
        /// These are dead.
        rejected: Vec<u64>,
        /// How that ended.
        answer: Answer,
    },
    /// Deliveries were returned.
    Returned {
        /// On which channel.
        channel: u32,
        /// These.
        tags: Vec<u64>,
        /// How that ended.
        answer: Answer,
    },
    /// The channel was dropped, or was told to be lost.
    Closed {
        /// Which.
        channel: u32,
        /// Whether the client was told, and did not drop it.
        told: bool,
    },
    /// The link of its client was cut without goodbye.
    Cut {
        /// Its channel.
        channel: u32,
    },
    /// How many are ready.
    Depth {
        /// Where.
        of: Place,
        /// How that ended.
        answer: Answer,
        /// The answer.
        count: u64,
    },
    /// Nothing more came, after the last of it was waited for.
    Drained,
}

impl Event {
    /// The request and its answer, for counting.
    pub(super) fn met(&self) -> String {
        match self {
            Event::Begun { .. } => "begin".into(),
            Event::Declared { answer, .. } => answer.to("declare"),
            Event::Published { answer, lossy: true, .. } => answer.to("publish on a lost link"),
            Event::Published { answer, .. } => answer.to("publish"),
            Event::Opened { answer, .. } => answer.to("consume"),
            Event::Delivered { died: Some(_), .. } => "dead letter".into(),
            Event::Delivered { redelivered: true, .. } => "redelivery".into(),
            Event::Delivered { .. } => "delivery".into(),
            Event::Settled { answer, .. } => answer.to("settle"),
            Event::Returned { answer, .. } => answer.to("return"),
            Event::Closed { told: false, .. } => "close".into(),
            Event::Closed { told: true, .. } => "channel lost".into(),
            Event::Cut { .. } => "cut".into(),
            Event::Depth { answer, .. } => answer.to("depth"),
            Event::Drained => "drain".into(),
        }
    }
}
