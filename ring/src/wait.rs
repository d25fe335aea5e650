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

/// Spins until `ready`, at most `limit`; `true` when it became ready. Yields the core now and then, for machines with
/// fewer cores than spinners.
pub fn spin_until(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    if ready() {
        return true;
    }
    let start = std::time::Instant::now();
    loop {
        for _ in 0..64 {
            core::hint::spin_loop();
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
