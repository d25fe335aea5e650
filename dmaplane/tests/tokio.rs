//! Operations as futures: whatever is dropped, and whenever, nothing is lost, leaked or left hanging.

use dmaplane::asynchronous::{AsyncPeer, AsyncPlane};
use dmaplane::{Buffer, Config, Errno, Error, Import, IndexPair, Leased, Limits, Plane, Rights, Run, RunMode, Usage};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

const LIMIT: Duration = Duration::from_secs(60);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn run(test: impl Future<Output = ()>) {
    runtime().block_on(async { timeout(LIMIT, test).await.expect("it hangs") });
}

struct Pair {
    one: AsyncPlane,
    other: AsyncPlane,
    to_other: AsyncPeer,
    to_one: AsyncPeer,
    /// Of one and of the other, with nothing under way.
    usage: [Usage; 2],
}

async fn pair_in(mode: RunMode, fabric: &str) -> Pair {
    let directory = tempfile::tempdir().unwrap();
    let address = match fabric {
        "shm" => format!("shm:{}", directory.path().join("x").display()),
        _ => "tcp:127.0.0.1:0".to_owned(),
    };
    let config = || Config { mode, ..Config::default() };
    let (one, other) = (AsyncPlane::open(config()).unwrap(), AsyncPlane::open(config()).unwrap());
    let (listener, address) = one.listen(&address).unwrap();
    let (to_other, to_one) = tokio::try_join!(one.accept(&listener), other.connect(&address)).unwrap();
    // What connecting needed is on its way back.
    let usage = |usage: Usage| Usage { operations: 16, buffers: 2, leases: 0, imports: 0, ..usage };
    let usage = [usage(one.usage()), usage(other.usage())];
    let pair = Pair { one, other, to_other, to_one, usage };
    settles(&pair).await;
    pair
}

async fn pair(fabric: &str) -> Pair {
    pair_in(Config::default().mode, fabric).await
}

/// Nothing is in use but what was at the beginning.
async fn settles(pair: &Pair) {
    let start = Instant::now();
    while [pair.one.usage(), pair.other.usage()] != pair.usage {
        let now = [pair.one.usage(), pair.other.usage()];
        assert!(start.elapsed() < Duration::from_secs(20), "left: {now:?}, not {:?}", pair.usage);
        sleep(Duration::from_millis(1)).await;
    }
}

async fn lease(pair: &Pair, length: u64, rights: Rights) -> (Leased<Buffer>, Import) {
    let buffer = pair.one.alloc(length).await.unwrap();
    let leased = pair.one.grant(buffer, rights).await.unwrap();
    let token = pair.one.token(&leased).await.unwrap();
    let import = pair.other.import(&pair.to_one, &token).await.unwrap();
    (leased, import)
}

/// One poll, and no more.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// Takes a peer's credits away, so that what needs one waits for as long as we like.
async fn without_credit(pair: &Pair) {
    for number in 0..16u8 {
        pair.to_one.send(&[number]).await.unwrap();
    }
}

const MODES: [RunMode; 3] = [RunMode::Poller { idle: Duration::from_micros(200) }, RunMode::Inline, RunMode::Enter];

#[test]
fn a_transfer_dropped_before_its_first_poll_begins() {
    run(async {
        let pair = pair("shm").await;
        let (leased, import) = lease(&pair, 4096, Rights::WRITE).await;
        let mut source = pair.other.alloc(4096).await.unwrap();
        source.as_mut_slice().fill(9);
        drop(pair.other.write(source, 0, &import, 0, 4096));
        drop(pair.other.alloc(1 << 20));
        drop(pair.to_one.send(b"nothing"));
        drop(import);
        sleep(Duration::from_millis(20)).await;
        let buffer = pair.one.revoke(leased).await.unwrap();
        assert!(buffer.as_slice().iter().all(|&byte| byte == 0));
        // A revoke that never began leaves a lease that is dropped.
        let leased = pair.one.grant(buffer, Rights::WRITE).await.unwrap();
        drop(pair.one.revoke(leased));
        settles(&pair).await;
    });
}

