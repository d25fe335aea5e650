//! A late layer never lands (clause LSE-12): a sender that has not heard of the abort writes its next layer, after the
//! blocks were given to another request. Built with the feature `broken-no-lease-check` this must fail: it is its own
//! negative control (`cargo xtask test defects`).

mod workers;

use dmaplane::{IndexPair, List, Peer, Plane, Run};
use dmaplane_kv::Digest64;
use dmaplane_kv::exchange::FarSide;
use dmaplane_kv::transfer::Notice;
use workers::{GROUPED, LAYERS, Worker, compute, is_right, model};

const TOKENS: u32 = 48;
const ROUNDS: u64 = 20;

/// A sender by hand, that listens to nobody: its plane, its peer, and a list of fragments for a whole request.
fn by_hand(decode: &mut Worker, fabric: &str, columns: u32) -> (Plane, Peer, List) {
    let mut plane = workers::open(fabric);
    let mut connecting = Some(plane.start_connect(&decode.addresses[0]).unwrap());
    let mut peer = None;
    workers::turn_one(decode, |decode| {
        decode.poll();
        if let Some(waiting) = &mut connecting
            && let Some(connected) = waiting.poll(&mut plane)
        {
            connecting = None;
            let connected = connected.unwrap();
            // The length of a signal, and the signal that says a name.
            plane.start_send(&connected, b"\x09\0DPKX\0slow").map(drop).unwrap();
            peer = Some(connected);
        }
        decode.shards[0].peer("slow").is_some()
    });
    let fragment = decode.shards[0].pool().geometry().layout().bytes_per_block_plane();
    let count = LAYERS * 2 * columns;
    let mut buffer = plane.alloc(fragment * u64::from(count)).unwrap();
    buffer.as_mut_slice().fill(0xaa);
    let run = Run { length_bytes: fragment as u32, stride_bytes: fragment, count, ..Run::default() };
    let list = plane.prepare_list(vec![buffer], &[(0, run)]).unwrap();
    (plane, peer.unwrap(), list)
}

/// The fragments of a layer. The lease's list goes through fragments of tokens first, then through planes.
fn layer_pairs(layer: u32, columns: u32) -> Vec<IndexPair> {
    let planes = layer * 2..layer * 2 + 2;
    let all = planes.flat_map(|plane| (0..columns).map(move |column| column * LAYERS * 2 + plane));
    all.map(|segment| IndexPair { local: segment, remote: segment }).collect()
}

fn late_layers(fabric: &str) {
    let columns = TOKENS / 16;
    // Room for one request only: the next one has the very same blocks.
    let mut decode = Worker::open("D", fabric, model(GROUPED, 16), 1, columns);
    let (mut plane, peer, list) = by_hand(&mut decode, fabric, columns);
    for request in 0..ROUNDS {
        let exchange = &mut decode.shards[0];
        let from = FarSide { shards: 1, block_tokens: 16, part_layers: 1 };
        let known = [exchange.peer("slow")];
        let (landing, manifests) = exchange.land(TOKENS, &from, &known, None).unwrap();
        let manifest = &manifests[0].1;
        let import = plane.import(&peer, &manifest.lease_token.0).unwrap();
        let immediate = manifest.transfer.pack();
        plane.write_list(&list, &import, &layer_pairs(0, columns), immediate, b"").unwrap();
        // Between two layers: the blocks are free at once, and another request's at once.
        exchange.abort(landing).unwrap();
        assert_eq!(exchange.pool().free_blocks(), TOKENS / 16);
        let table = exchange.pool_mut().allocate(TOKENS).unwrap();
        (0..LAYERS).for_each(|layer| compute(exchange.pool_mut(), &table, request, layer));
        let late = plane.write_list(&list, &import, &layer_pairs(1, columns), immediate, b"");
        is_right(exchange.pool(), &table, request)
            .unwrap_or_else(|what| panic!("an old layer in reused blocks: {what}"));
        let error = late.expect_err("a write under a lease that is over was taken");
        assert!(error.errno().is_some(), "{error}");
        exchange.poll();
        exchange.pool_mut().release(table).unwrap();
        plane.release(import).unwrap();
        while plane.try_receive(&peer).unwrap().is_some() {}
    }
}

#[test]
fn lse_12_a_late_layer_does_not_land_in_reused_blocks_over_shm() {
    late_layers("shm");
}

#[test]
#[ignore = "wants the kernel driver: cargo xtask vm test"]
fn lse_12_a_late_layer_does_not_land_in_reused_blocks_over_local() {
    late_layers("local");
}

