//! Ends that nobody wished for: aborts between layers, workers that die and come back, leases that run out, and tokens
//! that a router has lost, changed or given to two.

mod workers;

use dmaplane_kv::exchange::{Event, Ticket};
use dmaplane_kv::transfer::TransferError;
use dmaplane_kv::{BlockTable, TransferManifest, digest};
use std::time::{Duration, Instant};
use workers::{GROUPED, LAYERS, Outcome, Worker, compute, connect, is_right, model, outcomes, routed, turn, turn_one};

const TOKENS: u32 = 40;
const BLOCKS: u32 = 6;

fn pair(fabric: &str) -> (Worker, Worker) {
    let mut source = Worker::open("P", fabric, model(GROUPED, 16), 1, BLOCKS);
    let mut destination = Worker::open("D", fabric, model(GROUPED, 16), 1, BLOCKS);
    connect(&mut source, &mut destination);
    (source, destination)
}

/// A landing and its push, with the source's blocks.
fn begin_push(source: &mut Worker, destination: &mut Worker) -> (Ticket, Ticket, BlockTable, TransferManifest) {
    let from = source.far_side(1);
    let known = destination.peers(0, source);
    let (landing, manifests) = destination.shards[0].land(TOKENS, &from, &known, None).unwrap();
    let table = source.shards[0].pool_mut().allocate(TOKENS).unwrap();
    let peer = source.peers(0, destination)[0].unwrap();
    let manifest = routed(&manifests[0].1);
    let push = source.shards[0].push(peer, &table, &manifest).unwrap();
    (landing, push, table, manifest)
}

/// Computes layers of a request and sends or announces them.
fn compute_layers(worker: &mut Worker, ticket: Ticket, table: &BlockTable, layers: std::ops::Range<u32>, pulls: bool) {
    for layer in layers {
        compute(worker.shards[0].pool_mut(), table, 1, layer);
        let exchange = &mut worker.shards[0];
        let sent = if pulls {
            exchange.ready_layers(ticket, layer..layer + 1, b"")
        } else {
            exchange.send_layers(ticket, layer..layer + 1, b"")
        };
        sent.unwrap();
    }
}

/// How two tickets end, the source's and the destination's.
fn ends(source: &mut Worker, destination: &mut Worker, of_source: Ticket, of_destination: Ticket) -> [Outcome; 2] {
    let (mut one, mut other) = (None, None);
    turn(source, destination, |source, destination| {
        let find =
            |events, ticket| outcomes(events).into_iter().find(|(ended, _)| ended.1 == ticket).map(|(_, end)| end);
        one = one.take().or(find(source.poll(), of_source));
        other = other.take().or(find(destination.poll(), of_destination));
        one.is_some() && other.is_some()
    });
    [one.unwrap(), other.unwrap()]
}

/// Both sides begin anew with all their blocks, and it goes well.
fn goes_well(source: &mut Worker, destination: &mut Worker) {
    let (landing, push, table, _) = begin_push(source, destination);
    compute_layers(source, push, &table, 0..LAYERS, false);
    let [pushed, landed] = ends(source, destination, push, landing);
    let Outcome::Whole(Some(landed), _) = landed else { panic!("{pushed:?}, {landed:?}") };
    is_right(destination.shards[0].pool(), &landed, 1).unwrap();
    destination.shards[0].pool_mut().release(landed).unwrap();
    source.shards[0].pool_mut().release(table).unwrap();
    for worker in [source, destination] {
        assert_eq!((worker.shards[0].pool().free_blocks(), worker.shards[0].in_flight()), (BLOCKS, 0));
    }
}

fn is_aborted(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(TransferError::Aborted { .. }))
}

