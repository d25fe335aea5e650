//! What connections do to transfers and to each other: sources that leave when they are done, peers that accept and
//! hang up, peers that are told more than they take.

mod workers;

use dmaplane::{Config, Plane};
use dmaplane_kv::exchange::Event;
use dmaplane_kv::transfer::TransferError;

use std::time::{Duration, Instant};
use workers::{GROUPED, LAYERS, Outcome, PATIENCE, Worker, compute, connect, model, outcomes, routed, turn, turn_one};

const TOKENS: u32 = 40;
const BLOCKS: u32 = 6;

/// Pushes every layer of one source shard's half to a landing, until the source says that it is done.
fn push_half(source: &mut Worker, shard: usize, destination: &mut Worker, manifest: &dmaplane_kv::TransferManifest) {
    let table = source.shards[shard].pool_mut().allocate(TOKENS).unwrap();
    let peer = source.peers(shard, destination)[0].unwrap();
    let push = source.shards[shard].push(peer, &table, &routed(manifest)).unwrap();
    for layer in 0..LAYERS {
        compute(source.shards[shard].pool_mut(), &table, 1, layer);
        source.shards[shard].send_layers(push, layer..layer + 1, b"").unwrap();
    }
    turn_one(source, |source| {
        outcomes(source.poll()).into_iter().any(|(ended, outcome)| {
            assert!(matches!(outcome, Outcome::Whole(..)), "{outcome:?}");
            ended == (shard, push)
        })
    });
}

#[test]
fn a_source_that_leaves_after_its_leg_failed_the_landing_of_the_others() {
    for fabric in ["shm", "tcp"] {
        let mut source = Worker::open("P", fabric, model(GROUPED, 16), 2, BLOCKS);
        let mut destination = Worker::open("D", fabric, model(GROUPED, 16), 1, BLOCKS);
        connect(&mut source, &mut destination);
        let known = destination.peers(0, &source);
        let from = source.far_side(1);
        let (landing, manifests) = destination.shards[0].land(TOKENS, &from, &known, None).unwrap();
        push_half(&mut source, 0, &mut destination, &manifests[0].1);
        // What the first has sent is counted before it goes.
        for _ in 0..10 {
            assert!(outcomes(destination.poll()).is_empty());
            source.poll();
        }
        source.shards[0].hang_up("D.0");
        turn_one(&mut destination, |destination| {
            let mut is_gone = false;
            for (_, event) in destination.poll() {
                assert!(!matches!(event, Event::Failed { .. }), "{event:?}");
                is_gone |= matches!(&event, Event::Disconnected { name, .. } if name == "P.0");
            }
            is_gone
        });
        push_half(&mut source, 1, &mut destination, &manifests[1].1);
        let mut landed = None;
        turn(&mut source, &mut destination, |source, destination| {
            source.poll();
            let ended = outcomes(destination.poll()).into_iter().find(|(ended, _)| ended.1 == landing);
            landed = landed.take().or(ended);
            landed.is_some()
        });
        let Some((_, Outcome::Whole(Some(table), _))) = landed else { panic!("{landed:?}") };
        workers::is_right(destination.shards[0].pool(), &table, 1).unwrap();
        destination.shards[0].pool_mut().release(table).unwrap();
        assert_eq!(destination.shards[0].pool().free_blocks(), BLOCKS);
    }
}

/// Polls both for a while; how often each was connected to somebody or lost somebody.
fn changes(one: &mut Worker, other: &mut Worker, time: Duration) -> usize {
    let (mut changes, start) = (0, Instant::now());
    while start.elapsed() < time {
        for (_, event) in one.poll().into_iter().chain(other.poll()) {
            changes += usize::from(matches!(event, Event::Connected { .. } | Event::Disconnected { .. }));
        }
        std::thread::yield_now();
    }
    changes
}

