//! A client that waits for its CQ beside other descriptors (clause WAKE-2).

use dmaplane_embedded::{Config, Context, Ring, RunMode};
use dmaplane_ring::abi::Cqe;
use dmaplane_ring::build::{Nop, Timeout};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::time::Duration;

fn modes() -> [RunMode; 3] {
    [RunMode::Poller { idle: Duration::from_micros(50) }, RunMode::Inline, RunMode::Enter]
}

/// Waits by the eventfd alone.
fn wait_one(ring: &mut Ring, mode: RunMode) -> Option<Cqe> {
    for _ in 0..100 {
        if let Some(cqe) = ring.reap_one() {
            return Some(cqe);
        }
        if matches!(mode, RunMode::Enter) {
            ring.enter();
        }
        if ring.arm() {
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            let eventfd = ring.eventfd().unwrap();
            let readable = poll(&mut [PollFd::new(&eventfd, PollFlags::IN)], Some(&second)).unwrap();
            if readable == 0 {
                return None;
            }
        }
        ring.disarm();
        if ring.closed() {
            return ring.reap_one();
        }
    }
    None
}

#[test]
fn wake_2_an_eventfd_hears_of_every_cqe() {
    for mode in modes() {
        let context = Context::open(Config { mode, ..Config::default() }).unwrap();
        let mut ring = context.ring(8, 16).unwrap();
        for round in 0..2000u64 {
            let sqe = match round % 3 {
                0 => Timeout::after_ns(round % 7 * 10_000).user_data(round).sqe(),
                _ => Nop::new().user_data(round).sqe(),
            };
            ring.push(sqe).unwrap();
            ring.submit();
            assert_eq!(wait_one(&mut ring, mode).map(|cqe| cqe.user_data), Some(round), "{mode:?}");
        }
    }
}

#[test]
fn ring_9_an_eventfd_hears_of_the_context_s_end() {
    for mode in modes() {
        let context = Context::open(Config { mode, ..Config::default() }).unwrap();
        let mut ring = context.ring(8, 16).unwrap();
        ring.eventfd().unwrap();
        let closer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(context);
        });
        while !ring.closed() {
            let began = std::time::Instant::now();
            wait_one(&mut ring, mode);
            assert!(ring.closed() || began.elapsed() < Duration::from_secs(1), "{mode:?}: nobody rang");
        }
        closer.join().unwrap();
    }
}

/// The context's end waited ten seconds for a client to disarm that was not there any more.
#[test]
fn a_context_s_end_does_not_wait_for_an_armed_ring() {
    let context = Context::open(Config::default()).unwrap();
    let mut ring = context.ring(8, 16).unwrap();
    ring.eventfd().unwrap();
    assert!(ring.arm());
    let began = std::time::Instant::now();
    drop(context);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(!ring.wait(Duration::from_secs(5)) && ring.closed());
}
