//! Rules that cache layouts keep.

use crate::layout::{BLOCK_TOKENS_MAX, KV_HEADS_MAX, LAYERS_MAX, VECTOR_MAX};

/// What is wrong with a cache layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// No layers, or more than [`LAYERS_MAX`].
    #[error("the layout has {layers} layers; give 1 to {LAYERS_MAX}")]
    Layers {
        /// Layers as given.
        layers: u32,
    },
    /// No KV heads, or more than [`KV_HEADS_MAX`].
    #[error("the layout has {kv_heads} KV heads; give 1 to {KV_HEADS_MAX}")]
    KvHeads {
        /// KV heads as given.
        kv_heads: u32,
    },
    /// An empty head, or one of more than [`VECTOR_MAX`] elements.
    #[error("a head has {head_size} elements; give 1 to {VECTOR_MAX}")]
    HeadSize {
        /// Elements as given.
        head_size: u32,
    },
    /// An empty latent vector, or one of more than [`VECTOR_MAX`] elements.
    #[error("the latent vector has {latent_size} elements; give 1 to {VECTOR_MAX}")]
    LatentSize {
        /// Elements as given.
        latent_size: u32,
    },
    /// A rope key of more than [`VECTOR_MAX`] elements.
    #[error("the rope key has {rope_size} elements; give 0 to {VECTOR_MAX}")]
    RopeSize {
        /// Elements as given.
        rope_size: u32,
    },
    /// An empty block, or one of more than [`BLOCK_TOKENS_MAX`] tokens.
    #[error("a block has {block_tokens} tokens; give 1 to {BLOCK_TOKENS_MAX}")]
    BlockTokens {
        /// Tokens as given.
        block_tokens: u32,
    },
    /// A sequence whose size does not fit 64 bits.
    #[error("{tokens} tokens of {bytes_per_token} bytes do not fit 64 bits; use a shorter sequence")]
    SequenceTooLarge {
        /// Tokens of the sequence.
        tokens: u32,
        /// Bytes of one token.
        bytes_per_token: u64,
    },
    /// KV heads cannot be dealt out evenly to tensor-parallel shards.
    #[error("{kv_heads} KV heads cannot be dealt out to {shards} shards; use a divisor of {kv_heads}")]
    Shards {
        /// KV heads of the whole model.
        kv_heads: u32,
        /// Shards asked for.
        shards: u32,
    },
    /// A model cut into no shards at all.
    #[error("0 shards were asked for; give 1 for the whole model")]
    NoShards,
    /// A shard that there is not.
    #[error("there is no shard {index} of {count}; shards are numbered from 0")]
    ShardIndex {
        /// The shard.
        index: u32,
        /// Shards.
        count: u32,
    },
    /// More shards than there can be heads.
    #[error("{count} shards cannot be; at most {KV_HEADS_MAX}")]
    TooManyShards {
        /// Shards as given.
        count: u32,
    },
}
