//! A paged pool in a buffer of a plane.

use super::TransferError;
use crate::segment::segment_range;
use crate::{BlockAllocator, BlockTable, CacheLayout, Digest64, FragmentPlan, PagedSequence, PoolGeometry, digest};
use dmaplane::{List, Plane, Run};
use std::collections::HashMap;

/// A pool of blocks, its memory, and the lists that name its fragments.
#[derive(Debug)]
pub struct PagedPool {
    geometry: PoolGeometry,
    allocator: BlockAllocator,
    /// The whole pool in whole blocks; holds the buffer.
    base: List,
    /// The whole pool in smaller fragments, by their size in tokens: prepared once, when first needed.
    by_fragment: HashMap<u32, List>,
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
        let allocator = BlockAllocator::scattered(blocks, seed);
        Ok(PagedPool { geometry, allocator, base, by_fragment: HashMap::new() })
    }

    /// Layout and size.
    pub fn geometry(&self) -> &PoolGeometry {
        &self.geometry
    }

    /// The whole pool's bytes. Do not touch blocks that a transfer in flight names.
    pub fn bytes(&self) -> &[u8] {
        self.base.buffers()[0].as_slice()
    }

    /// The whole pool's bytes. Do not touch blocks that a transfer in flight names.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.base.buffers_mut()[0].as_mut_slice()
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

    /// Gives a sequence's blocks back.
    pub fn release(&mut self, table: BlockTable) -> Result<(), TransferError> {
        Ok(self.allocator.free(&table.into_blocks())?)
    }

    /// Blocks that are free.
    pub fn free_blocks(&self) -> u32 {
        self.allocator.free_blocks()
    }

    /// The digest of a sequence, equal on both sides whatever their blocks.
    pub fn digest(&self, table: &BlockTable) -> Result<Digest64, TransferError> {
        Ok(digest::of_sequence(PagedSequence::new(&self.geometry, table)?, self.bytes())?)
    }

    /// The whole pool as a list of fragments of `fragment_tokens` tokens.
    pub(super) fn list(&mut self, plane: &mut Plane, fragment_tokens: u32) -> Result<&mut List, TransferError> {
        if fragment_tokens == self.geometry.layout().block_tokens() {
            return Ok(&mut self.base);
        }
        if !self.by_fragment.contains_key(&fragment_tokens) {
            let list = plane.sublist(&self.base, &whole_pool(&self.geometry, fragment_tokens)?)?;
            self.by_fragment.insert(fragment_tokens, list);
        }
        self.by_fragment.get_mut(&fragment_tokens).ok_or(TransferError::Pool(crate::PoolError::NoBlocks))
    }

    /// A list of one sequence's fragments alone, in token order: what a lease is given on.
    pub(super) fn sequence_list(
        &self,
        plane: &mut Plane,
        table: &BlockTable,
        fragment_tokens: u32,
    ) -> Result<(List, FragmentPlan), TransferError> {
        let sequence = PagedSequence::new(&self.geometry, table)?;
        let plan = FragmentPlan::with_fragment_tokens(sequence, sequence, table.tokens(), fragment_tokens)?;
        let pool_runs = self.geometry.runs(fragment_tokens)?;
        let mut runs: Vec<(usize, Run)> = Vec::new();
        for pair in plan.pairs() {
            let range = segment_range(&pool_runs, pair.local_segment).ok_or(crate::PoolError::NoBlocks)?;
            let length_bytes = (range.end - range.start) as u32;
            match runs.last_mut() {
                // Fragments of one block lie one after the other: one run.
                Some((_, last))
                    if last.offset_bytes + u64::from(last.count) * u64::from(last.length_bytes) == range.start =>
                {
                    last.count += 1;
                }
                _ => {
                    let stride_bytes = length_bytes.into();
                    let offset_bytes = range.start;
                    runs.push((0, Run { offset_bytes, stride_bytes, length_bytes, count: 1, ..Run::default() }));
                }
            }
        }
        Ok((plane.sublist(&self.base, &runs)?, plan))
    }

    /// Zeroes what a transfer moves beyond the last token, which may be another request's.
    pub(super) fn clear_padding(&mut self, table: &BlockTable, fragment_tokens: u32) -> Result<(), TransferError> {
        let geometry = self.geometry;
        let sequence = PagedSequence::new(&geometry, table)?;
        for range in sequence.padding_ranges(fragment_tokens)? {
            self.bytes_mut()[range.start as usize..range.end as usize].fill(0);
        }
        Ok(())
    }
}
