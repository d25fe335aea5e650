//! What one entry of a link holds: an engine's message, and where the bytes are.

use crate::fabric::frames::FABRIC_WORDS;
use dmaplane_engine::WIRE_WORDS;

/// 64-bit words of an entry.
pub(crate) const ENTRY_WORDS: usize = WIRE_WORDS + FABRIC_WORDS;

/// What the fabric's words say; the first word's low byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A message with which nothing travels, but perhaps a payload.
    Plain = 0,
    /// With a WRITE: word 1 = region, word 2 = offset.
    Source = 1,
    /// With a WRITE_LIST: word 1 = region of fragment sources, word 2 = offset.
    ListSource = 2,
    /// With a READ_LIST: word 1 = region of remote segment numbers (u32), word 2 = offset.
    ListIndex = 3,
    /// Answers a READ: word 1 = the reader's operation, 2 = our transfer, 3 = region, 4 = offset.
    Serve = 4,
    /// Answers a READ_LIST: word 1 = the reader's operation, 2 = our transfer, 3 = region of sources, 4 = offset.
    ServeList = 5,
    /// The reader is done: word 1 = transfer, word 2 = bytes, word 3 = errno or 0.
    ServeEnd = 6,
    /// A region is used no more: word 1 = region.
    RegionDrop = 7,
}

impl Kind {
    pub(crate) fn from_word(word: u64) -> Option<Kind> {
        [
            Kind::Plain,
            Kind::Source,
            Kind::ListSource,
            Kind::ListIndex,
            Kind::Serve,
            Kind::ServeList,
            Kind::ServeEnd,
            Kind::RegionDrop,
        ]
        .get((word & 0xff) as usize)
        .copied()
        .filter(|_| word & !0xffff_ffff_0000_00ff == 0)
    }
}

/// An entry: the engine's words (all zero for none) and the fabric's. The first fabric word's high half is the
/// payload's length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub message: [u64; WIRE_WORDS],
    pub fabric: [u64; FABRIC_WORDS],
}

impl Entry {
    pub(crate) fn of_fabric(kind: Kind, words: [u64; 4]) -> Entry {
        let mut entry = Entry::default();
        entry.fabric[0] = kind as u64;
        entry.fabric[1..5].copy_from_slice(&words);
        entry
    }

    pub(crate) fn payload_bytes(&self) -> u32 {
        (self.fabric[0] >> 32) as u32
    }

    pub(crate) fn set_payload_bytes(&mut self, bytes: u32) {
        self.fabric[0] = self.fabric[0] & 0xffff_ffff | u64::from(bytes) << 32;
    }
}

impl dmaplane_ring::queue::Entry for Entry {
    const WORDS: usize = ENTRY_WORDS;

    #[inline]
    fn store(&self, mut store: impl FnMut(usize, u64)) {
        for (index, word) in self.message.iter().chain(&self.fabric).enumerate() {
            store(index, *word);
        }
    }

    #[inline]
    fn load(mut load: impl FnMut(usize) -> u64) -> Self {
        let mut entry = Entry::default();
        for (index, word) in entry.message.iter_mut().chain(&mut entry.fabric).enumerate() {
            *word = load(index);
        }
        entry
    }
}

/// Where one fragment of a list transfer comes from: 24 bytes in a region that the sender shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentSource {
    /// The sender's region.
    pub region: u32,
    /// Length in bytes.
    pub length: u32,
    /// Where in the region.
    pub offset: u64,
    /// Segment of the receiver's list; 0 and unused when the receiver knows it.
    pub segment: u32,
}

impl FragmentSource {
    pub(crate) const BYTES: u64 = 24;

    pub(crate) fn encode(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..4].copy_from_slice(&self.region.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.segment.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; 24]) -> FragmentSource {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        FragmentSource {
            region: word(0),
            length: word(4),
            offset: u64::from(word(8)) | u64::from(word(12)) << 32,
            segment: word(16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHM-6: fragment sources, and the bits of word 0; SHM-10: b.
    #[test]
    fn fragment_sources_round_trip_and_unknown_kinds_are_none() {
        let source = FragmentSource { region: 1, length: 2, offset: 3 << 40, segment: 4 };
        assert_eq!(FragmentSource::decode(&source.encode()), source);
        assert_eq!(Kind::from_word(7), Some(Kind::RegionDrop));
        assert_eq!(Kind::from_word(8), None);
        assert_eq!(Kind::from_word(1 | 1 << 8), None);
        assert_eq!(Kind::from_word(1 | 5 << 32), Some(Kind::Source));
    }
}