#[test]
fn a_push_aborted_by_either_side_between_layers_frees_both_and_tells_the_other() {
    for fabric in ["shm", "tcp"] {
        let (mut source, mut destination) = pair(fabric);
        for by_receiver in [true, false] {
            for sent in 0..LAYERS {
                let (landing, push, table, _) = begin_push(&mut source, &mut destination);
                compute_layers(&mut source, push, &table, 0..sent, false);
                source.poll();
                destination.poll();
                source.shards[0].pool_mut().release(table).unwrap();
                if by_receiver {
                    destination.shards[0].abort(landing).unwrap();
                    assert_eq!(destination.shards[0].pool().free_blocks(), BLOCKS, "free when abort returns");
                } else {
                    source.shards[0].abort(push).unwrap();
                }
                let [pushed, landed] = ends(&mut source, &mut destination, push, landing);
                let (own, told) = if by_receiver { (landed, pushed) } else { (pushed, landed) };
                assert!(matches!(own, Outcome::Aborted), "{own:?}");
                assert!(is_aborted(&told), "{told:?}");
                goes_well(&mut source, &mut destination);
            }
        }
    }
}

#[test]
fn a_pull_aborted_by_either_side_between_layers_frees_both_and_tells_the_other() {
    for fabric in ["shm", "tcp"] {
        let (mut source, mut destination) = pair(fabric);
        for by_reader in [true, false] {
            for ready in 0..LAYERS {
                let table = source.shards[0].pool_mut().allocate(TOKENS).unwrap();
                let to = destination.far_side(1);
                let known = source.peers(0, &destination);
                let (offer, manifests) = source.shards[0].offer(&table, &to, &known, None).unwrap();
                let peer = destination.peers(0, &source)[0].unwrap();
                let pull = destination.shards[0].pull(&[(peer, &routed(&manifests[0].1))]).unwrap();
                compute_layers(&mut source, offer, &table, 0..ready, true);
                for _ in 0..ready {
                    source.poll();
                    destination.poll();
                }
                source.shards[0].pool_mut().release(table).unwrap();
                if by_reader {
                    destination.shards[0].abort(pull).unwrap();
                } else {
                    source.shards[0].abort(offer).unwrap();
                    assert_eq!(source.shards[0].pool().free_blocks(), BLOCKS, "free when abort returns");
                }
                let [offered, pulled] = ends(&mut source, &mut destination, offer, pull);
                let (own, told) = if by_reader { (pulled, offered) } else { (offered, pulled) };
                assert!(matches!(own, Outcome::Aborted), "{own:?}");
                assert!(is_aborted(&told), "{told:?}");
                goes_well(&mut source, &mut destination);
            }
        }
    }
}

/// Of who was aborted while it claimed a lease that is whoever's, the owner heard nothing that it believed: without a
/// time to live its blocks were leased for ever.
#[test]
fn an_abort_while_claiming_left_the_owner_s_blocks_leased() {
    for (fabric, polls) in [("shm", 0), ("tcp", 0), ("shm", 1), ("shm", 2), ("shm", 3), ("tcp", 3)] {
        for is_known in [false, true] {
            let (mut source, mut destination) = pair(fabric);
            let (from, to) = (source.far_side(1), destination.far_side(1));
            let (of_source, of_destination) = (source.peers(0, &destination), destination.peers(0, &source));
            let known = |peers: &[_]| vec![if is_known { peers[0] } else { None }];

            let landed = destination.shards[0].land(TOKENS, &from, &known(&of_destination), None);
            let (landing, manifests) = landed.unwrap();
            let table = source.shards[0].pool_mut().allocate(TOKENS).unwrap();
            let push = source.shards[0].push(of_source[0].unwrap(), &table, &routed(&manifests[0].1)).unwrap();
            for _ in 0..polls {
                source.poll();
                destination.poll();
            }
            source.shards[0].abort(push).unwrap();
            let [pushed, landed] = ends(&mut source, &mut destination, push, landing);
            assert!(matches!(pushed, Outcome::Aborted) && is_aborted(&landed), "{pushed:?}, {landed:?}");

            let (offer, manifests) = source.shards[0].offer(&table, &to, &known(&of_source), None).unwrap();
            let manifest = routed(&manifests[0].1);
            let pull = destination.shards[0].pull(&[(of_destination[0].unwrap(), &manifest)]).unwrap();
            for _ in 0..polls {
                source.poll();
                destination.poll();
            }
            destination.shards[0].abort(pull).unwrap();
            source.shards[0].pool_mut().release(table).unwrap();
            let [offered, pulled] = ends(&mut source, &mut destination, offer, pull);
            assert!(matches!(pulled, Outcome::Aborted) && is_aborted(&offered), "{pulled:?}, {offered:?}");
            goes_well(&mut source, &mut destination);
        }
    }
}

