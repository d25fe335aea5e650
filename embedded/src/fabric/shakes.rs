//! How many handshakes a listener has under way: each is a thread, and memory, that a stranger costs us.

use std::sync::atomic::{AtomicU32, Ordering};

/// At most: more are turned away at once.
const SHAKES_MAX: u32 = 64;

/// A count of them.
#[derive(Debug, Default)]
pub(crate) struct Shakes(AtomicU32);

impl Shakes {
    /// A place for one more, or `false`; [`Shakes::end`] gives it back.
    pub(crate) fn begin(&self) -> bool {
        let more = |count| (count < SHAKES_MAX).then_some(count + 1);
        // Relaxed, here and below: a count and nothing else.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(crate) fn end(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