#[test]
fn a_transfer_dropped_between_its_end_and_the_next_poll_leaks() {
    run(async {
        for mode in MODES {
            let pair = pair_in(mode, "shm").await;
            for _ in 0..20 {
                let (leased, import) = lease(&pair, 4096, Rights::WRITE).await;
                let source = pair.other.alloc(4096).await.unwrap();
                let mut write = Box::pin(pair.other.write_imm(source, 0, &import, 0, 4096, 5));
                let polled = poll_once(write.as_mut()).await;
                assert_eq!(pair.to_other.receive().await.unwrap().immediate, Some(5));
                sleep(Duration::from_millis(2)).await;
                drop((polled, write));
                // The same for what makes something, and for what ends something.
                let mut alloc = Box::pin(pair.one.alloc(4096));
                let polled = poll_once(alloc.as_mut()).await;
                sleep(Duration::from_millis(2)).await;
                drop((polled, alloc));
                let mut revoke = Box::pin(pair.one.revoke(leased));
                let polled = poll_once(revoke.as_mut()).await;
                sleep(Duration::from_millis(2)).await;
                drop((polled, revoke, import));
            }
            settles(&pair).await;
        }
    });
}

/// CTL-9: what waits for credit is cancelled; its memory comes back by `cancel`, and is freed otherwise.
#[test]
fn a_dropped_transfer_that_waits_goes_on_waiting() {
    run(async {
        for fabric in ["shm", "tcp"] {
            let pair = pair(fabric).await;
            without_credit(&pair).await;
            let (leased, import) = lease(&pair, 4096, Rights::WRITE).await;
            for _ in 0..100 {
                let source = pair.other.alloc(4096).await.unwrap();
                let write = pair.other.write_imm(source, 0, &import, 0, 4096, 1);
                timeout(Duration::from_micros(300), write).await.unwrap_err();
                timeout(Duration::from_micros(300), pair.to_one.send(b"late")).await.unwrap_err();
            }
            let source = pair.other.alloc(4096).await.unwrap();
            let mut write = pair.other.write_imm(source, 0, &import, 0, 4096, 1);
            timeout(Duration::from_millis(1), &mut write).await.unwrap_err();
            write.cancel();
            let failed = write.await.unwrap_err();
            assert_eq!(failed.error.errno(), Some(Errno::ECANCELED));
            assert_eq!(failed.memory.expect("the buffer comes back").len(), 4096);
            for number in 0..16u8 {
                assert_eq!(pair.to_other.receive().await.unwrap().payload, [number]);
            }
            // Not one of the dropped ones comes after them.
            timeout(Duration::from_millis(20), pair.to_other.receive()).await.unwrap_err();
            pair.to_one.send(b"next").await.unwrap();
            assert_eq!(pair.to_other.receive().await.unwrap().payload, b"next");
            drop((leased, import));
            settles(&pair).await;
        }
    });
}

/// LSE-12: a leased buffer stays leased until its revoke has ended, whoever waits for it.
#[test]
fn a_dropped_revoke_frees_memory_that_a_peer_still_writes_to() {
    const LENGTH: u64 = 16 << 20;
    run(async {
        for fabric in ["shm", "tcp"] {
            let pair = pair(fabric).await;
            for round in 0..10u64 {
                let (leased, import) = lease(&pair, LENGTH, Rights::WRITE).await;
                let source = pair.other.alloc(LENGTH).await.unwrap();
                let write = tokio::spawn(pair.other.write(source, 0, &import, 0, LENGTH));
                sleep(Duration::from_micros(500 * round)).await;
                let grace = Duration::from_millis(round % 2 * 500);
                let mut revoke = Box::pin(pair.one.revoke_gracefully(leased, grace));
                let at_once = poll_once(revoke.as_mut()).await.is_ready();
                let leases = pair.one.usage();
                // Either it has ended, or lease and buffer are both still there.
                assert!(at_once || leases.leases == 0 || leases.buffers > 2, "{leases:?}");
                drop(revoke);
                let written = write.await.unwrap();
                assert!(written.is_ok() || written.unwrap_err().error.errno().is_some());
            }
            settles(&pair).await;
        }
    });
}

