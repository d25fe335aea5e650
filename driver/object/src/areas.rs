//! The two areas of one ring, as C has mapped them.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64};
use dmaplane_ring::abi::RingLayout;
use dmaplane_ring::atomic::Native;
use dmaplane_ring::queue::{MappedRing, RingMemory, RingWord};

/// Kernel addresses of a ring's areas. Each of the engine's two ends has a copy; C keeps the memory.
#[derive(Debug)]
pub(crate) struct Areas {
    client: NonNull<u8>,
    engine: NonNull<u8>,
    layout: RingLayout,
    mapped: MappedRing<()>,
}

impl Areas {
    /// # Safety
    /// As [`MappedRing::new`], for as long as this or a clone of it lives.
    pub(crate) unsafe fn new(client: NonNull<u8>, engine: NonNull<u8>, layout: RingLayout) -> Areas {
        // SAFETY: the caller's promise.
        let mapped = unsafe { MappedRing::new(client, engine, layout, ()) };
        Areas { client, engine, layout, mapped }
    }

    /// Writes magic, version and sizes (clause RING-2).
    pub(crate) fn identify(&self) {
        self.mapped.identify();
    }
}

impl Clone for Areas {
    fn clone(&self) -> Areas {
        // SAFETY: `new` has the promise for clones too, and all of them use atomics only.
        unsafe { Areas::new(self.client, self.engine, self.layout) }
    }
}

impl RingMemory for Areas {
    type Atomics = Native;

    #[inline]
    fn sq_entries(&self) -> u32 {
        self.mapped.sq_entries()
    }

    #[inline]
    fn cq_entries(&self) -> u32 {
        self.mapped.cq_entries()
    }

    #[inline]
    fn word(&self, which: RingWord) -> &AtomicU32 {
        self.mapped.word(which)
    }

    #[inline]
    fn sq_words(&self, first: usize, count: usize) -> &[AtomicU64] {
        self.mapped.sq_words(first, count)
    }

    #[inline]
    fn cq_words(&self, first: usize, count: usize) -> &[AtomicU64] {
        self.mapped.cq_words(first, count)
    }
}