#[test]
fn lse_12_a_late_layer_does_not_land_in_reused_blocks_over_tcp() {
    late_layers("tcp");
}

/// Whoever has no lease on another's blocks cannot make their owner believe that they are whole, although the numbers
/// of transfers can be guessed.
#[test]
fn a_peer_without_the_lease_does_not_complete_a_landing_that_is_whoever_s() {
    let columns = TOKENS / 16;
    let mut decode = Worker::open("D", "shm", model(GROUPED, 16), 1, 2 * columns);
    let (mut plane, peer, list) = by_hand(&mut decode, "shm", columns);
    let exchange = &mut decode.shards[0];
    let from = FarSide { shards: 1, block_tokens: 16, part_layers: 0 };
    let known = [exchange.peer("slow")];
    let (anybodys, manifests) = exchange.land(TOKENS, &from, &[None], None).unwrap();
    let (own, own_manifests) = exchange.land(TOKENS, &from, &known, None).unwrap();
    let import = plane.import(&peer, &own_manifests[0].1.lease_token.0).unwrap();
    let pairs: Vec<_> = (0..LAYERS).flat_map(|layer| layer_pairs(layer, columns)).collect();
    let bytes = list.buffers()[0].as_slice();
    let length = exchange.pool().geometry().layout().bytes_per_block() * u64::from(columns);
    let digest = Digest64(crc32c::crc32c(&bytes[..length as usize]).into());
    let notice = Notice { part: 0, is_last: true, bytes: length, digest, user: Vec::new() };
    // All of it under its own lease, in the name of the other transfer; then in its own.
    for (manifest, ends) in [(&manifests[0].1, None), (&own_manifests[0].1, Some(own))] {
        plane.write_list_checked(&list, &import, &pairs, manifest.transfer.pack(), &notice.encode()).unwrap();
        let start = std::time::Instant::now();
        let mut ended = None;
        while ended.is_none() && start.elapsed() < std::time::Duration::from_millis(300) {
            ended = exchange.poll().iter().find_map(|event| event.ended());
        }
        assert_eq!(ended, ends);
    }
    exchange.abort(anybodys).unwrap();
}

/// What somebody said of an ended transfer, in a form that no sender of this version gives it, failed the landing that
/// had its slot by then.
#[test]
fn a_malformed_notice_of_an_ended_transfer_failed_the_next_landing_in_its_slot() {
    let columns = TOKENS / 16;
    let mut decode = Worker::open("D", "shm", model(GROUPED, 16), 1, 2 * columns);
    let (mut plane, peer, list) = by_hand(&mut decode, "shm", columns);
    let exchange = &mut decode.shards[0];
    let from = FarSide { shards: 1, block_tokens: 16, part_layers: 0 };
    let known = [exchange.peer("slow")];
    // Slots rest as long as they can: until the first one's is taken again.
    let mut ended: Option<dmaplane_kv::TransferId> = None;
    let (landing, manifest, stale) = loop {
        let (landing, manifests) = exchange.land(TOKENS, &from, &known, None).unwrap();
        let transfer = manifests[0].1.transfer;
        match ended {
            Some(ended) if ended.slot == transfer.slot => break (landing, manifests[0].1.clone(), ended),
            _ => exchange.abort(landing).unwrap(),
        }
        exchange.poll();
        ended = ended.or(Some(transfer));
        while plane.try_receive(&peer).unwrap().is_some() {}
    };
    assert_ne!(manifest.transfer, stale);
    let (other, other_manifests) = exchange.land(TOKENS, &from, &known, None).unwrap();
    let import = plane.import(&peer, &other_manifests[0].1.lease_token.0).unwrap();
    let pairs = layer_pairs(0, columns);
    // Too short, and with flags that there are not; the last one names the landing as it is now, and is believed.
    for (transfer, notice, ends) in
        [(stale, vec![], None), (stale, vec![0xff; 40], None), (manifest.transfer, vec![0xff; 40], Some(landing))]
    {
        plane.write_list(&list, &import, &pairs, transfer.pack(), &notice).unwrap();
        let start = std::time::Instant::now();
        let mut ended = None;
        while ended.is_none() && start.elapsed() < std::time::Duration::from_millis(300) {
            ended = exchange.poll().iter().find_map(|event| event.ended());
        }
        assert_eq!(ended, ends, "{transfer} with {notice:?}");
    }
    exchange.abort(other).unwrap();
}