#[test]
fn a_dropped_connect_or_accept_leaves_a_connection() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let address = format!("shm:{}", directory.path().join("x").display());
        let (one, other) = (AsyncPlane::open(Config::default()).unwrap(), AsyncPlane::open(Config::default()).unwrap());
        let (listener, _) = one.listen(&address).unwrap();
        let usage = [one.usage(), other.usage()];
        for round in 0..60u64 {
            // Cut off anywhere: one side may be there already.
            let accept = timeout(Duration::from_micros(round * 20), one.accept(&listener));
            let connect = timeout(Duration::from_micros(round * 17), other.connect(&address));
            drop(tokio::join!(accept, connect));
        }
        // Those that came to nobody are taken and let go.
        while let Ok(peer) = timeout(Duration::from_millis(200), one.accept(&listener)).await {
            drop(peer);
        }
        let start = Instant::now();
        while [one.usage(), other.usage()] != usage {
            assert!(start.elapsed() < Duration::from_secs(10), "{:?} {:?}", one.usage(), other.usage());
            sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn a_dropped_peer_of_an_asynchronous_plane_stays_connected() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let address = format!("shm:{}", directory.path().join("x").display());
        let (one, other) = (AsyncPlane::open(Config::default()).unwrap(), AsyncPlane::open(Config::default()).unwrap());
        let (listener, _) = one.listen(&address).unwrap();
        let usage = [one.usage(), other.usage()];
        for round in 0..100u8 {
            let (to_other, to_one) = tokio::try_join!(one.accept(&listener), other.connect(&address)).unwrap();
            let message = [round];
            tokio::try_join!(to_one.send(&message), to_other.send(&message)).unwrap();
            assert_eq!(to_other.receive().await.unwrap().payload, [round]);
            assert_eq!(to_one.receive().await.unwrap().payload, [round]);
            match round % 3 {
                0 => drop(to_other),
                1 => to_other.disconnect().await.unwrap(),
                _ => drop(Box::pin(to_other.disconnect())),
            }
            assert!(to_one.receive().await.unwrap_err().is_disconnect());
        }
        while [one.usage(), other.usage()] != usage {
            sleep(Duration::from_millis(1)).await;
        }
    });
}

/// RES-4: there is room for the receives of 92 peers; a further one is said to be too many.
#[test]
fn a_93rd_peer_waits_for_ever_for_its_receives() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let address = format!("shm:{}", directory.path().join("x").display());
        let config = || Config { limits: Limits { peers: 128, ..Config::default().limits }, ..Config::default() };
        let (one, other) = (AsyncPlane::open(config()).unwrap(), AsyncPlane::open(config()).unwrap());
        let (listener, _) = one.listen(&address).unwrap();
        let mut peers = Vec::new();
        for number in 0..92u8 {
            let (to_other, to_one) = tokio::try_join!(one.accept(&listener), other.connect(&address)).unwrap();
            to_one.send(&[number]).await.unwrap();
            assert_eq!(to_other.receive().await.unwrap().payload, [number]);
            peers.push((to_other, to_one));
        }
        let (accepted, connected) = tokio::join!(one.accept(&listener), other.connect(&address));
        assert_eq!(accepted.unwrap_err().errno(), Some(Errno::ENOBUFS));
        assert_eq!(connected.unwrap_err().errno(), Some(Errno::ENOBUFS));
        peers.pop();
        let (to_other, to_one) = tokio::try_join!(one.accept(&listener), other.connect(&address)).unwrap();
        to_one.send(b"room").await.unwrap();
        assert_eq!(to_other.receive().await.unwrap().payload, b"room");
    });
}

