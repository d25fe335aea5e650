//! Where a ring's words lie.

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
    /// `count` words of the SQ's entries from word `first` on: an entry's, all of them inside the SQ.
    fn sq_words(&self, first: usize, count: usize) -> &[<Self::Atomics as Atomics>::U64];
    /// `count` words of the CQ's entries from word `first` on.
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
