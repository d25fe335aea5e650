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
    /// A word of the SQ's entries; `index` is below `sq_entries * 8`.
    fn sq_entry_word(&self, index: usize) -> &<Self::Atomics as Atomics>::U64;
    /// A word of the CQ's entries; `index` is below `cq_entries * 4`.
    fn cq_entry_word(&self, index: usize) -> &<Self::Atomics as Atomics>::U64;
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
            #[inline]
            fn sq_entry_word(&self, index: usize) -> &<Self::Atomics as Atomics>::U64 {
                (**self).sq_entry_word(index)
            }
            #[inline]
            fn cq_entry_word(&self, index: usize) -> &<Self::Atomics as Atomics>::U64 {
                (**self).cq_entry_word(index)
            }
        }
    };
}

forward!(&T);
#[cfg(feature = "std")]
forward!(std::sync::Arc<T>);
