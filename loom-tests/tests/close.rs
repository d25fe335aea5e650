//! Closing a ring while its client submits or falls asleep.
//!
//! What is promised: an SQE published is seen by the engine's first look after `close`, or its client sees `closed()`
//! after `publish` (or both); CQEs published before `close` are visible to whoever sees `closed()`; closed is for good.
//! What is not: the CQ's tail does not change, so `close` alone wakes nobody who sleeps on it. After `close` a host
//! rings a bell that remembers, publishes a last CQE, or goes on waking its client as long as that one says that it
//! sleeps.
#![cfg(loom)]

use dmaplane_loom_tests::atomics::{Checked, NoFence, Orderings, Sound};
use dmaplane_loom_tests::memory::{LoomRing, sqe};
use dmaplane_loom_tests::model::check;
use dmaplane_loom_tests::sleeping::{Doorbell, Futex};
use dmaplane_ring::abi::Cqe;
use dmaplane_ring::queue::{RingMemory, RingWord};
use loom::thread;
use std::sync::Arc;

fn close_against_submission<O: Orderings>() {
    let (mut client, mut engine) = LoomRing::<O, Checked>::pair(2, 2);
    let publisher = thread::spawn(move || {
        client.submitter.push(&sqe(1)).unwrap();
        let rung = client.submitter.publish();
        let closed = client.submitter.closed();
        assert!(!rung || closed, "nobody slept, so only closing asks for the doorbell");
        closed
    });
    engine.submissions.close();
    let taken = engine.submissions.peek(0).is_some();
    let closed = publisher.join().unwrap();
    assert!(taken || closed, "neither taken nor known to be closed");
}

#[test]
fn close_leaves_no_sqe_that_is_neither_taken_nor_known_to_be_late() {
    check(close_against_submission::<Sound>);
}

#[test]
#[should_panic(expected = "neither taken nor known to be closed")]
fn control_without_the_fences_close_loses_an_sqe() {
    check(close_against_submission::<NoFence>);
}

/// The teardown goes on: CQEs are posted, the engine sleeps and wakes. Whoever sees `closed()`, however late, sees it
/// for good, and the CQEs from before it.
fn teardown_after_close() {
    let (mut client, mut engine) = LoomRing::<Sound, Checked>::pair(2, 2);
    let closer = thread::spawn(move || {
        engine.completions.push(&Cqe::new(1, 0)).unwrap();
        let _nobody_sleeps = engine.completions.publish();
        engine.submissions.close();
        let _nothing_waits = engine.submissions.prepare_sleep();
        engine.submissions.awake();
        engine.submissions.prepare_blocked_sleep();
        engine.submissions.awake();
    });
    if client.submitter.closed() {
        assert!(client.completer.available() > 0, "closed, and the last CQE is not there");
        assert!(client.submitter.closed(), "the ring is open again");
    }
    closer.join().unwrap();
    assert!(client.submitter.closed(), "the ring is open again");
}

#[test]
fn close_stays_while_the_engine_sleeps_and_wakes_in_its_teardown() {
    check(teardown_after_close);
}

/// A client that waits for a CQE which never comes, because its SQE came too late.
fn close_against_sleep(heard: fn(&Bells), sleep: fn(&Bells, &LoomRing, u32)) {
    let (mut client, mut engine) = LoomRing::<Sound, Checked>::pair(2, 2);
    let bells = Arc::new(Bells::default());
    let closing = bells.clone();
    let closer = thread::spawn(move || {
        engine.submissions.close();
        heard(&closing);
    });
    while !client.submitter.closed() {
        if let Some(tail) = client.completer.prepare_sleep()
            && !client.submitter.closed()
        {
            sleep(&bells, client.completer.memory(), tail);
        }
        client.completer.awake();
    }
    closer.join().unwrap();
}

#[derive(Debug, Default)]
struct Bells {
    doorbell: Doorbell,
    futex: Futex,
}

#[test]
fn close_reaches_a_client_that_sleeps_on_a_bell_that_remembers() {
    check(|| {
        close_against_sleep(|bells| bells.doorbell.ring(), |bells, _, _| bells.doorbell.wait());
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn control_close_misses_a_client_that_sleeps_on_the_tail_alone() {
    check(|| {
        close_against_sleep(
            |bells| bells.futex.wake_all(),
            |bells, ring, tail| {
                bells.futex.sleep_while(ring.word(RingWord::CqTail), tail);
            },
        );
    });
}

/// As [`close_against_sleep`], on the futex alone: the closer wakes its client until that one's flag is down.
fn woken_until_awake(rounds_max: usize) {
    let (mut client, mut engine) = LoomRing::<Sound, Checked>::pair(2, 2);
    let futex = Arc::new(Futex::default());
    let closing = futex.clone();
    let closer = thread::spawn(move || {
        engine.submissions.close();
        for _ in 0..rounds_max {
            if !engine.completions.client_sleeps() {
                break;
            }
            closing.wake_all();
            thread::yield_now();
        }
    });
    while !client.submitter.closed() {
        if let Some(tail) = client.completer.prepare_sleep()
            && !client.submitter.closed()
        {
            futex.sleep_while(client.completer.memory().word(RingWord::CqTail), tail);
        }
        client.completer.awake();
    }
    closer.join().unwrap();
}

#[test]
fn close_reaches_a_client_that_is_woken_until_its_flag_is_down() {
    check(|| woken_until_awake(usize::MAX));
}

#[test]
#[should_panic(expected = "deadlock")]
fn control_close_misses_a_client_that_is_woken_once() {
    check(|| woken_until_awake(1));
}
