//! One sequence in one pool: a block table and the pool that its blocks are of.

use core::ops::Range;

use crate::block_table::BlockTable;
use crate::pool::{PoolError, PoolGeometry};

/// Why a table and a pool do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SequenceError {
    /// The table counts in other blocks than the pool.
    #[error("the table has blocks of {table_tokens} tokens, the pool of {pool_tokens}; use the pool's")]
    BlockTokens {
        /// Tokens of a block in the table.
        table_tokens: u32,
        /// Tokens of a block in the pool.
        pool_tokens: u32,
    },
    /// The table names a block that the pool does not have.
    #[error("the table names block {block}, the pool has {blocks}; pass the pool it was allocated from")]
    Block {
        /// The block.
        block: u32,
        /// Blocks of the pool.
        blocks: u32,
    },
}

/// A sequence's blocks in a pool, checked to belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PagedSequence<'a> {
    pool: &'a PoolGeometry,
    table: &'a BlockTable,
}

impl<'a> PagedSequence<'a> {
    /// Pairs a pool with a table whose blocks are all of that pool.
    pub fn new(pool: &'a PoolGeometry, table: &'a BlockTable) -> Result<PagedSequence<'a>, SequenceError> {
        let (table_tokens, pool_tokens) = (table.block_tokens(), pool.layout().block_tokens());
        if table_tokens != pool_tokens {
            return Err(SequenceError::BlockTokens { table_tokens, pool_tokens });
        }
        let blocks = pool.blocks();
        match table.blocks().iter().find(|&&block| block >= blocks) {
            Some(&block) => Err(SequenceError::Block { block, blocks }),
            None => Ok(PagedSequence { pool, table }),
        }
    }

    /// The pool.
    pub const fn pool(&self) -> &'a PoolGeometry {
        self.pool
    }

    /// The table.
    pub const fn table(&self) -> &'a BlockTable {
        self.table
    }

    /// The bytes that hold tokens, in (layer, plane, token) order: one range per layer, plane and
    /// block, in bytes from the start of the pool. Room after the last token is left out.
    pub fn token_ranges(&self) -> impl Iterator<Item = Range<u64>> + 'a {
        let (pool, table) = (self.pool, self.table);
        let layout = *pool.layout();
        let token_bytes = layout.bytes_per_token_plane();
        (0..layout.layers() * layout.planes()).flat_map(move |plane| {
            let (layer, plane) = (plane / layout.planes(), plane % layout.planes());
            table.filled().map(move |(block, tokens)| {
                let start = block_start(pool, layer, plane, block);
                start..start + u64::from(tokens) * token_bytes
            })
        })
    }

    /// The bytes that a transfer in fragments of `fragment_tokens` moves although they hold no
    /// token: what follows the last token in its fragment, one range per layer and plane, none if
    /// the last fragment is full.
    ///
    /// A source whose blocks may still hold another request's vectors zeroes them before the
    /// transfer; see [`plan`](crate::plan).
    pub fn padding_ranges(&self, fragment_tokens: u32) -> Result<impl Iterator<Item = Range<u64>> + 'a, PoolError> {
        self.pool.segments(fragment_tokens)?;
        let pool = self.pool;
        let layout = *pool.layout();
        let token_bytes = layout.bytes_per_token_plane();
        let last = self.table.filled().last();
        let padding = last.and_then(|(block, tokens)| {
            // At most the block's tokens, of which fragment_tokens is a divisor.
            let end = tokens.next_multiple_of(fragment_tokens);
            (end > tokens).then_some((block, u64::from(tokens), u64::from(end)))
        });
        Ok(padding.into_iter().flat_map(move |(block, tokens, end)| {
            (0..layout.layers() * layout.planes()).map(move |plane| {
                let (layer, plane) = (plane / layout.planes(), plane % layout.planes());
                let start = block_start(pool, layer, plane, block);
                start + tokens * token_bytes..start + end * token_bytes
            })
        }))
    }
}

fn block_start(pool: &PoolGeometry, layer: u32, plane: u32, block: u32) -> u64 {
    match pool.block_range(layer, plane, block) {
        Ok(range) => range.start,
        Err(error) => unreachable!("checked by PagedSequence::new: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::layout::{Attention, CacheLayout};

    /// 1 layer, 2 planes, blocks of 4 tokens of 2 bytes.
    fn pool() -> PoolGeometry {
        let attention = Attention::GroupedQuery { kv_heads: 1, head_size: 2 };
        PoolGeometry::new(CacheLayout::new(1, attention, DType::I8, 4).unwrap(), 3).unwrap()
    }

    #[test]
    fn a_table_must_be_of_its_pool() {
        let pool = pool();
        let table = BlockTable::new(8, vec![0], 1).unwrap();
        let error = SequenceError::BlockTokens { table_tokens: 8, pool_tokens: 4 };
        assert_eq!(PagedSequence::new(&pool, &table), Err(error));
        let table = BlockTable::new(4, vec![0, 3], 1).unwrap();
        assert_eq!(PagedSequence::new(&pool, &table), Err(SequenceError::Block { block: 3, blocks: 3 }));
    }

    #[test]
    fn ranges_follow_the_tokens_through_the_blocks() {
        let pool = pool();
        let table = BlockTable::new(4, vec![2, 0], 5).unwrap();
        let sequence = PagedSequence::new(&pool, &table).unwrap();
        let ranges: Vec<_> = sequence.token_ranges().collect();
        assert_eq!(ranges, [16..24, 0..2, 40..48, 24..26]);
    }

    #[test]
    fn padding_is_the_rest_of_the_last_fragment() {
        let pool = pool();
        let padding = |tokens, fragment_tokens| {
            let table = BlockTable::new(4, vec![2, 0], tokens).unwrap();
            let sequence = PagedSequence::new(&pool, &table).unwrap();
            sequence.padding_ranges(fragment_tokens).unwrap().collect::<Vec<_>>()
        };
        assert_eq!(padding(5, 4), [2..8, 26..32]);
        assert_eq!(padding(5, 2), [2..4, 26..28]);
        assert_eq!(padding(5, 1), []);
        assert_eq!(padding(0, 4), []);
        let table = BlockTable::new(4, vec![2], 1).unwrap();
        let sequence = PagedSequence::new(&pool, &table).unwrap();
        assert!(sequence.padding_ranges(3).is_err());
    }
}
