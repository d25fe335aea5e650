//! A ring over mapped memory. All of the crate's pointer arithmetic is here.

use super::{RingIdentity, RingMemory, RingMismatch, RingWord};
use crate::abi::{ClientArea, Cqe, EngineArea, RingLayout, Sqe};
use crate::atomic::Native;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Where an area may begin.
const AREA_ALIGNMENT: usize = 128;

/// Two areas of memory laid out by clause RING-1, and what keeps them mapped.
#[derive(Debug)]
pub struct MappedRing<O> {
    /// At least `layout.client_bytes()`, 128-byte aligned, valid while `owner` lives.
    client: NonNull<u8>,
    /// At least `layout.engine_bytes()`, 128-byte aligned, valid while `owner` lives.
    engine: NonNull<u8>,
    layout: RingLayout,
    /// Keeps both areas mapped.
    owner: O,
}

// SAFETY: the areas are only ever touched through atomics, from any thread; `owner` is moved or shared as `O` allows.
unsafe impl<O: Send> Send for MappedRing<O> {}
// SAFETY: as above; `&MappedRing` gives out nothing but references to atomics and `&O`.
unsafe impl<O: Sync> Sync for MappedRing<O> {}

impl<O> MappedRing<O> {
    /// Takes two areas.
    ///
    /// # Safety
    /// Both areas must be at least as long as `layout` says, 128-byte aligned, mapped readable (and writable, for the
    /// side that writes them) for as long as `owner` lives, not moved by moving `owner`, and accessed by nobody else
    /// in this process except through atomics.
    pub unsafe fn new(client: NonNull<u8>, engine: NonNull<u8>, layout: RingLayout, owner: O) -> Self {
        MappedRing { client, engine, layout, owner }
    }

    /// What keeps the memory.
    pub fn owner(&self) -> &O {
        &self.owner
    }

    /// Takes two areas that somebody else says are a ring of these sizes, for a client: looks that they are long
    /// enough, and that the engine's area says the same (clause RING-2). Nothing is written.
    ///
    /// # Safety
    /// As for [`MappedRing::new`], but for the areas' lengths and alignment, which are looked at: the slices say what
    /// is mapped.
    pub unsafe fn attach(
        client: NonNull<[u8]>,
        engine: NonNull<[u8]>,
        layout: RingLayout,
        owner: O,
    ) -> Result<Self, RingMismatch> {
        let fits = |area: NonNull<[u8]>, bytes| {
            area.len() >= bytes && area.cast::<u8>().addr().get().is_multiple_of(AREA_ALIGNMENT)
        };
        if !fits(client, layout.client_bytes()) || !fits(engine, layout.engine_bytes()) {
            return Err(RingMismatch::Areas(layout));
        }
        // SAFETY: long enough and aligned, as just seen; the caller promised the rest.
        let ring = unsafe { MappedRing::new(client.cast(), engine.cast(), layout, owner) };
        ring.check_identity()?;
        Ok(ring)
    }

    /// Whether the engine's area says what it must of a ring of these sizes.
    pub fn check_identity(&self) -> Result<(), RingMismatch> {
        // Relaxed: written before the client got the memory, which orders them.
        let word = |offset| self.at(self.engine, offset).load(Ordering::Relaxed);
        let identity = RingIdentity {
            magic: word(EngineArea::MAGIC),
            version: word(EngineArea::VERSION),
            sq_entries: word(EngineArea::SQ_ENTRIES),
            cq_entries: word(EngineArea::CQ_ENTRIES),
        };
        identity.check(self.layout)
    }

    /// Writes the identification words of the engine's area; the engine's side does it once, before the client looks.
    pub fn identify(&self) {
        let RingIdentity { magic, version, sq_entries, cq_entries } = RingIdentity::of(self.layout);
        let words = [
            (EngineArea::MAGIC, magic),
            (EngineArea::VERSION, version),
            (EngineArea::SQ_ENTRIES, sq_entries),
            (EngineArea::CQ_ENTRIES, cq_entries),
        ];
        for (offset, value) in words {
            self.at(self.engine, offset).store(value, Ordering::Relaxed);
        }
    }

