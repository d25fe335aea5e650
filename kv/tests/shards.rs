//! Any number of shards to any other, with any block sizes, both ways, over both fabrics: the vectors are those that an
//! unsharded reference has.

mod workers;

use dmaplane_kv::exchange::Ticket;
use dmaplane_kv::transfer::TransferError;
use dmaplane_kv::{Attention, BlockTable, CacheLayout, ChecksumAlgorithm, DType, legs};
use std::collections::HashMap;
use workers::{GROUPED, LATENT, LAYERS, Outcome, Worker, compute, connect, is_right, model, outcomes, routed, turn};

const TOKENS: u32 = 75;

/// Polls both sides until these tickets have ended, and returns the blocks that came, by shard.
fn finish(
    source: &mut Worker,
    destination: &mut Worker,
    sent: &[(usize, Ticket)],
    awaited: &[(usize, Ticket)],
) -> HashMap<usize, BlockTable> {
    let (mut sent, mut awaited) = (sent.to_vec(), awaited.to_vec());
    let mut tables = HashMap::new();
    turn(source, destination, |source, destination| {
        for (ended, outcome) in outcomes(source.poll()) {
            assert!(matches!(outcome, Outcome::Whole(None, _)), "{outcome:?}");
            sent.retain(|ticket| *ticket != ended);
        }
        for (ended, outcome) in outcomes(destination.poll()) {
            let Outcome::Whole(Some(table), user) = outcome else { panic!("{outcome:?}") };
            assert_eq!(user, b"first");
            tables.insert(ended.0, table);
            awaited.retain(|ticket| *ticket != ended);
        }
        sent.is_empty() && awaited.is_empty()
    });
    tables
}

fn push(
    source: &mut Worker,
    destination: &mut Worker,
    tables: &[BlockTable],
    request: u64,
) -> HashMap<usize, BlockTable> {
    let (mut sent, mut awaited) = (Vec::new(), Vec::new());
    let mut pushes: Vec<Vec<Ticket>> = vec![Vec::new(); source.shards.len()];
    let from = source.far_side(1 + request as u32 % LAYERS);
    for shard in 0..destination.shards.len() {
        let peers = destination.peers(shard, source);
        let (ticket, manifests) = destination.shards[shard].land(TOKENS, &from, &peers, None).unwrap();
        awaited.push((shard, ticket));
        for (index, manifest) in manifests {
            let index = index as usize;
            let peer = source.peers(index, destination)[shard].unwrap();
            let push = source.shards[index].push(peer, &tables[index], &routed(&manifest)).unwrap();
            pushes[index].push(push);
            sent.push((index, push));
        }
    }
    for layer in 0..LAYERS {
        for (index, pushes) in pushes.iter().enumerate() {
            compute(source.shards[index].pool_mut(), &tables[index], request, layer);
            for &push in pushes {
                let user: &[u8] = if layer + 1 == LAYERS { b"first" } else { b"" };
                source.shards[index].send_layers(push, layer..layer + 1, user).unwrap();
            }
        }
    }
    finish(source, destination, &sent, &awaited)
}

fn pull(
    source: &mut Worker,
    destination: &mut Worker,
    tables: &[BlockTable],
    request: u64,
) -> HashMap<usize, BlockTable> {
    let (mut sent, mut awaited) = (Vec::new(), Vec::new());
    let to = destination.far_side(1 + request as u32 % LAYERS);
    let mut legs: Vec<Vec<(usize, dmaplane_kv::TransferManifest)>> = vec![Vec::new(); destination.shards.len()];
    for (index, table) in tables.iter().enumerate() {
        let peers = source.peers(index, destination);
        let (offer, manifests) = source.shards[index].offer(table, &to, &peers, None).unwrap();
        sent.push((index, offer));
        for (shard, manifest) in manifests {
            legs[shard as usize].push((index, routed(&manifest)));
        }
    }
    for (shard, legs) in legs.iter().enumerate() {
        let peers = destination.peers(shard, source);
        let from: Vec<_> = legs.iter().map(|(index, manifest)| (peers[*index].unwrap(), manifest)).collect();
        awaited.push((shard, destination.shards[shard].pull(&from).unwrap()));
    }
    for layer in 0..LAYERS {
        for &(index, offer) in &sent {
            compute(source.shards[index].pool_mut(), &tables[index], request, layer);
            source.shards[index].ready_layers(offer, layer..layer + 1, b"first").unwrap();
        }
        // Nothing can have ended before the last layer is ready: no event is lost.
        if layer + 1 < LAYERS {
            source.poll();
            destination.poll();
        }
    }
    finish(source, destination, &sent, &awaited)
}

