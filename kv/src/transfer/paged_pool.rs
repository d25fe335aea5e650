//! A paged pool in a buffer of a plane.

use super::TransferError;
use super::cuts::{Cut, CutLists};
use super::holds::{Access, Hold, Holds};
use crate::segment::segment_range;
use crate::{
    BlockAllocator, BlockTable, CacheLayout, ChecksumAlgorithm, Digest64, Fingerprint, FragmentPlan, HeadRange,
    PagedSequence, PoolError, PoolGeometry, Shard, TransferManifest, digest,
};
use core::ops::Range;
use dmaplane::{Import, List, MAX_LIST_SEGMENTS, MAX_OPERATION_BYTES, Notification, Operation, Plane, Run};

/// A pool of blocks, its memory, and the lists that name its fragments.
///
/// Its bytes are given out only where no peer may write (for [`PagedPool::bytes_mut`] and
/// [`PagedPool::slice_mut`]: nor read) them at the moment.
#[derive(Debug)]
pub struct PagedPool {
    geometry: PoolGeometry,
    shard: Shard,
    /// The shard's heads, numbered as in the whole model.
    heads: HeadRange,
    allocator: BlockAllocator,
    checksum: ChecksumAlgorithm,
    part_fragments: u32,
    holds: Holds,
    /// Blocks given back while they were held.
    released: Vec<u32>,
    /// The whole pool in smaller fragments, by their tokens and heads: prepared when needed, and kept for a while.
    /// Dropped before `base`, whose buffer they name.
    by_fragment: CutLists,
    /// The whole pool in whole blocks; holds the buffer.
    base: List,
}

