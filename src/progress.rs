//! How far a stage is, on stderr: a bar on a terminal, a line now and then elsewhere. Never in the
//! way of what is printed as a result.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

/// Progress of one stage.
pub struct Progress {
    bar: Option<ProgressBar>,
    what: &'static str,
    total: u64,
    done: AtomicU64,
}

impl Progress {
    /// Starts a stage of `total` steps.
    pub fn start(what: &'static str, total: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg:20} {wide_bar} {pos}/{len} {elapsed}");
            let bar = ProgressBar::new(total).with_message(what);
            bar.set_style(style.expect("a constant template"));
            bar.tick();
            bar
        });
        if bar.is_none() {
            note!("{what}: 0 of {total}");
        }
        Progress { bar, what, total, done: AtomicU64::new(0) }
    }

    /// Starts a stage of who knows how many steps. It shows on a terminal alone.
    pub fn counting(what: &'static str) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg:20} {pos} {elapsed}");
            let bar = ProgressBar::no_length().with_message(what);
            bar.set_style(style.expect("a constant template"));
            bar
        });
        Progress { bar, what, total: 0, done: AtomicU64::new(0) }
    }

    /// One step more.
    pub fn step(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        match &self.bar {
            Some(bar) => bar.inc(1),
            None if self.total == 0 => {}
            None => {
                let part = |n: u64| n * 4 / self.total;
                if part(done) > part(done - 1) {
                    note!("{}: {done} of {}", self.what, self.total);
                }
            }
        }
    }

    /// The stage is done.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}