#[test]
fn two_that_dial_each_other_ended_each_other_s_connections_for_ever() {
    for (fabric, head_start) in [("shm", 0), ("tcp", 0), ("shm", 1), ("shm", 3), ("tcp", 20)] {
        let mut one = Worker::open("A", fabric, model(GROUPED, 16), 1, BLOCKS);
        // The second time one of them has died, and comes back as the other one dials it.
        for _ in 0..2 {
            let mut other = Worker::open("B", fabric, model(GROUPED, 16), 1, BLOCKS);
            one.dial(&other);
            (0..head_start).for_each(|_| drop(one.poll()));
            other.dial(&one);
            // Until nothing has changed for a while: on a busy machine the last end of a connection is heard of late.
            let start = Instant::now();
            while changes(&mut one, &mut other, Duration::from_millis(300)) > 0 || one.peers(0, &other)[0].is_none() {
                assert!(start.elapsed() < Duration::from_secs(20), "{fabric}: it never comes to rest");
            }
            let peers = (one.peers(0, &other)[0], other.peers(0, &one)[0]);
            let (Some(to_other), Some(to_one)) = peers else { panic!("{fabric}: not connected: {peers:?}") };
            one.shards[0].send(to_other, b"from one").unwrap();
            other.shards[0].send(to_one, b"from the other").unwrap();
            let mut heard = Vec::new();
            turn(&mut one, &mut other, |one, other| {
                for (_, event) in one.poll().into_iter().chain(other.poll()) {
                    match event {
                        Event::Message { bytes, .. } => heard.push(bytes),
                        // One that never said its name is none that they keep.
                        Event::Disconnected { ref name, .. } if name != "A.0" && name != "B.0" => {}
                        event => panic!("{event:?}"),
                    }
                }
                heard.len() == 2
            });
        }
    }
}