fn whole_pool(geometry: &PoolGeometry, cut: Cut) -> Result<Vec<(usize, Run)>, TransferError> {
    let runs = geometry.runs_of_heads(cut.tokens, cut.heads)?;
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
    /// A pool of `blocks` blocks for the whole model. Blocks are given out in an order shuffled by `seed`.
    pub fn new(plane: &mut Plane, layout: CacheLayout, blocks: u32, seed: u64) -> Result<PagedPool, TransferError> {
        PagedPool::of_shard(plane, layout, Shard::WHOLE, blocks, seed)
    }

    /// One shard's pool; `model` is the layout of all shards together.
    pub fn of_shard(
        plane: &mut Plane,
        model: CacheLayout,
        shard: Shard,
        blocks: u32,
        seed: u64,
    ) -> Result<PagedPool, TransferError> {
        let layout = model.shard(shard.count)?;
        let heads = shard.heads(&layout)?;
        let geometry = PoolGeometry::new(layout, blocks)?;
        let buffer = plane.alloc(geometry.size_bytes())?;
        let cut = Cut { tokens: layout.block_tokens(), heads: geometry.all_heads() };
        let base = plane.prepare_list(vec![buffer], &whole_pool(&geometry, cut)?)?;
        Ok(PagedPool {
            geometry,
            shard,
            heads,
            allocator: BlockAllocator::scattered(blocks, seed),
            checksum: ChecksumAlgorithm::Crc32c,
            part_fragments: MAX_LIST_SEGMENTS as u32,
            holds: Holds::new(layout.layers(), blocks),
            released: Vec::new(),
            by_fragment: CutLists::default(),
            base,
        })
    }

    /// Ends the pool and frees its memory. (Dropping it does so with a later call of the plane.)
    pub fn free(self, plane: &mut Plane) -> Result<(), TransferError> {
        for list in self.by_fragment.into_lists() {
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

    /// Which shard of its model it holds.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// The heads that it holds, numbered as in the whole model.
    pub fn heads(&self) -> HeadRange {
        self.heads
    }

    /// The fingerprint of the whole model's cache.
    pub(crate) fn model_fingerprint(&self) -> Result<Fingerprint, TransferError> {
        Ok(self.geometry.layout().unsharded(self.shard.count)?.compatible_fingerprint())
    }

    /// A sequence as a peer is told of it, apart from any lease.
    pub fn describe(&self, table: &BlockTable) -> Result<TransferManifest, TransferError> {
        let part_fragments = self.part_fragments;
        let manifest = TransferManifest::of(&self.geometry, self.shard, table.clone())?;
        Ok(TransferManifest { checksum: self.checksum, part_fragments, ..manifest })
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
        assert!(!self.holds.any_writer(), "a peer may write to this pool: abort or commit its transfer first");
        self.base.buffers()[0].as_slice()
    }

    /// The whole pool's bytes.
    ///
    /// # Panics
    /// While a peer may read or write a block: use [`PagedPool::slice_mut`] then.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        assert!(!self.holds.any(), "a peer may touch this pool: end its transfer first");
        self.base.bytes_mut(0).unwrap_or_default()
    }

    /// Bytes of the pool, which may lie in any blocks that no peer may write to.
    pub fn slice(&self, range: Range<u64>) -> Result<&[u8], TransferError> {
        if self.holds.any_writer() {
            self.check_closed(&range, |holds, _, block| holds.is_written(block))?;
        }
        let found_bytes = self.base.buffers()[0].len();
        // The pool's slice is never made as a whole: a peer may be writing to the rest of it.
        let bytes = self.base.buffers()[0].range(range.start as usize..range.end as usize);
        let expected_bytes = range.end;
        bytes.ok_or(PoolError::BufferTooSmall { found_bytes: found_bytes as u64, expected_bytes }.into())
    }

    /// Bytes of the pool, which may lie in any blocks that no peer may touch, and in those layers of others that are
    /// not sent or announced yet.
    pub fn slice_mut(&mut self, range: Range<u64>) -> Result<&mut [u8], TransferError> {
        if self.holds.any() {
            self.check_closed(&range, Holds::is_touched)?;
        }
        let found_bytes = self.base.buffers()[0].len() as u64;
        let expected_bytes = range.end;
        let bytes = self.base.range_mut(0, range.start as usize..range.end as usize);
        bytes.ok_or(PoolError::BufferTooSmall { found_bytes, expected_bytes }.into())
    }

    fn check_closed(
        &self,
        range: &Range<u64>,
        is_open: impl Fn(&Holds, u32, u32) -> bool,
    ) -> Result<(), TransferError> {
        let mut blocks = self.geometry.blocks_of(range.clone());
        match blocks.find(|&(layer, block)| is_open(&self.holds, layer, block)) {
            Some((_, block)) => Err(TransferError::Leased { block }),
            None => Ok(()),
        }
    }

    /// A lease on a sequence's blocks begins, or an operation on them.
    pub(crate) fn hold(&mut self, table: &BlockTable, access: Access) -> Hold {
        self.holds.hold(table.blocks(), access)
    }

    /// These layers are read from now on.
    pub(crate) fn seal(&mut self, hold: &mut Hold, layers: Range<u32>) {
        self.holds.seal(hold, layers);
    }

    /// A lease or an operation has ended. Blocks that were given back meanwhile are free now. Another pool's hold is
    /// refused, and its blocks stay held there.
    pub(crate) fn let_go(&mut self, hold: Hold) -> Result<(), TransferError> {
        self.check_own(&hold)?;
        self.holds.let_go(hold);
        let holds = &self.holds;
        for block in self.released.extract_if(.., |block| !holds.is_held(*block)) {
            // What was given back twice is free all the same.
            let _ = self.allocator.free(&[block]);
        }
        Ok(())
    }

    fn check_own(&self, hold: &Hold) -> Result<(), TransferError> {
        if self.holds.is_own(hold) { Ok(()) } else { Err(TransferError::OtherPool) }
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
        let (leased, free): (Vec<u32>, Vec<u32>) =
            table.into_blocks().into_iter().partition(|&block| self.holds.is_held(block));
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

    /// As [`PagedPool::digest`], of some heads, numbered within the pool.
    pub(crate) fn digest_of(&self, table: &BlockTable, heads: HeadRange) -> Result<Digest64, TransferError> {
        let sequence = PagedSequence::new(&self.geometry, table)?;
        digest::of_heads(sequence, heads, |range| self.slice(range))
    }

    /// The CRC-32C of a plan's fragments as they lie here, in the plan's order: what whoever copies them will find.
    pub(crate) fn crc32c(&self, plan: &FragmentPlan, heads: HeadRange) -> Result<u32, TransferError> {
        let runs = self.geometry.runs_of_heads(plan.fragment_tokens(), heads)?;
        let mut checksum = 0;
        for pair in plan.pairs() {
            let range = segment_range(&runs, pair.local_segment).ok_or(PoolError::NoBlocks)?;
            checksum = crc32c::crc32c_append(checksum, self.slice(range)?);
        }
        Ok(checksum)
    }

    /// The most fragments of one operation.
    pub(crate) fn part_fragments(&self, fragment_bytes: u64) -> u32 {
        let most = MAX_OPERATION_BYTES / fragment_bytes.max(1);
        self.part_fragments.min(u32::try_from(most).unwrap_or(u32::MAX))
    }

    /// The whole pool as a list of fragments.
    pub(crate) fn list(&mut self, plane: &mut Plane, cut: Cut) -> Result<&mut List, TransferError> {
        if cut == (Cut { tokens: self.geometry.layout().block_tokens(), heads: self.geometry.all_heads() }) {
            return Ok(&mut self.base);
        }
        if !self.by_fragment.has(cut) {
            let runs = whole_pool(&self.geometry, cut)?;
            // SAFETY: no lease is ever given on this list, and operations on it are over when the calls that borrow the
            // pool are, or held (`start_write`, `start_read`).
            let list = unsafe { plane.sublist(&self.base, &runs)? };
            self.by_fragment.keep(cut, list);
        }
        self.by_fragment.get_mut(cut).ok_or(TransferError::Pool(PoolError::NoBlocks))
    }

    #[cfg(test)]
    pub(crate) fn cut_lists(&mut self) -> &mut CutLists {
        &mut self.by_fragment
    }

    /// Starts to write a plan's fragments to where a peer wants them. `hold` is of the plan's blocks, with its layers
    /// sealed, and is let go of after the operation's end.
    pub(crate) fn start_write(
        &mut self,
        plane: &mut Plane,
        hold: &Hold,
        import: &Import,
        (plan, heads): (&FragmentPlan, HeadRange),
        notification: Notification<'_>,
    ) -> Result<Operation<()>, TransferError> {
        self.check_own(hold)?;
        let pairs = super::pairs_of(plan);
        let list = self.list(plane, Cut { tokens: plan.fragment_tokens(), heads })?;
        // SAFETY: the hold is of this pool and has sealed these layers of these blocks: until it is let go of, no
        // mutable slice of them is given out, and none is there now, since this borrows the pool mutably.
        Ok(unsafe { plane.start_write_list(list, import, &pairs, notification)? })
    }

    /// Starts to read a plan's fragments from where a peer has them. `hold` is of the plan's blocks, for writing, and
    /// is let go of after the operation's end.
    pub(crate) fn start_read(
        &mut self,
        plane: &mut Plane,
        hold: &Hold,
        import: &Import,
        (plan, heads): (&FragmentPlan, HeadRange),
        checksum: bool,
    ) -> Result<Operation<()>, TransferError> {
        self.check_own(hold)?;
        let pairs = super::pairs_of(plan);
        let list = self.list(plane, Cut { tokens: plan.fragment_tokens(), heads })?;
        // SAFETY: the hold is of this pool and for writing: until it is let go of, no slice of these blocks is given
        // out, and none is there now, since this borrows the pool mutably.
        Ok(unsafe { plane.start_read_list(list, import, &pairs, checksum)? })
    }

    /// A list of one sequence's fragments alone: what a lease is given on. One run for each fragment of tokens, through
    /// all planes: [`list_segment`] numbers them.
    pub(crate) fn sequence_list(
        &self,
        plane: &mut Plane,
        table: &BlockTable,
        cut: Cut,
    ) -> Result<(List, FragmentPlan), TransferError> {
        let sequence = PagedSequence::new(&self.geometry, table)?;
        let heads = (cut.heads, cut.heads);
        let plan = FragmentPlan::of_heads(sequence, sequence, heads, table.tokens(), cut.tokens)?;
        if plan.columns() as u64 > MAX_LIST_SEGMENTS {
            return Err(TransferError::Columns { columns: plan.columns() as u64 });
        }
        let pool_runs = self.geometry.runs_of_heads(cut.tokens, cut.heads)?;
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
        // SAFETY: the callers lease this list and hold its blocks until the lease's end: no slice of what the peer may
        // write, and no mutable one of what it may read, is given out meanwhile, and none is there when it begins,
        // since they borrow the pool mutably. (Layers that are leased for reading and not announced yet may be written:
        // a peer that reads them too early gets bytes in the making, and nothing of ours changes by it.)
        Ok((unsafe { plane.sublist(&self.base, &runs)? }, plan))
    }

    /// Zeroes what a transfer of these layers moves beyond the last token, which may be another request's.
    pub(crate) fn clear_padding(
        &mut self,
        table: &BlockTable,
        fragment_tokens: u32,
        layers: Range<u32>,
    ) -> Result<(), TransferError> {
        let geometry = self.geometry;
        let sequence = PagedSequence::new(&geometry, table)?;
        let planes = geometry.layout().planes();
        let planes = (layers.start * planes) as usize..(layers.end * planes) as usize;
        for range in sequence.padding_ranges(fragment_tokens)?.take(planes.end).skip(planes.start) {
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
pub(crate) fn list_segment(plan: &FragmentPlan, ordinal: u64) -> u32 {
    let columns = plan.columns() as u64;
    let (plane, column) = (ordinal / columns, ordinal % columns);
    // At most the pool's segments, which fit 32 bits.
    (column * (plan.planes()) + plane) as u32
}
