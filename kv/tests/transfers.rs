//! Transfers between real planes: push and pull, all pairs of block sizes, aborts, other models.

use dmaplane::{Config, Peer, Plane};
use dmaplane_kv::transfer::{Landing, PagedPool, Source, TransferError, pull, push};
use dmaplane_kv::{
    Attention, BlockTable, CacheLayout, ChecksumAlgorithm, DType, LeaseToken, TransferId, TransferManifest,
    TransferSlots,
};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(20);
const TOKENS: u32 = 75;

fn layout(attention: Attention, block_tokens: u32) -> CacheLayout {
    CacheLayout::new(3, attention, DType::BF16, block_tokens).unwrap()
}

const GROUPED: Attention = Attention::GroupedQuery { kv_heads: 2, head_size: 64 };
const LATENT: Attention = Attention::Latent { latent_size: 96, rope_size: 32 };

struct Side {
    plane: Plane,
    pool: PagedPool,
}

fn side(layout: CacheLayout, seed: u64) -> Side {
    let mut plane = Plane::open(Config::default()).unwrap();
    let pool = PagedPool::new(&mut plane, layout, 24, seed).unwrap();
    Side { plane, pool }
}

/// A sender with a cache, a receiver, and each one's peer.
fn sides(attention: Attention, blocks: [u32; 2]) -> (Side, Side, Peer, Peer, BlockTable) {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("shm:{}", directory.path().join("x").display());
    let (mut sender, mut receiver) = (side(layout(attention, blocks[0]), 1), side(layout(attention, blocks[1]), 2));
    let (listener, _) = receiver.plane.listen(&address).unwrap();
    let to_receiver = sender.plane.connect(&address, WAIT).unwrap();
    let to_sender = receiver.plane.accept(&listener, WAIT).unwrap();
    // Scattered bytes everywhere, so that what was not moved is not right by luck.
    let table = sender.pool.allocate(TOKENS).unwrap();
    for (pool, salt) in [(&mut sender.pool, 3u64), (&mut receiver.pool, 5)] {
        for (at, byte) in pool.bytes_mut().iter_mut().enumerate() {
            *byte = ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(salt) >> 32) as u8;
        }
    }
    (sender, receiver, to_receiver, to_sender, table)
}

fn offer(side: &Side, table: &BlockTable) -> TransferManifest {
    let layout = *side.pool.geometry().layout();
    TransferManifest {
        layout,
        pool_blocks: side.pool.geometry().blocks(),
        table: table.clone(),
        fragment_tokens: layout.block_tokens(),
        parts: 1,
        transfer: TransferId::unpack(0),
        checksum: ChecksumAlgorithm::Xxh3,
        lease_token: LeaseToken::default(),
        user: Vec::new(),
    }
}

#[test]
fn push_and_pull_between_all_pairs_of_block_sizes() {
    for attention in [GROUPED, LATENT] {
        for blocks in [[16, 16], [16, 32], [32, 16], [64, 16], [16, 64], [32, 64]] {
            let (mut sender, mut receiver, to_receiver, to_sender, table) = sides(attention, blocks);
            let expected = sender.pool.digest(&table).unwrap();
            let free = receiver.pool.free_blocks();
            let mut slots = TransferSlots::new(4).unwrap();

            let offer = offer(&sender, &table);
            let (mut landing, manifest) =
                Landing::open(&mut receiver.plane, &mut receiver.pool, &mut slots, &to_sender, &offer).unwrap();
            let moved = push(&mut sender.plane, &mut sender.pool, &to_receiver, &table, &manifest, b"first").unwrap();
            let fragment = blocks[0].min(blocks[1]);
            let layout = sender.pool.geometry().layout();
            assert_eq!(moved.bytes, layout.bytes_per_token() * u64::from(TOKENS.next_multiple_of(fragment)));
            let arrival = receiver.plane.receive(&to_sender, WAIT).unwrap();
            assert!(landing.arrive(&mut slots, &arrival).unwrap(), "one part is all");
            let (landed, notice) = landing.commit(&mut receiver.plane, &mut receiver.pool, &mut slots).unwrap();
            assert_eq!(notice.user, b"first");
            assert_eq!(receiver.pool.digest(&landed).unwrap(), expected, "{blocks:?} pushed");
            receiver.pool.release(landed).unwrap();

            let (source, manifest) =
                Source::open(&mut sender.plane, &mut sender.pool, &to_receiver, &table, blocks[1], b"u").unwrap();
            let (landed, moved_again, user) =
                pull(&mut receiver.plane, &mut receiver.pool, &to_sender, &manifest).unwrap();
            assert_eq!((moved_again.bytes, user), (moved.bytes, b"u".to_vec()));
            assert_eq!(receiver.pool.digest(&landed).unwrap(), expected, "{blocks:?} pulled");
            source.close(&mut sender.plane).unwrap();
            receiver.pool.release(landed).unwrap();
            assert_eq!(receiver.pool.free_blocks(), free);
        }
    }
}

