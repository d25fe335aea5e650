//! The model itself: from tokens to the logits of the next one.

use std::path::Path;

use candle_core::{D, Device, Tensor};

use super::attention::attend;
use super::rotary::Rotary;
use super::weights::{LayerWeights, Weights};
use super::{KvCache, ModelError, ModelShape, checkpoint, seeded};

/// Positions that the model numbers; far more than any cache holds, and no sum overflows.
const POSITION_COUNT_MAX: usize = 1 << 24;

/// A model with its weights, immutable and without a cache.
pub struct Transformer {
    shape: ModelShape,
    weights: Weights,
}

impl Transformer {
    /// A model of this shape with untrained weights from `seed`, the same ones in every process.
    ///
    /// Its text means nothing (printable ASCII for a vocabulary of 256), yet follows from all of
    /// the cache: a lost, stale or swapped block changes it.
    ///
    /// # Errors
    /// [`ModelError::Shape`] if the shape is not valid.
    pub fn seeded(shape: ModelShape, seed: u64) -> Result<Self, ModelError> {
        shape.validate()?;
        Ok(Self { shape, weights: seeded::weights(&shape, seed)? })
    }

    /// Loads a Llama model in Hugging Face's format: one safetensors file in f32, bf16 or f16
    /// (converted to f32), and a `config.json` in the same folder.
    ///
    /// # Errors
    /// The files cannot be read, ask for something that is not supported, or do not fit together;
    /// the error names the key or the tensor.
    pub fn from_safetensors(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let (shape, weights) = checkpoint::load(path.as_ref())?;
        Ok(Self { shape, weights })
    }

    /// Saves the model in the format that [`Transformer::from_safetensors`] loads, in f32, with a
    /// `config.json` in the same folder.
    ///
    /// # Errors
    /// [`ModelError::Write`] with the reason.
    pub fn save_safetensors(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        checkpoint::save(path.as_ref(), &self.shape, &self.weights)
    }

    /// The shape of the model.
    pub fn shape(&self) -> &ModelShape {
        &self.shape
    }

    /// Runs `tokens`, the first at `start_position`, and returns the logits (`[vocabulary_size]`)
    /// of the token that follows the last.
    ///
    /// The cache must hold positions 0 to `start_position - 1`; the chunk's own are written to it.
    /// Attention uses nothing but what is then read from the cache, so that prefill and decode may
    /// happen in different processes.
    ///
    /// The same calls give the same bits. With the same tokens in chunks of another size the logits
    /// may be rounded differently, and the seeded models amplify that: compare equal chunks.
    ///
    /// # Errors
    /// The tokens or positions are out of range, the cache fails or gives the wrong number of
    /// numbers, or a logit is not finite.
    pub fn forward(
        &self,
        tokens: &[u32],
        start_position: usize,
        cache: &mut impl KvCache,
    ) -> Result<Vec<f32>, ModelError> {
        self.check(tokens, start_position)?;
        let rotary = Rotary::new(&self.shape, start_position + tokens.len());
        let tokens_tensor = Tensor::new(tokens, &Device::Cpu)?;
        let mut hidden = self.weights.embedding.index_select(&tokens_tensor, 0)?;
        for (index, layer) in self.weights.layers.iter().enumerate() {
            let normed = self.norm(&hidden, &layer.attention_norm)?;
            let attended = self.attention(index, layer, &rotary, &normed, start_position, cache)?;
            hidden = (hidden + attended)?;
            let normed = self.norm(&hidden, &layer.mlp_norm)?;
            hidden = (hidden + mlp(layer, &normed)?)?;
        }

        let last = hidden.narrow(0, tokens.len() - 1, 1)?;
        let last = self.norm(&last, &self.weights.final_norm)?;
        let head = self.weights.head.as_ref().unwrap_or(&self.weights.embedding);
        let logits = project(&last, head)?.squeeze(0)?.to_vec1()?;
        match logits.iter().position(|logit: &f32| !logit.is_finite()) {
            Some(index) => Err(ModelError::Logit { index, value: logits[index] }),
            None => Ok(logits),
        }
    }

    /// Every weight under its Hugging Face name.
    #[cfg(test)]
    pub(super) fn weights_by_name(&self) -> Vec<(String, Tensor)> {
        self.weights.by_name()
    }

    fn check(&self, tokens: &[u32], start_position: usize) -> Result<(), ModelError> {
        if tokens.is_empty() {
            return Err(ModelError::NoTokens);
        }
        let end = start_position.saturating_add(tokens.len());
        if end > POSITION_COUNT_MAX {
            return Err(ModelError::Position {
                start: start_position,
                tokens: tokens.len(),
                position_count_max: POSITION_COUNT_MAX,
            });
        }
        let vocabulary_size = self.shape.vocabulary_size;
        match tokens.iter().position(|&token| token as usize >= vocabulary_size) {
            Some(index) => Err(ModelError::Token { index, token: tokens[index], vocabulary_size }),
            None => Ok(()),
        }
    }

    /// `hidden` scaled to a mean square of 1 per token, then by `weight`.
    fn norm(&self, hidden: &Tensor, weight: &Tensor) -> Result<Tensor, ModelError> {
        let mean_square = hidden.sqr()?.mean_keepdim(D::Minus1)?;
        let root = (mean_square + self.shape.norm_epsilon)?.sqrt()?;
        Ok(hidden.broadcast_div(&root)?.broadcast_mul(weight)?)
    }

    /// A layer's attention, by way of the cache; `hidden` is `[n, hidden_size]`, as is the result.
    fn attention(
        &self,
        index: usize,
        layer: &LayerWeights,
        rotary: &Rotary,
        hidden: &Tensor,
        start_position: usize,
        cache: &mut impl KvCache,
    ) -> Result<Tensor, ModelError> {
        let shape = &self.shape;
        let numbers = |weight| project(hidden, weight)?.flatten_all()?.to_vec1::<f32>();
        let mut queries = numbers(&layer.query)?;
        let keys = numbers(&layer.key)?;
        let values = numbers(&layer.value)?;
        let by_token = keys.chunks_exact(shape.kv_width()).zip(values.chunks_exact(shape.kv_width()));
        for (position, (key, value)) in (start_position..).zip(by_token) {
            cache.write(index, position, key, value)?;
        }
        cache.layer_written(index)?;

        let tokens = start_position + hidden.dim(0)?;
        let (mut all_keys, mut all_values) = (Vec::new(), Vec::new());
        cache.read(index, tokens, &mut all_keys, &mut all_values)?;
        let expected = tokens * shape.kv_width();
        for (side, found) in [("key", all_keys.len()), ("value", all_values.len())] {
            if found != expected {
                return Err(ModelError::CacheLength { layer: index, side, found, expected });
            }
        }
        rotary.apply(start_position, shape.query_heads, &mut queries);
        rotary.apply(0, shape.kv_heads, &mut all_keys);
        let queries = Tensor::from_vec(queries, (hidden.dim(0)?, shape.query_width()), &Device::Cpu)?;
        let attended = attend(shape, start_position, &queries, all_keys, all_values)?;
        Ok(project(&attended, &layer.attention_output)?)
    }
}

/// A layer's MLP (SwiGLU), `[n, hidden_size]` to the same.
fn mlp(layer: &LayerWeights, hidden: &Tensor) -> candle_core::Result<Tensor> {
    let gate = project(hidden, &layer.gate)?.silu()?;
    project(&(gate * project(hidden, &layer.up)?)?, &layer.down)
}

/// `[n, inputs]` through a weight `[outputs, inputs]` to `[n, outputs]`.
fn project(inputs: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
    inputs.matmul(&weight.t()?)
}
