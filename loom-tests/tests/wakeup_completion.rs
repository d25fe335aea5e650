//! NEED_WAKEUP on the CQ: a client falls asleep while its engine publishes (clauses WAKE-1, WAKE-2).
#![cfg(loom)]

use dmaplane_loom_tests::atomics::{Checked, NoFence, Orderings, Sound};
use dmaplane_loom_tests::memory::LoomRing;
use dmaplane_loom_tests::model::check;
use dmaplane_loom_tests::sleeping::Futex;
use dmaplane_ring::abi::Cqe;
use dmaplane_ring::queue::{RingMemory, RingWord};
use loom::thread;
use std::sync::Arc;

fn asleep_with_a_cqe<O: Orderings>() {
    let (mut client, mut engine) = LoomRing::<O, Checked>::pair(2, 2);
    let publisher = thread::spawn(move || {
        engine.completions.push(&Cqe::new(1, 0)).unwrap();
        engine.completions.publish()
    });
    let slept = client.completer.prepare_sleep().is_some();
    if !slept {
        client.completer.awake();
    }
    let woken = publisher.join().unwrap();
    assert!(!slept || woken, "asleep with work and not woken");
    assert_eq!(client.completer.available(), 1);
}

#[test]
fn wake_2_a_client_never_sleeps_over_a_cqe() {
    check(asleep_with_a_cqe::<Sound>);
}

#[test]
#[should_panic(expected = "asleep with work and not woken")]
fn control_without_the_fences_a_client_sleeps_over_a_cqe() {
    check(asleep_with_a_cqe::<NoFence>);
}

/// The loop of a client that waits on the futex of the CQ's tail: a lost wakeup is a deadlock.
fn waiting_client<O: Orderings>() {
    let (mut client, mut engine) = LoomRing::<O, Checked>::pair(2, 2);
    let futex = Arc::new(Futex::new());
    let waker = futex.clone();
    let publisher = thread::spawn(move || {
        for n in 1..=2 {
            engine.completions.push(&Cqe::new(n, 0)).unwrap();
            if engine.completions.publish() {
                waker.wake_all();
            }
        }
    });
    let mut reaped = 0;
    while reaped < 2 {
        while let Some(cqe) = client.completer.reap_one() {
            reaped += 1;
            assert_eq!(cqe.user_data, reaped);
        }
        if reaped < 2 {
            if let Some(tail) = client.completer.prepare_sleep() {
                let word = client.completer.memory().word(RingWord::CqTail);
                futex.sleep_while(word, tail);
            }
            client.completer.awake();
        }
    }
    publisher.join().unwrap();
}

#[test]
fn wake_2_a_client_that_sleeps_whenever_it_is_idle_reaps_everything() {
    check(waiting_client::<Sound>);
}

#[test]
#[should_panic(expected = "deadlock")]
fn control_without_the_fences_a_client_sleeps_for_ever() {
    check(waiting_client::<NoFence>);
}
