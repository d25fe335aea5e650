//! Whether a connection that has more than a little to move does move it.
//!
//! While bulk moves, the I/O thread listens to all sockets itself and looks again and again for the next bytes. A peer
//! that announces a body and falls silent, sends a byte now and then, or does not read, would have it do so for as long
//! as it likes, and all other peers' messages would cross two threads more. Such a connection rests: it counts as bulk
//! again when it moves as briskly as bulk does, and until then the thread is woken for its bytes alone.

use std::time::{Duration, Instant};

/// What bulk moves at least: less than one sealed record ...
const BRISK_BYTES: u64 = 32 << 10;
/// ... within this. Slower bulk is not worth anybody's waiting for it: a wake-up costs a hundredth of it.
const BRISK_WITHIN: Duration = Duration::from_millis(1);

/// How a connection moves its bulk.
#[derive(Debug)]
pub(crate) struct Pace {
    has_bulk: bool,
    rests: bool,
    /// Bytes moved since then.
    moved: u64,
    since: Instant,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Pace {
        Pace { has_bulk: false, rests: false, moved: 0, since: now }
    }

    /// Whether there is bulk, and whether it counts. Who has rested rests on with its next body: else each would make
    /// everybody wait anew.
    pub(crate) fn counts(&mut self, has_bulk: bool, now: impl FnOnce() -> Instant) -> bool {
        if has_bulk && !self.has_bulk {
            (self.moved, self.since) = (0, now());
        }
        self.has_bulk = has_bulk;
        has_bulk && !self.rests
    }

    /// So many bytes more have been moved.
    pub(crate) fn moved(&mut self, bytes: u64, now: impl FnOnce() -> Instant) {
        self.moved += bytes;
        if self.moved >= BRISK_BYTES {
            let now = now();
            self.rests &= now.saturating_duration_since(self.since) > BRISK_WITHIN;
            (self.moved, self.since) = (0, now);
        }
    }

    /// When it is to rest unless it has moved enough by then.
    pub(crate) fn due(&self) -> Instant {
        self.since + BRISK_WITHIN
    }

    /// Whether it goes on counting as bulk, which it does now.
    pub(crate) fn goes_on(&mut self, now: Instant) -> bool {
        self.rests |= now >= self.due();
        !self.rests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(100);

    /// HOST-1: a peer that sends a byte now and then, or a body of little more than a little now and then, counted.
    #[test]
    fn host_1_who_dawdles_is_waited_for() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        assert!(pace.counts(true, || now), "bulk counts until it is known better");
        for _ in 0..100 {
            now += SHORT;
            pace.moved(1, || now);
            assert_eq!(pace.goes_on(now), now < pace.due());
        }
        for _ in 0..10 {
            now += 2 * BRISK_WITHIN;
            pace.moved(BRISK_BYTES, || now);
            assert!(!pace.counts(false, || now));
            assert!(!pace.counts(true, || now), "the next body counts");
        }
    }

    /// HOST-1: who goes on after a pause counts again as soon as bytes come briskly, and goes on counting.
    #[test]
    fn host_1_who_goes_on_after_a_pause_is_not_waited_for() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        assert!(pace.counts(true, || now));
        now += BRISK_WITHIN;
        assert!(!pace.goes_on(now) && !pace.counts(true, || now));
        pace.moved(BRISK_BYTES, || now + 5 * BRISK_WITHIN);
        now += 5 * BRISK_WITHIN + SHORT;
        assert!(!pace.counts(true, || now));
        for _ in 0..1000 {
            pace.moved(BRISK_BYTES, || now);
            assert!(pace.counts(true, || now) && pace.goes_on(now));
            now += SHORT;
        }
    }
}
