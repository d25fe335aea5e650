//! Who owns which block of a pool, and which blocks a sequence consists of.

/// What is wrong with an allocation, a release or a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// Fewer blocks are free than were asked for. Nothing was allocated.
    #[error("{wanted} blocks were asked for and {free} are free; free some or use a larger pool")]
    Exhausted {
        /// Blocks asked for.
        wanted: u32,
        /// Blocks free.
        free: u32,
    },
    /// A block that is free already, or that was named twice. Nothing was freed.
    #[error("block {block} is freed twice; free each allocated block once")]
    DoubleFree {
        /// The block.
        block: u32,
    },
    /// A block that this pool does not have. Nothing was freed.
    #[error("block {block} is not of this pool, which has {blocks}; return it to its own allocator")]
    Foreign {
        /// The block.
        block: u32,
        /// Blocks of the pool.
        blocks: u32,
    },
    /// A table of blocks without tokens.
    #[error("a block has 0 tokens; give the layout's block size")]
    NoBlockTokens,
    /// A block that occurs twice in a table: its tokens would overwrite each other.
    #[error("block {block} occurs twice in the table; a sequence holds each block once")]
    Repeated {
        /// The block.
        block: u32,
    },
    /// More tokens than the blocks hold.
    #[error("{tokens} tokens do not fit {blocks} blocks of {block_tokens}; append blocks first")]
    TooFewBlocks {
        /// Tokens of the sequence.
        tokens: u64,
        /// Blocks of the table.
        blocks: usize,
        /// Tokens of a block.
        block_tokens: u32,
    },
}

/// Gives out the blocks of one pool.
///
/// ```
/// use dmaplane_kv::{BlockAllocator, BlockError};
///
/// let mut allocator = BlockAllocator::new(4);
/// assert_eq!(allocator.allocate(2)?, [0, 1]);
/// allocator.free(&[0])?;
/// assert_eq!(allocator.free(&[0]), Err(BlockError::DoubleFree { block: 0 }));
/// # Ok::<(), BlockError>(())
/// ```
#[derive(Debug, Clone)]
pub struct BlockAllocator {
    /// A stack: the next block to give out is the last.
    free: Vec<u32>,
    /// `allocated[block]`. Invariant: false exactly for the blocks in `free`.
    allocated: Vec<bool>,
}

impl BlockAllocator {
    /// An allocator of blocks `0..blocks`, given out in ascending order at first. A block that was
    /// freed last is given out first, while it is warm in caches.
    pub fn new(blocks: u32) -> BlockAllocator {
        BlockAllocator { free: (0..blocks).rev().collect(), allocated: vec![false; blocks as usize] }
    }

    /// An allocator that gives blocks out in an order shuffled by `seed`, as a pool's free list
    /// looks after hours of serving. The same seed gives the same order on every machine.
    pub fn scattered(blocks: u32, seed: u64) -> BlockAllocator {
        let mut allocator = BlockAllocator::new(blocks);
        let mut random = SplitMix64(seed);
        // Fisher and Yates, from the end.
        for index in (1..allocator.free.len()).rev() {
            allocator.free.swap(index, random.below(index as u64 + 1) as usize);
        }
        allocator
    }

    /// Allocates `count` blocks, all or none.
    pub fn allocate(&mut self, count: u32) -> Result<Vec<u32>, BlockError> {
        let Some(kept) = self.free.len().checked_sub(count as usize) else {
            return Err(BlockError::Exhausted { wanted: count, free: self.free_blocks() });
        };
        let mut blocks = self.free.split_off(kept);
        blocks.reverse();
        for &block in &blocks {
            self.allocated[block as usize] = true;
        }
        Ok(blocks)
    }

