//! A late layer never lands (clause LSE-12): a sender that has not heard of the abort writes its next layer, after the
//! blocks were given to another request. Built with the feature `broken-no-lease-check` this must fail: it is its own
//! negative control (`cargo xtask test defects`).

mod workers;

use dmaplane::{Config, IndexPair, Plane, Run};
use dmaplane_kv::exchange::FarSide;
use workers::{GROUPED, LAYERS, Worker, compute, is_right, model};

const TOKENS: u32 = 48;
const ROUNDS: u64 = 20;

fn late_layers(fabric: &str) {
    // Room for one request only: the next one has the very same blocks.
    let mut decode = Worker::open("D", fabric, model(GROUPED, 16), 1, TOKENS / 16);
    // A sender that listens to nobody.
    let mut plane = Plane::open(Config::default()).unwrap();
    let connecting = plane.start_connect(&decode.addresses[0]).unwrap();
    let mut connecting = Some(connecting);
    let mut peer = None;
    workers::turn_one(&mut decode, |decode| {
        decode.poll();
        if let Some(waiting) = &mut connecting
            && let Some(connected) = waiting.poll(&mut plane)
        {
            peer = Some(connected.unwrap());
            connecting = None;
            plane.start_send(peer.as_ref().unwrap(), b"\x09\0DPKX\0slow").map(drop).unwrap();
        }
        decode.shards[0].peer("slow").is_some()
    });
    let peer = peer.unwrap();
    let geometry = *decode.shards[0].pool().geometry();
    let columns = TOKENS / 16;
    let (fragment, count) = (geometry.layout().bytes_per_block_plane(), LAYERS * 2 * columns);
    let mut buffer = plane.alloc(fragment * u64::from(count)).unwrap();
    buffer.as_mut_slice().fill(0xaa);
    let run = Run { length_bytes: fragment as u32, stride_bytes: fragment, count, ..Run::default() };
    let list = plane.prepare_list(vec![buffer], &[(0, run)]).unwrap();
    // The lease's list goes through fragments of tokens first, then through planes.
    let layer_pairs = |layer: u32| -> Vec<IndexPair> {
        let planes = layer * 2..layer * 2 + 2;
        let all = planes.flat_map(|plane| (0..columns).map(move |column| column * LAYERS * 2 + plane));
        all.map(|segment| IndexPair { local: segment, remote: segment }).collect()
    };

    for request in 0..ROUNDS {
        let exchange = &mut decode.shards[0];
        let from = FarSide { shards: 1, block_tokens: 16, part_layers: 1 };
        let known = [exchange.peer("slow")];
        let (landing, manifests) = exchange.land(TOKENS, &from, &known, None).unwrap();
        let manifest = &manifests[0].1;
        let import = plane.import(&peer, &manifest.lease_token.0).unwrap();
        let immediate = manifest.transfer.pack();
        plane.write_list(&list, &import, &layer_pairs(0), immediate, b"").unwrap();
        // Between two layers: the blocks are free at once, and another request's at once.
        exchange.abort(landing).unwrap();
        assert_eq!(exchange.pool().free_blocks(), TOKENS / 16);
        let table = exchange.pool_mut().allocate(TOKENS).unwrap();
        (0..LAYERS).for_each(|layer| compute(exchange.pool_mut(), &table, request, layer));
        let late = plane.write_list(&list, &import, &layer_pairs(1), immediate, b"");
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
fn lse_12_a_late_layer_does_not_land_in_reused_blocks_over_tcp() {
    late_layers("tcp");
}
