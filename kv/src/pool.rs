//! Where each token of a paged cache lies in one linear buffer.
//!
//! Order of the bytes, outermost first: layer, plane, block, token, head, element. A block's tokens
//! are therefore contiguous within a plane, and so are any consecutive tokens of a block: a
//! fragment. Planes follow each other without a gap, or each begins at a multiple of an alignment
//! ([`PoolGeometry::with_plane_alignment`]: pages, or huge pages that one NUMA node is to hold).
//!
//! **Tensor-parallel shards.** Every shard is a pool of its own, with the layout that
//! [`CacheLayout::shard`] returns. Between different shard counts a fragment is some heads of one
//! token, with the whole token as stride ([`PoolGeometry::runs_of_heads`]): its number is that of
//! the token.

use core::ops::Range;

use crate::layout::CacheLayout;
pub use crate::pool_error::PoolError;
use crate::segment::{Run, SegmentMap};
use crate::shard::HeadRange;

/// A pool of blocks in one linear buffer: pure arithmetic, no memory.
///
/// ```
/// use dmaplane_kv::{PoolGeometry, Run, layout::PLANE_VALUE, models};
///
/// let layout = models::LLAMA_3_8B.layout(16)?;
/// let pool = PoolGeometry::new(layout, 100)?;
/// // Layer 0's keys come first, then its values; a token is 8 heads x 128 x 2 bytes.
/// assert_eq!(pool.offset_bytes(0, PLANE_VALUE, 3, 5)?, (100 * 16 + 3 * 16 + 5) * 2048);
/// // Without gaps, the whole pool is one run of blocks.
/// let run = Run { offset_bytes: 0, stride_bytes: 32_768, length_bytes: 32_768, count: 6400 };
/// assert_eq!(pool.runs(16)?, [run]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolGeometry {
    layout: CacheLayout,
    blocks: u32,
    /// From the start of one plane to the start of the next. Invariant: at least the plane's bytes,
    /// and times the number of planes it fits 64 bits.
    plane_stride_bytes: u64,
}

impl PoolGeometry {
    /// A pool of `blocks` blocks whose planes follow each other without a gap.
    pub fn new(layout: CacheLayout, blocks: u32) -> Result<PoolGeometry, PoolError> {
        PoolGeometry::with_plane_alignment(layout, blocks, 1)
    }

    /// A pool each of whose planes begins at a multiple of `alignment_bytes`, a power of two.
    pub fn with_plane_alignment(
        layout: CacheLayout,
        blocks: u32,
        alignment_bytes: u64,
    ) -> Result<PoolGeometry, PoolError> {
        if blocks == 0 {
            return Err(PoolError::NoBlocks);
        }
        if !alignment_bytes.is_power_of_two() {
            return Err(PoolError::Alignment { alignment_bytes });
        }
        let planes = u64::from(layout.layers()) * u64::from(layout.planes());
        let stride = layout
            .bytes_per_block_plane()
            .checked_mul(u64::from(blocks))
            .and_then(|bytes| bytes.checked_next_multiple_of(alignment_bytes))
            .filter(|stride| stride.checked_mul(planes).is_some());
        match stride {
            Some(plane_stride_bytes) => Ok(PoolGeometry { layout, blocks, plane_stride_bytes }),
            None => Err(PoolError::TooLarge { blocks, bytes_per_block: layout.bytes_per_block() }),
        }
    }

    /// The layout of the cache.
    pub const fn layout(&self) -> &CacheLayout {
        &self.layout
    }

    /// Blocks of the pool.
    pub const fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Bytes of the whole buffer, padding after the last plane included.
    pub fn size_bytes(&self) -> u64 {
        self.plane_stride_bytes * self.plane_count()
    }

    /// Where a token's vectors begin, in bytes from the start of the pool. `token` counts within
    /// the block.
    pub fn offset_bytes(&self, layer: u32, plane: u32, block: u32, token: u32) -> Result<u64, PoolError> {
        let block_tokens = self.layout.block_tokens();
        if token >= block_tokens {
            return Err(PoolError::Token { token, block_tokens });
        }
        let within = u64::from(token) * self.layout.bytes_per_token_plane();
        Ok(self.block_range(layer, plane, block)?.start + within)
    }

    /// The bytes of a block in one plane of one layer.
    pub fn block_range(&self, layer: u32, plane: u32, block: u32) -> Result<Range<u64>, PoolError> {
        let (layers, planes, blocks) = (self.layout.layers(), self.layout.planes(), self.blocks);
        if layer >= layers {
            return Err(PoolError::Layer { layer, layers });
        }
        if plane >= planes {
            return Err(PoolError::Plane { plane, planes });
        }
        if block >= blocks {
            return Err(PoolError::Block { block, blocks });
        }
        let planes_before = u64::from(layer) * u64::from(planes) + u64::from(plane);
        let length = self.layout.bytes_per_block_plane();
        // Cannot overflow: all of it lies within size_bytes().
        let start = planes_before * self.plane_stride_bytes + u64::from(block) * length;
        Ok(start..start + length)
    }

    /// All heads of a token, numbered from 0 within this pool.
    pub fn all_heads(&self) -> HeadRange {
        let [heads, _] = self.layout.attention().token_shape();
        HeadRange { start: 0, end: heads }
    }

    /// The numbering of this pool's segments when blocks are cut into fragments of
    /// `fragment_tokens` tokens, a divisor of the block size.
    pub fn segments(&self, fragment_tokens: u32) -> Result<SegmentMap, PoolError> {
        self.segments_of_heads(fragment_tokens, self.all_heads())
    }

