//! A runtime in virtual time, for tests that need no simulator: tasks run in order on the calling
//! thread, and time goes on when all of them wait. Never chooses at random, loses or delays anything.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use ports::{Runtime, Task};

#[derive(Default)]
struct State {
    now: Duration,
    sleepers: Vec<(Duration, Waker)>,
    spawned: Vec<Task>,
    chosen: u64,
}

/// A runtime whose clock starts at the Unix epoch and stands still while any task can go on. Clones
/// share it. Its choices count up: 0, 1, 2 and so on, each below what was asked for.
#[derive(Clone, Default)]
pub struct VirtualTime(Arc<Mutex<State>>);

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Sleep {
    runtime: VirtualTime,
    until: Duration,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.runtime.0.lock().expect("no test panics inside");
        if state.now >= self.until {
            return Poll::Ready(());
        }
        let sleeper = (self.until, context.waker().clone());
        state.sleepers.push(sleeper);
        Poll::Pending
    }
}

#[async_trait]
impl Runtime for VirtualTime {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        self.0.lock().expect("no test panics inside").now
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.elapsed() + duration.max(Duration::from_millis(1));
        Sleep { runtime: self.clone(), until }.await;
    }

    fn spawn(&self, _name: &'static str, task: Task) {
        self.0.lock().expect("no test panics inside").spawned.push(task);
    }

    fn choose(&self, _site: &'static str, _entity: &str, below: u64) -> u64 {
        let mut state = self.0.lock().expect("no test panics inside");
        let chosen = state.chosen;
        state.chosen += 1;
        chosen % below.max(1)
    }

    fn block(&self, work: &mut dyn FnMut()) {
        work();
    }
}

impl VirtualTime {
    /// Runs `main` and what it spawns until `main` is done. What it spawned is dropped then.
    ///
    /// # Panics
    /// Where all tasks wait and none of them for time: they would wait for ever.
    pub fn run<T: Send + 'static>(&self, main: impl Future<Output = T> + Send + 'static) -> T {
        let result = Arc::new(Mutex::new(None));
        let place = result.clone();
        let main: Task = Box::pin(async move {
            let value = main.await;
            *place.lock().expect("no test panics inside") = Some(value);
        });
        let mut tasks = vec![(Arc::new(Flag(AtomicBool::new(true))), main)];
        loop {
            let mut woken = false;
            tasks.retain_mut(|(flag, task)| {
                if !flag.0.swap(false, Ordering::SeqCst) {
                    return true;
                }
                woken = true;
                let waker = Waker::from(flag.clone());
                task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
            });
            if let Some(value) = result.lock().expect("no test panics inside").take() {
                return value;
            }
            let mut state = self.0.lock().expect("no test panics inside");
            let spawned = std::mem::take(&mut state.spawned).into_iter();
            tasks.extend(spawned.map(|task| (Arc::new(Flag(AtomicBool::new(true))), task)));
            if woken || tasks.iter().any(|(flag, _)| flag.0.load(Ordering::SeqCst)) {
                continue;
            }
            let next = state.sleepers.iter().map(|(until, _)| *until).min();
            state.now = next.expect("a task waits for ever");
            let now = state.now;
            state.sleepers.retain(|(until, waker)| {
                if *until <= now {
                    waker.wake_by_ref();
                }
                *until > now
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_share_a_clock_that_skips_waiting() {
        let time = VirtualTime::default();
        let order = time.clone().run(async move {
            let order = Arc::new(Mutex::new(Vec::new()));
            for seconds in [7_200, 3_600] {
                let (sleeper, order) = (time.clone(), order.clone());
                let task = async move {
                    sleeper.sleep(Duration::from_secs(seconds)).await;
                    order.lock().expect("alone").push(sleeper.elapsed().as_secs());
                };
                time.spawn("sleeper", Box::pin(task));
            }
            time.sleep(Duration::from_secs(10_000)).await;
            order.lock().expect("alone").clone()
        });
        assert_eq!(order, [3_600, 7_200]);
    }

    #[test]
    fn choices_count_up_below_their_bound() {
        let time = VirtualTime::default();
        assert_eq!([9, 9, 2, 1].map(|below| time.choose("site", "a", below)), [0, 1, 0, 0]);
    }

    #[test]
    #[should_panic(expected = "waits for ever")]
    fn what_waits_for_nothing_is_found() {
        VirtualTime::default().run(std::future::pending::<()>());
    }
}
