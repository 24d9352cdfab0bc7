//! What happened in a world, in order, hashed whole. Two runs of a seed must have one hash.

use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use crate::touch::{Detail, Touch};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEvent {
    /// Simulated time since the world began.
    pub at: Duration,
    /// Where.
    pub node: Arc<str>,
    /// What; stable names such as `produce` or `fault`.
    pub what: &'static str,
    /// To whom, how it ended.
    pub text: String,
}

impl std::fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TraceEvent { at, node, what, text } = self;
        write!(f, "{:>10.3} s  {node:<24} {what:<15} {text}", at.as_secs_f64())
    }
}

/// The events of one world, and their hash.
#[derive(Default)]
pub struct Trace {
    events: Vec<TraceEvent>,
    hash: Xxh3,
    /// What is hashed of an event, for its allocation.
    bytes: Vec<u8>,
    /// What the next event touches.
    touching: Vec<Touch>,
    detail: Detail,
}

impl Trace {
    /// Appends an event.
    pub fn push(&mut self, event: TraceEvent) {
        self.bytes.clear();
        self.bytes.extend(event.at.as_nanos().to_le_bytes());
        for part in [event.node.as_bytes(), event.what.as_bytes(), event.text.as_bytes()] {
            self.bytes.extend_from_slice(part);
            self.bytes.push(0);
        }
        self.hash.update(&self.bytes);
        if !self.touching.is_empty() {
            let touches = std::mem::take(&mut self.touching);
            self.detail.touches.insert(self.events.len(), touches);
        }
        self.events.push(event);
    }

    /// Says what the next event touches; its number in the trace.
    pub fn touching(&mut self, touches: Vec<Touch>) -> usize {
        self.touching.extend(touches);
        self.events.len()
    }

    /// What events touched, as far as it was said.
    pub fn detail(&mut self) -> &mut Detail {
        &mut self.detail
    }

    /// All events in order.
    pub fn events(&self) -> &[TraceEvent] {
        &self.events
    }

    /// 128 bits over everything that happened.
    pub fn hash(&self) -> u128 {
        self.hash.digest128()
    }

    /// The events themselves.
    pub fn into_events(self) -> Vec<TraceEvent> {
        self.events
    }
}
