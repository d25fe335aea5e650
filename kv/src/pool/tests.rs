use super::*;
use crate::dtype::DType;
use crate::layout::Attention;

/// 2 layers, 2 planes, blocks of 8 tokens of 6 bytes.
fn layout() -> CacheLayout {
    let attention = Attention::GroupedQuery { kv_heads: 1, head_size: 3 };
    CacheLayout::new(2, attention, DType::F16, 8).unwrap()
}

#[test]
fn offsets_go_layer_plane_block_token() {
    let pool = PoolGeometry::new(layout(), 5).unwrap();
    assert_eq!(pool.offset_bytes(0, 0, 0, 1), Ok(6));
    assert_eq!(pool.offset_bytes(0, 0, 1, 0), Ok(48));
    assert_eq!(pool.offset_bytes(0, 1, 0, 0), Ok(5 * 48));
    assert_eq!(pool.offset_bytes(1, 0, 0, 0), Ok(2 * 5 * 48));
    assert_eq!(pool.offset_bytes(1, 1, 4, 7), Ok(pool.size_bytes() - 6));
    assert_eq!(pool.size_bytes(), 5 * layout().bytes_per_block());
}

#[test]
fn each_place_outside_has_its_error() {
    let pool = PoolGeometry::new(layout(), 5).unwrap();
    let at = |layer, plane, block, token| pool.offset_bytes(layer, plane, block, token);
    assert_eq!(at(2, 0, 0, 0), Err(PoolError::Layer { layer: 2, layers: 2 }));
    assert_eq!(at(0, 2, 0, 0), Err(PoolError::Plane { plane: 2, planes: 2 }));
    assert_eq!(at(0, 0, 5, 0), Err(PoolError::Block { block: 5, blocks: 5 }));
    assert_eq!(at(0, 0, 0, 8), Err(PoolError::Token { token: 8, block_tokens: 8 }));
    let error = PoolError::Fragment { fragment: 2, fragments_per_block: 2 };
    assert_eq!(pool.segment_index(4, 0, 0, 0, 2), Err(error));
    assert_eq!(pool.check_size(959), Err(PoolError::BufferTooSmall { found_bytes: 959, expected_bytes: 960 }));
    assert_eq!(pool.check_size(961), Ok(()));
}

#[test]
fn impossible_pools_are_refused() {
    assert_eq!(PoolGeometry::new(layout(), 0), Err(PoolError::NoBlocks));
    let error = PoolError::Alignment { alignment_bytes: 48 };
    assert_eq!(PoolGeometry::with_plane_alignment(layout(), 1, 48), Err(error));
    let attention = Attention::GroupedQuery { kv_heads: 4096, head_size: 65_536 };
    let huge = CacheLayout::new(4096, attention, DType::F32, 65_536).unwrap();
    let error = PoolGeometry::new(huge, u32::MAX).unwrap_err();
    assert!(matches!(error, PoolError::TooLarge { blocks: u32::MAX, .. }), "{error}");
    let error = PoolGeometry::with_plane_alignment(layout(), 1, 1 << 63).unwrap_err();
    assert!(matches!(error, PoolError::TooLarge { blocks: 1, .. }), "{error}");
}

#[test]
fn fragments_must_divide_blocks_and_fit_32_bits() {
    let pool = PoolGeometry::new(layout(), 5).unwrap();
    for fragment_tokens in [0, 3, 16] {
        let error = PoolError::FragmentTokens { fragment_tokens, block_tokens: 8 };
        assert_eq!(pool.segments(fragment_tokens), Err(error));
    }
    let large = PoolGeometry::new(layout(), 1 << 30).unwrap();
    assert_eq!(large.segments(8), Err(PoolError::TooManySegments { segments: 1 << 32 }));
    assert_eq!(PoolGeometry::new(layout(), (1 << 30) - 1).unwrap().segments(8).unwrap().count(), u32::MAX - 3);
}

#[test]
fn runs_are_as_few_as_the_gaps_allow() {
    let runs = |blocks, alignment, tokens| {
        let pool = PoolGeometry::with_plane_alignment(layout(), blocks, alignment).unwrap();
        pool.runs(tokens).unwrap()
    };
    let run = |offset_bytes, stride_bytes, length_bytes, count| Run { offset_bytes, stride_bytes, length_bytes, count };
    assert_eq!(runs(5, 1, 4), [run(0, 24, 24, 40)]);
    // 240 bytes are a multiple of 16: no gap, whatever the alignment.
    assert_eq!(runs(5, 16, 8), [run(0, 48, 48, 20)]);
    // One fragment per plane: the gaps are the stride.
    assert_eq!(runs(1, 64, 8), [run(0, 64, 48, 4)]);
    let padded: Vec<Run> = (0..4).map(|plane| run(plane * 256, 48, 48, 5)).collect();
    assert_eq!(runs(5, 256, 8), padded);
}
