//! What only the inside can show: wake-ups, and the queues before the ring.

mod cancels;
mod wakers;

use super::operation::Operation;
use super::*;
use dmaplane_embedded::RunMode;
use dmaplane_ring::build::{Nop, Timeout, Wait};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Instant;

fn runtime(threads: usize) -> tokio::runtime::Runtime {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build().unwrap()
}

async fn within<F: Future>(limit: Duration, what: &str, future: F) -> F::Output {
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("{what}: nothing came within {limit:?}"))
}

fn nop(plane: &AsyncPlane) -> Operation<()> {
    Operation::new(plane, "doing nothing", Nop::new().sqe(), ())
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut TaskContext::from_waker(Waker::noop()))
}

async fn pair() -> [(AsyncPlane, AsyncPeer); 2] {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("shm:{}", directory.path().join("x").display());
    let planes = || AsyncPlane::open(Config::default()).unwrap();
    let (one, other) = (planes(), planes());
    let (listener, _) = one.listen(&address).unwrap();
    let (to_other, to_one) = tokio::try_join!(one.accept(&listener), other.connect(&address)).unwrap();
    [(one, to_other), (other, to_one)]
}

/// WAKE-2: the CQE may come before, while and after the driver arms the eventfd and goes to sleep.
#[test]
fn a_cqe_between_arming_and_sleeping_wakes_nobody() {
    const ROUNDS: u32 = 100_000;
    // The engine's thread asleep whenever it can be, or awake throughout; run by the client; the reactor's thread the
    // task's own, or another.
    let modes = [
        RunMode::Poller { idle: Duration::ZERO },
        RunMode::Poller { idle: Duration::from_micros(200) },
        RunMode::Inline,
        RunMode::Enter,
    ];
    for (mode, threads) in modes.into_iter().flat_map(|mode| [(mode, 1), (mode, 2)]) {
        let start = Instant::now();
        runtime(threads).block_on(within(Duration::from_secs(300), "no-ops", async move {
            let plane = AsyncPlane::open(Config { mode, ..Config::default() }).unwrap();
            let task = async move {
                for round in 0..ROUNDS / 8 {
                    within(Duration::from_secs(20), "a no-op", nop(&plane)).await.0.unwrap();
                    // So that it comes at another point of the driver's way each time.
                    (0..round % 97).for_each(|_| std::hint::spin_loop());
                }
            };
            tokio::spawn(task).await.unwrap();
        }));
        eprintln!("{mode:?}, {threads} threads: {:?} a round", start.elapsed() / (ROUNDS / 8));
    }
}

/// RES-6, RES-7: far more than the ring holds waits its turn.
#[test]
fn more_than_the_ring_holds_fails_or_is_forgotten() {
    for mode in [Config::default().mode, RunMode::Inline, RunMode::Enter] {
        runtime(2).block_on(within(Duration::from_secs(60), "no-ops", async move {
            let plane = AsyncPlane::open(Config { mode, ..Config::default() }).unwrap();
            let operations = plane.usage().operations;
            let tasks: Vec<_> = (0..20_000).map(|_| tokio::spawn(nop(&plane))).collect();
            for task in tasks {
                task.await.unwrap().0.unwrap();
            }
            assert_eq!(plane.usage().operations, operations);
        }));
    }
}

