//! How the fragments of a pool are numbered and described to a ring.
//!
//! A prepared list sees a pool as numbered segments of equal length. The number of a fragment,
//!
//! ```text
//! segment = ((layer * planes + plane) * blocks + block) * fragments_per_block + k
//! ```
//!
//! depends on the layout, on how many blocks the pool has and on the fragment size, but not on
//! where the planes lie. So one side can compute the other side's numbers from its manifest and
//! learns nothing of its addresses, which stay in the list that the other side prepared.

use core::ops::Range;

/// `count` pieces of `length_bytes` bytes, the first at `offset_bytes`, each `stride_bytes` after
/// the one before. They are consecutive segments of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Run {
    /// Where the first piece begins, in bytes from the start of the pool.
    pub offset_bytes: u64,
    /// Distance from one piece to the next, in bytes; at least `length_bytes`.
    pub stride_bytes: u64,
    /// Bytes of one piece: one fragment.
    pub length_bytes: u64,
    /// Pieces.
    pub count: u32,
}

impl Run {
    /// The bytes of piece `index`, or `None` beyond `count`.
    pub fn piece(&self, index: u32) -> Option<Range<u64>> {
        if index >= self.count {
            return None;
        }
        let start = self.offset_bytes.checked_add(u64::from(index).checked_mul(self.stride_bytes)?)?;
        Some(start..start.checked_add(self.length_bytes)?)
    }
}

/// The bytes of segment `segment` in a list made of `runs`, or `None` if the list is shorter.
///
/// ```
/// use dmaplane_kv::segment::{Run, segment_range};
///
/// let runs = [
///     Run { offset_bytes: 0, stride_bytes: 8, length_bytes: 8, count: 3 },
///     Run { offset_bytes: 64, stride_bytes: 8, length_bytes: 8, count: 3 },
/// ];
/// assert_eq!(segment_range(&runs, 4), Some(72..80));
/// assert_eq!(segment_range(&runs, 6), None);
/// ```
pub fn segment_range(runs: &[Run], segment: u32) -> Option<Range<u64>> {
    let mut index = segment;
    for run in runs {
        match index.checked_sub(run.count) {
            Some(beyond) => index = beyond,
            None => return run.piece(index),
        }
    }
    None
}

/// The numbering of one pool's segments at one fragment size. Made by
/// [`PoolGeometry::segments`](crate::PoolGeometry::segments), which has checked that every number
/// fits 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentMap {
    pub(crate) layers: u32,
    pub(crate) planes: u32,
    pub(crate) blocks: u32,
    pub(crate) fragments_per_block: u32,
    pub(crate) fragment_tokens: u32,
    pub(crate) fragment_bytes: u64,
}

impl SegmentMap {
    /// The segment of fragment `fragment` of block `block` in one plane of one layer; `None` if
    /// any of them is out of range.
    pub fn segment_index(&self, layer: u32, plane: u32, block: u32, fragment: u32) -> Option<u32> {
        let inside =
            layer < self.layers && plane < self.planes && block < self.blocks && fragment < self.fragments_per_block;
        inside.then(|| {
            let in_plane = block * self.fragments_per_block + fragment;
            (layer * self.planes + plane) * self.segments_per_plane() + in_plane
        })
    }

    /// Segments of one plane of one layer.
    pub const fn segments_per_plane(&self) -> u32 {
        self.blocks * self.fragments_per_block
    }

    /// Segments of the whole pool.
    pub const fn count(&self) -> u32 {
        self.layers * self.planes * self.segments_per_plane()
    }

    /// Fragments that a block is cut into, in each plane.
    pub const fn fragments_per_block(&self) -> u32 {
        self.fragments_per_block
    }

    /// Tokens of a fragment.
    pub const fn fragment_tokens(&self) -> u32 {
        self.fragment_tokens
    }

    /// Bytes of a fragment: of one segment.
    pub const fn fragment_bytes(&self) -> u64 {
        self.fragment_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_up_through_layer_plane_block_and_fragment() {
        let map = SegmentMap {
            layers: 2,
            planes: 2,
            blocks: 3,
            fragments_per_block: 4,
            fragment_tokens: 4,
            fragment_bytes: 64,
        };
        let mut expected = 0;
        for layer in 0..2 {
            for plane in 0..2 {
                for block in 0..3 {
                    for fragment in 0..4 {
                        let segment = map.segment_index(layer, plane, block, fragment);
                        assert_eq!(segment, Some(expected));
                        expected += 1;
                    }
                }
            }
        }
        assert_eq!(map.count(), expected);
        for outside in [(2, 0, 0, 0), (0, 2, 0, 0), (0, 0, 3, 0), (0, 0, 0, 4)] {
            let (layer, plane, block, fragment) = outside;
            assert_eq!(map.segment_index(layer, plane, block, fragment), None);
        }
    }

    #[test]
    fn a_piece_beyond_the_run_or_beyond_64_bits_is_none() {
        let run = Run { offset_bytes: u64::MAX - 4, stride_bytes: 8, length_bytes: 4, count: 2 };
        assert_eq!(run.piece(0), Some(u64::MAX - 4..u64::MAX));
        assert_eq!(run.piece(1), None);
        assert_eq!(run.piece(2), None);
    }
}
