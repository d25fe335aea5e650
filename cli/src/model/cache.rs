//! Where the keys and values of earlier tokens live: outside the model.

use super::ModelError;

/// A store of keys and values, by layer and position.
///
/// A layer of one token has `kv_heads x head_size` key numbers and as many value numbers. `forward`
/// writes the positions of its chunk in rising order and then reads everything from position 0 on,
/// layer by layer.
///
/// Keys are stored *before* their rotary embedding, which is applied to what was read. Attention
/// sums over its tokens in any order, so that with the position inside the stored key two whole
/// blocks could change places and the text would stay the same; this way it does not.
pub trait KvCache {
    /// Stores the key and the value (`[kv_heads, head_size]` each) of the token at `position`,
    /// in place of what is stored there.
    ///
    /// # Errors
    /// [`ModelError::Cache`] with the store's own reason.
    fn write(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) -> Result<(), ModelError>;

    /// Replaces the contents of `keys` and `values` with those of positions 0 to `tokens - 1`,
    /// each `[tokens, kv_heads, head_size]`.
    ///
    /// # Errors
    /// [`ModelError::Cache`] with the store's own reason.
    fn read(&self, layer: usize, tokens: usize, keys: &mut Vec<f32>, values: &mut Vec<f32>) -> Result<(), ModelError>;

    /// The chunk's keys and values of this layer are all written: nothing of it changes before the next chunk. A store
    /// that moves its contents elsewhere may begin with this layer, while the model goes on with the same one's
    /// attention and the next ones.
    ///
    /// # Errors
    /// [`ModelError::Cache`] with the store's own reason; the chunk ends there.
    fn layer_written(&mut self, _layer: usize) -> Result<(), ModelError> {
        Ok(())
    }
}

/// Flat memory: the oracle that a paged cache is compared with.
#[derive(Clone)]
pub struct MemoryCache {
    kv_width: usize,
    /// By layer, `[positions, kv_heads, head_size]`.
    pub(crate) keys: Vec<Vec<f32>>,
    /// By layer, `[positions, kv_heads, head_size]`.
    pub(crate) values: Vec<Vec<f32>>,
}

impl MemoryCache {
    /// An empty cache for a model of this shape.
    pub fn new(shape: &super::ModelShape) -> Self {
        let empty = vec![Vec::new(); shape.layers];
        Self { kv_width: shape.kv_width(), keys: empty.clone(), values: empty }
    }

    fn error(layer: usize, reason: String) -> ModelError {
        ModelError::Cache { layer, source: reason.into() }
    }
}

impl KvCache for MemoryCache {
    fn write(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) -> Result<(), ModelError> {
        let at = position * self.kv_width;
        for (stored, new) in [(&mut self.keys[layer], key), (&mut self.values[layer], value)] {
            if new.len() != self.kv_width {
                return Err(Self::error(layer, format!("{} numbers for a token", new.len())));
            }
            if at > stored.len() {
                return Err(Self::error(layer, format!("a hole before position {position}")));
            }
            stored.resize(stored.len().max(at + self.kv_width), 0.0);
            stored[at..at + self.kv_width].copy_from_slice(new);
        }
        Ok(())
    }

    fn read(&self, layer: usize, tokens: usize, keys: &mut Vec<f32>, values: &mut Vec<f32>) -> Result<(), ModelError> {
        for (given, stored) in [(keys, &self.keys[layer]), (values, &self.values[layer])] {
            let wanted = stored
                .get(..tokens * self.kv_width)
                .ok_or_else(|| Self::error(layer, format!("fewer than {tokens} tokens stored")))?;
            given.clear();
            given.extend_from_slice(wanted);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::ModelShape;
    use super::*;

    #[test]
    fn what_was_written_last_is_read() {
        let shape = ModelShape { kv_heads: 1, head_size: 2, ..ModelShape::small() };
        let mut cache = MemoryCache::new(&shape);
        cache.write(1, 0, &[1.0, 2.0], &[3.0, 4.0]).unwrap();
        cache.write(1, 1, &[5.0, 6.0], &[7.0, 8.0]).unwrap();
        cache.write(1, 0, &[9.0, 2.0], &[3.0, 9.0]).unwrap();
        let (mut keys, mut values) = (vec![0.0; 9], Vec::new());
        cache.read(1, 2, &mut keys, &mut values).unwrap();
        assert_eq!(keys, [9.0, 2.0, 5.0, 6.0]);
        assert_eq!(values, [3.0, 9.0, 7.0, 8.0]);

        assert!(cache.read(1, 3, &mut keys, &mut values).is_err());
        assert!(cache.read(0, 1, &mut keys, &mut values).is_err());
        assert!(cache.write(1, 3, &[0.0; 2], &[0.0; 2]).is_err());
        assert!(cache.write(1, 2, &[0.0; 3], &[0.0; 2]).is_err());
    }
}
