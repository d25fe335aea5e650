use super::*;

#[test]
fn a_failed_allocation_and_a_failed_free_change_nothing() {
    let mut allocator = BlockAllocator::new(4);
    assert_eq!(allocator.allocate(3), Ok(vec![0, 1, 2]));
    assert_eq!(allocator.allocate(2), Err(BlockError::Exhausted { wanted: 2, free: 1 }));
    assert_eq!(allocator.free(&[0, 3]), Err(BlockError::DoubleFree { block: 3 }));
    assert_eq!(allocator.free(&[0, 0]), Err(BlockError::DoubleFree { block: 0 }));
    assert_eq!(allocator.free(&[0, 4]), Err(BlockError::Foreign { block: 4, blocks: 4 }));
    assert_eq!(allocator.free_blocks(), 1);
    assert_eq!(allocator.free(&[2, 0, 1]), Ok(()));
    assert_eq!(allocator.allocate(4), Ok(vec![2, 0, 1, 3]));
}

#[test]
fn scattering_is_a_permutation_pinned_by_its_seed() {
    let order = |seed| BlockAllocator::scattered(1000, seed).allocate(1000).unwrap();
    let mut blocks = order(1);
    assert_eq!(blocks, order(1));
    assert_ne!(blocks, order(2));
    let neighbours = blocks.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count();
    assert!(neighbours < 20, "{neighbours} of 999 pairs are still neighbours");
    blocks.sort_unstable();
    assert_eq!(blocks, (0..1000).collect::<Vec<u32>>());
}

#[test]
fn tables_refuse_repeats_and_overflow() {
    let new = BlockTable::new;
    assert_eq!(new(0, vec![], 0), Err(BlockError::NoBlockTokens));
    assert_eq!(new(4, vec![1, 2, 1], 0), Err(BlockError::Repeated { block: 1 }));
    let too_few = |tokens, blocks| BlockError::TooFewBlocks { tokens, blocks, block_tokens: 4 };
    assert_eq!(new(4, vec![1, 2], 9), Err(too_few(9, 2)));
    let mut table = new(4, vec![1], 3).unwrap();
    assert_eq!(table.append_tokens(u32::MAX), Err(too_few(u64::from(u32::MAX) + 3, 1)));
    assert_eq!(table.append_block(1), Err(BlockError::Repeated { block: 1 }));
    table.append_block(0).unwrap();
    table.append_tokens(5).unwrap();
    assert_eq!(table.tokens(), 8);
}

#[test]
fn filled_blocks_are_full_but_the_last() {
    let table = BlockTable::new(4, vec![9, 3, 5], 6).unwrap();
    assert_eq!(table.filled().collect::<Vec<_>>(), [(9, 4), (3, 2)]);
    assert_eq!(table.capacity_tokens(), 12);
    assert_eq!(BlockTable::new(4, vec![9], 0).unwrap().filled().count(), 0);
}
