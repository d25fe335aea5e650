//! The block allocator against an oracle: a set of blocks.

use std::collections::BTreeSet;

use dmaplane_kv::{BlockAllocator, BlockError, BlockTable};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Allocate(u32),
    /// Frees these, whether allocated or not, whether of the pool or not.
    Free(Vec<u32>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![(0_u32..8).prop_map(Step::Allocate), vec(0_u32..18, 0..4).prop_map(Step::Free),];
    vec(step, 0..100)
}

proptest! {
    #[test]
    fn the_allocator_agrees_with_a_set(steps in steps(), seed: u64) {
        let mut allocator = BlockAllocator::scattered(16, seed);
        let mut allocated = BTreeSet::new();
        for step in steps {
            match step {
                Step::Allocate(count) => match allocator.allocate(count) {
                    Ok(blocks) => {
                        prop_assert_eq!(blocks.len(), count as usize);
                        for block in blocks {
                            prop_assert!(block < 16 && allocated.insert(block));
                        }
                    }
                    Err(error) => {
                        let free = 16 - allocated.len() as u32;
                        prop_assert!(free < count);
                        prop_assert_eq!(error, BlockError::Exhausted { wanted: count, free });
                    }
                },
                Step::Free(blocks) => {
                    let distinct: BTreeSet<u32> = blocks.iter().copied().collect();
                    let allowed = distinct.len() == blocks.len() && distinct.is_subset(&allocated);
                    prop_assert_eq!(allocator.free(&blocks).is_ok(), allowed);
                    if allowed {
                        allocated.retain(|block| !distinct.contains(block));
                    }
                }
            }
            prop_assert_eq!(allocator.free_blocks() as usize, 16 - allocated.len());
        }
    }

    #[test]
    fn every_token_of_a_table_has_its_own_place(
        block_tokens in 1_u32..9, tokens in 0_u32..60, seed: u64,
    ) {
        let needed = tokens.div_ceil(block_tokens);
        let blocks = BlockAllocator::scattered(80, seed).allocate(needed).unwrap();
        let table = BlockTable::new(block_tokens, blocks, tokens).unwrap();
        let places: BTreeSet<_> = (0..tokens).map(|token| table.locate(token).unwrap()).collect();
        prop_assert_eq!(places.len(), tokens as usize);
        prop_assert_eq!(table.locate(tokens), None);
        let counted: u32 = table.filled().map(|(_, tokens)| tokens).sum();
        prop_assert_eq!(counted, tokens);
    }
}
