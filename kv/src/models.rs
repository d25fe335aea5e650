//! Shapes of published models, as their config.json files state them.
//!
//! Each constant quotes the fields that it was taken from. A cache may be kept in another element
//! type than the model's weights: see [`ModelShape::with_dtype`].

use crate::dtype::DType;
use crate::layout::{Attention, CacheLayout, LayoutError};

/// What a model's config.json says about its KV cache; the block size is the serving engine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelShape {
    /// The model's name.
    pub name: &'static str,
    /// Layers that cache: `num_hidden_layers`.
    pub layers: u32,
    /// What a layer caches for one token.
    pub attention: Attention,
    /// Element type of the cache.
    pub dtype: DType,
}

/// Llama 3 8B, from the config.json of Meta-Llama-3-8B: `num_hidden_layers` 32,
/// `num_key_value_heads` 8, `hidden_size` 4096 over `num_attention_heads` 32 gives heads of 128,
/// `torch_dtype` bfloat16.
pub const LLAMA_3_8B: ModelShape = ModelShape {
    name: "Llama-3-8B",
    layers: 32,
    attention: Attention::GroupedQuery { kv_heads: 8, head_size: 128 },
    dtype: DType::BF16,
};

/// Llama 3 70B, from the config.json of Meta-Llama-3-70B: `num_hidden_layers` 80,
/// `num_key_value_heads` 8, `hidden_size` 8192 over `num_attention_heads` 64 gives heads of 128,
/// `torch_dtype` bfloat16.
pub const LLAMA_3_70B: ModelShape = ModelShape {
    name: "Llama-3-70B",
    layers: 80,
    attention: Attention::GroupedQuery { kv_heads: 8, head_size: 128 },
    dtype: DType::BF16,
};

/// DeepSeek-V3, from the config.json of DeepSeek-V3: `num_hidden_layers` 61, `kv_lora_rank` 512,
/// `qk_rope_head_dim` 64, `torch_dtype` bfloat16 (the weights are 8-bit, the cache is not unless
/// the engine makes it so). The file's `num_nextn_predict_layers` 1 is a further layer, used for
/// speculative decoding only and not counted here; an engine that runs it caches 62 layers.
pub const DEEPSEEK_V3: ModelShape = ModelShape {
    name: "DeepSeek-V3",
    layers: 61,
    attention: Attention::Latent { latent_size: 512, rope_size: 64 },
    dtype: DType::BF16,
};

/// Every shape of this module.
pub const ALL: [ModelShape; 3] = [LLAMA_3_8B, LLAMA_3_70B, DEEPSEEK_V3];

impl ModelShape {
    /// The layout of this model's cache in blocks of `block_tokens` tokens.
    ///
    /// ```
    /// use dmaplane_kv::models;
    ///
    /// assert_eq!(models::DEEPSEEK_V3.layout(64)?.bytes_per_token(), 61 * (512 + 64) * 2);
    /// # Ok::<(), dmaplane_kv::LayoutError>(())
    /// ```
    pub fn layout(&self, block_tokens: u32) -> Result<CacheLayout, LayoutError> {
        CacheLayout::new(self.layers, self.attention, self.dtype, block_tokens)
    }

    /// The same model with its cache in another element type.
    pub const fn with_dtype(self, dtype: DType) -> ModelShape {
        ModelShape { dtype, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bytes_per_token() {
        let bytes = |model: ModelShape| model.layout(16).unwrap().bytes_per_token();
        assert_eq!(bytes(LLAMA_3_8B), 131_072);
        assert_eq!(bytes(LLAMA_3_70B), 327_680);
        assert_eq!(bytes(DEEPSEEK_V3), 70_272);
        assert_eq!(bytes(LLAMA_3_70B.with_dtype(DType::F8E4M3)), 163_840);
    }

    /// peers.md: "81,920 of 4 KiB for Llama-3-70B at 8k tokens, blocks of 16, 8 shards". That is
    /// one shard's count: one KV head each; 80 layers x 2 planes x 512 blocks, of 16 tokens x 128 x
    /// 2.
    #[test]
    fn llama_3_70b_at_8192_tokens_is_81920_fragments_of_4_kib_per_shard() {
        let layout = LLAMA_3_70B.layout(16).unwrap().shard(8).unwrap();
        assert_eq!(layout.bytes_per_block_plane(), 4096);
        let fragments = layout.layers() * layout.planes() * layout.blocks_for(8192);
        assert_eq!(fragments, 81_920);
        assert_eq!(layout.sequence_bytes(8192), Ok(81_920 * 4096));
    }

    #[test]
    fn names_are_unique() {
        for (index, model) in ALL.iter().enumerate() {
            assert!(ALL[index + 1..].iter().all(|other| other.name != model.name));
        }
    }
}
