//! Which fragment of one side's pool goes where in the other's.
//!
//! Two pools may hold the same sequence in blocks of different sizes. A fragment is the largest run
//! of tokens that lies within one block on both sides wherever it begins: the greatest common
//! divisor of both block sizes (or a smaller divisor, if one side has prepared its list so). A plan
//! pairs the segment numbers of both sides for every fragment that holds tokens, in (layer, plane,
//! token) order. It has no direction: written, local is the source; read, local is the destination.
//!
//! **Padding.** The last fragment is moved whole, even if it holds fewer tokens than it could. What
//! follows the last token in it is padding. The rule: padding holds zeros or what the *same
//! request* left there (a rejected draft token, say), never another request's vectors. The source
//! sees to it: blocks recycled between requests carry stale vectors, so it zeroes
//! [`PagedSequence::padding_ranges`] before the transfer unless it knows them clean. The
//! destination must not read padding as tokens; digests do not cover it.
//!
//! **Layer by layer.** [`FragmentPlan::layers`] restricts a plan, so that a layer can leave while
//! the next is computed.

use core::ops::Range;
use std::sync::Arc;

use crate::layout::{Attention, CacheLayout};
pub use crate::plan_error::{PlanError, Side};
use crate::segment::SegmentMap;
use crate::sequence::PagedSequence;
use crate::shard::HeadRange;

/// Most pairs in one index array: a prepared list and a list operation take up to 2^20 segments.
pub const INDEX_ARRAY_PAIRS_MAX: u32 = 1 << 20;

/// The same fragment in both pools. In an index array: 8 bytes, local first, little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FragmentPair {
    /// Segment of the local list.
    pub local_segment: u32,
    /// Segment of the remote list.
    pub remote_segment: u32,
}

impl FragmentPair {
    /// Bytes of a pair in an index array.
    pub const SIZE_BYTES: usize = 8;

    /// The pair as it lies in an index array.
    pub fn to_le_bytes(self) -> [u8; FragmentPair::SIZE_BYTES] {
        (u64::from(self.remote_segment) << 32 | u64::from(self.local_segment)).to_le_bytes()
    }
}

/// The fragments of tokens `0..n` of one sequence, in all layers or in some, as pairs of segments.
///
/// A plan is small whatever it describes: the pairs of one plane, shared by all parts of the plan.
///
/// ```
/// use dmaplane_kv::{BlockTable, FragmentPlan, PagedSequence, PoolGeometry, models};
///
/// let prefill_pool = PoolGeometry::new(models::LLAMA_3_70B.layout(16)?.shard(8)?, 1000)?;
/// let decode_pool = PoolGeometry::new(models::LLAMA_3_70B.layout(32)?.shard(8)?, 600)?;
/// let prefill_table = BlockTable::new(16, (0..512).collect(), 8192)?;
/// let decode_table = BlockTable::new(32, (0..300).rev().collect(), 0)?;
/// let plan = FragmentPlan::new(
///     PagedSequence::new(&prefill_pool, &prefill_table)?,
///     PagedSequence::new(&decode_pool, &decode_table)?,
///     8192,
/// )?;
/// assert_eq!(plan.fragment_tokens(), 16);
/// assert_eq!(plan.fragments(), 81_920);
/// assert_eq!(plan.bytes_total(), 81_920 * 4096);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FragmentPlan {
    /// The pairs of layer 0, plane 0, in token order. Not empty.
    columns: Arc<[FragmentPair]>,
    local: SegmentMap,
    remote: SegmentMap,
    tokens: u32,
    /// Which fragments of all layers and planes this plan covers: fragment i is column
    /// `i % columns.len()` of plane `i / columns.len()`.
    ordinals: Range<u64>,
}

impl FragmentPlan {
    /// A plan for tokens `0..tokens` in the largest fragments that both block sizes allow. Both
    /// tables need room for the tokens; how many they say they hold does not matter.
    pub fn new(local: PagedSequence<'_>, remote: PagedSequence<'_>, tokens: u32) -> Result<FragmentPlan, PlanError> {
        let fragment_tokens =
            greatest_common_divisor(local.pool().layout().block_tokens(), remote.pool().layout().block_tokens());
        FragmentPlan::with_fragment_tokens(local, remote, tokens, fragment_tokens)
    }

