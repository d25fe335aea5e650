//! Where a ring's words lie.

use super::{Entry as _, QueueKind};
use crate::atomic::Atomics;

/// The shared 32-bit words of a ring (clause RING-1). Each has one writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingWord {
    /// SQEs published; the client writes.
    SqTail,
    /// SQEs consumed; the engine writes.
    SqHead,
    /// CQEs published; the engine writes.
    CqTail,
    /// CQEs consumed; the client writes.
    CqHead,
    /// The client's flags.
    ClientFlags,
    /// The engine's flags.
    EngineFlags,
}

/// Access to a ring's words. Sizes never change during the life of a value.
pub trait RingMemory {
    /// Which atomics the words are.
    type Atomics: Atomics;
    /// SQ entries, a power of two.
    fn sq_entries(&self) -> u32;
    /// CQ entries, a power of two.
    fn cq_entries(&self) -> u32;
    /// One of the single words.
    fn word(&self, which: RingWord) -> &<Self::Atomics as Atomics>::U32;
    /// `count` words of the SQ's entries from word `first` on, where one of its entries begins, or as many as come
    /// before the SQ's end: all of an entry's.
    fn sq_words(&self, first: usize, count: usize) -> &[<Self::Atomics as Atomics>::U64];
    /// The same of the CQ's entries.
    fn cq_words(&self, first: usize, count: usize) -> &[<Self::Atomics as Atomics>::U64];
}

macro_rules! forward {
    ($pointer:ty) => {
        impl<T: RingMemory> RingMemory for $pointer {
            type Atomics = T::Atomics;
            #[inline]
            fn sq_entries(&self) -> u32 {
                (**self).sq_entries()
            }
            #[inline]
            fn cq_entries(&self) -> u32 {
                (**self).cq_entries()
            }
            #[inline]
            fn word(&self, which: RingWord) -> &<Self::Atomics as Atomics>::U32 {
                (**self).word(which)
            }
            #[inline(always)]
            fn sq_words(&self, first: usize, count: usize) -> &[<Self::Atomics as Atomics>::U64] {
                (**self).sq_words(first, count)
            }
            #[inline(always)]
            fn cq_words(&self, first: usize, count: usize) -> &[<Self::Atomics as Atomics>::U64] {
                (**self).cq_words(first, count)
            }
        }
    };
}

forward!(&T);
#[cfg(feature = "std")]
forward!(std::sync::Arc<T>);

/// The words of `count` entries from the one at `position` on: those as far as the queue's end, and those from its
/// beginning. Many entries in one loop, which looks for each one's place and for its end no more.
#[inline(always)]
pub(super) fn runs<M: RingMemory, Q: QueueKind>(
    memory: &M,
    entries: u32,
    position: u32,
    count: u32,
) -> [&[<M::Atomics as Atomics>::U64]; 2] {
    let start = position & (entries - 1);
    let before_end = count.min(entries - start);
    let words =
        |first: u32, count: u32| Q::words(memory, first as usize * Q::Entry::WORDS, count as usize * Q::Entry::WORDS);
    [words(start, before_end), words(0, count - before_end)]
}
