//! How far apart two cores are: what a cache line takes from one to the other decides most of what rings do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PASSES: u64 = 20_000;
/// The quickest of so many counts: the threads may begin on one core.
const TIMES: u64 = 10;
/// Cores of one die are well below that, those of two sockets above.
const NEAR_NS: f64 = 100.0;
/// How long to wait for cores that are near.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// How far apart they were when looked at, lowest and highest.
#[derive(Clone, Copy, Debug)]
pub struct Distance {
    lowest_ns: f64,
    highest_ns: f64,
}

impl Distance {
    pub const NONE: Distance = Distance { lowest_ns: f64::INFINITY, highest_ns: 0.0 };

    /// Measures once more.
    pub fn look(&mut self) {
        let now_ns = line_ns();
        self.lowest_ns = self.lowest_ns.min(now_ns);
        self.highest_ns = self.highest_ns.max(now_ns);
    }

    pub fn in_words(&self) -> String {
        let Distance { lowest_ns, highest_ns } = self;
        let far = if *highest_ns > NEAR_NS {
            " Far apart, as the host of a virtual machine may place its cores, rings run at less than half their speed."
        } else {
            ""
        };
        format!("A cache line took {lowest_ns:.0} to {highest_ns:.0} ns from one core to the other meanwhile.{far}")
    }
}

/// Nanoseconds that a cache line takes from one core to the other, by two threads that pass a word to and fro.
pub fn line_ns() -> f64 {
    /// A line of its own.
    #[repr(align(128))]
    struct Line(AtomicU64);
    let line = Line(AtomicU64::new(0));
    // Each stores one number in two: what it stores, the other waits for. Acquire and release: each is the other's
    // partner.
    let pass = |numbers: std::ops::Range<u64>| {
        for number in numbers.step_by(2) {
            let mut spins = 0u32;
            while line.0.load(Ordering::Acquire) != number {
                spins += 1;
                // Where there is no second core, the other thread has to run for that.
                if spins.is_multiple_of(1 << 14) {
                    std::thread::yield_now();
                }
            }
            line.0.store(number + 1, Ordering::Release);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| pass(1..2 * PASSES * TIMES));
        let mut quickest = f64::INFINITY;
        for time in 0..TIMES {
            let start = Instant::now();
            pass(2 * PASSES * time..2 * PASSES * (time + 1));
            quickest = quickest.min(start.elapsed().as_secs_f64());
        }
        quickest * 1e9 / (2 * PASSES) as f64
    })
}

/// Waits for cores that are near each other: the host may move a virtual machine's at any time.
pub struct Patience(Duration);

impl Patience {
    /// For a minute in all.
    pub const NEW: Patience = Patience(PATIENCE);

    /// Waits as long as there is patience left.
    pub fn wait_until_near(&mut self) {
        while !self.0.is_zero() && line_ns() > NEAR_NS {
            std::thread::sleep(PAUSE.min(self.0));
            self.0 = self.0.saturating_sub(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_takes_some_time_and_it_is_told() {
        let mut distance = Distance::NONE;
        distance.look();
        assert!(distance.lowest_ns > 0.5 && distance.highest_ns < 1e6, "{distance:?}");
        let far = Distance { lowest_ns: 28.0, highest_ns: 160.0 };
        assert!(far.in_words().starts_with("A cache line took 28 to 160 ns") && far.in_words().contains("Far apart"));
    }
}