    /// As [`PoolGeometry::segments`], of some heads only (numbered within this pool): these are contiguous in one token
    /// at a time, so `fragment_tokens` is 1 unless they are all.
    pub fn segments_of_heads(&self, fragment_tokens: u32, heads: HeadRange) -> Result<SegmentMap, PoolError> {
        let block_tokens = self.layout.block_tokens();
        if fragment_tokens == 0 || !block_tokens.is_multiple_of(fragment_tokens) {
            return Err(PoolError::FragmentTokens { fragment_tokens, block_tokens });
        }
        let all = self.all_heads();
        let HeadRange { start, end } = heads;
        if start >= end || end > all.end {
            return Err(PoolError::Heads { start, end, heads: all.end });
        }
        if heads != all && fragment_tokens != 1 {
            return Err(PoolError::HeadFragment { fragment_tokens });
        }
        let fragments_per_block = block_tokens / fragment_tokens;
        let segments = u128::from(self.plane_count()) * u128::from(self.blocks) * u128::from(fragments_per_block);
        if segments > u128::from(u32::MAX) {
            return Err(PoolError::TooManySegments { segments });
        }
        Ok(SegmentMap {
            layers: self.layout.layers(),
            planes: self.layout.planes(),
            blocks: self.blocks,
            fragments_per_block,
            fragment_tokens,
            fragment_bytes: self.head_bytes() * u64::from(heads.count()) * u64::from(fragment_tokens),
        })
    }

    /// Bytes of one head of one token in one plane.
    fn head_bytes(&self) -> u64 {
        self.layout.bytes_per_token_plane() / u64::from(self.all_heads().end)
    }

    /// The segment of one fragment: see the [formula](crate::segment). Use
    /// [`PoolGeometry::segments`] to number many.
    pub fn segment_index(
        &self,
        fragment_tokens: u32,
        layer: u32,
        plane: u32,
        block: u32,
        fragment: u32,
    ) -> Result<u32, PoolError> {
        let segments = self.segments(fragment_tokens)?;
        self.block_range(layer, plane, block)?;
        let fragments_per_block = segments.fragments_per_block();
        segments
            .segment_index(layer, plane, block, fragment)
            .ok_or(PoolError::Fragment { fragment, fragments_per_block })
    }

    /// The fewest runs that make a list in which segment i is fragment i of
    /// [`PoolGeometry::segments`]: one, or one per plane if there are gaps between planes.
    pub fn runs(&self, fragment_tokens: u32) -> Result<Vec<Run>, PoolError> {
        self.runs_of_heads(fragment_tokens, self.all_heads())
    }

    /// As [`PoolGeometry::runs`], for [`PoolGeometry::segments_of_heads`].
    pub fn runs_of_heads(&self, fragment_tokens: u32, heads: HeadRange) -> Result<Vec<Run>, PoolError> {
        let segments = self.segments_of_heads(fragment_tokens, heads)?;
        let per_plane = segments.segments_per_plane();
        let length_bytes = segments.fragment_bytes();
        let first = u64::from(heads.start) * self.head_bytes();
        let step = self.layout.bytes_per_token_plane() * u64::from(fragment_tokens);
        let run = |offset, stride_bytes, count| Run { offset_bytes: offset + first, stride_bytes, length_bytes, count };
        let gap_free = self.plane_stride_bytes == step * u64::from(per_plane);
        Ok(if gap_free {
            vec![run(0, step, segments.count())]
        } else if per_plane == 1 {
            vec![run(0, self.plane_stride_bytes, segments.count())]
        } else {
            (0..self.plane_count()).map(|plane| run(plane * self.plane_stride_bytes, step, per_plane)).collect()
        })
    }

    /// Checks that a slice of `found_bytes` bytes holds the whole pool. It may be longer: buffers
    /// are rounded up to pages.
    pub fn check_size(&self, found_bytes: usize) -> Result<(), PoolError> {
        let (found_bytes, expected_bytes) = (found_bytes as u64, self.size_bytes());
        if found_bytes < expected_bytes {
            return Err(PoolError::BufferTooSmall { found_bytes, expected_bytes });
        }
        Ok(())
    }

    /// From the start of one plane to the start of the next.
    pub const fn plane_stride_bytes(&self) -> u64 {
        self.plane_stride_bytes
    }

    /// The blocks that a range of the buffer touches, each with its layer; some more than once where it spans planes.
    pub fn blocks_of(&self, range: Range<u64>) -> impl Iterator<Item = (u32, u32)> + use<> {
        let (block_bytes, stride, blocks) =
            (self.layout.bytes_per_block_plane(), self.plane_stride_bytes, u64::from(self.blocks));
        let planes = u64::from(self.layout.planes());
        let first = range.start / stride;
        let last = if range.is_empty() { first } else { (range.end - 1) / stride + 1 };
        (first..last).flat_map(move |plane| {
            let (start, end) = (plane * stride, (plane + 1) * stride);
            let (from, to) = (range.start.max(start) - start, range.end.min(end) - start);
            // What lies behind a plane's blocks, in its padding, is no block's.
            let touched = from / block_bytes..to.div_ceil(block_bytes).min(blocks);
            touched.map(move |block| ((plane / planes) as u32, block as u32))
        })
    }

    /// Planes of all layers together.
    pub fn plane_count(&self) -> u64 {
        u64::from(self.layout.layers()) * u64::from(self.layout.planes())
    }
}

#[cfg(test)]
mod tests;