#[test]
fn an_aborted_transfer_cannot_be_written_and_its_immediate_is_refused() {
    let (mut sender, mut receiver, to_receiver, to_sender, table) = sides(GROUPED, [32, 16]);
    let mut slots = TransferSlots::new(1).unwrap();
    let offer = offer(&sender, &table);
    let (landing, stale) =
        Landing::open(&mut receiver.plane, &mut receiver.pool, &mut slots, &to_sender, &offer).unwrap();
    landing.abort(&mut receiver.plane, &mut receiver.pool, &mut slots).unwrap();
    let before = receiver.pool.bytes().to_vec();
    let error = push(&mut sender.plane, &mut sender.pool, &to_receiver, &table, &stale, b"").unwrap_err();
    assert!(matches!(&error, TransferError::Plane(error) if error.errno().is_some()), "{error}");
    assert_eq!(receiver.pool.bytes(), before, "nothing landed");
    // The slot's next transfer has another generation, and goes well.
    let (mut landing, manifest) =
        Landing::open(&mut receiver.plane, &mut receiver.pool, &mut slots, &to_sender, &offer).unwrap();
    assert_ne!(manifest.transfer, stale.transfer);
    push(&mut sender.plane, &mut sender.pool, &to_receiver, &table, &manifest, b"").unwrap();
    let arrival = receiver.plane.receive(&to_sender, WAIT).unwrap();
    let mut old = arrival.clone();
    old.immediate = Some(stale.transfer.pack());
    assert!(matches!(landing.arrive(&mut slots, &old), Err(TransferError::Arrival(_))), "an old generation");
    assert!(landing.arrive(&mut slots, &arrival).unwrap());
    landing.commit(&mut receiver.plane, &mut receiver.pool, &mut slots).unwrap();
    assert_eq!(slots.refused().stale, 1);
}

#[test]
fn a_transfer_of_which_nothing_has_come_is_not_committed() {
    let (sender, mut receiver, _to_receiver, to_sender, table) = sides(GROUPED, [16, 16]);
    let mut slots = TransferSlots::new(1).unwrap();
    let offer = offer(&sender, &table);
    let free = receiver.pool.free_blocks();
    let (landing, _) = Landing::open(&mut receiver.plane, &mut receiver.pool, &mut slots, &to_sender, &offer).unwrap();
    let error = landing.commit(&mut receiver.plane, &mut receiver.pool, &mut slots).unwrap_err();
    assert!(matches!(error, TransferError::Slot(_)), "{error}");
    assert_eq!((receiver.pool.free_blocks(), slots.free_slots()), (free, 1), "nothing leaked");
}

#[test]
fn another_model_s_cache_is_refused_by_name() {
    let (sender, mut receiver, _to_receiver, to_sender, table) = sides(GROUPED, [16, 16]);
    let mut slots = TransferSlots::new(1).unwrap();
    let mut offer = offer(&sender, &table);
    offer.layout = layout(LATENT, 16);
    let error = Landing::open(&mut receiver.plane, &mut receiver.pool, &mut slots, &to_sender, &offer).unwrap_err();
    assert!(error.to_string().contains("another model"), "{error}");
}
