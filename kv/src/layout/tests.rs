use super::*;

const HEADS: Attention = Attention::GroupedQuery { kv_heads: 3, head_size: 5 };
const LATENT: Attention = Attention::Latent { latent_size: 6, rope_size: 2 };

#[test]
fn sizes_of_a_grouped_query_cache() {
    let layout = CacheLayout::new(7, HEADS, DType::F32, 16).unwrap();
    assert_eq!(layout.bytes_per_token_plane(), 3 * 5 * 4);
    assert_eq!(layout.bytes_per_token_layer(), 2 * 60);
    assert_eq!(layout.bytes_per_token(), 7 * 120);
    assert_eq!(layout.bytes_per_block_plane(), 16 * 60);
    assert_eq!(layout.bytes_per_block(), 16 * 840);
}

#[test]
fn a_latent_cache_has_one_plane() {
    let layout = CacheLayout::new(7, LATENT, DType::BF16, 4).unwrap();
    assert_eq!(layout.planes(), 1);
    assert_eq!(layout.attention().token_shape(), [1, 8]);
    assert_eq!(layout.bytes_per_token(), 7 * 8 * 2);
}

#[test]
fn a_sequence_is_rounded_up_to_blocks() {
    let layout = CacheLayout::new(1, LATENT, DType::I8, 4).unwrap();
    for (tokens, blocks) in [(0, 0), (1, 1), (4, 1), (5, 2)] {
        assert_eq!(layout.blocks_for(tokens), blocks);
        assert_eq!(layout.sequence_bytes(tokens), Ok(u64::from(blocks) * 32));
    }
}

#[test]
fn each_limit_has_its_error() {
    let new = CacheLayout::new;
    let heads = |kv_heads, head_size| Attention::GroupedQuery { kv_heads, head_size };
    let latent = |latent_size, rope_size| Attention::Latent { latent_size, rope_size };
    let wrong = [
        (new(0, HEADS, DType::I8, 1), LayoutError::Layers { layers: 0 }),
        (new(4097, HEADS, DType::I8, 1), LayoutError::Layers { layers: 4097 }),
        (new(1, heads(0, 1), DType::I8, 1), LayoutError::KvHeads { kv_heads: 0 }),
        (new(1, heads(4097, 1), DType::I8, 1), LayoutError::KvHeads { kv_heads: 4097 }),
        (new(1, heads(1, 0), DType::I8, 1), LayoutError::HeadSize { head_size: 0 }),
        (new(1, heads(1, 65_537), DType::I8, 1), LayoutError::HeadSize { head_size: 65_537 }),
        (new(1, latent(0, 1), DType::I8, 1), LayoutError::LatentSize { latent_size: 0 }),
        (new(1, latent(1, 65_537), DType::I8, 1), LayoutError::RopeSize { rope_size: 65_537 }),
        (new(1, HEADS, DType::I8, 0), LayoutError::BlockTokens { block_tokens: 0 }),
        (new(1, HEADS, DType::I8, 65_537), LayoutError::BlockTokens { block_tokens: 65_537 }),
    ];
    for (result, error) in wrong {
        assert_eq!(result, Err(error));
    }
    assert!(new(1, latent(1, 0), DType::I8, 1).is_ok(), "a latent cache may have no rope key");
}

#[test]
fn the_largest_layout_computes_and_the_largest_sequence_does_not() {
    let largest = Attention::GroupedQuery { kv_heads: KV_HEADS_MAX, head_size: VECTOR_MAX };
    let layout = CacheLayout::new(LAYERS_MAX, largest, DType::F32, BLOCK_TOKENS_MAX).unwrap();
    assert_eq!(layout.bytes_per_block(), BYTES_PER_BLOCK_MAX);
    let error = layout.sequence_bytes(u32::MAX).unwrap_err();
    let bytes_per_token = layout.bytes_per_token();
    assert_eq!(error, LayoutError::SequenceTooLarge { tokens: u32::MAX, bytes_per_token });
}

#[test]
fn shards_deal_out_heads_but_replicate_the_latent() {
    let heads = Attention::GroupedQuery { kv_heads: 8, head_size: 128 };
    let layout = CacheLayout::new(2, heads, DType::F16, 16).unwrap();
    assert_eq!(layout.shard(8).unwrap().bytes_per_token() * 8, layout.bytes_per_token());
    assert_eq!(layout.shard(3), Err(LayoutError::Shards { kv_heads: 8, shards: 3 }));
    assert_eq!(layout.shard(0), Err(LayoutError::NoShards));
    let latent = CacheLayout::new(2, LATENT, DType::F16, 16).unwrap();
    assert_eq!(latent.shard(8), Ok(latent));
}

#[test]
fn fingerprints_are_pinned_and_differ_where_they_should() {
    let layout = CacheLayout::new(7, HEADS, DType::F32, 16).unwrap();
    let other_blocks = layout.with_block_tokens(32).unwrap();
    assert_ne!(layout.fingerprint(), other_blocks.fingerprint());
    assert_eq!(layout.compatible_fingerprint(), other_blocks.compatible_fingerprint());
    let swapped = Attention::GroupedQuery { kv_heads: 5, head_size: 3 };
    for other in [
        CacheLayout::new(8, HEADS, DType::F32, 16),
        CacheLayout::new(7, swapped, DType::F32, 16),
        CacheLayout::new(7, HEADS, DType::I8, 16),
        CacheLayout::new(7, Attention::Latent { latent_size: 3, rope_size: 5 }, DType::F32, 16),
    ] {
        assert_ne!(layout.compatible_fingerprint(), other.unwrap().compatible_fingerprint());
    }
    // A change of these is a change of LAYOUT_VERSION.
    assert_eq!(layout.fingerprint().to_string(), "80d154ddbdbf61fe");
    assert_eq!(layout.compatible_fingerprint().to_string(), "9ea7b9357c87390e");
}