    /// A plan in fragments of `fragment_tokens` tokens, which must divide both block sizes: for a
    /// remote side that has prepared its list so and says so in its manifest.
    pub fn with_fragment_tokens(
        local: PagedSequence<'_>,
        remote: PagedSequence<'_>,
        tokens: u32,
        fragment_tokens: u32,
    ) -> Result<FragmentPlan, PlanError> {
        let (ours, theirs) = (local.pool().layout(), remote.pool().layout());
        if ours.attention() != theirs.attention() {
            check_compatible(ours, theirs)?;
            return Err(PlanError::Attention { local: ours.attention(), remote: theirs.attention() });
        }
        let heads = (local.pool().all_heads(), remote.pool().all_heads());
        FragmentPlan::of_heads(local, remote, heads, tokens, fragment_tokens)
    }

    /// A plan for some heads: between shards of different counts. The heads of both sides are as many, each numbered
    /// within its own pool; unless they are all of their pool's, `fragment_tokens` is 1.
    pub fn of_heads(
        local: PagedSequence<'_>,
        remote: PagedSequence<'_>,
        (local_heads, remote_heads): (HeadRange, HeadRange),
        tokens: u32,
        fragment_tokens: u32,
    ) -> Result<FragmentPlan, PlanError> {
        check_compatible(local.pool().layout(), remote.pool().layout())?;
        if local_heads.count() != remote_heads.count() {
            return Err(PlanError::HeadCounts { local: local_heads.count(), remote: remote_heads.count() });
        }
        if tokens == 0 {
            return Err(PlanError::NoTokens);
        }
        let check = |side, sequence: PagedSequence<'_>, heads| {
            let capacity_tokens = sequence.table().capacity_tokens();
            if u64::from(tokens) > capacity_tokens {
                return Err(PlanError::TooFewBlocks { side, tokens, capacity_tokens });
            }
            let segments = sequence.pool().segments_of_heads(fragment_tokens, heads);
            segments.map_err(|source| PlanError::Fragments { side, source })
        };
        let local_segments = check(Side::Local, local, local_heads)?;
        let remote_segments = check(Side::Remote, remote, remote_heads)?;
        let columns: Arc<[FragmentPair]> = (0..tokens.div_ceil(fragment_tokens))
            .map(|column| FragmentPair {
                local_segment: segment_in_plane(&local_segments, local, column),
                remote_segment: segment_in_plane(&remote_segments, remote, column),
            })
            .collect();
        let planes = u64::from(local_segments.layers) * u64::from(local_segments.planes);
        // At most the local pool's segments, which fit 32 bits.
        let ordinals = 0..planes * columns.len() as u64;
        Ok(FragmentPlan { columns, local: local_segments, remote: remote_segments, tokens, ordinals })
    }

    /// Fragments of this plan.
    pub fn fragments(&self) -> u64 {
        self.ordinals.end - self.ordinals.start
    }

    /// Fragments of one plane of one layer.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Planes of all layers.
    pub fn planes(&self) -> u64 {
        u64::from(self.local.layers) * u64::from(self.local.planes)
    }

    /// Where this plan begins among the fragments of all layers and planes.
    pub fn first_ordinal(&self) -> u64 {
        self.ordinals.start
    }

    /// Bytes that this plan moves, padding included.
    pub fn bytes_total(&self) -> u64 {
        // Cannot overflow: these are distinct pieces of a pool whose size fits.
        self.fragments() * self.fragment_bytes()
    }

    /// Tokens that the whole plan moves.
    pub const fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Tokens of a fragment.
    pub const fn fragment_tokens(&self) -> u32 {
        self.local.fragment_tokens
    }

    /// Bytes of a fragment; the same on both sides.
    pub const fn fragment_bytes(&self) -> u64 {
        self.local.fragment_bytes
    }

    /// The pairs in (layer, plane, token) order.
    pub fn pairs(&self) -> impl Iterator<Item = FragmentPair> + '_ {
        let columns = self.columns.len() as u64;
        let (first_plane, end_plane) = (self.ordinals.start / columns, self.ordinals.end.div_ceil(columns));
        (first_plane..end_plane).flat_map(move |plane| {
            let before = plane * columns;
            let first = self.ordinals.start.saturating_sub(before) as usize;
            let end = (self.ordinals.end - before).min(columns) as usize;
            // Segment numbers fit 32 bits, and planes are fewer than segments.
            let local_base = plane as u32 * self.local.segments_per_plane();
            let remote_base = plane as u32 * self.remote.segments_per_plane();
            self.columns[first..end].iter().map(move |column| FragmentPair {
                local_segment: local_base + column.local_segment,
                remote_segment: remote_base + column.remote_segment,
            })
        })
    }

    /// Those fragments of this plan whose numbers, counted through all layers and planes, are in `ordinals`.
    pub fn part(&self, ordinals: Range<u64>) -> FragmentPlan {
        let first = self.ordinals.start.max(ordinals.start);
        let last = self.ordinals.end.min(ordinals.end);
        FragmentPlan { ordinals: first..last.max(first), ..self.clone() }
    }

    /// Those fragments of this plan that belong to `layers`.
    pub fn layers(&self, layers: Range<u32>) -> Result<FragmentPlan, PlanError> {
        let Range { start, end } = layers;
        if start >= end || end > self.local.layers {
            return Err(PlanError::LayerRange { start, end, layers: self.local.layers });
        }
        let per_layer = u64::from(self.local.planes) * self.columns.len() as u64;
        let first = self.ordinals.start.max(u64::from(start) * per_layer);
        let last = self.ordinals.end.min(u64::from(end) * per_layer);
        Ok(FragmentPlan { ordinals: first..last.max(first), ..self.clone() })
    }

    /// This plan in parts of at most `max_fragments` fragments, each fit for an index array.
    pub fn chunks(&self, max_fragments: u32) -> Result<impl ExactSizeIterator<Item = FragmentPlan> + '_, PlanError> {
        if !(1..=INDEX_ARRAY_PAIRS_MAX).contains(&max_fragments) {
            return Err(PlanError::ChunkSize { max_fragments });
        }
        let step = u64::from(max_fragments);
        // At most 2^32 fragments, hence chunks; usize has 64 bits here or the collection fails.
        let count = self.fragments().div_ceil(step) as usize;
        Ok((0..count).map(move |index| {
            let start = self.ordinals.start + index as u64 * step;
            FragmentPlan { ordinals: start..self.ordinals.end.min(start + step), ..self.clone() }
        }))
    }

    /// Writes the index array for a list operation into the front of `array` and returns its bytes.
    pub fn write_index_array(&self, array: &mut [u8]) -> Result<usize, PlanError> {
        let fragments = self.fragments();
        if fragments > u64::from(INDEX_ARRAY_PAIRS_MAX) {
            return Err(PlanError::TooManyFragments { fragments });
        }
        let (needed_bytes, found_bytes) = (fragments as usize * FragmentPair::SIZE_BYTES, array.len());
        if found_bytes < needed_bytes {
            return Err(PlanError::ArrayBuffer { needed_bytes, found_bytes });
        }
        for (bytes, pair) in array.chunks_exact_mut(FragmentPair::SIZE_BYTES).zip(self.pairs()) {
            bytes.copy_from_slice(&pair.to_le_bytes());
        }
        Ok(needed_bytes)
    }

    /// The same fragments as the other side sees them: local and remote change places.
    pub fn reversed(&self) -> FragmentPlan {
        let swap = |pair: &FragmentPair| FragmentPair {
            local_segment: pair.remote_segment,
            remote_segment: pair.local_segment,
        };
        FragmentPlan {
            columns: self.columns.iter().map(swap).collect(),
            local: self.remote,
            remote: self.local,
            tokens: self.tokens,
            ordinals: self.ordinals.clone(),
        }
    }
}

