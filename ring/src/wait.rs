//! Parking a thread on a futex word.

use core::sync::atomic::{AtomicU32, Ordering};
use rustix::io::Errno;
use rustix::thread::futex;
use std::time::Duration;

/// Whether the word lies in memory shared with other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Threads of this process only: cheaper.
    Private,
    /// Also other processes.
    Shared,
}

impl Sharing {
    fn flags(self) -> futex::Flags {
        match self {
            Sharing::Private => futex::Flags::PRIVATE,
            Sharing::Shared => futex::Flags::empty(),
        }
    }
}

/// Sleeps while the word is `expected`, at most `timeout`; may return early. `false`: the time is up.
pub fn sleep_while(word: &AtomicU32, expected: u32, sharing: Sharing, timeout: Option<Duration>) -> bool {
    let timespec = timeout.map(|timeout| futex::Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    !matches!(futex::wait(word, sharing.flags(), expected, timespec.as_ref()), Err(Errno::TIMEDOUT))
}

/// Wakes every thread that sleeps on the word.
pub fn wake_all(word: &AtomicU32, sharing: Sharing) {
    // The only error is a bad address, which a reference cannot be.
    let _ = futex::wake(word, sharing.flags(), i32::MAX as u32);
}

/// Whether spinning threads are likely to stand in each other's way: with so few cores, whoever spins gives its core
/// away now and then, or the thread that it waits for may not run for milliseconds.
pub fn few_cores() -> bool {
    static FEW: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *FEW.get_or_init(|| std::thread::available_parallelism().is_ok_and(|cores| cores.get() <= 4))
}

/// One idle round of a spinning thread.
#[inline]
pub fn relax(round: u32) {
    if round % 32 == 31 && few_cores() {
        std::thread::yield_now();
    } else {
        core::hint::spin_loop();
    }
}

/// Spins until `ready`, at most `limit`; `true` when it became ready.
pub fn spin_until(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    if ready() {
        return true;
    }
    let start = std::time::Instant::now();
    loop {
        for round in 0..64 {
            relax(round);
            if ready() {
                return true;
            }
        }
        if start.elapsed() >= limit {
            return false;
        }
    }
}

/// Bumps the word and wakes its sleepers: a doorbell that needs no descriptor.
pub fn ring_bell(word: &AtomicU32, sharing: Sharing) {
    // Release: pairs with the sleeper's acquire load of the word before it looks for work.
    word.fetch_add(1, Ordering::Release);
    wake_all(word, sharing);
}
