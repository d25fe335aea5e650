//! SEC-4, INB-1: a peer that says anything, in any order: it may lose its connection and nothing else may happen.
#![no_main]

use dmaplane_engine::{Event, Message, WIRE_WORDS};
use dmaplane_sim::host::Freight;
use dmaplane_sim::script::EVEN;
use dmaplane_sim::world::World;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut world = World::new(0, 2, EVEN);
    let [ours, theirs] = world.furnish().expect("a furnished world");
    world.hostile = true;
    for chunk in bytes.chunks_exact(40).take(64) {
        let word = |at: usize| u64::from_le_bytes(chunk[at..at + 8].try_into().expect("eight bytes"));
        let steer = chunk[1];
        // Handles that mean something come up often enough; the rest is the fuzzer's.
        let named = |word: u64| match word % 9 {
            0 => ours.lease.handle().bits(),
            1 => ours.list_lease.handle().bits(),
            2 => ours.import.handle().bits(),
            3 => theirs.lease.handle().bits(),
            4 => world.planes[0].host.posted.keys().next_back().copied().unwrap_or(word),
            5 => word % 4096,
            _ => word,
        };
        let mut words = [0; WIRE_WORDS];
        words[0] = u64::from(chunk[0]) | word(0) & 0xffff_ffff_0000_0000 | u64::from(steer & 1) << 8;
        (words[1], words[2], words[3]) = (named(word(8)), named(word(16)), named(word(24)));
        (words[4], words[5]) = (named(word(32)) % 8192, u64::from(steer >> 1));
        world.submit_composed(0, 1, [chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7], steer]);
        world.turn(0, 1).expect("the model");
        world.reap(0, 1, usize::MAX);
        let Some(message) = Message::decode(&words) else {
            continue;
        };
        let plane = &mut world.planes[0];
        let Some(peer) = plane.host.peers.values().find(|peer| !peer.gone && peer.handle == ours.peer.handle()) else {
            break;
        };
        let peer = peer.handle;
        let frame = match message {
            Message::Request(request) => {
                let payload = vec![7; request.payload_bytes as usize & 0xffff];
                let pairs = vec![(0, 3); (request.length % 64) as usize];
                let bytes = Some(vec![9; (request.length % 8192) as usize]);
                let op = dmaplane_engine::OpId::from_bits(request.op);
                plane.host.frame(peer.index(), Freight { request, payload, pairs, op, bytes })
            }
            _ => 0,
        };
        plane.engine.handle(&mut plane.host, Event::Message { peer, frame, message });
        world.after(0).expect("the contract");
        for _ in 0..steer >> 4 {
            world.step().expect("the model");
        }
    }
    world.finish().expect("nothing is left");
});
