use super::*;
use crate::block_table::BlockTable;
use crate::dtype::DType;
use crate::layout::Attention;
use crate::pool::{PoolError, PoolGeometry};

const HEADS: Attention = Attention::GroupedQuery { kv_heads: 1, head_size: 2 };

fn pool(layers: u32, attention: Attention, dtype: DType, block_tokens: u32) -> PoolGeometry {
    let layout = CacheLayout::new(layers, attention, dtype, block_tokens).unwrap();
    PoolGeometry::new(layout, 8).unwrap()
}

fn plan_between(
    local: (&PoolGeometry, &[u32]),
    remote: (&PoolGeometry, &[u32]),
    tokens: u32,
) -> Result<FragmentPlan, PlanError> {
    let table = |(pool, blocks): (&PoolGeometry, &[u32])| {
        BlockTable::new(pool.layout().block_tokens(), blocks.to_vec(), 0).unwrap()
    };
    let (local_table, remote_table) = (table(local), table(remote));
    FragmentPlan::new(
        PagedSequence::new(local.0, &local_table).unwrap(),
        PagedSequence::new(remote.0, &remote_table).unwrap(),
        tokens,
    )
}

/// 2 layers, 2 planes; local blocks of 6 tokens, remote of 4, so fragments of 2.
fn small(tokens: u32) -> FragmentPlan {
    let local = pool(2, HEADS, DType::I8, 6);
    let remote = pool(2, HEADS, DType::I8, 4);
    plan_between((&local, &[5, 1]), (&remote, &[2, 0, 7]), tokens).unwrap()
}

fn numbers(plan: &FragmentPlan) -> Vec<(u32, u32)> {
    plan.pairs().map(|pair| (pair.local_segment, pair.remote_segment)).collect()
}

#[test]
fn pairs_follow_the_tokens_through_both_tables() {
    // 8 blocks: 24 local segments per plane, 16 remote ones. 9 tokens: 5 fragments.
    let columns = [(15, 4), (16, 5), (17, 0), (3, 1), (4, 14)];
    let mut expected = Vec::new();
    for plane in 0..4 {
        expected.extend(columns.map(|(local, remote)| (plane * 24 + local, plane * 16 + remote)));
    }
    let plan = small(9);
    assert_eq!(numbers(&plan), expected);
    assert_eq!((plan.fragments(), plan.fragment_tokens()), (20, 2));
    assert_eq!((plan.fragment_bytes(), plan.bytes_total()), (4, 80));
    let back: Vec<_> = expected.iter().map(|&(local, remote)| (remote, local)).collect();
    assert_eq!(numbers(&plan.reversed()), back);
}

#[test]
fn layers_and_chunks_partition_the_plan() {
    let plan = small(9);
    let all = numbers(&plan);
    let first = plan.layers(0..1).unwrap();
    let second = plan.layers(1..2).unwrap();
    assert_eq!([numbers(&first), numbers(&second)].concat(), all);
    assert_eq!(plan.layers(0..2).unwrap(), plan);
    assert_eq!(first.layers(1..2).unwrap().fragments(), 0);
    assert_eq!(numbers(&first.layers(1..2).unwrap()), []);
    for max_fragments in [1, 3, 5, 7, 20, 21] {
        let chunks: Vec<_> = plan.chunks(max_fragments).unwrap().collect();
        assert!(chunks.iter().all(|chunk| chunk.fragments() <= u64::from(max_fragments)));
        let joined: Vec<_> = chunks.iter().flat_map(numbers).collect();
        assert_eq!(joined, all);
    }
}

#[test]
fn index_arrays_are_pairs_of_words_local_first() {
    let plan = small(1);
    let mut array = [0xee; 40];
    assert_eq!(plan.write_index_array(&mut array), Ok(32));
    assert_eq!(array[..12], [15, 0, 0, 0, 4, 0, 0, 0, 39, 0, 0, 0]);
    assert_eq!(array[32..], [0xee; 8]);
    let error = PlanError::ArrayBuffer { needed_bytes: 32, found_bytes: 31 };
    assert_eq!(plan.write_index_array(&mut array[..31]), Err(error));
}

