//! An engine that starts only what it has reserved a CQE for, while its client reaps (clause RES-1).
#![cfg(loom)]

use dmaplane_loom_tests::atomics::{Checked, Orderings, RelaxedStores, Sound};
use dmaplane_loom_tests::memory::LoomRing;
use dmaplane_loom_tests::model::check;
use dmaplane_ring::abi::Cqe;
use loom::thread;

const OPERATIONS: u64 = 4;

/// Two CQEs of room and up to two operations in flight. `honest`: reserved CQEs are counted.
fn reserve_and_post<O: Orderings>(honest: bool) {
    let (mut client, mut engine) = LoomRing::<O, Checked>::pair(1, 2);
    let reaper = thread::spawn(move || {
        let mut reaped = 0;
        while reaped < OPERATIONS {
            let count = client.completer.reap(2, |cqe| {
                reaped += 1;
                assert_eq!(cqe.user_data, reaped, "a CQE is lost, doubled or early");
            });
            if count == 0 {
                thread::yield_now();
            }
        }
    });
    let (mut started, mut ended) = (0, 0);
    while ended < OPERATIONS {
        let reserved = if honest { (started - ended) as u32 } else { 0 };
        let room = engine.completions.free();
        assert!(reserved <= room, "reserved CQEs have no room any more");
        if started < OPERATIONS && started - ended < 2 && reserved < room {
            started += 1;
        } else if started > ended {
            ended += 1;
            let posted = engine.completions.push(&Cqe::new(ended, 0));
            posted.expect("a reserved CQE was refused");
            let _nobody_sleeps = engine.completions.publish();
        } else {
            thread::yield_now();
        }
    }
    reaper.join().unwrap();
}

#[test]
fn res_1_a_reserved_cqe_is_never_refused_while_the_client_reaps() {
    check(|| reserve_and_post::<Sound>(true));
}

#[test]
#[should_panic(expected = "a reserved CQE was refused")]
fn control_without_counting_reservations_a_cqe_is_refused() {
    check(|| reserve_and_post::<Sound>(false));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_slots_given_back_relaxed_are_rewritten_too_early() {
    check(|| reserve_and_post::<RelaxedStores>(true));
}
