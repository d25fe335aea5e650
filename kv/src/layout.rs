//! The shape of one model's KV cache, and the sizes that follow from it.
//!
//! | attention | planes per layer | one token in one plane |
//! |---|---|---|
//! | [`Attention::GroupedQuery`] | 2: keys, values | `[kv_heads, head_size]` |
//! | [`Attention::Latent`] | 1: latent vector, then rope key | `[latent_size + rope_size]` |
//!
//! Multi-head attention is grouped-query attention with as many KV heads as query heads.

pub use crate::attention::Attention;
use crate::dtype::DType;
use crate::fingerprint::{Fingerprint, Fnv1a};
pub use crate::layout_error::LayoutError;

/// Version of the layout description. It enters both fingerprints: two versions never look
/// compatible by accident.
pub const LAYOUT_VERSION: u16 = 0;
/// Most layers that a layout may have.
pub const LAYERS_MAX: u32 = 4096;
/// Most KV heads that a layer may have.
pub const KV_HEADS_MAX: u32 = 4096;
/// Largest head, latent vector or rope key, in elements.
pub const VECTOR_MAX: u32 = 65_536;
/// Most tokens that a block may hold.
pub const BLOCK_TOKENS_MAX: u32 = 65_536;

/// The plane of the keys under [`Attention::GroupedQuery`].
pub const PLANE_KEY: u32 = 0;
/// The plane of the values under [`Attention::GroupedQuery`].
pub const PLANE_VALUE: u32 = 1;
/// The only plane under [`Attention::Latent`].
pub const PLANE_LATENT: u32 = 0;

/// The largest block that these limits allow, in bytes: 2^59. (Were it to overflow, this constant
/// would not compile.) So sizes up to a block's need no overflow checks in 64 bits.
pub const BYTES_PER_BLOCK_MAX: u64 =
    LAYERS_MAX as u64 * 2 * KV_HEADS_MAX as u64 * VECTOR_MAX as u64 * 4 * BLOCK_TOKENS_MAX as u64;

/// The shape of one model's paged KV cache, as one worker holds it. Checked on construction,
/// immutable after it.
///
/// ```
/// use dmaplane_kv::{Attention, CacheLayout, DType};
///
/// let attention = Attention::GroupedQuery { kv_heads: 8, head_size: 128 };
/// let layout = CacheLayout::new(80, attention, DType::BF16, 16)?;
/// assert_eq!(layout.bytes_per_token(), 80 * 2 * 8 * 128 * 2);
/// assert_eq!(layout.sequence_bytes(17)?, 2 * layout.bytes_per_block());
/// # Ok::<(), dmaplane_kv::LayoutError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheLayout {
    layers: u32,
    attention: Attention,
    dtype: DType,
    block_tokens: u32,
}

impl CacheLayout {
    /// A layout of `layers` layers, whose blocks hold `block_tokens` tokens each.
    pub fn new(layers: u32, attention: Attention, dtype: DType, block_tokens: u32) -> Result<CacheLayout, LayoutError> {
        if !(1..=LAYERS_MAX).contains(&layers) {
            return Err(LayoutError::Layers { layers });
        }
        match attention {
            Attention::GroupedQuery { kv_heads, head_size } => {
                if !(1..=KV_HEADS_MAX).contains(&kv_heads) {
                    return Err(LayoutError::KvHeads { kv_heads });
                }
                if !(1..=VECTOR_MAX).contains(&head_size) {
                    return Err(LayoutError::HeadSize { head_size });
                }
            }
            Attention::Latent { latent_size, rope_size } => {
                if !(1..=VECTOR_MAX).contains(&latent_size) {
                    return Err(LayoutError::LatentSize { latent_size });
                }
                if rope_size > VECTOR_MAX {
                    return Err(LayoutError::RopeSize { rope_size });
                }
            }
        }
        if !(1..=BLOCK_TOKENS_MAX).contains(&block_tokens) {
            return Err(LayoutError::BlockTokens { block_tokens });
        }
        Ok(CacheLayout { layers, attention, dtype, block_tokens })
    }

    /// Layers.
    pub const fn layers(&self) -> u32 {
        self.layers
    }

    /// What a layer caches for one token.
    pub const fn attention(&self) -> Attention {
        self.attention
    }

    /// Element type.
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// Tokens of a block.
    pub const fn block_tokens(&self) -> u32 {
        self.block_tokens
    }

