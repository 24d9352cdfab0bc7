//! A clock that runs faster, so that time-outs of the real size pass within a test. Never skips: what
//! happens in between has its time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use ports::{Runtime, Task};

/// A runtime on which time passes [`Self::FACTOR`] times as fast as on the one below.
pub struct Fast {
    below: Arc<dyn Runtime>,
}

impl Fast {
    /// 45 s pass within 3 s; a heartbeat of 3 s comes each 200 ms.
    pub const FACTOR: u32 = 15;

    /// Over this one.
    pub fn over(below: Arc<dyn Runtime>) -> Self {
        Fast { below }
    }
}

#[async_trait]
impl Runtime for Fast {
    fn now(&self) -> DateTime<Utc> {
        self.below.now()
    }

    fn elapsed(&self) -> Duration {
        self.below.elapsed() * Self::FACTOR
    }

    async fn sleep(&self, duration: Duration) {
        self.below.sleep(duration / Self::FACTOR).await;
    }

    fn spawn(&self, name: &'static str, task: Task) {
        self.below.spawn(name, task);
    }

    fn choose(&self, site: &'static str, entity: &str, below: u64) -> u64 {
        self.below.choose(site, entity, below)
    }

    fn block(&self, work: &mut dyn FnMut()) {
        self.below.block(work);
    }
}
