//! A runtime with a virtual clock for this module's tests: tasks in order, time when all wait.

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
}

/// One node's runtime; clones share it.
#[derive(Clone, Default)]
pub struct TestRuntime(Arc<Mutex<State>>);

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Sleep {
    runtime: TestRuntime,
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
impl Runtime for TestRuntime {
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

    fn choose(&self, _site: &'static str, _entity: &str, _below: u64) -> u64 {
        0
    }

    fn block(&self, work: &mut dyn FnMut()) {
        work();
    }
}

impl TestRuntime {
    /// Runs `main` and what it spawns until `main` is done.
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
