//! Executing a plan by memcpy moves every token's vectors, whatever the block sizes, the pools, the
//! gaps between planes and the scattering, in both directions and in parts.

use dmaplane_kv::segment::segment_range;
use dmaplane_kv::{
    Attention, BlockAllocator, BlockTable, CacheLayout, DType, FragmentPair, FragmentPlan, PagedSequence, PoolGeometry,
    TensorView, digest,
};
use proptest::prelude::*;

/// One side: a pool, its bytes, and a scattered table with room for the tokens.
#[derive(Debug, Clone)]
struct Cache {
    pool: PoolGeometry,
    table: BlockTable,
    bytes: Vec<u8>,
}

impl Cache {
    fn new(layout: CacheLayout, tokens: u32, spare_blocks: u32, alignment: u64, seed: u64) -> Cache {
        let needed = layout.blocks_for(tokens);
        let blocks = needed + spare_blocks;
        let pool = PoolGeometry::with_plane_alignment(layout, blocks, alignment).unwrap();
        let blocks = BlockAllocator::scattered(blocks, seed).allocate(needed).unwrap();
        let table = BlockTable::new(layout.block_tokens(), blocks, tokens).unwrap();
        // Every byte of the pool gets a value of its own seed: nothing is right by accident.
        let mut state = seed | 1;
        let bytes = (0..pool.size_bytes())
            .map(|_| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        Cache { pool, table, bytes }
    }

    fn sequence(&self) -> PagedSequence<'_> {
        PagedSequence::new(&self.pool, &self.table).unwrap()
    }

    fn digest(&self) -> digest::Digest64 {
        digest::of_sequence(self.sequence(), &self.bytes).unwrap()
    }

    /// The vectors of one token in one plane.
    fn vectors(&self, layer: u32, plane: u32, token: u32) -> &[u8] {
        let (block, within) = self.table.locate(token).unwrap();
        let view = TensorView::of_block(&self.pool, &self.bytes, layer, plane, block).unwrap();
        let within = within as usize;
        view.tokens(within..within + 1).unwrap().as_bytes().unwrap()
    }
}

/// What a list write or read does: copies each pair's segment, found through the prepared lists.
fn execute(
    pairs: impl Iterator<Item = FragmentPair>,
    fragment_tokens: u32,
    local: &mut Cache,
    remote: &mut Cache,
    write: bool,
) {
    let local_list = local.pool.runs(fragment_tokens).unwrap();
    let remote_list = remote.pool.runs(fragment_tokens).unwrap();
    let range = |list, segment| {
        let range = segment_range(list, segment).unwrap();
        range.start as usize..range.end as usize
    };
    for pair in pairs {
        let near = range(&local_list, pair.local_segment);
        let far = range(&remote_list, pair.remote_segment);
        if write {
            remote.bytes[far].copy_from_slice(&local.bytes[near]);
        } else {
            local.bytes[near].copy_from_slice(&remote.bytes[far]);
        }
    }
}

fn attention() -> impl Strategy<Value = Attention> {
    prop_oneof![
        (1_u32..4, 1_u32..5).prop_map(|(kv_heads, head_size)| Attention::GroupedQuery { kv_heads, head_size }),
        (1_u32..6, 0_u32..3).prop_map(|(latent_size, rope_size)| Attention::Latent { latent_size, rope_size }),
    ]
}

/// Prefill's cache and decode's, of the same model and the same number of tokens.
fn caches() -> impl Strategy<Value = (Cache, Cache)> {
    let model = (1_u32..5, attention(), prop::sample::select(DType::ALL.to_vec()));
    let side = || (1_u32..20, 0_u32..6, 0_u32..8, any::<u64>());
    (model, 1_u32..70, side(), side()).prop_map(|((layers, attention, dtype), tokens, one, two)| {
        let cache = |(block_tokens, spare_blocks, alignment, seed): (u32, u32, u32, u64)| {
            let layout = CacheLayout::new(layers, attention, dtype, block_tokens).unwrap();
            Cache::new(layout, tokens, spare_blocks, 1 << alignment, seed)
        };
        (cache(one), cache(two))
    })
}

