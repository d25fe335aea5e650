//! A paged pool in a buffer of a plane.

use super::TransferError;
use crate::segment::segment_range;
use crate::{
    BlockAllocator, BlockTable, CacheLayout, ChecksumAlgorithm, Digest64, FragmentPlan, PagedSequence, PoolError,
    PoolGeometry, digest,
};
use core::ops::Range;
use dmaplane::{List, MAX_LIST_SEGMENTS, MAX_OPERATION_BYTES, Plane, Run};
use std::collections::HashMap;

/// What peers may do to a block at the moment.
#[derive(Debug, Clone, Copy, Default)]
struct Open {
    /// Leases under which a peer may read it.
    readers: u32,
    /// Leases under which a peer may write it.
    writers: u32,
}

/// A pool of blocks, its memory, and the lists that name its fragments.
///
/// Its bytes are given out only where no peer may write (for [`PagedPool::bytes_mut`] and
/// [`PagedPool::slice_mut`]: nor read) them at the moment.
#[derive(Debug)]
pub struct PagedPool {
    geometry: PoolGeometry,
    allocator: BlockAllocator,
    checksum: ChecksumAlgorithm,
    part_fragments: u32,
    /// By block.
    open: Vec<Open>,
    /// Of all blocks.
    open_in_all: Open,
    /// Blocks given back while a lease on them was live.
    released: Vec<u32>,
    /// The whole pool in smaller fragments, by their size in tokens: prepared once, when first needed. Dropped before
    /// `base`, whose buffer they name.
    by_fragment: HashMap<u32, List>,
    /// The whole pool in whole blocks; holds the buffer.
    base: List,
}

fn whole_pool(geometry: &PoolGeometry, fragment_tokens: u32) -> Result<Vec<(usize, Run)>, TransferError> {
    let runs = geometry.runs(fragment_tokens)?;
    Ok(runs
        .into_iter()
        .map(|run| {
            let length_bytes = run.length_bytes as u32;
            let run = Run {
                offset_bytes: run.offset_bytes,
                stride_bytes: run.stride_bytes,
                length_bytes,
                count: run.count,
                ..Run::default()
            };
            (0, run)
        })
        .collect())
}

impl PagedPool {
    /// A pool of `blocks` blocks. Blocks are given out in an order shuffled by `seed`.
    pub fn new(plane: &mut Plane, layout: CacheLayout, blocks: u32, seed: u64) -> Result<PagedPool, TransferError> {
        let geometry = PoolGeometry::new(layout, blocks)?;
        let buffer = plane.alloc(geometry.size_bytes())?;
        let base = plane.prepare_list(vec![buffer], &whole_pool(&geometry, layout.block_tokens())?)?;
        Ok(PagedPool {
            geometry,
            allocator: BlockAllocator::scattered(blocks, seed),
            checksum: ChecksumAlgorithm::Crc32c,
            part_fragments: MAX_LIST_SEGMENTS as u32,
            open: vec![Open::default(); blocks as usize],
            open_in_all: Open::default(),
            released: Vec::new(),
            by_fragment: HashMap::new(),
            base,
        })
    }

    /// Ends the pool and frees its memory. (Dropping it does so with a later call of the plane.)
    pub fn free(self, plane: &mut Plane) -> Result<(), TransferError> {
        for list in self.by_fragment.into_values() {
            plane.free_list(list)?;
        }
        for buffer in plane.free_list(self.base)? {
            plane.free(buffer)?;
        }
        Ok(())
    }

    /// Layout and size.
    pub fn geometry(&self) -> &PoolGeometry {
        &self.geometry
    }

    /// What transfers of this pool are checked by at least: CRC-32C unless set. Each side insists on its own.
    pub fn checksum(&self) -> ChecksumAlgorithm {
        self.checksum
    }

    /// Sets what transfers are checked by at least.
    pub fn set_checksum(&mut self, checksum: ChecksumAlgorithm) {
        self.checksum = checksum;
    }

    /// Bounds the fragments of one operation, at least 1: a longer transfer is made in parts, each with its own
    /// notification. What a list operation takes at most (2^20 fragments, 2 GiB) holds in any case.
    pub fn set_part_fragments(&mut self, most: u32) {
        self.part_fragments = most.clamp(1, MAX_LIST_SEGMENTS as u32);
    }