    /// Planes per layer: 2 (keys, values) or 1 (latent).
    pub const fn planes(&self) -> u32 {
        self.attention.planes()
    }

    /// Bytes of one token in one plane of one layer: heads x elements x size of an element.
    pub fn bytes_per_token_plane(&self) -> u64 {
        let [heads, elements] = self.attention.token_shape();
        u64::from(heads) * u64::from(elements) * u64::from(self.dtype.size_bytes())
    }

    /// Bytes of one token in one layer: all its planes.
    pub fn bytes_per_token_layer(&self) -> u64 {
        self.bytes_per_token_plane() * u64::from(self.planes())
    }

    /// Bytes of one token: all layers.
    pub fn bytes_per_token(&self) -> u64 {
        self.bytes_per_token_layer() * u64::from(self.layers)
    }

    /// Bytes of one block in one plane of one layer: the longest piece of a paged cache that is
    /// sure to be contiguous.
    pub fn bytes_per_block_plane(&self) -> u64 {
        self.bytes_per_token_plane() * u64::from(self.block_tokens)
    }

    /// Bytes of one block: all layers and planes.
    pub fn bytes_per_block(&self) -> u64 {
        self.bytes_per_token() * u64::from(self.block_tokens)
    }

    /// Blocks that hold `tokens` tokens: rounded up.
    pub const fn blocks_for(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.block_tokens)
    }

    /// Bytes that a sequence of `tokens` tokens occupies: whole blocks.
    pub fn sequence_bytes(&self, tokens: u32) -> Result<u64, LayoutError> {
        u64::from(self.blocks_for(tokens))
            .checked_mul(self.bytes_per_block())
            .ok_or(LayoutError::SequenceTooLarge { tokens, bytes_per_token: self.bytes_per_token() })
    }

    /// The same cache cut into blocks of `block_tokens` tokens.
    pub fn with_block_tokens(&self, block_tokens: u32) -> Result<CacheLayout, LayoutError> {
        CacheLayout::new(self.layers, self.attention, self.dtype, block_tokens)
    }

    /// What one of `shards` tensor-parallel workers holds: `kv_heads / shards` heads of each layer.
    /// A latent cache has no heads to deal out: every shard holds all of it.
    pub fn shard(&self, shards: u32) -> Result<CacheLayout, LayoutError> {
        if shards == 0 {
            return Err(LayoutError::NoShards);
        }
        let attention = match self.attention {
            Attention::GroupedQuery { kv_heads, head_size } => {
                if kv_heads % shards != 0 {
                    return Err(LayoutError::Shards { kv_heads, shards });
                }
                Attention::GroupedQuery { kv_heads: kv_heads / shards, head_size }
            }
            latent => latent,
        };
        CacheLayout::new(self.layers, attention, self.dtype, self.block_tokens)
    }

    /// The whole model's layout, of which this is one of `shards` shards: the reverse of [`CacheLayout::shard`].
    pub fn unsharded(&self, shards: u32) -> Result<CacheLayout, LayoutError> {
        if shards == 0 {
            return Err(LayoutError::NoShards);
        }
        let attention = match self.attention {
            Attention::GroupedQuery { kv_heads, head_size } => {
                Attention::GroupedQuery { kv_heads: kv_heads.saturating_mul(shards), head_size }
            }
            latent => latent,
        };
        CacheLayout::new(self.layers, attention, self.dtype, self.block_tokens)
    }

    /// Fingerprint of everything, block size included. Equal fingerprints: the same bytes at the
    /// same places of a block.
    pub fn fingerprint(&self) -> Fingerprint {
        self.canonical().word(self.block_tokens).finish()
    }

    /// Fingerprint of everything but the block size. Equal fingerprints: a token has the same bytes
    /// in every plane, and tokens can be moved between the two caches, whatever their block sizes.
    pub fn compatible_fingerprint(&self) -> Fingerprint {
        self.canonical().finish()
    }

    /// Version (2 bytes), attention tag (1), element type (1), layers (4), the attention's two
    /// sizes (4 each).
    fn canonical(&self) -> Fnv1a {
        let (tag, first, second) = self.attention.parts();
        Fnv1a::new()
            .bytes(&LAYOUT_VERSION.to_le_bytes())
            .bytes(&[tag, self.dtype.code()])
            .word(self.layers)
            .word(first)
            .word(second)
    }
}

#[cfg(test)]
mod tests;