#[test]
fn who_accepts_and_hangs_up_was_dialled_in_a_tight_loop() {
    let mut source = Worker::open("P", "shm", model(GROUPED, 16), 1, BLOCKS);
    let mut plane = Plane::open(Config::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (listener, address) = plane.listen(&format!("shm:{}", directory.path().join("x").display())).unwrap();
    source.shards[0].dial("D.0", &address);
    let (mut accepting, mut met) = (plane.start_accept(&listener).unwrap(), 0);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(400) {
        source.poll();
        let Some(ended) = accepting.poll(&mut plane) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        plane.disconnect(ended.unwrap()).unwrap();
        met += 1;
        accepting = plane.start_accept(&listener).unwrap();
    }
    // At once, and 10, 30, 70, 150 and 310 ms later.
    assert!((2..=6).contains(&met), "dialled {met} times in 400 ms");
}

#[test]
fn messages_to_a_peer_that_takes_none_grew_without_bound() {
    let mut source = Worker::open("P", "shm", model(GROUPED, 16), 1, BLOCKS);
    let mut destination = Worker::open("D", "shm", model(GROUPED, 16), 1, BLOCKS);
    connect(&mut source, &mut destination);
    let peer = source.peers(0, &destination)[0].unwrap();
    let (mut sent, message) = (0, [7; 1000]);
    let error = loop {
        match source.shards[0].send(peer, &message) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(source.poll().is_empty());
        assert!(sent < 10_000, "everything is kept for a peer that takes nothing");
    };
    assert!(matches!(&error, TransferError::Overrun { name, .. } if name == "D.0"), "{error}");
    // It was only slow: everything arrives, in order, and there is room again.
    let mut came = 0;
    turn(&mut source, &mut destination, |source, destination| {
        source.poll();
        came += destination.poll().iter().filter(|(_, event)| matches!(event, Event::Message { .. })).count();
        came == sent
    });
    source.shards[0].send(peer, &message).unwrap();
}

#[test]
fn answers_to_a_peer_that_takes_none_grew_without_bound() {
    let mut worker = Worker::open("P", "shm", model(GROUPED, 16), 1, BLOCKS);
    let mut plane = Plane::open(Config::default()).unwrap();
    let address = worker.addresses[0].clone();
    let mut connecting = plane.start_connect(&address).unwrap();
    let mut peer = None;
    turn_one(&mut worker, |worker| {
        worker.poll();
        peer = peer.take().or_else(|| connecting.poll(&mut plane).map(Result::unwrap));
        peer.is_some()
    });
    let peer = peer.unwrap();
    // Claims of landings that there are not: each is answered, and no answer is read.
    let claim = [&b"DPKX"[..], &[2, 0], &7u32.to_le_bytes()].concat();
    let message = [&(claim.len() as u16).to_le_bytes()[..], &claim].concat().repeat(300);
    let mut error = None;
    let mut sending = None;
    turn_one(&mut worker, |worker| {
        for (_, event) in worker.poll() {
            let Event::Disconnected { error: of, .. } = event else { panic!("{event:?}") };
            error = Some(of);
        }
        let mut sent = sending.take().or_else(|| plane.start_send(&peer, &message).ok());
        if sent.as_mut().is_some_and(|sent| sent.poll(&mut plane).is_none()) {
            sending = sent;
        }
        error.is_some()
    });
    assert!(matches!(&error, Some(TransferError::Overrun { .. })), "{error:?}");
}

#[test]
fn a_claim_that_found_no_room_on_the_ring_failed_its_transfer() {
    let mut source = Worker::open("P", "shm", model(GROUPED, 16), 1, BLOCKS);
    let mut destination = Worker::open("D", "shm", model(GROUPED, 16), 1, BLOCKS);
    connect(&mut source, &mut destination);
    let (of_source, of_destination) = (source.peers(0, &destination), destination.peers(0, &source));
    // Messages to somebody who reads none take the ring's share of operations with peers (clause RES-6).
    let directory = tempfile::tempdir().unwrap();
    let address = format!("shm:{}", directory.path().join("x").display());
    let mut idle = Plane::open(Config::default()).unwrap();
    let (listener, _) = idle.listen(&address).unwrap();
    let to_idle = source.shards[0].plane().connect(&address, PATIENCE).unwrap();
    let from = idle.accept(&listener, PATIENCE).unwrap();
    let plane = source.shards[0].plane();
    let mut sends: Vec<_> = (0..800).map(|_| plane.start_send(&to_idle, b"wait").unwrap()).collect();

    let (landing, manifests) = destination.shards[0].land(TOKENS, &source.far_side(1), &of_destination, None).unwrap();
    let table = source.shards[0].pool_mut().allocate(TOKENS).unwrap();
    let push = source.shards[0].push(of_source[0].unwrap(), &table, &routed(&manifests[0].1)).unwrap();
    let theirs = destination.shards[0].pool_mut().allocate(TOKENS).unwrap();
    let to = source.far_side(1);
    let (offer, offered) = destination.shards[0].offer(&theirs, &to, &of_destination, None).unwrap();
    let pull = source.shards[0].pull(&[(of_source[0].unwrap(), &routed(&offered[0].1))]).unwrap();
    for layer in 0..LAYERS {
        compute(source.shards[0].pool_mut(), &table, 1, layer);
        source.shards[0].send_layers(push, layer..layer + 1, b"").unwrap();
        compute(destination.shards[0].pool_mut(), &theirs, 2, layer);
        destination.shards[0].ready_layers(offer, layer..layer + 1, b"").unwrap();
    }
    for _ in 0..50 {
        let ended = [outcomes(source.poll()), outcomes(destination.poll())];
        assert!(ended.iter().all(Vec::is_empty), "{ended:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    // There is room again, and it goes on.
    let mut missing = vec![push, pull];
    let mut waiting = vec![landing, offer];
    turn(&mut source, &mut destination, |source, destination| {
        while idle.try_receive(&from).unwrap().is_some() {}
        sends.retain_mut(|send| send.poll(source.shards[0].plane()).is_none());
        for (events, tickets) in [(source.poll(), &mut missing), (destination.poll(), &mut waiting)] {
            for (ended, outcome) in outcomes(events) {
                assert!(matches!(outcome, Outcome::Whole(..)), "{outcome:?}");
                tickets.retain(|ticket| *ticket != ended.1);
            }
        }
        missing.is_empty() && waiting.is_empty()
    });
}
