use super::*;
use crate::manifest::{BLOCKS_MAX, LEASE_TOKEN_BYTES_MAX, USER_BYTES_MAX};
use crate::pool::PoolError;

fn manifest() -> TransferManifest {
    let attention = Attention::Latent { latent_size: 512, rope_size: 64 };
    TransferManifest {
        layout: CacheLayout::new(61, attention, DType::BF16, 64).unwrap(),
        shard: Shard { index: 1, count: 2 },
        heads: HeadRange { start: 0, end: 1 },
        pool_blocks: 1000,
        table: BlockTable::new(64, vec![999, 0], 100).unwrap(),
        fragment_tokens: 32,
        part_layers: 61,
        part_fragments: 7,
        is_bound: true,
        is_announced: false,
        transfer: TransferId { slot: 2, generation: 3 },
        checksum: ChecksumAlgorithm::Xxh3,
        lease_token: LeaseToken(vec![1, 2, 3]),
        user: vec![4],
    }
}

/// Changes bytes of a good manifest and makes its digest right again.
fn forged(offset: usize, bytes: &[u8]) -> Result<TransferManifest, ManifestError> {
    let mut forged = manifest().encode().unwrap();
    forged[offset..offset + bytes.len()].copy_from_slice(bytes);
    let body = forged.len() - DIGEST_BYTES;
    let digest = digest::of_bytes(&forged[..body]).0;
    forged[body..].copy_from_slice(&digest.to_le_bytes());
    TransferManifest::decode(&forged)
}

#[test]
fn the_fields_are_where_the_table_says() {
    let bytes = manifest().encode().unwrap();
    let word = |offset: usize| u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap());
    assert_eq!(&bytes[..4], b"DPKV");
    assert_eq!(bytes[4..8], [1, 0, 0, 0]);
    assert_eq!((word(8), bytes.len()), (92, 92));
    assert_eq!(word(12), 61);
    assert_eq!(bytes[16..20], [2, 3, 1, 1]);
    let words = [512, 64, 64, 1000, 100, 32, 61, 0x0002_0003, 2, 0x0001_0003, 7, 0x0002_0001, 0x0001_0000, 999, 0];
    for (index, expected) in words.into_iter().enumerate() {
        assert_eq!(word(20 + 4 * index), expected, "word {index}");
    }
    assert_eq!(bytes[80..84], [1, 2, 3, 4]);
    assert_eq!(bytes[84..], digest::of_bytes(&bytes[..84]).0.to_le_bytes());
}

#[test]
fn every_flipped_bit_and_every_missing_byte_is_found() {
    let good = manifest().encode().unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(TransferManifest::decode(&bad).is_err(), "bit {bit}");
    }
    for length in 0..good.len() {
        assert!(TransferManifest::decode(&good[..length]).is_err(), "length {length}");
    }
    assert!(TransferManifest::decode(&[&good[..], &[0]].concat()).is_err());
}

#[test]
fn each_broken_field_has_its_error() {
    use ManifestError as E;
    assert_eq!(forged(0, b"DPKW"), Err(E::Magic { found: *b"DPKW" }));
    assert_eq!(forged(4, &[0]), Err(E::Version { found: 0 }));
    assert_eq!(forged(6, &[1]), Err(E::Reserved { offset: 6, found: 1 }));
    assert_eq!(forged(19, &[4]), Err(E::Flags { found: 4 }));
    assert_eq!(forged(60, &[0; 4]), Err(E::PartFragments { part_fragments: 0 }));
    assert_eq!(forged(60, &[0, 0, 0x10, 0]).unwrap().part_fragments, 1 << 20);
    assert_eq!(forged(60, &[1, 0, 0x10, 0]), Err(E::PartFragments { part_fragments: 1 + (1 << 20) }));
    assert_eq!(forged(64, &[2]), Err(E::Layout(crate::LayoutError::ShardIndex { index: 2, count: 2 })));
    assert_eq!(forged(66, &[0]), Err(E::Layout(crate::LayoutError::NoShards)));
    let held = HeadRange { start: 0, end: 1 };
    assert_eq!(forged(68, &[1]), Err(E::Heads { start: 1, end: 1, held }));
    assert_eq!(forged(70, &[2]), Err(E::Heads { start: 0, end: 2, held }));
    let length = |stated_bytes, parts_bytes| Err(E::Length { stated_bytes, parts_bytes, found_bytes: 92 });
    assert_eq!(forged(8, &[93]), length(93, 92));
    assert_eq!(forged(52, &[3]), length(92, 96));
    assert_eq!(forged(52, &[0xff; 4]), length(92, 84 + 4 * 0xffff_ffff));
    assert_eq!(forged(12, &[0]), Err(E::Layout(crate::LayoutError::Layers { layers: 0 })));
    assert_eq!(forged(16, &[9]), Err(E::Attention { tag: 9 }));
    assert_eq!(forged(17, &[0]), Err(E::DType(crate::DTypeError::UnknownCode { code: 0 })));
    assert_eq!(forged(18, &[3]), Err(E::Checksum { code: 3 }));
    assert_eq!(forged(32, &[0; 4]), Err(E::Pool(PoolError::NoBlocks)));
    assert_eq!(forged(36, &[0]), Err(E::NoTokens));
    assert!(matches!(forged(36, &[129]), Err(E::Table(_))));
    assert!(matches!(forged(40, &[33]), Err(E::Pool(PoolError::FragmentTokens { .. }))));
    assert_eq!(forged(44, &[0]), Err(E::PartLayers { part_layers: 0, layers: 61 }));
    assert_eq!(forged(44, &[62]), Err(E::PartLayers { part_layers: 62, layers: 61 }));
    assert!(matches!(forged(76, &999_u32.to_le_bytes()), Err(E::Table(_))));
    assert!(matches!(forged(76, &1000_u32.to_le_bytes()), Err(E::Sequence(_))));
}