fn all_pairs(fabric: &str, attention: Attention, pulls: bool) {
    let checksums = [ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Xxh3, ChecksumAlgorithm::None];
    let mut request = 0;
    for (sources, destinations) in [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (2, 4), (4, 1), (4, 2), (4, 4)] {
        for block in [16, 32, 64] {
            for other in [16, 32, 64] {
                request += 1;
                let mut source = Worker::open("P", fabric, model(attention, block), sources, 12);
                let mut destination = Worker::open("D", fabric, model(attention, other), destinations, 12);
                let checksum = checksums[request as usize % 3];
                for exchange in source.shards.iter_mut().chain(&mut destination.shards) {
                    exchange.pool_mut().set_checksum(checksum);
                    // Operations of few fragments each, so that groups of layers are more than one.
                    exchange.pool_mut().set_part_fragments(100);
                }
                connect(&mut source, &mut destination);
                let free: Vec<u32> = destination.shards.iter().map(|shard| shard.pool().free_blocks()).collect();
                let tables: Vec<_> =
                    source.shards.iter_mut().map(|shard| shard.pool_mut().allocate(TOKENS).unwrap()).collect();
                let run = if pulls { pull } else { push };
                let landed = run(&mut source, &mut destination, &tables, request);
                assert_eq!(landed.len(), destinations as usize);
                for (shard, table) in landed {
                    let pool = destination.shards[shard].pool_mut();
                    is_right(pool, &table, request)
                        .unwrap_or_else(|what| panic!("{sources} to {destinations}, {block} to {other}: {what}"));
                    if sources == destinations {
                        assert_eq!(
                            pool.digest(&table).unwrap(),
                            source.shards[shard].pool().digest(&tables[shard]).unwrap()
                        );
                    }
                    pool.release(table).unwrap();
                    assert_eq!(pool.free_blocks(), free[shard], "nothing leaked");
                }
                for (exchange, table) in source.shards.iter_mut().zip(tables) {
                    exchange.pool_mut().release(table).unwrap();
                    assert_eq!((exchange.pool().free_blocks(), exchange.in_flight()), (12, 0));
                }
            }
        }
    }
}

#[test]
fn every_shard_count_and_block_size_pushed_over_shm() {
    all_pairs("shm", GROUPED, false);
}

#[test]
fn every_shard_count_and_block_size_pulled_over_shm() {
    all_pairs("shm", GROUPED, true);
}

#[test]
#[ignore = "wants the kernel driver: cargo xtask vm test"]
fn every_shard_count_and_block_size_pushed_over_local() {
    all_pairs("local", GROUPED, false);
}

#[test]
#[ignore = "wants the kernel driver: cargo xtask vm test"]
fn every_shard_count_and_block_size_pulled_over_local() {
    all_pairs("local", LATENT, true);
}

#[test]
fn every_shard_count_and_block_size_pushed_over_tcp() {
    all_pairs("tcp", GROUPED, false);
}

#[test]
fn every_shard_count_and_block_size_pulled_over_tcp() {
    all_pairs("tcp", GROUPED, true);
}

#[test]
fn a_latent_cache_reaches_every_shard_pushed_and_pulled() {
    all_pairs("shm", LATENT, false);
    all_pairs("tcp", LATENT, true);
}

