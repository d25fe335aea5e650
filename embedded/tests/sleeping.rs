//! Regressions: nobody sleeps while there is work (clauses WAKE-1 to WAKE-3).

use dmaplane_embedded::{Config, Context, RunMode};
use dmaplane_ring::build::{Nop, Timeout};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn modes() -> [RunMode; 3] {
    [RunMode::Poller { idle: Duration::from_micros(50) }, RunMode::Inline, RunMode::Enter]
}

/// The poller slept before the ring came, and had raised no flag on it: the first SQE was never seen.
#[test]
fn a_ring_attached_while_the_poller_sleeps_is_served() {
    for mode in modes() {
        let context = Context::open(Config { mode, ..Config::default() }).unwrap();
        for round in 0..20 {
            std::thread::sleep(Duration::from_millis(2));
            let mut ring = context.ring(8, 16).unwrap();
            ring.push(Nop::new().user_data(round)).unwrap();
            ring.submit();
            assert_eq!(ring.wait_one(SECOND).map(|cqe| cqe.user_data), Some(round), "{mode:?}");
        }
    }
}

/// An SQE that came between the last look and the flag was taken for one that is blocked: the poller slept on it.
#[test]
fn an_sqe_that_races_with_going_to_sleep_is_seen() {
    let context =
        Context::open(Config { mode: RunMode::Poller { idle: Duration::ZERO }, ..Config::default() }).unwrap();
    let mut ring = context.ring(8, 16).unwrap();
    for round in 0..20_000 {
        ring.push(Nop::new().user_data(round)).unwrap();
        ring.submit();
        let spins = round % 97;
        for _ in 0..spins {
            std::hint::spin_loop();
        }
        assert_eq!(ring.wait_one(SECOND).map(|cqe| cqe.user_data), Some(round), "round {round}");
    }
}

/// A timer that is set while everybody sleeps still ends in time.
#[test]
fn a_timer_set_from_the_client_s_thread_wakes_the_service_thread() {
    for mode in modes() {
        let context = Context::open(Config { mode, ..Config::default() }).unwrap();
        let mut ring = context.ring(8, 16).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        let start = std::time::Instant::now();
        ring.push(Timeout::after_ns(3_000_000).user_data(1)).unwrap();
        ring.submit();
        assert!(ring.wait_one(SECOND).is_some(), "{mode:?}");
        assert!(start.elapsed() >= Duration::from_millis(2), "{mode:?} ended it too early");
    }
}

/// One thread waited while another dropped the last context: it slept out its timeout, for nothing changes the CQ's
/// tail then (clause RING-9).
#[test]
fn ring_9_a_client_that_waits_hears_that_the_context_is_closed() {
    for mode in modes() {
        for round in 0..30u32 {
            let context = Context::open(Config { mode, ..Config::default() }).unwrap();
            let mut ring = context.ring(8, 16).unwrap();
            let waiter = std::thread::spawn(move || {
                let start = std::time::Instant::now();
                let found = ring.wait(60 * SECOND);
                (found, ring.closed(), start.elapsed())
            });
            std::thread::sleep(Duration::from_micros(u64::from(round) * 37));
            drop(context);
            let (found, closed, waited) = waiter.join().unwrap();
            assert!(!found && closed && waited < 30 * SECOND, "{mode:?}, round {round}: {waited:?}");
        }
    }
}