#[test]
fn a_worker_that_dies_ends_everything_with_it_and_comes_back_under_its_name() {
    for fabric in ["shm", "tcp"] {
        let (mut source, mut destination) = pair(fabric);
        let earlier = source.peers(0, &destination)[0].unwrap();
        let (_, push, table, stale) = begin_push(&mut source, &mut destination);
        compute_layers(&mut source, push, &table, 0..1, false);
        // The receiver dies with a landing under way.
        drop(destination);
        let (mut failed, mut gone) = (None, false);
        turn_one(&mut source, |source| {
            for (_, event) in source.poll() {
                match event {
                    Event::Failed { ticket, error } if ticket == push => failed = Some(error),
                    Event::Disconnected { peer, name, .. } => gone = (peer, name.as_str()) == (earlier, "D.0"),
                    other => panic!("{other:?}"),
                }
            }
            failed.is_some() && gone
        });
        assert!(failed.as_ref().is_some_and(TransferError::is_peer_gone), "{failed:?}");
        source.shards[0].pool_mut().release(table).unwrap();
        assert_eq!(source.shards[0].pool().free_blocks(), BLOCKS);

        // It comes back, elsewhere; what its earlier life has leased is refused by name.
        let mut destination = Worker::open("D", fabric, model(GROUPED, 16), 1, BLOCKS);
        connect(&mut source, &mut destination);
        let later = source.peers(0, &destination)[0].unwrap();
        assert_ne!(earlier, later);
        let table = source.shards[0].pool_mut().allocate(TOKENS).unwrap();
        let push = source.shards[0].push(later, &table, &stale).unwrap();
        turn(&mut source, &mut destination, |source, destination| {
            destination.poll();
            outcomes(source.poll()).into_iter().any(|(ended, outcome)| {
                assert!(matches!(outcome, Outcome::Failed(TransferError::OtherLife)), "{outcome:?}");
                ended.1 == push
            })
        });
        assert!(source.shards[0].push(earlier, &table, &stale).unwrap_err().is_peer_gone());
        source.shards[0].pool_mut().release(table).unwrap();
        goes_well(&mut source, &mut destination);

        // The sender dies with a landing open at the receiver.
        let (landing, push, table, _) = begin_push(&mut source, &mut destination);
        compute_layers(&mut source, push, &table, 0..2, false);
        source.poll();
        drop(source);
        turn_one(&mut destination, |destination| {
            outcomes(destination.poll()).into_iter().any(|(ended, outcome)| {
                assert!(matches!(&outcome, Outcome::Failed(error) if error.is_peer_gone()), "{outcome:?}");
                ended.1 == landing
            })
        });
        assert_eq!(destination.shards[0].pool().free_blocks(), BLOCKS);
    }
}

