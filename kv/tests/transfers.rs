//! Transfers between real planes: push and pull, all pairs of block sizes, aborts, other models.

use dmaplane::{Config, Peer, Plane};
use dmaplane_kv::transfer::{Landing, PagedPool, Source, TransferError, pull, push};
use dmaplane_kv::{Attention, BlockTable, CacheLayout, ChecksumAlgorithm, DType, TransferManifest, TransferSlots};
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
    sides_over("shm", attention, blocks)
}

fn sides_over(fabric: &str, attention: Attention, blocks: [u32; 2]) -> (Side, Side, Peer, Peer, BlockTable) {
    let directory = tempfile::tempdir().unwrap();
    let address = match fabric {
        "shm" => format!("shm:{}", directory.path().join("x").display()),
        _ => "tcp:127.0.0.1:0".to_owned(),
    };
    let (mut sender, mut receiver) = (side(layout(attention, blocks[0]), 1), side(layout(attention, blocks[1]), 2));
    let (listener, address) = receiver.plane.listen(&address).unwrap();
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
    side.pool.describe(table).unwrap()
}

#[test]
fn push_and_pull_between_all_pairs_of_block_sizes() {
    let checksums = [ChecksumAlgorithm::None, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Xxh3];
    for (number, attention) in (0..).zip([GROUPED, LATENT, GROUPED, LATENT]) {
        for (turn, blocks) in [[16, 16], [16, 32], [32, 16], [64, 16], [16, 64], [32, 64]].into_iter().enumerate() {
            let fabric = if number < 2 { "shm" } else { "tcp" };
            let (mut sender, mut receiver, to_receiver, to_sender, table) = sides_over(fabric, attention, blocks);
            sender.pool.set_checksum(checksums[(turn + number) % 3]);
            receiver.pool.set_checksum(checksums[turn % 2]);
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

            sender.pool.set_checksum(checksums[turn % 2 + 1]);
            let (source, manifest) =
                Source::open(&mut sender.plane, &mut sender.pool, &to_receiver, &table, blocks[1], b"u").unwrap();
            let (landed, moved_again, user) =
                pull(&mut receiver.plane, &mut receiver.pool, &to_sender, &manifest).unwrap();
            assert_eq!((moved_again.bytes, user), (moved.bytes, b"u".to_vec()));
            assert_eq!(receiver.pool.digest(&landed).unwrap(), expected, "{blocks:?} pulled");
            source.close(&mut sender.plane, &mut sender.pool).unwrap();
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

/// A receiver that has given its manifest, ready for what a sender makes of it.
fn landing(
    sender: &Side,
    receiver: &mut Side,
    slots: &mut TransferSlots,
    from: &Peer,
    table: &BlockTable,
) -> (Landing, TransferManifest) {
    Landing::open(&mut receiver.plane, &mut receiver.pool, slots, from, &offer(sender, table)).unwrap()
}

#[test]
fn a_transfer_too_long_for_one_operation_goes_in_parts_and_is_whole_only_with_the_last() {
    for checksum in [ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Xxh3] {
        let (mut sender, mut receiver, to_receiver, to_sender, table) = sides(GROUPED, [32, 16]);
        let expected = sender.pool.digest(&table).unwrap();
        let mut slots = TransferSlots::new(4).unwrap();
        receiver.pool.set_part_fragments(7);
        receiver.pool.set_checksum(checksum);
        let (mut landing, manifest) = landing(&sender, &mut receiver, &mut slots, &to_sender, &table);
        assert_eq!(manifest.parting().parts(), 5, "30 fragments, 7 at most in each");
        let moved = push(&mut sender.plane, &mut sender.pool, &to_receiver, &table, &manifest, b"").unwrap();
        assert_eq!(moved.fragments, 30);
        for part in 0..5 {
            let arrival = receiver.plane.receive(&to_sender, WAIT).unwrap();
            assert_eq!(landing.arrive(&mut slots, &arrival).unwrap(), part == 4);
        }
        let (landed, _) = landing.commit(&mut receiver.plane, &mut receiver.pool, &mut slots).unwrap();
        assert_eq!(receiver.pool.digest(&landed).unwrap(), expected);
        receiver.pool.release(landed).unwrap();

        sender.pool.set_checksum(checksum);
        let source = Source::open(&mut sender.plane, &mut sender.pool, &to_receiver, &table, 16, b"").unwrap();
        let (landed, pulled, _) = pull(&mut receiver.plane, &mut receiver.pool, &to_sender, &source.1).unwrap();
        assert_eq!((pulled, receiver.pool.digest(&landed).unwrap()), (moved, expected), "pulled in parts");
        source.0.close(&mut sender.plane, &mut sender.pool).unwrap();
        // A sender whose own bound is lower than the receiver's says so.
        let (landing, manifest) = self::landing(&sender, &mut receiver, &mut slots, &to_sender, &table);
        sender.pool.set_part_fragments(3);
        let error = push(&mut sender.plane, &mut sender.pool, &to_receiver, &table, &manifest, b"").unwrap_err();
        assert!(matches!(error, TransferError::Parts { part_fragments: 7, most: 3, .. }), "{error}");
        landing.abort(&mut receiver.plane, &mut receiver.pool, &mut slots).unwrap();
        // One that says so in its offer gets such parts.
        let offer = offer(&sender, &table);
        let opened = Landing::open(&mut receiver.plane, &mut receiver.pool, &mut slots, &to_sender, &offer);
        let (landing, manifest) = opened.unwrap();
        assert_eq!(manifest.parting().parts(), 10);
        push(&mut sender.plane, &mut sender.pool, &to_receiver, &table, &manifest, b"").unwrap();
        landing.abort(&mut receiver.plane, &mut receiver.pool, &mut slots).unwrap();
    }
}

#[test]
fn a_cache_of_more_than_two_gibibytes_is_planned_in_parts() {
    // Llama-3-70B, 8,192 tokens, unsharded: 2.5 GiB, more than one operation may move.
    let layout = dmaplane_kv::models::LLAMA_3_70B.layout(16).unwrap();
    let pool = dmaplane_kv::PoolGeometry::new(layout, 512).unwrap();
    let table = BlockTable::new(16, (0..512).collect(), 8192).unwrap();
    let sequence = dmaplane_kv::PagedSequence::new(&pool, &table).unwrap();
    let plan = dmaplane_kv::FragmentPlan::new(sequence, sequence, 8192).unwrap();
    assert_eq!(plan.bytes_total(), 2_684_354_560);
    assert!(plan.bytes_total() > dmaplane::MAX_OPERATION_BYTES);
    let most = (dmaplane::MAX_OPERATION_BYTES / plan.fragment_bytes()) as u32;
    let parts: Vec<_> = plan.chunks(most).unwrap().collect();
    assert_eq!(parts.len(), 2);
    assert!(parts.iter().all(|part| part.bytes_total() <= dmaplane::MAX_OPERATION_BYTES));
}

#[test]
fn an_arrival_for_one_landing_is_not_counted_for_another_of_the_same_peer() {
    let (mut sender, mut receiver, to_receiver, to_sender, table) = sides(GROUPED, [16, 16]);
    let mut slots = TransferSlots::new(4).unwrap();
    let (mut first, _) = landing(&sender, &mut receiver, &mut slots, &to_sender, &table);
    let (mut second, manifest) = landing(&sender, &mut receiver, &mut slots, &to_sender, &table);
    push(&mut sender.plane, &mut sender.pool, &to_receiver, &table, &manifest, b"second").unwrap();
    let arrival = receiver.plane.receive(&to_sender, WAIT).unwrap();
    let error = first.arrive(&mut slots, &arrival).unwrap_err();
    assert!(matches!(error, TransferError::OtherTransfer { found, .. } if found == second.transfer()), "{error}");
    assert!(second.arrive(&mut slots, &arrival).unwrap(), "and it is still whole for its own");
    let (landed, notice) = second.commit(&mut receiver.plane, &mut receiver.pool, &mut slots).unwrap();
    assert_eq!(notice.user, b"second");
    receiver.pool.release(landed).unwrap();
    first.abort(&mut receiver.plane, &mut receiver.pool, &mut slots).unwrap();
}

#[test]
fn what_a_sender_has_not_computed_does_not_leave_as_another_request_s_bytes() {
    let (mut sender, mut receiver, to_receiver, to_sender, table) = sides(GROUPED, [32, 16]);
    let mut slots = TransferSlots::new(1).unwrap();
    // 75 tokens are there; the answer asks for all that the sender's blocks have room for.
    let mut more = offer(&sender, &table);
    more.table = BlockTable::new(32, table.blocks().to_vec(), 96).unwrap();
    let opened = Landing::open(&mut receiver.plane, &mut receiver.pool, &mut slots, &to_sender, &more);
    let (landing, manifest) = opened.unwrap();
    let error = push(&mut sender.plane, &mut sender.pool, &to_receiver, &table, &manifest, b"").unwrap_err();
    assert!(matches!(error, TransferError::Tokens { theirs: 96, ours: 75 }), "{error}");
    landing.abort(&mut receiver.plane, &mut receiver.pool, &mut slots).unwrap();
}

/// What a sender does that writes only some of the fragments, or other bytes, and claims all of them.
#[test]
fn a_damaged_or_incomplete_transfer_is_never_committed() {
    for checksum in [ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Xxh3] {
        for fault in ["half of the fragments", "a wrong checksum", "too few bytes", "no checksum asked for"] {
            let (mut sender, mut receiver, to_receiver, to_sender, table) = sides(GROUPED, [16, 16]);
            let mut slots = TransferSlots::new(1).unwrap();
            let free = receiver.pool.free_blocks();
            receiver.pool.set_checksum(checksum);
            let (mut landing, manifest) = landing(&sender, &mut receiver, &mut slots, &to_sender, &table);
            // The sender's half by hand: one list of all fragments, in the order of the receiver's.
            let geometry = *sender.pool.geometry();
            let sequence = dmaplane_kv::PagedSequence::new(&geometry, &table).unwrap();
            let plan = dmaplane_kv::FragmentPlan::new(sequence, sequence, TOKENS).unwrap();
            let total = plan.bytes_total();
            let buffer = sender.plane.alloc(total).unwrap();
            let fragment = plan.fragment_bytes();
            let run = dmaplane::Run {
                length_bytes: fragment as u32,
                stride_bytes: fragment,
                count: plan.fragments() as u32,
                ..Default::default()
            };
            let list = sender.plane.prepare_list(vec![buffer], &[(0, run)]).unwrap();
            let digest = match checksum {
                ChecksumAlgorithm::Xxh3 => {
                    // Zeros were sent: the digest of a cache of zeros.
                    sender.pool.bytes_mut().fill(0);
                    sender.pool.digest(&table).unwrap().0
                }
                _ => u64::from(crc32c::crc32c(&vec![0; total as usize])),
            };
            let count = if fault == "half of the fragments" { plan.fragments() / 2 } else { plan.fragments() };
            let pairs: Vec<_> =
                (0..count as u32).map(|segment| dmaplane::IndexPair { local: segment, remote: segment }).collect();
            let notice = dmaplane_kv::transfer::Notice {
                part: 0,
                is_last: true,
                bytes: if fault == "too few bytes" { total - 1 } else { total },
                digest: dmaplane_kv::Digest64(if fault == "a wrong checksum" { digest ^ 1 } else { digest }),
                user: Vec::new(),
            };
            let import = sender.plane.import(&to_receiver, &manifest.lease_token.0).unwrap();
            let (immediate, bytes) = (manifest.transfer.pack(), notice.encode());
            let asks = checksum == ChecksumAlgorithm::Crc32c && fault != "no checksum asked for";
            if asks {
                sender.plane.write_list_checked(&list, &import, &pairs, immediate, &bytes).unwrap();
            } else {
                sender.plane.write_list(&list, &import, &pairs, immediate, &bytes).unwrap();
            }
            let arrival = receiver.plane.receive(&to_sender, WAIT).unwrap();
            let arrived = landing.arrive(&mut slots, &arrival);
            let committed = landing.commit(&mut receiver.plane, &mut receiver.pool, &mut slots);
            // XXH3 needs no help from whoever copies.
            let good = checksum == ChecksumAlgorithm::Xxh3 && fault == "no checksum asked for";
            assert_eq!(committed.is_ok(), good, "{checksum:?}, {fault}: {arrived:?} {committed:?}");
            if let Ok((table, _)) = committed {
                receiver.pool.release(table).unwrap();
            }
            assert_eq!((receiver.pool.free_blocks(), slots.free_slots()), (free, 1), "nothing leaked");
        }
    }
}

#[test]
fn a_pull_of_other_bytes_than_the_owner_said_is_refused() {
    for checksum in [ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Xxh3] {
        let (mut sender, mut receiver, to_receiver, to_sender, table) = sides(GROUPED, [16, 16]);
        sender.pool.set_checksum(checksum);
        let free = receiver.pool.free_blocks();
        let opened = Source::open(&mut sender.plane, &mut sender.pool, &to_receiver, &table, 16, b"").unwrap();
        let (source, mut manifest) = opened;
        manifest.user[0] ^= 1;
        let error = pull(&mut receiver.plane, &mut receiver.pool, &to_sender, &manifest).unwrap_err();
        let named = matches!(error, TransferError::Checksum { .. } | TransferError::Digest { .. });
        assert!(named, "{error}");
        assert_eq!(receiver.pool.free_blocks(), free);
        manifest.checksum = ChecksumAlgorithm::None;
        let error = pull(&mut receiver.plane, &mut receiver.pool, &to_sender, &manifest).unwrap_err();
        assert!(matches!(error, TransferError::WeakChecksum { .. }), "{error}");
        source.close(&mut sender.plane, &mut sender.pool).unwrap();
    }
}

#[test]
fn blocks_that_a_peer_may_write_are_not_given_out_as_slices() {
    let (sender, mut receiver, _to_receiver, to_sender, table) = sides(GROUPED, [16, 16]);
    let mut slots = TransferSlots::new(1).unwrap();
    let own = receiver.pool.allocate(16).unwrap();
    let (landing, manifest) = landing(&sender, &mut receiver, &mut slots, &to_sender, &table);
    let geometry = *receiver.pool.geometry();
    let leased = geometry.block_range(1, 1, manifest.table.blocks()[0]).unwrap();
    assert!(matches!(receiver.pool.slice(leased.clone()), Err(TransferError::Leased { .. })));
    assert!(matches!(receiver.pool.slice_mut(leased.clone()), Err(TransferError::Leased { .. })));
    let free = geometry.block_range(2, 0, own.blocks()[0]).unwrap();
    assert_eq!(receiver.pool.slice_mut(free).unwrap().len(), 16 * 2 * 64 * 2);
    landing.abort(&mut receiver.plane, &mut receiver.pool, &mut slots).unwrap();
    assert!(receiver.pool.slice_mut(leased).is_ok(), "the lease is over");
}

#[test]
fn blocks_released_under_a_live_lease_are_not_given_to_another_request() {
    let (mut sender, mut receiver, to_receiver, to_sender, table) = sides(GROUPED, [16, 16]);
    let free = sender.pool.free_blocks();
    let opened = Source::open(&mut sender.plane, &mut sender.pool, &to_receiver, &table, 16, b"").unwrap();
    let (source, manifest) = opened;
    let expected = sender.pool.digest(&table).unwrap();
    // The request is cancelled while decode may read its blocks.
    sender.pool.release(table).unwrap();
    assert_eq!(sender.pool.free_blocks(), free, "not yet");
    let other = sender.pool.allocate(free * 16).unwrap();
    assert!(other.blocks().iter().all(|block| !manifest.table.blocks().contains(block)));
    let (landed, ..) = pull(&mut receiver.plane, &mut receiver.pool, &to_sender, &manifest).unwrap();
    assert_eq!(receiver.pool.digest(&landed).unwrap(), expected);
    source.close(&mut sender.plane, &mut sender.pool).unwrap();
    assert_eq!(sender.pool.free_blocks(), manifest.table.blocks().len() as u32, "now they are free");
}

#[test]
fn a_sequence_with_padding_serves_more_than_one_reader_at_a_time() {
    let (mut sender, mut receiver, to_receiver, to_sender, table) = sides(GROUPED, [32, 16]);
    let open =
        |sender: &mut Side| Source::open(&mut sender.plane, &mut sender.pool, &to_receiver, &table, 16, b"").unwrap();
    let (first, second) = (open(&mut sender), open(&mut sender));
    for (source, manifest) in [first, second] {
        pull(&mut receiver.plane, &mut receiver.pool, &to_sender, &manifest).unwrap();
        source.close(&mut sender.plane, &mut sender.pool).unwrap();
    }
}

#[test]
fn a_landing_ended_with_another_pool_opened_that_one_s_blocks_to_its_peer() {
    let (sender, mut receiver, _to_receiver, to_sender, table) = sides(GROUPED, [16, 16]);
    let offer = offer(&sender, &table);
    let mut slots = TransferSlots::new(2).unwrap();
    // The same block numbers in both pools, for the same seed.
    let mut other = PagedPool::new(&mut receiver.plane, layout(GROUPED, 16), 24, 2).unwrap();
    let Side { plane, pool } = &mut receiver;
    let (landing, manifest) = Landing::open(plane, pool, &mut slots, &to_sender, &offer).unwrap();
    let (wrong, of_other) = Landing::open(plane, &mut other, &mut slots, &to_sender, &offer).unwrap();
    assert_eq!(manifest.table, of_other.table);
    let free = pool.free_blocks();
    let error = wrong.commit(plane, pool, &mut slots).unwrap_err();
    assert!(matches!(error, TransferError::OtherPool), "{error}");
    let block = pool.geometry().block_range(0, 0, manifest.table.blocks()[0]).unwrap();
    assert!(matches!(pool.slice(block.clone()), Err(TransferError::Leased { .. })), "its own peer may write to it");
    assert_eq!(pool.free_blocks(), free, "nor are another's blocks given back to it");
    landing.abort(plane, pool, &mut slots).unwrap();
    assert!(pool.slice(block).is_ok());
}