/// The segment of the fragment that holds token `column * fragment_tokens`, within a plane.
fn segment_in_plane(segments: &SegmentMap, sequence: PagedSequence<'_>, column: u32) -> u32 {
    // The table has room for the tokens, so it has this block.
    let block = sequence.table().blocks()[(column / segments.fragments_per_block) as usize];
    block * segments.fragments_per_block + column % segments.fragments_per_block
}

fn check_compatible(local: &CacheLayout, remote: &CacheLayout) -> Result<(), PlanError> {
    if local.layers() != remote.layers() {
        return Err(PlanError::Layers { local: local.layers(), remote: remote.layers() });
    }
    let same_vectors = match (local.attention(), remote.attention()) {
        (Attention::GroupedQuery { head_size: ours, .. }, Attention::GroupedQuery { head_size: theirs, .. }) => {
            ours == theirs
        }
        (ours, theirs) => ours == theirs,
    };
    if !same_vectors {
        return Err(PlanError::Attention { local: local.attention(), remote: remote.attention() });
    }
    if local.dtype() != remote.dtype() {
        return Err(PlanError::DType { local: local.dtype(), remote: remote.dtype() });
    }
    Ok(())
}

/// Euclid's algorithm; both numbers are positive.
pub(crate) fn greatest_common_divisor(first: u32, second: u32) -> u32 {
    let (mut larger, mut smaller) = (first, second);
    while smaller != 0 {
        (larger, smaller) = (smaller, larger % smaller);
    }
    larger
}

#[cfg(test)]
mod tests;