/// The runtime goes with operations of every kind in flight: whoever is left is told, and the context's other planes
/// find nothing leaked.
#[test]
fn a_runtime_s_end_hangs_or_leaks() {
    for fabric in ["shm", "tcp"] {
        for shutdown in [false, true] {
            let start = Instant::now();
            // Planes that live on, one of each context.
            let mut blocking = [Plane::open(Config::default()).unwrap(), Plane::open(Config::default()).unwrap()];
            let before = blocking.each_ref().map(Plane::usage);
            let first = runtime();
            let (kept, peer) = first.block_on(async {
                let directory = tempfile::tempdir().unwrap();
                let address = match fabric {
                    "shm" => format!("shm:{}", directory.path().join("x").display()),
                    _ => "tcp:127.0.0.1:0".to_owned(),
                };
                let [one, other] = blocking.each_ref().map(|plane| AsyncPlane::beside(plane).unwrap());
                let (listener, address) = one.listen(&address).unwrap();
                let (to_other, to_one) = tokio::try_join!(one.accept(&listener), other.connect(&address)).unwrap();
                let usage = [one.usage(), other.usage()];
                let pair = Pair { one, other, to_other, to_one, usage };
                for round in 0..40u64 {
                    let (leased, import) = lease(&pair, 4 << 20, Rights::WRITE.with(Rights::READ)).await;
                    let memory = pair.other.alloc(4 << 20).await.unwrap();
                    let plane = pair.other.clone();
                    let owner = pair.one.clone();
                    tokio::spawn(async move {
                        match round % 3 {
                            0 => drop(plane.write(memory, 0, &import, 0, 4 << 20).await),
                            1 => drop(plane.read(memory, 0, &import, 0, 4 << 20).await),
                            _ => drop(plane.write_imm(memory, 0, &import, 0, 4 << 20, 1).await),
                        }
                        // Never reached by all.
                        drop(owner.revoke(leased).await);
                    });
                }
                tokio::spawn(async move { drop(pair.to_other.receive().await) });
                tokio::task::yield_now().await;
                (pair.other.clone(), pair.to_one)
            });
            match shutdown {
                false => drop(first),
                true => first.shutdown_timeout(Duration::from_secs(5)),
            }
            runtime().block_on(async {
                let closed = |error: Error| assert!(matches!(error, Error::Closed { .. }), "{error}");
                closed(kept.alloc(4096).await.unwrap_err());
                closed(peer.receive().await.unwrap_err());
                closed(peer.send(b"x").await.unwrap_err());
            });
            drop((kept, peer));
            for (plane, before) in blocking.iter_mut().zip(before) {
                // A listener stays until its context's end (CAL-5).
                while (Usage { listeners: 0, operations: before.operations, ..plane.usage() }) != before {
                    let buffer = plane.alloc(1).unwrap();
                    plane.free(buffer).unwrap();
                    assert!(start.elapsed() < Duration::from_secs(30), "{:?}, not {before:?}", plane.usage());
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            drop(blocking);
            assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
        }
    }
}

/// RES-6: several threads, each with a runtime of its own, on one plane; more at once than its ring may hold.
#[test]
fn many_tasks_of_several_threads_lose_a_wake_up_or_fail_for_their_number() {
    const THREADS: u64 = 4;
    const EACH: u64 = 1_500;
    run(async {
        let pair = pair("shm").await;
        let (leased, import) = lease(&pair, THREADS * EACH * 64, Rights::WRITE).await;
        let import = Arc::new(import);
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (plane, import) = (pair.other.clone(), import.clone());
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        let mut source = plane.alloc(EACH * 64).await.unwrap();
                        for (number, piece) in source.as_mut_slice().chunks_exact_mut(64).enumerate() {
                            piece.fill((thread * 59 + number as u64) as u8);
                        }
                        let source = Arc::new(source);
                        let writes = (0..EACH).map(|number| {
                            let at = (thread * EACH + number) * 64;
                            tokio::spawn(plane.write(source.clone(), number * 64, &import, at, 64))
                        });
                        for write in writes.collect::<Vec<_>>() {
                            assert_eq!(timeout(LIMIT, write).await.expect("it hangs").unwrap().unwrap().0, 64);
                        }
                    });
                })
            })
            .collect();
        tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| thread.join().unwrap())).await.unwrap();
        let buffer = pair.one.revoke(leased).await.unwrap();
        for (number, piece) in buffer.as_slice()[..(THREADS * EACH * 64) as usize].chunks_exact(64).enumerate() {
            let (thread, number) = (number as u64 / EACH, number as u64 % EACH);
            assert!(piece.iter().all(|&byte| byte == (thread * 59 + number) as u8), "piece {number} of {thread}");
        }
        drop((buffer, import));
        settles(&pair).await;
    });
}

