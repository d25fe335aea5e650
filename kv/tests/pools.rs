//! Runs, segment numbers and offsets are three descriptions of one pool: they must agree.

use dmaplane_kv::segment::segment_range;
use dmaplane_kv::{Attention, CacheLayout, DType, PoolGeometry};
use proptest::prelude::*;

fn pools() -> impl Strategy<Value = PoolGeometry> {
    (1_u32..4, 1_u32..4, 1_u32..5, 1_u32..13, 1_u32..6, 0_u32..9).prop_map(
        |(layers, kv_heads, head_size, block_tokens, blocks, alignment)| {
            let attention = Attention::GroupedQuery { kv_heads, head_size };
            let layout = CacheLayout::new(layers, attention, DType::F16, block_tokens).unwrap();
            PoolGeometry::with_plane_alignment(layout, blocks, 1 << alignment).unwrap()
        },
    )
}

proptest! {
    #[test]
    fn every_segment_lies_where_its_fragment_does(pool in pools()) {
        let block_tokens = pool.layout().block_tokens();
        for fragment_tokens in (1..=block_tokens).filter(|size| block_tokens % size == 0) {
            let segments = pool.segments(fragment_tokens).unwrap();
            let runs = pool.runs(fragment_tokens).unwrap();
            let mut expected = 0;
            for layer in 0..pool.layout().layers() {
                for plane in 0..pool.layout().planes() {
                    for block in 0..pool.blocks() {
                        for fragment in 0..segments.fragments_per_block() {
                            prop_assert_eq!(
                                pool.segment_index(fragment_tokens, layer, plane, block, fragment),
                                Ok(expected)
                            );
                            let token = fragment * fragment_tokens;
                            let start = pool.offset_bytes(layer, plane, block, token).unwrap();
                            let range = start..start + segments.fragment_bytes();
                            prop_assert_eq!(segment_range(&runs, expected), Some(range));
                            expected += 1;
                        }
                    }
                }
            }
            prop_assert_eq!(segments.count(), expected);
            prop_assert_eq!(segment_range(&runs, expected), None);
        }
    }

    #[test]
    fn runs_are_minimal(pool in pools()) {
        let runs = pool.runs(1).unwrap();
        for (first, second) in runs.iter().zip(&runs[1..]) {
            // Neither two neighbours nor all of them can be one run.
            let next = first.offset_bytes + u64::from(first.count) * first.stride_bytes;
            prop_assert_ne!(next, second.offset_bytes);
            prop_assert!(first.count > 1);
        }
        let last = runs.last().unwrap().piece(runs.last().unwrap().count - 1).unwrap();
        prop_assert!(last.end <= pool.size_bytes());
    }

    #[test]
    fn blocks_never_overlap_and_planes_are_aligned(pool in pools(), alignment in 0_u32..9) {
        let (layout, blocks) = (*pool.layout(), pool.blocks());
        let pool = PoolGeometry::with_plane_alignment(layout, blocks, 1 << alignment).unwrap();
        let mut end = 0;
        for layer in 0..pool.layout().layers() {
            for plane in 0..pool.layout().planes() {
                let start = pool.block_range(layer, plane, 0).unwrap().start;
                prop_assert_eq!(start % (1 << alignment), 0);
                for block in 0..pool.blocks() {
                    let range = pool.block_range(layer, plane, block).unwrap();
                    prop_assert!(range.start >= end);
                    end = range.end;
                }
            }
        }
        prop_assert!(end <= pool.size_bytes());
    }
}