#[test]
fn lengths_are_bounded_on_both_ways() {
    let mut long = manifest();
    long.lease_token.0 = vec![0; LEASE_TOKEN_BYTES_MAX];
    long.user = vec![0; USER_BYTES_MAX];
    assert_eq!(TransferManifest::decode(&long.encode().unwrap()), Ok(long.clone()));
    long.user.push(0);
    assert_eq!(long.encode(), Err(ManifestError::UserBytes { found_bytes: 257 }));
    long.lease_token.0.push(0);
    assert_eq!(long.encode(), Err(ManifestError::LeaseToken { found_bytes: 513 }));
    let huge = vec![0; MANIFEST_BYTES_MAX + 1];
    let error = ManifestError::TooLong { found_bytes: huge.len() };
    assert_eq!(TransferManifest::decode(&huge), Err(error));
    let mut many = manifest();
    many.layout = CacheLayout::new(1, many.layout.attention(), DType::I8, 1).unwrap();
    many.part_layers = 1;
    (many.pool_blocks, many.fragment_tokens) = (1 << 21, 1);
    many.table = BlockTable::new(1, (0..BLOCKS_MAX as u32).collect(), 5).unwrap();
    assert_eq!(TransferManifest::decode(&many.encode().unwrap()), Ok(many.clone()));
    many.table.append_block(BLOCKS_MAX as u32).unwrap();
    let error = ManifestError::TooManyBlocks { blocks: BLOCKS_MAX + 1 };
    assert_eq!(many.encode(), Err(error));
}

#[test]
fn a_lease_token_is_never_printed() {
    let shown = format!("{:?}", manifest());
    assert!(shown.contains("LeaseToken(3 bytes)"), "{shown}");
}

#[test]
fn heads_of_another_shard_and_heads_of_many_tokens_at_once_are_refused() {
    let layout = CacheLayout::new(2, Attention::GroupedQuery { kv_heads: 4, head_size: 8 }, DType::BF16, 16).unwrap();
    let pool = crate::PoolGeometry::new(layout, 8).unwrap();
    let table = BlockTable::new(16, vec![3, 1], 20).unwrap();
    let of = |start, end, fragment_tokens| TransferManifest {
        heads: HeadRange { start, end },
        fragment_tokens,
        ..TransferManifest::of(&pool, Shard { index: 1, count: 2 }, table.clone()).unwrap()
    };
    assert_eq!(TransferManifest::decode(&of(4, 8, 16).encode().unwrap()), Ok(of(4, 8, 16)));
    assert_eq!(TransferManifest::decode(&of(5, 6, 1).encode().unwrap()), Ok(of(5, 6, 1)));
    let held = HeadRange { start: 4, end: 8 };
    assert_eq!(of(3, 6, 1).encode(), Err(ManifestError::Heads { start: 3, end: 6, held }));
    assert_eq!(of(6, 9, 1).encode(), Err(ManifestError::Heads { start: 6, end: 9, held }));
    let error = PoolError::HeadFragment { fragment_tokens: 16 };
    assert_eq!(of(5, 6, 16).encode(), Err(ManifestError::Pool(error)));
    let mut small = of(5, 6, 1);
    assert_eq!(small.parting().parts(), 1);
    (small.part_layers, small.part_fragments) = (1, 7);
    // 40 fragments a layer, in sixes of 7 at most.
    assert_eq!(small.parting().parts(), 12);
}
