//! A whole ring at work: both queues, both sides asleep whenever they have nothing to do.
#![cfg(loom)]

use dmaplane_loom_tests::atomics::{Checked, NoFence, Orderings, Sound};
use dmaplane_loom_tests::memory::{LoomRing, sqe};
use dmaplane_loom_tests::model::check;
use dmaplane_loom_tests::sleeping::{Doorbell, Futex};
use dmaplane_ring::abi::Cqe;
use dmaplane_ring::queue::{Client, Engine, RingMemory, RingWord};
use loom::thread;
use std::sync::Arc;

const OPERATIONS: u64 = 2;

fn serve<O: Orderings>(mut engine: Engine<LoomRing<O>>, doorbell: &Doorbell, futex: &Futex) {
    let mut ended = 0;
    while ended < OPERATIONS {
        while engine.completions.free() > 0
            && let Some(sqe) = engine.submissions.peek(0)
        {
            engine.submissions.advance(1);
            engine.completions.push(&Cqe::new(sqe.user_data, 0)).unwrap();
            ended += 1;
            if engine.completions.publish() {
                futex.wake_all();
            }
        }
        if ended < OPERATIONS {
            if engine.submissions.prepare_sleep() {
                doorbell.wait();
            }
            engine.submissions.awake();
        }
    }
}

fn ask<O: Orderings>(mut client: Client<LoomRing<O>>, doorbell: &Doorbell, futex: &Futex) {
    for n in 1..=OPERATIONS {
        client.submitter.push(&sqe(n)).unwrap();
        if client.submitter.publish() {
            doorbell.ring();
        }
        let cqe = loop {
            if let Some(cqe) = client.completer.reap_one() {
                break cqe;
            }
            if let Some(tail) = client.completer.prepare_sleep() {
                let word = client.completer.memory().word(RingWord::CqTail);
                futex.sleep_while(word, tail);
            }
            client.completer.awake();
        };
        assert_eq!(cqe.user_data, n);
    }
}

fn round_trips<O: Orderings>() {
    let (client, engine) = LoomRing::<O, Checked>::pair(1, 1);
    let bells = Arc::new((Doorbell::new(), Futex::new()));
    let shared = bells.clone();
    let server = thread::spawn(move || serve(engine, &shared.0, &shared.1));
    ask(client, &bells.0, &bells.1);
    server.join().unwrap();
}

#[test]
fn wake_1_to_3_two_sides_that_sleep_whenever_they_can_finish_their_work() {
    check(round_trips::<Sound>);
}

#[test]
#[should_panic(expected = "deadlock")]
fn control_without_the_fences_a_round_trip_never_ends() {
    check(round_trips::<NoFence>);
}
