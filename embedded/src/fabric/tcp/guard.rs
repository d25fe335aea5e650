//! The stop of one transfer (clause TCP-7).
//!
//! The I/O thread touches the memory of a transfer only between [`Guard::enter`] and [`Guard::leave`], that is, for one
//! system call that does not block. Whoever stops the transfer has either come between two of those, and then it is
//! over at once; or during one, and then the I/O thread says so when it leaves. Exactly one of them reports the end.

use std::sync::atomic::{AtomicU8, Ordering};

/// Nobody touches the memory; the I/O thread may.
const FREE: u8 = 0;
/// The I/O thread is touching it.
const INSIDE: u8 = 1;
/// The same, and it is to be the last time.
const STOPPING: u8 = 2;
/// Nobody touches it any more.
const OVER: u8 = 3;

/// Guards the memory of one transfer.
#[derive(Debug, Default)]
pub(crate) struct Guard(AtomicU8);

impl Guard {
    /// Before touching the memory; `false`: the transfer is over.
    #[must_use]
    pub(crate) fn enter(&self) -> bool {
        // Acquire: nothing that we do to the memory may move ahead of it. Pairs with `stop`.
        self.0.compare_exchange(FREE, INSIDE, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// After touching it; `false`: the transfer is over, and the caller is to report that.
    #[must_use]
    pub(crate) fn leave(&self) -> bool {
        // Release: what was done to the memory is done before anybody sees us outside. Pairs with `stop`.
        if self.0.compare_exchange(INSIDE, FREE, Ordering::Release, Ordering::Relaxed).is_ok() {
            return true;
        }
        self.0.store(OVER, Ordering::Release);
        false
    }

    /// Ends it; `true`: it is over, and the caller is to report that. Else somebody else does, or has.
    #[must_use]
    pub(crate) fn stop(&self) -> bool {
        // AcqRel: who reuses the memory after us sees it as the I/O thread has left it.
        let change = |state| match state {
            FREE => Some(OVER),
            INSIDE => Some(STOPPING),
            _ => None,
        };
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, change) == Ok(FREE)
    }

    /// The transfer has come to its end, outside of `enter` and `leave`; `true`: the caller is to report that.
    #[must_use]
    pub(crate) fn end(&self) -> bool {
        self.0.compare_exchange(FREE, OVER, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether it is over or about to be.
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Acquire) >= STOPPING
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32};

    /// TCP-7: the end is reported once.
    #[test]
    fn tcp_7_one_side_reports_the_end() {
        let guard = Guard::default();
        assert!(guard.enter() && guard.leave() && guard.end() && !guard.stop() && !guard.enter() && !guard.end());
        let guard = Guard::default();
        assert!(guard.enter() && !guard.stop() && !guard.leave() && !guard.stop() && !guard.end());
        let guard = Guard::default();
        assert!(guard.stop() && guard.is_stopped() && !guard.enter() && !guard.stop());
    }

    /// TCP-7: nothing touches the memory after the end was reported.
    #[test]
    fn tcp_7_nobody_is_inside_after_a_stop_was_reported() {
        for round in 0..2000 {
            let (guard, reports, inside) = (Guard::default(), AtomicU32::new(0), AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while guard.enter() {
                        inside.store(true, Ordering::Relaxed);
                        inside.store(false, Ordering::Relaxed);
                        if !guard.leave() {
                            reports.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
                if round % 2 == 0 {
                    std::thread::yield_now();
                }
                if guard.stop() {
                    reports.fetch_add(1, Ordering::Relaxed);
                    assert!(!inside.load(Ordering::Relaxed));
                }
            });
            assert_eq!(reports.into_inner(), 1);
        }
    }
}