fn plan(local: &Cache, remote: &Cache) -> FragmentPlan {
    FragmentPlan::new(local.sequence(), remote.sequence(), local.table.tokens()).unwrap()
}

proptest! {
    #[test]
    fn a_push_and_a_pull_reproduce_every_token((prefill, decode) in caches(), write: bool) {
        let (mut local, mut remote) =
            if write { (prefill, decode) } else { (decode, prefill) };
        let source = if write { local.clone() } else { remote.clone() };
        let before = if write { remote.clone() } else { local.clone() };
        let plan = plan(&local, &remote);
        execute(plan.pairs(), plan.fragment_tokens(), &mut local, &mut remote, write);
        let (untouched, destination) = if write { (local, remote) } else { (remote, local) };
        prop_assert_eq!(&untouched.bytes, &source.bytes);
        prop_assert_eq!(destination.digest(), source.digest());
        let layout = source.pool.layout();
        for layer in 0..layout.layers() {
            for plane in 0..layout.planes() {
                for token in 0..source.table.tokens() {
                    prop_assert_eq!(
                        destination.vectors(layer, plane, token),
                        source.vectors(layer, plane, token)
                    );
                }
            }
        }
        // Nothing else changed: neither other blocks, nor gaps, nor beyond the padding.
        let mut restored = destination.bytes.clone();
        let sequence = destination.sequence();
        let padding = sequence.padding_ranges(plan.fragment_tokens()).unwrap();
        let mut changed_bytes = 0;
        for range in sequence.token_ranges().chain(padding) {
            changed_bytes += range.end - range.start;
            let range = range.start as usize..range.end as usize;
            restored[range.clone()].copy_from_slice(&before.bytes[range]);
        }
        prop_assert_eq!(&restored, &before.bytes);
        prop_assert_eq!(changed_bytes, plan.bytes_total());
    }

    #[test]
    fn layers_one_by_one_and_chunks_move_the_same(
        (mut local, mut remote) in caches(), max_fragments in 1_u32..50,
    ) {
        let plan = plan(&local, &remote);
        let mut bytes = 0;
        for layer in 0..local.pool.layout().layers() {
            for chunk in plan.layers(layer..layer + 1).unwrap().chunks(max_fragments).unwrap() {
                prop_assert!(chunk.fragments() <= u64::from(max_fragments));
                bytes += chunk.bytes_total();
                execute(chunk.pairs(), plan.fragment_tokens(), &mut local, &mut remote, true);
            }
        }
        prop_assert_eq!(bytes, plan.bytes_total());
        prop_assert_eq!(remote.digest(), local.digest());
    }

    #[test]
    fn both_sides_make_the_same_plan((local, remote) in caches()) {
        let plan_here = plan(&local, &remote);
        let plan_there = plan(&remote, &local);
        prop_assert_eq!(plan_here.reversed(), plan_there);
        let mut array = vec![0; plan_here.fragments() as usize * FragmentPair::SIZE_BYTES];
        prop_assert_eq!(plan_here.write_index_array(&mut array), Ok(array.len()));
        for (bytes, pair) in array.chunks_exact(8).zip(plan_here.pairs()) {
            prop_assert_eq!(bytes, pair.to_le_bytes());
        }
    }

    #[test]
    fn one_wrong_bit_in_a_token_changes_the_digest(
        (cache, _) in caches(), place: prop::sample::Index,
    ) {
        let ranges: Vec<_> = cache.sequence().token_ranges().collect();
        let range = place.get(&ranges).clone();
        let mut damaged = cache.clone();
        damaged.bytes[range.start as usize] ^= 0x10;
        prop_assert_ne!(damaged.digest(), cache.digest());
        let count = |cache: &Cache| digest::of_blocks(cache.sequence(), &cache.bytes).unwrap();
        let (good, bad) = (count(&cache), count(&damaged));
        prop_assert_eq!(good.iter().zip(&bad).filter(|(good, bad)| good != bad).count(), 1);
    }
}