#[test]
fn a_plan_of_more_than_2_to_the_20_fragments_is_split() {
    let layout = CacheLayout::new(4096, HEADS, DType::I8, 1).unwrap();
    let pool = PoolGeometry::new(layout, 256).unwrap();
    let blocks: Vec<u32> = (0..256).collect();
    let plan = plan_between((&pool, &blocks), (&pool, &blocks), 256).unwrap();
    assert_eq!(plan.fragments(), 1 << 21);
    let error = PlanError::TooManyFragments { fragments: 1 << 21 };
    assert_eq!(plan.write_index_array(&mut []), Err(error));
    let mut array = vec![0; 8 << 20];
    for chunk in plan.chunks(INDEX_ARRAY_PAIRS_MAX).unwrap() {
        assert_eq!(chunk.write_index_array(&mut array), Ok(8 << 20));
    }
    for max_fragments in [0, INDEX_ARRAY_PAIRS_MAX + 1] {
        let error = plan.chunks(max_fragments).err();
        assert_eq!(error, Some(PlanError::ChunkSize { max_fragments }));
    }
}

#[test]
fn each_mismatch_has_its_error() {
    let local = pool(2, HEADS, DType::I8, 4);
    let plan = |remote: &PoolGeometry, blocks: &[u32], tokens| {
        plan_between((&local, &[0, 1]), (remote, blocks), tokens).map(|_| ())
    };
    let more_layers = pool(3, HEADS, DType::I8, 4);
    assert_eq!(plan(&more_layers, &[0], 1), Err(PlanError::Layers { local: 2, remote: 3 }));
    let latent = Attention::Latent { latent_size: 2, rope_size: 0 };
    let error = PlanError::Attention { local: HEADS, remote: latent };
    assert_eq!(plan(&pool(2, latent, DType::I8, 4), &[0], 1), Err(error));
    let error = PlanError::DType { local: DType::I8, remote: DType::F8E4M3 };
    assert_eq!(plan(&pool(2, HEADS, DType::F8E4M3, 4), &[0], 1), Err(error));
    assert_eq!(plan(&local, &[0], 0), Err(PlanError::NoTokens));
    let error = PlanError::TooFewBlocks { side: Side::Remote, tokens: 5, capacity_tokens: 4 };
    assert_eq!(plan(&local, &[0], 5), Err(error));
    let error = PlanError::TooFewBlocks { side: Side::Local, tokens: 9, capacity_tokens: 8 };
    assert_eq!(plan(&local, &[0, 1, 2], 9), Err(error));
}

#[test]
fn a_given_fragment_size_must_divide_both_block_sizes() {
    let (local, remote) = (pool(1, HEADS, DType::I8, 8), pool(1, HEADS, DType::I8, 4));
    let local_table = BlockTable::new(8, vec![3], 8).unwrap();
    let remote_table = BlockTable::new(4, vec![1, 0], 0).unwrap();
    let plan = |fragment_tokens| {
        FragmentPlan::with_fragment_tokens(
            PagedSequence::new(&local, &local_table).unwrap(),
            PagedSequence::new(&remote, &remote_table).unwrap(),
            8,
            fragment_tokens,
        )
    };
    assert_eq!(plan(2).unwrap().fragments(), 8);
    let source = PoolError::FragmentTokens { fragment_tokens: 8, block_tokens: 4 };
    assert_eq!(plan(8), Err(PlanError::Fragments { side: Side::Remote, source }));
    let source = PoolError::FragmentTokens { fragment_tokens: 3, block_tokens: 8 };
    assert_eq!(plan(3), Err(PlanError::Fragments { side: Side::Local, source }));
}

#[test]
fn a_layer_range_must_name_layers() {
    let plan = small(1);
    for (start, end) in [(0, 0), (1, 1), (0, 3), (2, 1)] {
        let error = PlanError::LayerRange { start, end, layers: 2 };
        assert_eq!(plan.layers(Range { start, end }), Err(error));
    }
}
