//! What LIST_PREPARE and the list transfers read out of buffers (clauses LST-1, LST-4).

/// `count` segments of `length_bytes` each, `stride_bytes` apart, in one buffer: 40 bytes.
///
/// A list is an array of runs; its segments are numbered through, run after run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Run {
    /// Handle of the buffer.
    pub buffer: u64,
    /// Where the first segment starts.
    pub offset_bytes: u64,
    /// From one segment's start to the next one's; at least `length_bytes` when there are two.
    pub stride_bytes: u64,
    /// Length of each segment; not zero.
    pub length_bytes: u32,
    /// How many segments; not zero.
    pub count: u32,
    /// Must be zero.
    pub reserved: u64,
}

const _: () = assert!(size_of::<Run>() == 40 && align_of::<Run>() == 8);

impl Run {
    /// 64-bit words of a run.
    pub const WORDS: usize = 5;
    /// Size in a buffer.
    pub const BYTES: u64 = 40;

    /// As words, in memory order.
    pub const fn to_words(&self) -> [u64; Self::WORDS] {
        let counts = self.length_bytes as u64 | (self.count as u64) << 32;
        [self.buffer, self.offset_bytes, self.stride_bytes, counts, self.reserved]
    }

    /// From words.
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        Run {
            buffer: words[0],
            offset_bytes: words[1],
            stride_bytes: words[2],
            length_bytes: words[3] as u32,
            count: (words[3] >> 32) as u32,
            reserved: words[4],
        }
    }
}

/// One fragment of a list transfer: which local segment goes with which remote one. 8 bytes in a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct IndexPair {
    /// Segment of the local list.
    pub local: u32,
    /// Segment of the leased list.
    pub remote: u32,
}

const _: () = assert!(size_of::<IndexPair>() == 8);