#[test]
fn a_shard_that_lacks_the_heads_cannot_push_them_nor_half_of_them_be_pulled() {
    let mut source = Worker::open("P", "shm", model(GROUPED, 16), 2, 12);
    let mut destination = Worker::open("D", "shm", model(GROUPED, 16), 1, 12);
    connect(&mut source, &mut destination);
    assert_eq!(legs(&model(GROUPED, 16), 2, 1).unwrap().len(), 2);
    let peers = destination.peers(0, &source);
    let (landing, manifests) = destination.shards[0].land(TOKENS, &source.far_side(0), &peers, None).unwrap();
    let table = source.shards[1].pool_mut().allocate(TOKENS).unwrap();
    let peer = source.peers(1, &destination)[0].unwrap();
    // The first manifest is for shard 0, which has the first heads.
    let error = source.shards[1].push(peer, &table, &manifests[0].1).unwrap_err();
    assert!(error.to_string().contains("heads"), "{error}");
    destination.shards[0].abort(landing).unwrap();

    let to = destination.far_side(0);
    let (_, manifests) = source.shards[1].offer(&table, &to, &[Some(peer)], None).unwrap();
    let error = destination.shards[0].pull(&[(peers[1].unwrap(), &manifests[0].1)]).unwrap_err();
    assert!(error.to_string().contains("heads"), "{error}");
    let twice = [(peers[1].unwrap(), &manifests[0].1), (peers[1].unwrap(), &manifests[0].1)];
    assert!(destination.shards[0].pull(&twice).is_err());
    assert_eq!(destination.shards[0].pool().free_blocks(), 12);
}

/// One layer of two heads of one byte, so that many tokens are little memory.
fn narrow() -> CacheLayout {
    CacheLayout::new(1, Attention::GroupedQuery { kv_heads: 2, head_size: 1 }, DType::I8, 64).unwrap()
}

#[test]
fn more_fragments_than_one_operation_takes_go_in_parts_and_more_than_a_lease_can_name_are_refused() {
    // Cut by heads, each token is two fragments: a key and a value.
    let tokens = 600_000;
    let blocks = (1 << 20) / 64 + 1;
    let mut source = Worker::open("P", "shm", narrow(), 2, blocks);
    let mut destination = Worker::open("D", "shm", narrow(), 1, blocks);
    connect(&mut source, &mut destination);
    let peers = destination.peers(0, &source);
    let from = source.far_side(0);
    let (landing, manifests) = destination.shards[0].land(tokens, &from, &peers, None).unwrap();
    assert_eq!(manifests.iter().map(|(_, manifest)| manifest.parting().parts()).collect::<Vec<_>>(), [2, 2]);
    let mut pushes = Vec::new();
    for (index, manifest) in manifests {
        let index = index as usize;
        let peer = source.peers(index, &destination)[0].unwrap();
        let exchange = &mut source.shards[index];
        let table = exchange.pool_mut().allocate(tokens).unwrap();
        compute(exchange.pool_mut(), &table, 5, 0);
        let push = exchange.push(peer, &table, &routed(&manifest)).unwrap();
        exchange.send_layers(push, 0..1, b"first").unwrap();
        pushes.push((index, push));
    }
    let landed = finish(&mut source, &mut destination, &pushes, &[(0, landing)]);
    is_right(destination.shards[0].pool(), &landed[&0], 5).unwrap();
    destination.shards[0].pool_mut().release(landed[&0].clone()).unwrap();

    // 2^20 runs is the most that a list has.
    let error = destination.shards[0].land((1 << 20) + 1, &from, &peers, None).unwrap_err();
    assert!(matches!(error, TransferError::Columns { columns } if columns == (1 << 20) + 1), "{error}");
    assert_eq!((destination.shards[0].pool().free_blocks(), destination.shards[0].in_flight()), (blocks, 0));
}
