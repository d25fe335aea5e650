use super::*;
use crate::manifest::{BLOCKS_MAX, LEASE_TOKEN_BYTES_MAX, USER_BYTES_MAX};
use crate::pool::PoolError;

fn manifest() -> TransferManifest {
    let attention = Attention::Latent { latent_size: 512, rope_size: 64 };
    TransferManifest {
        layout: CacheLayout::new(61, attention, DType::BF16, 64).unwrap(),
        pool_blocks: 1000,
        table: BlockTable::new(64, vec![999, 0], 100).unwrap(),
        fragment_tokens: 32,
        parts: 61,
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
    assert_eq!(bytes[4..8], [0; 4]);
    assert_eq!((word(8), bytes.len()), (84, 84));
    assert_eq!(word(12), 61);
    assert_eq!(bytes[16..20], [2, 3, 1, 0]);
    let words = [512, 64, 64, 1000, 100, 32, 61, 0x0002_0003, 2, 0x0001_0003, 0, 999, 0];
    for (index, expected) in words.into_iter().enumerate() {
        assert_eq!(word(20 + 4 * index), expected, "word {index}");
    }
    assert_eq!(bytes[72..76], [1, 2, 3, 4]);
    assert_eq!(bytes[76..], digest::of_bytes(&bytes[..76]).0.to_le_bytes());
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
    assert_eq!(forged(4, &[1]), Err(E::Version { found: 1 }));
    assert_eq!(forged(6, &[1]), Err(E::Reserved { offset: 6, found: 1 }));
    assert_eq!(forged(19, &[1]), Err(E::Reserved { offset: 19, found: 1 }));
    assert_eq!(forged(60, &[1]), Err(E::Reserved { offset: 60, found: 1 }));
    let length = |stated_bytes, parts_bytes| Err(E::Length { stated_bytes, parts_bytes, found_bytes: 84 });
    assert_eq!(forged(8, &[85]), length(85, 84));
    assert_eq!(forged(52, &[3]), length(84, 88));
    assert_eq!(forged(52, &[0xff; 4]), length(84, 76 + 4 * 0xffff_ffff));
    assert_eq!(forged(12, &[0]), Err(E::Layout(crate::LayoutError::Layers { layers: 0 })));
    assert_eq!(forged(16, &[9]), Err(E::Attention { tag: 9 }));
    assert_eq!(forged(17, &[0]), Err(E::DType(crate::DTypeError::UnknownCode { code: 0 })));
    assert_eq!(forged(18, &[3]), Err(E::Checksum { code: 3 }));
    assert_eq!(forged(32, &[0; 4]), Err(E::Pool(PoolError::NoBlocks)));
    assert_eq!(forged(36, &[0]), Err(E::NoTokens));
    assert!(matches!(forged(36, &[129]), Err(E::Table(_))));
    assert!(matches!(forged(40, &[33]), Err(E::Pool(PoolError::FragmentTokens { .. }))));
    assert_eq!(forged(44, &[0]), Err(E::Parts { parts: 0 }));
    assert!(matches!(forged(68, &999_u32.to_le_bytes()), Err(E::Table(_))));
    assert!(matches!(forged(68, &1000_u32.to_le_bytes()), Err(E::Sequence(_))));
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
