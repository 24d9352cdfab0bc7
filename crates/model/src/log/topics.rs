//! Topics, their partitions and records. Never knows who reads them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ports::{Fault, Fetched, Partition, Record, TopicSpec};

use super::partitioner::partition_of;

/// Why a topic was not declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeclareError {
    /// It exists with this other partition count, which is fixed (broker-contract K2).
    OtherCount(i32),
    /// Fewer than one partition.
    NoPartitions,
}

impl From<DeclareError> for Fault {
    fn from(error: DeclareError) -> Fault {
        match error {
            DeclareError::OtherCount(n) => Fault::refused(format!("topic has {n} partitions")),
            DeclareError::NoPartitions => Fault::refused("a topic needs at least one partition"),
        }
    }
}

/// Why a record was not appended. Neither has an effect, now or later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendError {
    /// UNKNOWN_TOPIC_OR_PARTITION.
    UnknownTopic,
    /// MSG_SIZE_TOO_LARGE (broker-contract K12).
    TooLarge,
    /// An offset below the partition's next one (only when appending at a given offset).
    OffsetTaken,
}

impl From<AppendError> for Fault {
    fn from(error: AppendError) -> Fault {
        Fault::refused(match error {
            AppendError::UnknownTopic => "unknown topic or partition",
            AppendError::TooLarge => "record too large",
            AppendError::OffsetTaken => "offset already taken",
        })
    }
}

/// One partition's records, by offset.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    records: VecDeque<Fetched>,
    low: i64,
    next: i64,
    /// Where the high watermark stands still, if it does.
    stuck: Option<i64>,
}

impl Records {
    /// Low and high watermark.
    pub fn watermarks(&self) -> (i64, i64) {
        (self.low, self.stuck.unwrap_or(self.next))
    }

    /// The offset behind the last record, visible or not.
    pub fn end(&self) -> i64 {
        self.next
    }

    /// Stops the high watermark here, or lets it go on to the end.
    pub fn stick(&mut self, stuck: bool) {
        self.stuck = stuck.then(|| self.stuck.unwrap_or(self.next));
    }

    /// Appends at `offset`, which must not be below the next one. A higher one leaves a gap (K3).
    pub fn append(
        &mut self,
        partition: Partition,
        offset: i64,
        record: Record,
        at: DateTime<Utc>,
    ) -> Result<(), AppendError> {
        if offset < self.next {
            return Err(AppendError::OffsetTaken);
        }
        self.records.push_back(Fetched { partition, offset, at, record });
        self.next = offset + 1;
        Ok(())
    }

    /// Uses up the next `count` offsets without a record, as a transaction marker does (K3).
    pub fn skip(&mut self, count: i64) {
        self.next += count.max(0);
    }

    /// Removes what lies below `offset`: retention (K32).
    pub fn trim(&mut self, offset: i64) {
        self.low = self.low.max(offset.min(self.next));
        while self.records.front().is_some_and(|record| record.offset < self.low) {
            self.records.pop_front();
        }
    }

    /// Removes each record behind which its key stands again: compaction (K33).
    pub fn compact(&mut self) {
        let last: BTreeMap<Arc<str>, i64> =
            self.records.iter().map(|it| (it.record.key.clone(), it.offset)).collect();
        self.records.retain(|it| last[&it.record.key] == it.offset);
    }

    /// The records from `offset` on, in order.
    pub fn from(&self, offset: i64) -> impl Iterator<Item = &Fetched> {
        let start = self.records.partition_point(|record| record.offset < offset);
        self.records.range(start..)
    }
}

/// All topics.
#[derive(Debug, Clone, Default)]
pub(super) struct Topics {
    topics: BTreeMap<Arc<str>, Vec<Records>>,
    keyless: u64,
}

impl Topics {
    /// Creates the topic if it is new; whether it was.
    pub fn declare(&mut self, topic: &TopicSpec) -> Result<bool, DeclareError> {
        let count = match usize::try_from(topic.partitions) {
            Ok(count) if count > 0 => count,
            _ => return Err(DeclareError::NoPartitions),
        };
        match self.topics.get(&topic.name) {
            Some(partitions) if partitions.len() == count => Ok(false),
            Some(partitions) => Err(DeclareError::OtherCount(partitions.len() as i32)),
            None => {
                self.topics.insert(topic.name.clone(), vec![Records::default(); count]);
                Ok(true)
            }
        }
    }

    /// How many partitions the topic has; 0 if there is no such topic.
    pub fn count(&self, topic: &str) -> i32 {
        self.topics.get(topic).map_or(0, |partitions| partitions.len() as i32)
    }

    /// The partitions of a topic; none if there is no such topic.
    pub fn partitions(&self, topic: &str) -> Vec<Partition> {
        let Some((name, records)) = self.topics.get_key_value(topic) else { return Vec::new() };
        (0..records.len() as i32).map(|index| Partition { topic: name.clone(), index }).collect()
    }

    /// The declared topics.
    pub fn specs(&self) -> Vec<TopicSpec> {
        let spec = |(name, partitions): (&Arc<str>, &Vec<Records>)| TopicSpec {
            name: name.clone(),
            partitions: partitions.len() as i32,
        };
        self.topics.iter().map(spec).collect()
    }

    pub fn get(&self, partition: &Partition) -> Option<&Records> {
        self.topics.get(&partition.topic)?.get(usize::try_from(partition.index).ok()?)
    }

    pub fn get_mut(&mut self, partition: &Partition) -> Option<&mut Records> {
        self.topics.get_mut(&partition.topic)?.get_mut(usize::try_from(partition.index).ok()?)
    }

    /// The partition that the record's key goes to (K1); keyless records take turns.
    pub fn place(&mut self, record: &Record) -> Result<Partition, AppendError> {
        let (topic, partitions) =
            self.topics.get_key_value(&record.to).ok_or(AppendError::UnknownTopic)?;
        let count = partitions.len() as i32;
        let index = if record.key.is_empty() {
            self.keyless += 1;
            ((self.keyless - 1) % count as u64) as i32
        } else {
            partition_of(record.key.as_bytes(), count)
        };
        Ok(Partition { topic: topic.clone(), index })
    }
}
