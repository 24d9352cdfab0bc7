//! Whose statement goes next: one at a time, in an order that a seed chooses. What does not come back
//! soon waits for a lock; then the next one goes. Never lets two commits go at once, so that their order
//! is known.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use shakedown::http_shell::pause;
use tokio::sync::{Notify, oneshot};

/// A statement that takes longer is taken to wait for a lock.
const WAITS_AFTER: Duration = Duration::from_millis(15);

/// Between two statements: so that whoever was told goes on to its next one and can be chosen too.
const GATHER: Duration = Duration::from_millis(1);

/// The turns of one database. Clones share them.
#[derive(Clone)]
pub struct Turns {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    random: u64,
    waiting: Vec<Waiting>,
    committing: bool,
    counts: Counts,
}

struct Waiting {
    commit: bool,
    go: oneshot::Sender<Turn>,
}

/// What there was.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Statements.
    pub statements: u64,
    /// Choices between two or more of them.
    pub choices: u64,
    /// Statements that waited for a lock, as far as one can see.
    pub waits: u64,
}

/// Somebody's turn, until it is dropped.
pub struct Turn {
    shared: Arc<Shared>,
    commit: bool,
    _done: oneshot::Sender<()>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.commit {
            self.shared.lock().committing = false;
        }
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One of those who may go.
    fn choose(&mut self) -> Option<Waiting> {
        self.waiting.retain(|one| !one.go.is_closed());
        let may = |one: &Waiting| !(one.commit && self.committing);
        let able: Vec<usize> =
            (0..self.waiting.len()).filter(|at| may(&self.waiting[*at])).collect();
        if able.is_empty() {
            return None;
        }
        self.counts.statements += 1;
        self.counts.choices += u64::from(able.len() > 1);
        let at = able[self.below(able.len() as u64) as usize];
        let chosen = self.waiting.swap_remove(at);
        self.committing |= chosen.commit;
        Some(chosen)
    }

    /// SplitMix64: small, and any seed will do.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

impl Turns {
    /// Turns by this seed, given out from now on.
    #[allow(clippy::disallowed_methods, reason = "a test on real time")]
    pub fn new(seed: u64) -> Turns {
        let state = State { random: seed, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() });
        let turns = Turns { shared };
        tokio::spawn(turns.clone().give());
        turns
    }

    /// What there was so far.
    pub fn counts(&self) -> Counts {
        self.shared.lock().counts
    }

    /// Waits for a turn.
    pub async fn take(&self, commit: bool) -> Turn {
        let (go, gone) = oneshot::channel();
        self.shared.lock().waiting.push(Waiting { commit, go });
        self.shared.changed.notify_one();
        gone.await.expect("turns are given for as long as somebody waits")
    }

    async fn give(self) {
        loop {
            pause(GATHER).await;
            let Some(Waiting { commit, go }) = self.shared.lock().choose() else {
                self.shared.changed.notified().await;
                continue;
            };
            let (done, ended) = oneshot::channel::<()>();
            // Who stopped waiting meanwhile gives it back by dropping it.
            drop(go.send(Turn { shared: self.shared.clone(), commit, _done: done }));
            if let Either::Right(_) = select(ended, pin!(pause(WAITS_AFTER))).await {
                self.shared.lock().counts.waits += 1;
            }
        }
    }
}
