//! What one layer of a model caches for one token.

/// What a layer caches for one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Attention {
    /// A key and a value per KV head, in separate planes.
    GroupedQuery {
        /// KV heads: `num_key_value_heads` in a model's config.json.
        kv_heads: u32,
        /// Elements of one head: `head_dim`, or else `hidden_size / num_attention_heads`.
        head_size: u32,
    },
    /// DeepSeek's multi-head latent attention: one vector per token from which keys and values are
    /// computed, and beside it one rotary key shared by all heads. There is no separate value.
    /// Order in memory: latent, then rope key (the order in which vLLM's MLA cache kernel stores
    /// them).
    Latent {
        /// Elements of the latent vector: `kv_lora_rank` in a model's config.json.
        latent_size: u32,
        /// Elements of the rope key: `qk_rope_head_dim` in a model's config.json.
        rope_size: u32,
    },
}

impl Attention {
    /// Planes per layer: 2 (keys, values) or 1 (latent).
    pub const fn planes(self) -> u32 {
        match self {
            Attention::GroupedQuery { .. } => 2,
            Attention::Latent { .. } => 1,
        }
    }

    /// Shape of one token in one plane, `[heads, elements]`. The latent plane has one head. (Limits
    /// are [`CacheLayout`](crate::CacheLayout)'s business: beyond 32 bits this saturates.)
    pub const fn token_shape(self) -> [u32; 2] {
        match self {
            Attention::GroupedQuery { kv_heads, head_size } => [kv_heads, head_size],
            Attention::Latent { latent_size, rope_size } => [1, latent_size.saturating_add(rope_size)],
        }
    }

    /// The tag in manifests and fingerprints, and the two sizes in the order of the fields.
    pub(crate) const fn parts(self) -> (u8, u32, u32) {
        match self {
            Attention::GroupedQuery { kv_heads, head_size } => (1, kv_heads, head_size),
            Attention::Latent { latent_size, rope_size } => (2, latent_size, rope_size),
        }
    }

    /// The reverse of [`Attention::parts`]; `None` for an unknown tag.
    pub(crate) const fn from_parts(tag: u8, first: u32, second: u32) -> Option<Attention> {
        match tag {
            1 => Some(Attention::GroupedQuery { kv_heads: first, head_size: second }),
            2 => Some(Attention::Latent { latent_size: first, rope_size: second }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        for attention in
            [Attention::GroupedQuery { kv_heads: 1, head_size: 2 }, Attention::Latent { latent_size: 3, rope_size: 4 }]
        {
            let (tag, first, second) = attention.parts();
            assert_eq!(Attention::from_parts(tag, first, second), Some(attention));
        }
        assert_eq!(Attention::from_parts(0, 1, 2), None);
        assert_eq!(Attention::from_parts(3, 1, 2), None);
    }
}
