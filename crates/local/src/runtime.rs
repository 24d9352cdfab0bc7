//! The runtime port on tokio, for local mode and production. Never used in a simulation.
#![allow(clippy::disallowed_methods)] // This is the door to real time, threads and chance.

use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use ports::{Runtime, Task};
use tokio::runtime::{Handle, RuntimeFlavor};

/// What a panic in a task ends the process with (EX_SOFTWARE), as does a journal that cannot be written: a
/// supervisor starts it anew.
pub(crate) const PANICKED: i32 = 70;

/// Clock, tasks and choices of this process.
pub struct TokioRuntime {
    handle: Handle,
    begun: Instant,
    /// Keyed by the operating system's randomness.
    random: RandomState,
    draws: AtomicU64,
}

impl TokioRuntime {
    /// On this tokio runtime, which must have time and should be multi-threaded: on a current-thread
    /// one, [`Runtime::block`] stalls the other tasks.
    pub fn new(handle: Handle) -> Self {
        let (begun, random) = (Instant::now(), RandomState::new());
        TokioRuntime { handle, begun, random, draws: AtomicU64::new(0) }
    }
}

#[async_trait]
impl Runtime for TokioRuntime {
    fn now(&self) -> DateTime<Utc> {
        SystemTime::now().into()
    }

    fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration.max(Duration::from_millis(1))).await;
    }

    fn spawn(&self, name: &'static str, task: Task) {
        self.handle.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                // The panic hook has told what and where.
                eprintln!("task {name:?} panicked: ending this process");
                std::process::exit(PANICKED);
            }
        });
    }

    fn choose(&self, site: &'static str, entity: &str, below: u64) -> u64 {
        let draw = self.draws.fetch_add(1, Ordering::Relaxed);
        self.random.hash_one((draw, site, entity)) % below.max(1)
    }

    fn block(&self, work: &mut dyn FnMut()) {
        match Handle::try_current().map(|handle| handle.runtime_flavor()) {
            Ok(RuntimeFlavor::CurrentThread) => work(),
            _ => tokio::task::block_in_place(work),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;

    fn runtime(tokio: &tokio::runtime::Runtime) -> Arc<dyn Runtime> {
        Arc::new(TokioRuntime::new(tokio.handle().clone()))
    }

    #[test]
    fn sleeps_spawns_and_blocks_on_both_flavours() {
        let many = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
        let one = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for tokio in [many, one] {
            let runtime = runtime(&tokio);
            tokio.block_on(async {
                let (send, receive) = tokio::sync::oneshot::channel();
                let begun = runtime.elapsed();
                runtime.sleep(Duration::from_nanos(1)).await;
                assert!(runtime.elapsed() - begun >= Duration::from_millis(1));
                let inner = runtime.clone();
                let task = async move {
                    let mut sum = 0;
                    inner.block(&mut || sum = 42);
                    send.send(sum).unwrap();
                };
                runtime.spawn("test", Box::pin(task));
                assert_eq!(receive.await, Ok(42));
            });
        }
    }

    #[test]
    fn choices_stay_below_and_vary() {
        let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let runtime = runtime(&tokio);
        let drawn: BTreeSet<u64> = (0..1_000).map(|_| runtime.choose("site", "x", 8)).collect();
        assert_eq!(drawn, (0..8).collect());
        assert_eq!((runtime.choose("site", "x", 1), runtime.choose("site", "x", 0)), (0, 0));
        assert_ne!(runtime.choose("a", "", u64::MAX), runtime.choose("a", "", u64::MAX));
    }
}