/// TD-2: a peer's end wakes whoever waits for anything of it.
#[test]
fn a_waiter_outlives_its_peer() {
    run(async {
        for fabric in ["shm", "tcp"] {
            let pair = pair(fabric).await;
            without_credit(&pair).await;
            let (leased, import) = lease(&pair, 4096, Rights::WRITE).await;
            let Pair { one, other, to_other, to_one, .. } = pair;
            let to_one = Arc::new(to_one);
            let mut waiters = Vec::new();
            for number in 0..64u64 {
                let peer = to_one.clone();
                waiters.push(match number % 3 {
                    0 => tokio::spawn(async move { peer.receive().await.unwrap_err() }),
                    1 => tokio::spawn(async move { peer.send(b"never").await.unwrap_err() }),
                    _ => {
                        let source = other.alloc(4096).await.unwrap();
                        let write = other.write_imm(source, 0, &import, 0, 4096, 1);
                        tokio::spawn(async move { write.await.unwrap_err().error })
                    }
                });
            }
            sleep(Duration::from_millis(20)).await;
            assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
            drop((leased, to_other, one));
            for waiter in waiters {
                let error = timeout(Duration::from_secs(5), waiter).await.expect("within 5 s").unwrap();
                let revoked = matches!(error.errno(), Some(Errno::EKEYREVOKED | Errno::ESTALE));
                assert!(error.is_disconnect() || revoked, "{error}");
            }
        }
    });
}

#[test]
fn a_dropped_receive_takes_an_arrival_with_it() {
    const COUNT: u32 = 2_000;
    run(async {
        for fabric in ["shm", "tcp"] {
            let pair = pair(fabric).await;
            let Pair { to_one, to_other, .. } = &pair;
            let sending = async {
                for number in 0..COUNT {
                    to_one.send(&number.to_le_bytes()).await.unwrap();
                }
            };
            let receiving = async {
                let (mut next, mut dropped) = (0u32, 0);
                while next < COUNT {
                    let arrival = match next % 3 {
                        // A deadline that has passed: the receive is polled once.
                        0 => timeout(Duration::ZERO, to_other.receive()).await,
                        1 => timeout(Duration::from_micros(50), to_other.receive()).await,
                        _ => {
                            // Two at once: what one is woken for is not lost when it is dropped.
                            let (one, another) = (to_other.receive(), to_other.receive());
                            tokio::select! { arrival = one => Ok(arrival), arrival = another => Ok(arrival) }
                        }
                    };
                    match arrival {
                        Ok(arrival) => {
                            assert_eq!(arrival.unwrap().payload, next.to_le_bytes());
                            next += 1;
                        }
                        Err(_) => {
                            dropped += 1;
                            tokio::task::yield_now().await;
                        }
                    }
                }
                eprintln!("{fabric}: {dropped} receives dropped while {COUNT} messages came");
            };
            tokio::join!(sending, receiving);
            settles(&pair).await;
        }
    });
}

#[test]
fn a_stream_of_arrivals_skips_one_or_does_not_end() {
    run(async {
        let pair = pair("shm").await;
        let Pair { to_one, to_other, other, .. } = pair;
        let next = async |arrivals: &mut dmaplane::asynchronous::Arrivals<'_>| {
            poll_fn(|context| futures_core::Stream::poll_next(Pin::new(&mut *arrivals), context)).await
        };
        for round in 0..5u8 {
            for number in 0..4 {
                to_one.send(&[round, number]).await.unwrap();
            }
            // A new one each round.
            let mut arrivals = to_other.arrivals();
            for number in 0..4 {
                assert_eq!(next(&mut arrivals).await.unwrap().unwrap().payload, [round, number]);
            }
        }
        drop((to_one, other));
        let mut arrivals = to_other.arrivals();
        assert!(next(&mut arrivals).await.unwrap().unwrap_err().is_disconnect());
        assert!(next(&mut arrivals).await.is_none());
    });
}