/// One task begins so many at once that the SQ is full, and none of them ends by itself, which would have the rest
/// pushed.
#[test]
fn operations_behind_a_full_sq_are_forgotten() {
    const COUNT: u32 = 1_400;
    runtime(2).block_on(within(Duration::from_secs(60), "waiting for a word", async {
        let plane = AsyncPlane::open(Config::default()).unwrap();
        let buffer = plane.alloc(4096).await.unwrap();
        // The engine's thread sleeps, so that the SQ fills before it is up.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let before = plane.usage().operations;
        let wait = Wait::on_word(buffer.handle(), 0, 1).sqe();
        let mut waits: Vec<_> = (0..COUNT).map(|_| Operation::new(&plane, "waiting", wait, ())).collect();
        std::future::poll_fn(|context| {
            assert!(waits.iter_mut().all(|wait| std::pin::Pin::new(wait).poll(context).is_pending()));
            std::task::Poll::Ready(())
        })
        .await;
        while plane.usage().operations != before + COUNT {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        buffer.mapping.write(0, &1u32.to_le_bytes());
        for wait in waits {
            wait.await.0.unwrap();
        }
        assert_eq!(plane.usage().operations, before);
    }));
}

/// CTL-2: what waits for its turn is cancelled without the engine's hearing of it, what is in flight by it.
#[test]
fn a_cancelled_operation_goes_on_or_takes_another_one_with_it() {
    runtime(2).block_on(within(Duration::from_secs(20), "timers", async {
        let plane = AsyncPlane::open(Config::default()).unwrap();
        let hour = || Operation::new(&plane, "an hour", Timeout::after_ns(3_600_000_000_000).sqe(), ());
        let (mut flies, mut waits) = (hour(), hour());
        std::future::poll_fn(|context| {
            assert!(std::pin::Pin::new(&mut flies).poll(context).is_pending());
            // One timer is pushed at a time.
            assert!(std::pin::Pin::new(&mut waits).poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        waits.cancel();
        assert_eq!(waits.await.0.unwrap_err().errno(), Some(Errno::ECANCELED));
        flies.cancel();
        assert_eq!(flies.await.0.unwrap_err().errno(), Some(Errno::ECANCELED));
        // The next one is none the worse.
        let soon = Operation::new(&plane, "soon", Timeout::after_ns(1_000_000).sqe(), ());
        assert_eq!(soon.await.0.unwrap_err().errno(), Some(Errno::ETIME));
    }));
}

/// Others' work goes on while a task waits for its operations, and the ring's: fairness on one thread.
#[test]
fn a_busy_plane_starves_other_tasks() {
    runtime(1).block_on(within(Duration::from_secs(60), "no-ops", async {
        let plane = AsyncPlane::open(Config::default()).unwrap();
        let busy: Vec<_> = (0..8)
            .map(|_| {
                let plane = plane.clone();
                tokio::spawn(async move {
                    loop {
                        nop(&plane).await.0.unwrap();
                    }
                })
            })
            .collect();
        let start = Instant::now();
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        busy.iter().for_each(|task| task.abort());
    }));
}

/// SQE-9: each gets its own CQE, whatever the order.
#[test]
fn a_future_gets_another_one_s_result() {
    runtime(2).block_on(within(Duration::from_secs(60), "allocating", async {
        let plane = AsyncPlane::open(Config::default()).unwrap();
        let usage = plane.usage();
        let task = |plane: AsyncPlane, pages: usize| async move {
            for round in 0..200 {
                let buffer = plane.alloc(pages as u64 * 4096).await.unwrap();
                assert_eq!(buffer.len(), pages * 4096);
                nop(&plane).await.0.unwrap();
                if round % 2 == 0 {
                    plane.free(buffer).await.unwrap();
                }
            }
        };
        let tasks: Vec<_> = (1..=16).map(|pages| tokio::spawn(task(plane.clone(), pages))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        while plane.usage() != usage {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }));
}

/// TD-7: what was made and posted, and reaped by nobody, was in the table for as long as the context lived.
#[test]
fn a_plane_that_goes_forgets_what_its_ring_has_made_and_nobody_has_reaped() {
    let mut plane = Plane::open(Config { mode: RunMode::Inline, ..Config::default() }).unwrap();
    let before = plane.usage();
    let runtime = runtime(1);
    let beside = runtime.block_on(async { AsyncPlane::beside(&plane).unwrap() });
    // Nothing runs the driver any more, and nobody polls: the CQE lies in the ring.
    // Large enough not to be there by the end of the first poll.
    let mut alloc = Box::pin(beside.alloc(64 << 20));
    assert!(poll_once(&mut alloc).is_pending());
    let start = Instant::now();
    while plane.usage().buffers < before.buffers + 2 || plane.usage().operations > before.operations {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", plane.usage());
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(runtime);
    drop(alloc);
    drop(beside);
    let start = Instant::now();
    while plane.usage().buffers > before.buffers {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", plane.usage());
        // Each call ends what was dropped.
        let buffer = plane.alloc(4096).unwrap();
        plane.free(buffer).unwrap();
    }
}
