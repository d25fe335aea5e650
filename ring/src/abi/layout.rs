//! How a ring lies in memory (clause RING-1).
//!
//! Two areas, each whole pages: the client writes the first, the engine the second. So the kernel can map what it
//! writes read-only. Words that different sides write, or that change at different rates, lie 128 bytes apart (pairs
//! of cache lines are fetched together on current x86-64 parts).

use super::{Cqe, MAX_RING_ENTRIES, Sqe};

/// Byte offsets within the client's area, which the client writes and the engine reads.
pub struct ClientArea;

impl ClientArea {
    /// u32: SQEs published so far.
    pub const SQ_TAIL: usize = 0;
    /// u32: CQEs consumed so far.
    pub const CQ_HEAD: usize = 128;
    /// u32: [`RingFlags`](super::RingFlags) of the client.
    pub const FLAGS: usize = 256;
    /// The SQEs.
    pub const ENTRIES: usize = 4096;
}

/// Byte offsets within the engine's area, which the engine writes and the client reads.
pub struct EngineArea;

impl EngineArea {
    /// u32: [`RING_MAGIC`](super::RING_MAGIC).
    pub const MAGIC: usize = 0;
    /// u32: [`ABI_VERSION`](super::ABI_VERSION).
    pub const VERSION: usize = 4;
    /// u32: SQ entries.
    pub const SQ_ENTRIES: usize = 8;
    /// u32: CQ entries.
    pub const CQ_ENTRIES: usize = 12;
    /// u32: SQEs consumed so far.
    pub const SQ_HEAD: usize = 128;
    /// u32: CQEs published so far; also the futex word on which a client waits.
    pub const CQ_TAIL: usize = 256;
    /// u32: [`RingFlags`](super::RingFlags) of the engine.
    pub const FLAGS: usize = 384;
    /// The CQEs.
    pub const ENTRIES: usize = 4096;
}

/// Sizes of a ring's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLayout {
    /// SQ entries, a power of two.
    pub sq_entries: u32,
    /// CQ entries, a power of two.
    pub cq_entries: u32,
}

const PAGE_BYTES: usize = 4096;

impl RingLayout {
    /// `None` unless both are powers of two within the limit and the CQ is at least as long as the SQ and 16 entries.
    pub const fn new(sq_entries: u32, cq_entries: u32) -> Option<Self> {
        let fits = sq_entries.is_power_of_two()
            && cq_entries.is_power_of_two()
            && sq_entries <= MAX_RING_ENTRIES
            && cq_entries <= MAX_RING_ENTRIES
            && cq_entries >= sq_entries
            && cq_entries >= 16;
        if fits { Some(RingLayout { sq_entries, cq_entries }) } else { None }
    }

    /// Bytes of the client's area, whole pages.
    pub const fn client_bytes(&self) -> usize {
        (ClientArea::ENTRIES + self.sq_entries as usize * size_of::<Sqe>()).next_multiple_of(PAGE_BYTES)
    }

    /// Bytes of the engine's area, whole pages.
    pub const fn engine_bytes(&self) -> usize {
        (EngineArea::ENTRIES + self.cq_entries as usize * size_of::<Cqe>()).next_multiple_of(PAGE_BYTES)
    }
}
