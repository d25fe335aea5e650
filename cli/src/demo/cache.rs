//! The model's cache over paged blocks.

use crate::model::{KvCache, ModelError};
use dmaplane_kv::{BlockTable, PoolGeometry};

/// One sequence's blocks in a pool's bytes. The table must have room for every position that is written.
pub struct PagedCache<'a> {
    pub geometry: &'a PoolGeometry,
    pub table: &'a BlockTable,
    pub bytes: &'a mut [u8],
}

fn wrong(layer: usize, error: impl std::error::Error + Send + Sync + 'static) -> ModelError {
    ModelError::Cache { layer, source: Box::new(error) }
}

/// No block has that position.
#[derive(Debug, thiserror::Error)]
#[error("no block of this sequence holds position {0}")]
struct NoPosition(usize);

impl PagedCache<'_> {
    fn place(&self, layer: usize, plane: u32, position: usize) -> Result<std::ops::Range<usize>, ModelError> {
        let layout = self.geometry.layout();
        let block_tokens = layout.block_tokens() as usize;
        let block = self.table.blocks().get(position / block_tokens);
        let block = *block.ok_or_else(|| wrong(layer, NoPosition(position)))?;
        let token = (position % block_tokens) as u32;
        let start = self.geometry.offset_bytes(layer as u32, plane, block, token);
        let start = start.map_err(|error| wrong(layer, error))? as usize;
        Ok(start..start + layout.bytes_per_token_plane() as usize)
    }
}

impl KvCache for PagedCache<'_> {
    fn write(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) -> Result<(), ModelError> {
        for (plane, numbers) in [(0, key), (1, value)] {
            let place = self.place(layer, plane, position)?;
            for (bytes, number) in self.bytes[place].chunks_exact_mut(4).zip(numbers) {
                bytes.copy_from_slice(&number.to_le_bytes());
            }
        }
        Ok(())
    }

    fn read(&self, layer: usize, tokens: usize, keys: &mut Vec<f32>, values: &mut Vec<f32>) -> Result<(), ModelError> {
        for (plane, numbers) in [(0, keys), (1, values)] {
            numbers.clear();
            for position in 0..tokens {
                let place = self.place(layer, plane, position)?;
                let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap_or_default());
                numbers.extend(self.bytes[place].chunks_exact(4).map(number));
            }
        }
        Ok(())
    }
}
