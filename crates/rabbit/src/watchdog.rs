//! Tells a stalled consumer from an idle one: messages are ready, there is room in its prefetch, and none
//! comes. Pure; the subscription asks the server.

use std::time::Duration;

/// How long nothing may come before the first look, and between two looks.
pub(crate) const QUIET: Duration = Duration::from_secs(20);

/// Looks in a row that find messages which do not come: the first may have met one on its way.
const LOOKS: u32 = 2;

/// What was seen of a consumer that gets nothing.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    looks: u32,
}

impl Watchdog {
    /// Something came.
    pub(crate) fn moved(&mut self) {
        self.looks = 0;
    }

    /// Judges a look. Whether the consumer is stalled.
    pub(crate) fn look(&mut self, ready: u32, room: bool) -> bool {
        self.looks = if ready > 0 && room { self.looks + 1 } else { 0 };
        self.looks >= LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_room_and_is_passed_over_twice_is_stalled() {
        let mut dog = Watchdog::default();
        for (ready, room) in [(0, true), (5, false), (5, true), (0, true), (5, true)] {
            assert!(!dog.look(ready, room));
        }
        assert!(dog.look(5, true));
        dog.moved();
        assert!(!dog.look(5, true));
    }
}
