//! Manifests come back as they were, and nothing that arrives can do harm.

use dmaplane_kv::manifest::{HEADER_BYTES, LeaseToken};
use dmaplane_kv::{
    Attention, BlockAllocator, BlockTable, CacheLayout, ChecksumAlgorithm, DType, PoolGeometry, Shard, TransferId,
    TransferManifest, digest,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn manifests() -> impl Strategy<Value = TransferManifest> {
    let attention = prop_oneof![
        (1_u32..99, 1_u32..300).prop_map(|(kv_heads, head_size)| Attention::GroupedQuery { kv_heads, head_size }),
        (1_u32..999, 0_u32..99).prop_map(|(latent_size, rope_size)| Attention::Latent { latent_size, rope_size }),
    ];
    let layout = (1_u32..200, attention, prop::sample::select(DType::ALL.to_vec()));
    let blocks = (1_u32..5, 1_u32..9, 1_u32..600, any::<u64>());
    let rest = (1_u32..=1 << 20, any::<u32>(), vec(any::<u8>(), 0..=512), vec(any::<u8>(), 0..=256));
    (layout, blocks, rest).prop_map(|((layers, attention, dtype), blocks, rest)| {
        let (fragments_per_block, fragment_tokens, tokens, seed) = blocks;
        let (part_fragments, immediate, lease_token, user) = rest;
        let block_tokens = fragments_per_block * fragment_tokens;
        let layout = CacheLayout::new(layers, attention, dtype, block_tokens).unwrap();
        let pool_blocks = layout.blocks_for(tokens) * 2;
        let table = BlockAllocator::scattered(pool_blocks, seed).allocate(pool_blocks - 1).unwrap();
        let pool = PoolGeometry::new(layout, pool_blocks).unwrap();
        let shard = Shard { index: seed as u32 % 3, count: 3 };
        let table = BlockTable::new(block_tokens, table, tokens).unwrap();
        TransferManifest {
            fragment_tokens,
            part_layers: layers.div_ceil(2),
            part_fragments,
            is_bound: seed % 3 == 0,
            is_announced: seed % 5 == 0,
            transfer: TransferId::unpack(immediate),
            checksum: if seed % 2 == 0 { ChecksumAlgorithm::None } else { ChecksumAlgorithm::Xxh3 },
            lease_token: LeaseToken(lease_token),
            user,
            ..TransferManifest::of(&pool, shard, table).unwrap()
        }
    })
}

/// Whatever is accepted is a valid manifest that encodes to the very bytes that it came from.
fn check_decode(bytes: &[u8]) {
    if let Ok(manifest) = TransferManifest::decode(bytes) {
        assert_eq!(manifest.validate(), Ok(()));
        assert_eq!(manifest.encode().as_deref(), Ok(bytes));
    }
}

/// Replaces the last eight bytes by the digest of those before.
fn seal(bytes: &mut [u8]) {
    if let Some(body) = bytes.len().checked_sub(8) {
        let digest = digest::of_bytes(&bytes[..body]).0;
        bytes[body..].copy_from_slice(&digest.to_le_bytes());
    }
}

proptest! {
    #[test]
    fn a_manifest_comes_back(manifest in manifests()) {
        let bytes = manifest.encode().unwrap();
        prop_assert_eq!(TransferManifest::decode(&bytes), Ok(manifest));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..600)) {
        check_decode(&bytes);
    }

    #[test]
    fn arbitrary_bytes_in_a_true_envelope_never_panic(mut bytes in vec(any::<u8>(), 80..600)) {
        // Magic, version and length are right, and so are reserved fields and the digest.
        let total = bytes.len() as u32;
        bytes[..8].copy_from_slice(b"DPKV\x01\0\0\0");
        bytes[8..12].copy_from_slice(&total.to_le_bytes());
        bytes[52..60].fill(0);
        bytes[52] = ((bytes.len() - HEADER_BYTES - 8) / 4) as u8;
        bytes[58] = ((bytes.len() - HEADER_BYTES - 8) % 4) as u8;
        seal(&mut bytes);
        check_decode(&bytes);
    }

    #[test]
    fn a_manifest_with_changed_bytes_never_panics(
        manifest in manifests(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        header_only: bool,
    ) {
        let mut bytes = manifest.encode().unwrap();
        let length = if header_only { HEADER_BYTES } else { bytes.len() };
        for (place, value) in changes {
            bytes[place.index(length)] = value;
        }
        seal(&mut bytes);
        check_decode(&bytes);
    }
}
