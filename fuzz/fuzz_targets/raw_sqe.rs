//! Raw SQEs, 64 bytes each, on a furnished plane: whatever they hold, the model holds and close() leaves nothing.
#![no_main]

use dmaplane_ring::abi::Sqe;
use dmaplane_sim::script::{EVEN, MOODY};
use dmaplane_sim::world::World;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut world = World::new(bytes.len() as u64, 2, EVEN);
    world.furnish().expect("a furnished world");
    for plane in &mut world.planes {
        plane.host.temper = MOODY;
    }
    for chunk in bytes.chunks_exact(64).take(64) {
        let mut words = [0; Sqe::WORDS];
        for (word, bytes) in words.iter_mut().zip(chunk.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        }
        // The model numbers SQEs by user_data; its bits steer the world instead.
        let steer = words[4];
        let (plane, ring) = (steer as usize & 1, (steer >> 1) as u32 & 1);
        world.submit(plane, ring, Sqe::from_words(words));
        if steer & 4 == 0 {
            world.turn(plane, ring).expect("the model");
        }
        for _ in 0..steer >> 3 & 7 {
            world.step().expect("the model");
        }
        if steer & 0xff00 == 0 {
            world.reap(plane, ring, usize::MAX);
        }
    }
    if bytes.len() & 64 == 0 {
        world.wind_down().expect("nothing is stuck");
    }
    world.finish().expect("nothing is left");
});