    /// The whole pool's bytes.
    ///
    /// # Panics
    /// While a peer may write to a block: use [`PagedPool::slice`] then.
    pub fn bytes(&self) -> &[u8] {
        assert!(self.open_in_all.writers == 0, "a peer may write to this pool: abort or commit its transfer first");
        self.base.buffers()[0].as_slice()
    }

    /// The whole pool's bytes.
    ///
    /// # Panics
    /// While a peer may read or write a block: use [`PagedPool::slice_mut`] then.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let Open { readers, writers } = self.open_in_all;
        assert!(readers + writers == 0, "a peer may touch this pool: end its transfer first");
        self.base.bytes_mut(0).unwrap_or_default()
    }

    /// Bytes of the pool, which may lie in any blocks that no peer may write to.
    pub fn slice(&self, range: Range<u64>) -> Result<&[u8], TransferError> {
        self.check_closed(&range, |open| open.writers > 0)?;
        let found_bytes = self.base.buffers()[0].len();
        // The pool's slice is never made as a whole: a peer may be writing to the rest of it.
        let bytes = self.base.buffers()[0].range(range.start as usize..range.end as usize);
        let expected_bytes = range.end;
        bytes.ok_or(PoolError::BufferTooSmall { found_bytes: found_bytes as u64, expected_bytes }.into())
    }

    /// Bytes of the pool, which may lie in any blocks that no peer may touch.
    pub fn slice_mut(&mut self, range: Range<u64>) -> Result<&mut [u8], TransferError> {
        self.check_closed(&range, |open| open.writers + open.readers > 0)?;
        let found_bytes = self.base.buffers()[0].len() as u64;
        let expected_bytes = range.end;
        let bytes = self.base.range_mut(0, range.start as usize..range.end as usize);
        bytes.ok_or(PoolError::BufferTooSmall { found_bytes, expected_bytes }.into())
    }

    fn check_closed(&self, range: &Range<u64>, is_open: impl Fn(Open) -> bool) -> Result<(), TransferError> {
        if !is_open(self.open_in_all) || range.is_empty() {
            return Ok(());
        }
        for block in self.geometry.blocks_of(range.clone()) {
            if self.open.get(block as usize).is_some_and(|&open| is_open(open)) {
                return Err(TransferError::Leased { block });
            }
        }
        Ok(())
    }

    /// A lease on a sequence's blocks begins (`1`) or has ended (`-1`).
    pub(super) fn note_lease(&mut self, table: &BlockTable, writes: bool, by: i32) {
        let count = |open: &mut Open| {
            let side = if writes { &mut open.writers } else { &mut open.readers };
            *side = side.saturating_add_signed(by);
        };
        for &block in table.blocks() {
            if let Some(open) = self.open.get_mut(block as usize) {
                count(open);
            }
        }
        count(&mut self.open_in_all);
        let open = &self.open;
        let is_over = |block: &mut u32| open.get(*block as usize).is_none_or(|open| open.readers + open.writers == 0);
        for block in self.released.extract_if(.., is_over) {
            // What was given back twice is free all the same.
            let _ = self.allocator.free(&[block]);
        }
    }

    /// Blocks for `tokens` tokens.
    pub fn allocate(&mut self, tokens: u32) -> Result<BlockTable, TransferError> {
        let layout = self.geometry.layout();
        let blocks = self.allocator.allocate(layout.blocks_for(tokens))?;
        Ok(BlockTable::new(layout.block_tokens(), blocks, tokens)?)
    }

    /// One more block for a sequence that has grown.
    pub fn extend(&mut self, table: &mut BlockTable) -> Result<(), TransferError> {
        let block = self.allocator.allocate(1)?[0];
        Ok(table.append_block(block)?)
    }

    /// Gives a sequence's blocks back. Those that a peer may touch at the moment are free only when its lease is over.
    pub fn release(&mut self, table: BlockTable) -> Result<(), TransferError> {
        let is_leased =
            |block: &u32| self.open.get(*block as usize).is_some_and(|open| open.readers + open.writers > 0);
        let (leased, free): (Vec<u32>, Vec<u32>) = table.into_blocks().into_iter().partition(is_leased);
        self.allocator.free(&free)?;
        self.released.extend(leased);
        Ok(())
    }

    /// Blocks that are free.
    pub fn free_blocks(&self) -> u32 {
        self.allocator.free_blocks()
    }

    /// The digest of a sequence, equal on both sides whatever their blocks.
    pub fn digest(&self, table: &BlockTable) -> Result<Digest64, TransferError> {
        let sequence = PagedSequence::new(&self.geometry, table)?;
        digest::of_ranges(sequence, |range| self.slice(range))
    }

    /// The CRC-32C of a plan's fragments as they lie here, in the plan's order: what whoever copies them will find.
    pub(super) fn crc32c(&self, plan: &FragmentPlan) -> Result<u32, TransferError> {
        let runs = self.geometry.runs(plan.fragment_tokens())?;
        let mut checksum = 0;
        for pair in plan.pairs() {
            let range = segment_range(&runs, pair.local_segment).ok_or(PoolError::NoBlocks)?;
            checksum = crc32c::crc32c_append(checksum, self.slice(range)?);
        }
        Ok(checksum)
    }

    /// The most fragments of one operation.
    pub(super) fn part_fragments(&self, fragment_bytes: u64) -> u32 {
        let most = MAX_OPERATION_BYTES / fragment_bytes.max(1);
        self.part_fragments.min(u32::try_from(most).unwrap_or(u32::MAX))
    }

    /// The whole pool as a list of fragments of `fragment_tokens` tokens.
    pub(super) fn list(&mut self, plane: &mut Plane, fragment_tokens: u32) -> Result<&mut List, TransferError> {
        if fragment_tokens == self.geometry.layout().block_tokens() {
            return Ok(&mut self.base);
        }
        if !self.by_fragment.contains_key(&fragment_tokens) {
            let runs = whole_pool(&self.geometry, fragment_tokens)?;
            // SAFETY: no lease is ever given on this list, and operations on it are over when the calls of this module
            // that borrow the pool are.
            let list = unsafe { plane.sublist(&self.base, &runs)? };
            self.by_fragment.insert(fragment_tokens, list);
        }
        self.by_fragment.get_mut(&fragment_tokens).ok_or(TransferError::Pool(PoolError::NoBlocks))
    }

    /// A list of one sequence's fragments alone: what a lease is given on. One run for each fragment of tokens, through
    /// all planes: [`list_segment`] numbers them.
    pub(super) fn sequence_list(
        &self,
        plane: &mut Plane,
        table: &BlockTable,
        fragment_tokens: u32,
    ) -> Result<(List, FragmentPlan), TransferError> {
        let sequence = PagedSequence::new(&self.geometry, table)?;
        let plan = FragmentPlan::with_fragment_tokens(sequence, sequence, table.tokens(), fragment_tokens)?;
        let pool_runs = self.geometry.runs(fragment_tokens)?;
        let planes = self.geometry.plane_count() as u32;
        let mut runs: Vec<(usize, Run)> = Vec::with_capacity(plan.columns());
        for pair in plan.pairs().take(plan.columns()) {
            let range = segment_range(&pool_runs, pair.local_segment).ok_or(PoolError::NoBlocks)?;
            let length_bytes = (range.end - range.start) as u32;
            let stride_bytes = self.geometry.plane_stride_bytes().max(length_bytes.into());
            runs.push((
                0,
                Run { offset_bytes: range.start, stride_bytes, length_bytes, count: planes, ..Run::default() },
            ));
        }
        // SAFETY: the callers lease this list and note that (`note_lease`); until the lease's end no slice of these
        // blocks is given out, and none is there when it begins, since they borrow the pool mutably.
        Ok((unsafe { plane.sublist(&self.base, &runs)? }, plan))
    }

    /// Zeroes what a transfer moves beyond the last token, which may be another request's.
    pub(super) fn clear_padding(&mut self, table: &BlockTable, fragment_tokens: u32) -> Result<(), TransferError> {
        let geometry = self.geometry;
        let sequence = PagedSequence::new(&geometry, table)?;
        for range in sequence.padding_ranges(fragment_tokens)? {
            // A peer may be reading the sequence, to whose lease its zeros belong.
            if self.slice(range.clone())?.iter().any(|&byte| byte != 0) {
                self.slice_mut(range)?.fill(0);
            }
        }
        Ok(())
    }
}

/// The segment, in a [`PagedPool::sequence_list`], of the fragment that a plan names at `ordinal`: plans go through
/// planes first, such a list through fragments of tokens.
pub(super) fn list_segment(plan: &FragmentPlan, ordinal: u64) -> u32 {
    let columns = plan.columns() as u64;
    let (plane, column) = (ordinal / columns, ordinal % columns);
    // At most the pool's segments, which fit 32 bits.
    (column * (plan.planes()) + plane) as u32
}
