//! Sleeping without losing a wake-up (clauses WAKE-1 to WAKE-3).
//!
//! Two words and two fences: the sleeper raises its flag, fences, and looks for work; the publisher publishes, fences,
//! and looks at the flag. One of them sees the other.

use super::{RingMemory, RingWord};
use crate::abi::RingFlags;
use crate::atomic::{Atomics, Word};

/// Raises our flag before sleeping. The caller must look for work once more after this and before it sleeps.
#[inline]
pub fn raise<M: RingMemory>(memory: &M, ours: RingWord, with: RingFlags) {
    announce(memory, ours, with);
    settle::<M>();
}

/// The first half of [`raise`], for many rings at once: [`settle`] has to follow before any is looked at.
#[inline]
pub fn announce<M: RingMemory>(memory: &M, ours: RingWord, with: RingFlags) {
    memory.word(ours).store_relaxed(RingFlags::NEED_WAKEUP.with(with).bits());
}

/// The second half of [`raise`].
#[inline]
pub fn settle<M: RingMemory>() {
    // Partner: the fence in `peer_sleeps`. Either it sees the flag, or we see what it published.
    <M::Atomics as Atomics>::fence_full();
}

/// Lowers our flag.
#[inline]
pub fn lower<M: RingMemory>(memory: &M, ours: RingWord) {
    memory.word(ours).store_relaxed(0);
}

/// Whether the other side must be woken for what we have just published.
#[inline]
pub fn peer_sleeps<M: RingMemory>(memory: &M, theirs: RingWord) -> bool {
    // Partners: the fences in `raise` and in `Submissions::close`.
    <M::Atomics as Atomics>::fence_full();
    memory.word(theirs).load_relaxed() & RingFlags::NEED_WAKEUP.bits() != 0
}
