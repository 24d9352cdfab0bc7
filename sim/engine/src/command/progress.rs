//! How a run goes, on standard error: a line that is written over on a terminal, else one now and then.
//! Never on standard output, which is for results.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two lines where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);

/// Tells how it goes.
pub(super) struct Progress {
    begun: Instant,
    told: Duration,
    open: bool,
}

impl Progress {
    #[allow(
        clippy::disallowed_methods,
        reason = "progress is told in real time, outside of worlds"
    )]
    pub(super) fn new() -> Self {
        Progress { begun: Instant::now(), told: Duration::ZERO, open: false }
    }

    /// Real time since it began.
    pub(super) fn took(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A while later.
    pub(super) fn wait(&self) {
        #[allow(clippy::disallowed_methods, reason = "the bystander's wait, in real time")]
        std::thread::sleep(Duration::from_millis(100));
    }

    /// Tells the line, if it is time for one.
    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        let (took, mut err) = (self.took(), std::io::stderr());
        // A progress line that cannot be written is no reason to stop.
        if err.is_terminal() {
            let _ = write!(err, "\r\x1b[K{}", line());
            self.open = true;
        } else if took - self.told >= EVERY {
            let _ = writeln!(err, "{}", line());
            self.told = took;
        }
        let _ = err.flush();
    }

    /// Ends the line, so that results begin on one of their own.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            eprintln!();
        }
    }
}