#[test]
fn a_landing_that_waits_lives_while_it_is_renewed_and_an_abandoned_one_gives_its_blocks_back() {
    for fabric in ["shm", "tcp"] {
        let (mut source, mut destination) = pair(fabric);
        let (from, to) = (source.far_side(0), destination.far_side(0));
        let (of_source, of_destination) = (source.peers(0, &destination), destination.peers(0, &source));
        let (ttl, start) = (Duration::from_millis(400), Instant::now());
        let (landing, manifests) = destination.shards[0].land(TOKENS, &from, &of_destination, Some(ttl)).unwrap();
        let (abandoned, stale) = destination.shards[0].land(TOKENS, &from, &of_destination, Some(ttl)).unwrap();
        let offered = source.shards[0].pool_mut().allocate(TOKENS).unwrap();
        let (offer, _) = source.shards[0].offer(&offered, &to, &of_source, Some(ttl)).unwrap();
        source.shards[0].pool_mut().release(offered).unwrap();
        assert_eq!(destination.shards[0].pool().free_blocks(), 0);
        let mut renewed = Instant::now();
        let mut expired = Vec::new();
        // Several times as long as it may wait without being renewed.
        while start.elapsed() < ttl * 3 {
            if renewed.elapsed() > ttl / 8 {
                destination.shards[0].renew(landing, ttl).unwrap();
                renewed = Instant::now();
            }
            for ((_, ticket), outcome) in outcomes(destination.poll()).into_iter().chain(outcomes(source.poll())) {
                assert!(matches!(outcome, Outcome::Failed(TransferError::Expired)), "{outcome:?}");
                assert!(start.elapsed() >= ttl, "too early");
                expired.push(ticket);
            }
            destination.shards[0].wait(Duration::from_millis(5));
        }
        expired.sort();
        let mut wanted = vec![abandoned, offer];
        wanted.sort();
        assert_eq!(expired, wanted);
        assert_eq!(destination.shards[0].pool().free_blocks(), BLOCKS / 2);
        assert_eq!(source.shards[0].pool().free_blocks(), BLOCKS);
        // The one that was abandoned takes nothing any more; the other one does.
        let table = source.shards[0].pool_mut().allocate(TOKENS).unwrap();
        let late = source.shards[0].push(of_source[0].unwrap(), &table, &stale[0].1).unwrap();
        let push = source.shards[0].push(of_source[0].unwrap(), &table, &manifests[0].1).unwrap();
        for layer in 0..LAYERS {
            compute(source.shards[0].pool_mut(), &table, 1, layer);
        }
        source.shards[0].send_layers(push, 0..LAYERS, b"").unwrap();
        let mut refused = None;
        let mut landed = None;
        turn(&mut source, &mut destination, |source, destination| {
            destination.shards[0].renew(landing, ttl * 100).ok();
            for ((_, ticket), outcome) in outcomes(source.poll()) {
                if ticket == late {
                    refused = Some(outcome);
                }
            }
            landed = landed.take().or(outcomes(destination.poll()).pop());
            refused.is_some() && landed.is_some()
        });
        assert!(matches!(&refused, Some(Outcome::Failed(error)) if error.is_aborted()), "{refused:?}");
        let Some((_, Outcome::Whole(Some(landed), _))) = landed else { panic!("{landed:?}") };
        is_right(destination.shards[0].pool(), &landed, 1).unwrap();
    }
}