    #[inline]
    fn at(&self, area: NonNull<u8>, offset: usize) -> &AtomicU32 {
        // SAFETY: every offset used is a constant below one page, which each area has; it is a multiple of 4, and
        // `new` promised alignment, validity while `self` lives, and atomic access only.
        unsafe { area.add(offset).cast::<AtomicU32>().as_ref() }
    }
}

/// Moves a range of words to where it lies in a queue of so many entries, whatever was asked for; what callers ask for
/// stays as it is. Of an entry's words at most, `first` is rounded down to a multiple of a power of two that is no
/// smaller than `count`, so that what begins inside the queue (a power of two of entries) ends there: a mask, where
/// `count` is known. More words begin where an entry does and end with the queue.
#[inline(always)]
const fn within(first: usize, count: usize, entry_words: usize, entries: u32) -> (usize, usize) {
    let words = entries as usize * entry_words;
    if count <= entry_words {
        return (first & (words - 1) & !(count.next_power_of_two() - 1), count);
    }
    let first = first & (words - 1) & !(entry_words - 1);
    let left = words - first;
    (first, if count < left { count } else { left })
}

impl<O> RingMemory for MappedRing<O> {
    type Atomics = Native;

    #[inline]
    fn sq_entries(&self) -> u32 {
        self.layout.sq_entries
    }

    #[inline]
    fn cq_entries(&self) -> u32 {
        self.layout.cq_entries
    }

    #[inline]
    fn word(&self, which: RingWord) -> &AtomicU32 {
        match which {
            RingWord::SqTail => self.at(self.client, ClientArea::SQ_TAIL),
            RingWord::CqHead => self.at(self.client, ClientArea::CQ_HEAD),
            RingWord::ClientFlags => self.at(self.client, ClientArea::FLAGS),
            RingWord::SqHead => self.at(self.engine, EngineArea::SQ_HEAD),
            RingWord::CqTail => self.at(self.engine, EngineArea::CQ_TAIL),
            RingWord::EngineFlags => self.at(self.engine, EngineArea::FLAGS),
        }
    }

    #[inline(always)]
    fn sq_words(&self, first: usize, count: usize) -> &[AtomicU64] {
        let (first, count) = within(first, count, Sqe::WORDS, self.layout.sq_entries);
        // SAFETY: as `within` says, the words lie in the SQ's entries and so inside the client's area, 8-byte aligned
        // since the entries start at a page; `new` promised the rest.
        unsafe {
            let start = self.client.add(ClientArea::ENTRIES + first * 8);
            NonNull::slice_from_raw_parts(start.cast::<AtomicU64>(), count).as_ref()
        }
    }

    #[inline(always)]
    fn cq_words(&self, first: usize, count: usize) -> &[AtomicU64] {
        let (first, count) = within(first, count, Cqe::WORDS, self.layout.cq_entries);
        // SAFETY: as for the SQ, in the engine's area.
        unsafe {
            let start = self.engine.add(EngineArea::ENTRIES + first * 8);
            NonNull::slice_from_raw_parts(start.cast::<AtomicU64>(), count).as_ref()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_7_no_index_leads_out_of_a_queue() {
        for entries in [1u32, 2, 16, 1 << 15] {
            let words = entries as usize * Sqe::WORDS;
            for first in [0, 1, 7, 8, words - 1, words, words + 3, usize::MAX] {
                for count in [0, 1, 3, 8, 9, 16, 100, usize::MAX] {
                    let (start, taken) = within(first, count, Sqe::WORDS, entries);
                    assert!(taken <= count && start + taken <= words, "{count} from {first} of {entries} entries");
                }
            }
            for entry in 0..entries as usize {
                let first = entry * Sqe::WORDS;
                for asked in [1, 2, 5, usize::MAX / Sqe::WORDS] {
                    let there = (entries as usize - entry).min(asked) * Sqe::WORDS;
                    assert_eq!(within(first, asked * Sqe::WORDS, Sqe::WORDS, entries), (first, there));
                }
            }
        }
    }
}