/// XFR-5, LST-6, in each mode and over each fabric; and what is refused gives its memory back.
#[test]
fn lists_move_and_come_back() {
    const BLOCKS: u32 = 1_000;
    run(async {
        for (mode, fabric) in MODES.into_iter().flat_map(|mode| [(mode, "shm"), (mode, "tcp")]) {
            let pair = pair_in(mode, fabric).await;
            let list = async |plane: &AsyncPlane| {
                let mut buffer = plane.alloc(u64::from(BLOCKS) * 512).await.unwrap();
                for (number, block) in buffer.as_mut_slice().chunks_exact_mut(512).enumerate() {
                    block.fill(number as u8);
                }
                let run = Run { length_bytes: 256, stride_bytes: 512, count: BLOCKS, ..Run::default() };
                plane.prepare_list(vec![buffer], &[(0, run)]).await.unwrap()
            };
            let theirs = list(&pair.one).await;
            let ours = list(&pair.other).await;
            let leased = pair.one.grant_to(theirs, Rights::WRITE.with(Rights::READ), &pair.to_other).await.unwrap();
            let token = pair.one.token(&leased).await.unwrap();
            let import = pair.other.import(&pair.to_one, &token).await.unwrap();
            let pairs: Vec<_> = (0..BLOCKS).map(|n| IndexPair { local: n, remote: (n * 7 + 3) % BLOCKS }).collect();
            let (bytes, ours) = pair.other.write_list(ours, &import, &pairs, 7, b"done").await.unwrap();
            assert_eq!(bytes, u64::from(BLOCKS) * 256);
            let arrival = pair.to_other.receive().await.unwrap();
            assert_eq!((arrival.immediate, arrival.payload.as_slice()), (Some(7), &b"done"[..]));
            // The same pairs backwards bring the same blocks back.
            let (bytes, ours) = pair.other.read_list(ours, &import, &pairs).await.unwrap();
            assert_eq!(bytes, u64::from(BLOCKS) * 256);
            for (number, block) in ours.buffers()[0].as_slice().chunks_exact(512).take(BLOCKS as usize).enumerate() {
                assert!(block.iter().all(|&byte| byte == number as u8), "block {number}");
            }
            let failed = pair.other.write_list(ours, &import, &[], 0, b"").await.unwrap_err();
            let wrong = [IndexPair { local: BLOCKS, remote: 0 }];
            let ours = failed.memory.expect("the list comes back");
            let failed = pair.other.read_list(ours, &import, &wrong).await.unwrap_err();
            assert_eq!(failed.error.errno(), Some(Errno::ERANGE));
            let buffers = pair.other.free_list(failed.memory.expect("the list comes back")).await.unwrap();
            let theirs = pair.one.revoke(leased).await.unwrap();
            let first = theirs.buffers()[0].as_slice()[3 * 512];
            assert_eq!(first, 0, "block 0 went to block 3");
            pair.other.release(import).await.unwrap();
            drop((buffers, theirs));
            settles(&pair).await;
        }
    });
}

/// An object of another context is refused, and not taken for our own of the same number.
#[test]
fn a_foreign_object_is_taken_for_our_own() {
    run(async {
        let pair = pair("shm").await;
        let (leased, import) = lease(&pair, 4096, Rights::WRITE).await;
        let foreign = |error: Error| assert!(matches!(error, Error::Foreign { .. }), "{error}");
        let buffer = pair.one.alloc(4096).await.unwrap();
        let failed = pair.other.write(buffer, 0, &import, 0, 64).await.unwrap_err();
        foreign(failed.error);
        let failed = pair.one.write(failed.memory.unwrap(), 0, &import, 0, 64).await.unwrap_err();
        foreign(failed.error);
        foreign(pair.other.token(&leased).await.unwrap_err());
        foreign(pair.other.free(failed.memory.unwrap()).await.unwrap_err());
        foreign(pair.one.import(&pair.to_one, &[0; 80]).await.unwrap_err());
        let buffer = pair.other.alloc(64).await.unwrap();
        foreign(pair.other.grant_to(buffer, Rights::READ, &pair.to_other).await.unwrap_err());
        foreign(pair.other.revoke(leased).await.unwrap_err());
        drop(import);
        settles(&pair).await;
    });
}