#[test]
fn tokens_that_are_changed_shown_twice_or_stale_are_refused_by_name() {
    for fabric in ["shm", "tcp"] {
        let (mut source, mut destination) = pair(fabric);
        let mut second = Worker::open("Q", fabric, model(GROUPED, 16), 1, BLOCKS);
        connect(&mut second, &mut destination);
        // The router has not chosen yet: the lease is whoever's.
        let from = source.far_side(1);
        let (landing, manifests) = destination.shards[0].land(TOKENS, &from, &[None], None).unwrap();
        let bytes = manifests[0].1.encode().unwrap();
        assert!(!manifests[0].1.is_bound);

        // Damaged on its way.
        for place in [5, 20, bytes.len() - 100, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[place] ^= 4;
            assert!(TransferManifest::decode(&damaged).is_err(), "byte {place}");
        }
        // Changed by somebody who makes the digest right again.
        let mut forged = TransferManifest::decode(&bytes).unwrap();
        forged.lease_token.0[50] ^= 1;
        let forged = TransferManifest::decode(&forged.encode().unwrap()).unwrap();
        assert_ne!(digest::of_bytes(&forged.lease_token.0), digest::of_bytes(&manifests[0].1.lease_token.0));
        let push_of = |worker: &mut Worker, destination: &Worker, manifest: &TransferManifest| {
            let table = worker.shards[0].pool_mut().allocate(TOKENS).unwrap();
            let peer = worker.peers(0, destination)[0].unwrap();
            (worker.shards[0].push(peer, &table, manifest).unwrap(), table)
        };
        let (push, table) = push_of(&mut source, &destination, &forged);
        let refusal = |worker: &mut Worker, destination: &mut Worker, push: Ticket| {
            let mut error = None;
            turn(worker, destination, |worker, destination| {
                assert!(outcomes(destination.poll()).is_empty(), "the landing goes on");
                error = outcomes(worker.poll()).into_iter().find(|(ended, _)| ended.1 == push);
                error.is_some()
            });
            match error {
                Some((_, Outcome::Failed(error))) => error,
                other => panic!("{other:?}"),
            }
        };
        let error = refusal(&mut source, &mut destination, push);
        assert!(matches!(error, TransferError::Rejected { .. }), "{error}");
        source.shards[0].pool_mut().release(table).unwrap();

        // The first to show the token has the lease; the second is refused, and the first goes on.
        let manifest = TransferManifest::decode(&bytes).unwrap();
        let (push, table) = push_of(&mut source, &destination, &manifest);
        compute_layers(&mut source, push, &table, 0..1, false);
        let patience = Instant::now();
        while patience.elapsed() < Duration::from_millis(200) {
            source.poll();
            destination.poll();
        }
        let (replay, replayed) = push_of(&mut second, &destination, &manifest);
        let error = refusal(&mut second, &mut destination, replay);
        assert!(matches!(error, TransferError::Rejected { .. }), "{error}");
        second.shards[0].pool_mut().release(replayed).unwrap();
        compute_layers(&mut source, push, &table, 1..LAYERS, false);
        let [pushed, landed] = ends(&mut source, &mut destination, push, landing);
        let Outcome::Whole(Some(landed), _) = landed else { panic!("{pushed:?}, {landed:?}") };
        is_right(destination.shards[0].pool(), &landed, 1).unwrap();
        destination.shards[0].pool_mut().release(landed).unwrap();
        source.shards[0].pool_mut().release(table).unwrap();

        // After the end it is of no use to anybody.
        let (push, table) = push_of(&mut source, &destination, &manifest);
        let error = refusal(&mut source, &mut destination, push);
        assert!(error.is_aborted(), "{error}");
        source.shards[0].pool_mut().release(table).unwrap();
        goes_well(&mut source, &mut destination);
    }
}

#[test]
fn an_offer_is_read_by_whoever_first_shows_its_token() {
    let (mut source, mut destination) = pair("shm");
    let table = source.shards[0].pool_mut().allocate(TOKENS).unwrap();
    let to = destination.far_side(2);
    let (offer, manifests) = source.shards[0].offer(&table, &to, &[None], None).unwrap();
    compute_layers(&mut source, offer, &table, 0..LAYERS, true);
    let peer = destination.peers(0, &source)[0].unwrap();
    let pull = destination.shards[0].pull(&[(peer, &routed(&manifests[0].1))]).unwrap();
    let [served, pulled] = ends(&mut source, &mut destination, offer, pull);
    assert!(matches!(served, Outcome::Whole(None, _)), "{served:?}");
    let Outcome::Whole(Some(pulled), _) = pulled else { panic!("{pulled:?}") };
    is_right(destination.shards[0].pool(), &pulled, 1).unwrap();
    // And by nobody else: neither by a second reader, nor again.
    let again = destination.shards[0].pull(&[(peer, &routed(&manifests[0].1))]).unwrap();
    turn(&mut source, &mut destination, |source, destination| {
        source.poll();
        outcomes(destination.poll()).into_iter().any(|(ended, outcome)| {
            assert!(matches!(&outcome, Outcome::Failed(error) if error.is_aborted()), "{outcome:?}");
            ended.1 == again
        })
    });
}
