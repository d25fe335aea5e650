//! CQ_BLOCKED: an engine falls asleep on a full CQ while its client reaps (clause WAKE-3).
#![cfg(loom)]

use dmaplane_loom_tests::atomics::{Checked, NoFence, Orderings, Sound};
use dmaplane_loom_tests::memory::{LoomRing, sqe};
use dmaplane_loom_tests::model::check;
use dmaplane_loom_tests::sleeping::{Doorbell, Futex};
use dmaplane_ring::abi::Cqe;
use dmaplane_ring::queue::{RingMemory, RingWord};
use loom::thread;
use std::sync::Arc;

fn asleep_with_room<O: Orderings>() {
    let (mut client, mut engine) = LoomRing::<O, Checked>::pair(2, 2);
    for n in 1..=2 {
        engine.completions.push(&Cqe::new(n, 0)).unwrap();
    }
    let _nobody_sleeps = engine.completions.publish();
    let reaper = thread::spawn(move || {
        let reaped = client.completer.reap(2, |_| ());
        assert_eq!(reaped, 2);
        client.completer.engine_awaits_room()
    });
    engine.submissions.prepare_blocked_sleep();
    let slept = engine.completions.free() == 0;
    if !slept {
        engine.submissions.awake();
    }
    let rung = reaper.join().unwrap();
    assert!(!slept || rung, "asleep with work and not woken");
    assert_eq!(engine.completions.free(), 2);
}

#[test]
fn wake_3_an_engine_never_sleeps_over_room_in_the_cq() {
    check(asleep_with_room::<Sound>);
}

#[test]
#[should_panic(expected = "asleep with work and not woken")]
fn control_without_the_fences_an_engine_sleeps_over_room_in_the_cq() {
    check(asleep_with_room::<NoFence>);
}

/// Three CQEs through a CQ of one: the engine sleeps when it is full, the client when it is empty. Both sleep for real,
/// so a wakeup lost by either is a deadlock.
fn both_sleep<O: Orderings>() {
    let (mut client, mut engine) = LoomRing::<O, Checked>::pair(1, 1);
    let (doorbell, futex) = (Arc::new(Doorbell::new()), Arc::new(Futex::new()));
    let (bell, sleeper) = (doorbell.clone(), futex.clone());
    let reaper = thread::spawn(move || {
        let mut reaped = 0;
        while reaped < 3 {
            while let Some(cqe) = client.completer.reap_one() {
                reaped += 1;
                assert_eq!(cqe.user_data, reaped);
                if client.completer.engine_awaits_room() {
                    bell.ring();
                }
            }
            if reaped < 3 {
                if let Some(tail) = client.completer.prepare_sleep() {
                    let word = client.completer.memory().word(RingWord::CqTail);
                    sleeper.sleep_while(word, tail);
                }
                client.completer.awake();
            }
        }
    });
    for n in 1..=3 {
        while engine.completions.free() == 0 {
            engine.submissions.prepare_blocked_sleep();
            if engine.completions.free() == 0 {
                doorbell.wait();
            }
            engine.submissions.awake();
        }
        engine.completions.push(&Cqe::new(n, 0)).unwrap();
        if engine.completions.publish() {
            futex.wake_all();
        }
    }
    reaper.join().unwrap();
}

#[test]
fn wake_3_both_sides_sleep_whenever_they_cannot_go_on_and_all_arrives() {
    check(both_sleep::<Sound>);
}

#[test]
#[should_panic(expected = "deadlock")]
fn control_without_the_fences_both_sides_sleep_for_ever() {
    check(both_sleep::<NoFence>);
}

/// An SQE that arrives after an engine's last look has not been refused for want of room: nobody has tried it. An
/// engine that takes it for a blocked one and sleeps until the CQ has room sleeps for ever, since its client saw it
/// awake and rang nothing. `careful`: only SQEs that the last look left behind are blocked.
fn newly_arrived(careful: bool) {
    let (mut client, mut engine) = LoomRing::<Sound, Checked>::pair(2, 2);
    let publisher = thread::spawn(move || {
        client.submitter.push(&sqe(1)).unwrap();
        client.submitter.publish()
    });
    let mut taken = engine.submissions.available();
    engine.submissions.advance(taken);
    let left_behind = 0;
    let mut slept = engine.submissions.prepare_sleep();
    if !slept {
        let blocked = !careful || engine.submissions.available() == left_behind;
        if blocked {
            engine.submissions.prepare_blocked_sleep();
            slept = engine.completions.free() == 2;
        } else {
            engine.submissions.awake();
            taken += engine.submissions.available();
        }
    }
    let rung = publisher.join().unwrap();
    assert!(taken == 1 || rung, "asleep with work and not woken");
    assert!(slept || taken == 1, "awake, and the SQE is not taken");
}

#[test]
fn wake_3_only_what_a_look_left_behind_is_blocked() {
    check(|| newly_arrived(true));
}

#[test]
#[should_panic(expected = "asleep with work and not woken")]
fn control_a_new_sqe_taken_for_a_blocked_one_is_slept_over() {
    check(|| newly_arrived(false));
}