    /// Frees `blocks`, all or none.
    pub fn free(&mut self, blocks: &[u32]) -> Result<(), BlockError> {
        for (index, &block) in blocks.iter().enumerate() {
            let freed = match self.allocated.get_mut(block as usize) {
                Some(allocated) if *allocated => {
                    *allocated = false;
                    continue;
                }
                Some(_) => BlockError::DoubleFree { block },
                None => BlockError::Foreign { block, blocks: self.allocated.len() as u32 },
            };
            for &undone in &blocks[..index] {
                self.allocated[undone as usize] = true;
            }
            return Err(freed);
        }
        self.free.extend(blocks.iter().rev());
        debug_assert!(self.free.len() <= self.allocated.len());
        Ok(())
    }

    /// Blocks that are free.
    pub fn free_blocks(&self) -> u32 {
        self.free.len() as u32
    }
}

/// The blocks of one sequence in token order: token t lies in `blocks()[t / block_tokens]`.
///
/// There may be more blocks than the tokens need: room for tokens to come.
///
/// ```
/// use dmaplane_kv::BlockTable;
///
/// let table = BlockTable::new(16, vec![7, 2, 5], 40)?;
/// assert_eq!(table.locate(17), Some((2, 1)));
/// assert_eq!(table.locate(40), None);
/// # Ok::<(), dmaplane_kv::BlockError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BlockTable {
    block_tokens: u32,
    /// Invariant: no block twice.
    blocks: Vec<u32>,
    /// Invariant: at most `blocks.len() * block_tokens`.
    tokens: u32,
}

impl BlockTable {
    /// A table of `blocks`, each of `block_tokens` tokens, which hold `tokens` tokens.
    pub fn new(block_tokens: u32, blocks: Vec<u32>, tokens: u32) -> Result<BlockTable, BlockError> {
        if block_tokens == 0 {
            return Err(BlockError::NoBlockTokens);
        }
        let mut sorted = blocks.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(BlockError::Repeated { block: pair[0] });
        }
        let mut table = BlockTable { block_tokens, blocks, tokens: 0 };
        table.append_tokens(tokens)?;
        Ok(table)
    }

    /// Counts `tokens` more tokens, for which there must be room.
    pub fn append_tokens(&mut self, tokens: u32) -> Result<(), BlockError> {
        let total = u64::from(self.tokens) + u64::from(tokens);
        match u32::try_from(total) {
            Ok(fits) if total <= self.capacity_tokens() => {
                self.tokens = fits;
                Ok(())
            }
            _ => Err(BlockError::TooFewBlocks {
                tokens: total,
                blocks: self.blocks.len(),
                block_tokens: self.block_tokens,
            }),
        }
    }

    /// Appends a block, which the table must not hold yet.
    pub fn append_block(&mut self, block: u32) -> Result<(), BlockError> {
        if self.blocks.contains(&block) {
            return Err(BlockError::Repeated { block });
        }
        self.blocks.push(block);
        Ok(())
    }

    /// The blocks in token order.
    pub fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// The blocks, to be freed.
    pub fn into_blocks(self) -> Vec<u32> {
        self.blocks
    }

    /// Tokens that the sequence has.
    pub const fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Tokens of a block.
    pub const fn block_tokens(&self) -> u32 {
        self.block_tokens
    }

    /// Tokens that the blocks can hold.
    pub fn capacity_tokens(&self) -> u64 {
        self.blocks.len() as u64 * u64::from(self.block_tokens)
    }

    /// The block of token `token`, and its place in that block; `None` if the sequence is shorter.
    pub fn locate(&self, token: u32) -> Option<(u32, u32)> {
        let block = self.blocks.get((token / self.block_tokens) as usize)?;
        (token < self.tokens).then_some((*block, token % self.block_tokens))
    }

    /// Each block that holds tokens, and how many it holds: all full but the last.
    pub fn filled(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let used = self.tokens.div_ceil(self.block_tokens) as usize;
        self.blocks[..used].iter().enumerate().map(|(index, &block)| {
            // Cannot overflow: the tokens before the last block are fewer than all tokens.
            let before = index as u32 * self.block_tokens;
            (block, self.block_tokens.min(self.tokens - before))
        })
    }
}

/// SplitMix64 after Steele, Lea and Flood: good enough to shuffle, and the same everywhere.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, by the high half of a product (bias below 2^-32 for 32-bit bounds).
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests;
