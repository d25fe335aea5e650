//! A link's two areas as ring memory: each side is the client of its own view.

use super::entry::{ENTRY_WORDS, Entry};
use crate::memory::{PeerRegion, Region};
use dmaplane_engine::AllocRequest;
use dmaplane_ring::abi::{Errno, MAX_SEND_BYTES};
use dmaplane_ring::atomic::{Atomics, Native};
use dmaplane_ring::queue::{QueueKind, RingMemory, RingWord};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

/// Entries each way, a power of two.
pub(crate) const ENTRIES: u32 = 256;

const OUT_TAIL: usize = 0;
const IN_HEAD: usize = 128;
const FLAGS: usize = 256;
const ENTRY_AREA: usize = 4096;
const PAYLOAD_AREA: usize = ENTRY_AREA + ENTRIES as usize * ENTRY_WORDS * 8;
/// Bytes of an area: entries, and a payload slot beside each.
pub(crate) const AREA_BYTES: u64 = PAYLOAD_AREA as u64 + ENTRIES as u64 * MAX_SEND_BYTES;

/// From us to the peer.
#[derive(Debug)]
pub(crate) struct Outgoing;
/// From the peer to us.
#[derive(Debug)]
pub(crate) struct Incoming;

impl QueueKind for Outgoing {
    type Entry = Entry;
    type Staged = [Entry; 0];
    const NOTHING_STAGED: [Entry; 0] = [];
    const TAIL: RingWord = RingWord::SqTail;
    const HEAD: RingWord = RingWord::SqHead;

    fn entries<M: RingMemory>(memory: &M) -> u32 {
        memory.sq_entries()
    }

    fn words<M: RingMemory>(memory: &M, first: usize, count: usize) -> &[<M::Atomics as Atomics>::U64] {
        memory.sq_words(first, count)
    }
}

impl QueueKind for Incoming {
    type Entry = Entry;
    type Staged = [Entry; 0];
    const NOTHING_STAGED: [Entry; 0] = [];
    const TAIL: RingWord = RingWord::CqTail;
    const HEAD: RingWord = RingWord::CqHead;

    fn entries<M: RingMemory>(memory: &M) -> u32 {
        memory.cq_entries()
    }

    fn words<M: RingMemory>(memory: &M, first: usize, count: usize) -> &[<M::Atomics as Atomics>::U64] {
        memory.cq_words(first, count)
    }
}

/// Both areas. Ours is writable by us alone, the peer's by the peer alone.
#[derive(Debug)]
pub(crate) struct LinkMemory {
    ours: Arc<Region>,
    /// Keeps `theirs_base` mapped.
    _theirs: PeerRegion,
    ours_base: NonNull<u8>,
    theirs_base: NonNull<u8>,
}

// SAFETY: both areas are only touched through atomics and raw copies.
unsafe impl Send for LinkMemory {}
// SAFETY: as above.
unsafe impl Sync for LinkMemory {}

/// An area of ours, to be handed to the peer.
pub(crate) fn new_area() -> Result<Region, Errno> {
    Region::allocate(&AllocRequest::plain(AREA_BYTES))
}

impl LinkMemory {
    pub(crate) fn new(ours: Region, theirs: PeerRegion) -> Result<LinkMemory, Errno> {
        let ours_base = ours.at(0, AREA_BYTES).ok_or(Errno::EINVAL)?;
        let theirs_base = theirs.at(0, AREA_BYTES, &AtomicBool::new(false))?;
        Ok(LinkMemory { ours: Arc::new(ours), _theirs: theirs, ours_base, theirs_base })
    }

    /// Puts a payload beside the entry that will be written as number `position`.
    pub(crate) fn put_payload(&self, position: u32, payload: &[u8]) -> Result<(), Errno> {
        if payload.len() as u64 > MAX_SEND_BYTES {
            return Err(Errno::EMSGSIZE);
        }
        let slot = u64::from(position & (ENTRIES - 1));
        self.ours.write(PAYLOAD_AREA as u64 + slot * MAX_SEND_BYTES, payload)
    }

    /// Copies the payload beside the entry that was read as number `position`.
    pub(crate) fn take_payload(&self, position: u32, length: u32) -> Option<Vec<u8>> {
        if u64::from(length) > MAX_SEND_BYTES {
            return None;
        }
        let mut payload = vec![0; length as usize];
        let slot = (position & (ENTRIES - 1)) as usize;
        // SAFETY: within the peer's area, whose size was checked; `payload` is as long.
        unsafe {
            let source = self.theirs_base.add(PAYLOAD_AREA + slot * MAX_SEND_BYTES as usize);
            libc::memcpy(payload.as_mut_ptr().cast(), source.as_ptr().cast(), payload.len());
        }
        Some(payload)
    }

    fn u32_at(base: &NonNull<u8>, offset: usize) -> &AtomicU32 {
        // SAFETY: constants within the first page of a page-aligned area that lives as long as `self`.
        unsafe { base.add(offset).cast().as_ref() }
    }

    fn words_at(base: &NonNull<u8>, first: usize, count: usize) -> &[AtomicU64] {
        const WORDS: usize = ENTRIES as usize * ENTRY_WORDS;
        let first = first & (WORDS - 1);
        let start = base.as_ptr().wrapping_add(ENTRY_AREA + first * 8);
        // SAFETY: the mask and the minimum keep the words within the entries of an area that lives as long as `self`.
        unsafe { std::slice::from_raw_parts(start.cast(), count.min(WORDS - first)) }
    }
}

impl RingMemory for LinkMemory {
    type Atomics = Native;

    fn sq_entries(&self) -> u32 {
        ENTRIES
    }

    fn cq_entries(&self) -> u32 {
        ENTRIES
    }

    fn word(&self, which: RingWord) -> &AtomicU32 {
        match which {
            RingWord::SqTail => Self::u32_at(&self.ours_base, OUT_TAIL),
            RingWord::CqHead => Self::u32_at(&self.ours_base, IN_HEAD),
            RingWord::ClientFlags => Self::u32_at(&self.ours_base, FLAGS),
            RingWord::CqTail => Self::u32_at(&self.theirs_base, OUT_TAIL),
            RingWord::SqHead => Self::u32_at(&self.theirs_base, IN_HEAD),
            RingWord::EngineFlags => Self::u32_at(&self.theirs_base, FLAGS),
        }
    }

    fn sq_words(&self, first: usize, count: usize) -> &[AtomicU64] {
        Self::words_at(&self.ours_base, first, count)
    }

    fn cq_words(&self, first: usize, count: usize) -> &[AtomicU64] {
        Self::words_at(&self.theirs_base, first, count)
    }
}
