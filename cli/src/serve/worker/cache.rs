//! The model's cache in a worker's shards: each pool has its heads' part of every token.

use crate::model::{KvCache, ModelError};
use dmaplane_kv::BlockTable;
use dmaplane_kv::exchange::Exchange;
use std::ops::Range;

/// Bytes of one number.
const NUMBER_BYTES: usize = size_of::<f32>();

/// One sequence, its heads shared out evenly over shards. Each table has room for every position that is written.
pub struct ShardedCache<'a> {
    pub shards: &'a mut [Exchange],
    /// By shard.
    pub tables: &'a [BlockTable],
}

fn wrong(layer: usize, error: impl std::error::Error + Send + Sync + 'static) -> ModelError {
    ModelError::Cache { layer, source: Box::new(error) }
}

/// No block has that position.
#[derive(Debug, thiserror::Error)]
#[error("no block of this sequence holds position {0}")]
struct NoPosition(usize);

/// Where so many tokens from a position on lie, up to the end of their block.
fn place(
    shard: &Exchange,
    table: &BlockTable,
    layer: usize,
    plane: u32,
    positions: Range<usize>,
) -> Result<Range<u64>, ModelError> {
    let geometry = shard.pool().geometry();
    let layout = geometry.layout();
    let block_tokens = layout.block_tokens() as usize;
    let block = table.blocks().get(positions.start / block_tokens);
    let block = *block.ok_or_else(|| wrong(layer, NoPosition(positions.start)))?;
    let first = positions.start % block_tokens;
    let tokens = positions.len().min(block_tokens - first);
    let start = geometry.offset_bytes(layer as u32, plane, block, first as u32);
    let start = start.map_err(|error| wrong(layer, error))?;
    Ok(start..start + tokens as u64 * layout.bytes_per_token_plane())
}

impl KvCache for ShardedCache<'_> {
    fn write(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) -> Result<(), ModelError> {
        let shards = self.shards.len();
        for (index, (shard, table)) in self.shards.iter_mut().zip(self.tables).enumerate() {
            for (plane, numbers) in [(0, key), (1, value)] {
                let own = numbers.len() / shards;
                let numbers = &numbers[index * own..(index + 1) * own];
                let place = place(shard, table, layer, plane, position..position + 1)?;
                let bytes = shard.pool_mut().slice_mut(place).map_err(|error| wrong(layer, error))?;
                for (bytes, number) in bytes.chunks_exact_mut(NUMBER_BYTES).zip(numbers) {
                    bytes.copy_from_slice(&number.to_le_bytes());
                }
            }
        }
        Ok(())
    }

    fn read(&self, layer: usize, tokens: usize, keys: &mut Vec<f32>, values: &mut Vec<f32>) -> Result<(), ModelError> {
        let shards = self.shards.len();
        for (plane, numbers) in [(0, keys), (1, values)] {
            numbers.clear();
            for (index, (shard, table)) in self.shards.iter().zip(self.tables).enumerate() {
                let own = shard.pool().geometry().layout().bytes_per_token_plane() as usize / NUMBER_BYTES;
                let width = own * shards;
                numbers.resize(tokens * width, 0.0);
                let mut position = 0;
                while position < tokens {
                    let place = place(shard, table, layer, plane, position..tokens)?;
                    let bytes = shard.pool().slice(place).map_err(|error| wrong(layer, error))?;
                    let mut whole = numbers[position * width..].chunks_exact_mut(width);
                    for token in bytes.chunks_exact(own * NUMBER_BYTES) {
                        let place = whole.next().map(|token| &mut token[index * own..(index + 1) * own]);
                        for (number, bytes) in place.unwrap_or_default().iter_mut().zip(token.chunks_exact(4)) {
                            *number = f32::from_le_bytes(bytes.try_into().unwrap_or_default());
                        }
                        position += 1;
                    }
                }
            }
        }
        Ok(())
    }
}
