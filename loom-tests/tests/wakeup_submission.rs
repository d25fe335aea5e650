//! NEED_WAKEUP on the SQ: an engine falls asleep while its client publishes (clause WAKE-1).
#![cfg(loom)]

use dmaplane_loom_tests::atomics::{Checked, NoFence, Orderings, Sound};
use dmaplane_loom_tests::memory::{LoomRing, sqe};
use dmaplane_loom_tests::model::check;
use dmaplane_loom_tests::sleeping::Doorbell;
use loom::thread;
use std::sync::Arc;

fn asleep_with_work<O: Orderings>() {
    let (mut client, mut engine) = LoomRing::<O, Checked>::pair(2, 2);
    let publisher = thread::spawn(move || {
        client.submitter.push(&sqe(1)).unwrap();
        client.submitter.publish()
    });
    let slept = engine.submissions.prepare_sleep();
    if !slept {
        engine.submissions.awake();
    }
    let rung = publisher.join().unwrap();
    assert!(!slept || rung, "asleep with work and not woken");
    assert_eq!(engine.submissions.available(), 1);
}

#[test]
fn wake_1_an_engine_never_sleeps_over_an_sqe() {
    check(asleep_with_work::<Sound>);
}

#[test]
#[should_panic(expected = "asleep with work and not woken")]
fn control_without_the_fences_an_engine_sleeps_over_an_sqe() {
    check(asleep_with_work::<NoFence>);
}

/// The loop of a poller, with real sleep: a lost wakeup is a deadlock.
fn poller<O: Orderings>() {
    let (mut client, mut engine) = LoomRing::<O, Checked>::pair(2, 2);
    let doorbell = Arc::new(Doorbell::new());
    let bell = doorbell.clone();
    let publisher = thread::spawn(move || {
        for n in 1..=2 {
            client.submitter.push(&sqe(n)).unwrap();
            if client.submitter.publish() {
                bell.ring();
            }
        }
    });
    let mut taken = 0;
    while taken < 2 {
        while let Some(sqe) = engine.submissions.peek(0) {
            engine.submissions.advance(1);
            taken += 1;
            assert_eq!(sqe.user_data, taken);
        }
        if taken < 2 {
            if engine.submissions.prepare_sleep() {
                doorbell.wait();
            }
            engine.submissions.awake();
        }
    }
    publisher.join().unwrap();
}

#[test]
fn wake_1_a_poller_that_sleeps_whenever_it_is_idle_takes_everything() {
    check(poller::<Sound>);
}

#[test]
#[should_panic(expected = "deadlock")]
fn control_without_the_fences_a_poller_sleeps_for_ever() {
    check(poller::<NoFence>);
}
