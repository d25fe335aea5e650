//! A peer that stores what it likes into its words (clauses RING-6, RING-7).
//!
//! That no index leaves the queue is asserted where the words lie: in `narrow.rs`.
#![cfg(loom)]

use dmaplane_loom_tests::atomics::{LoomU32, Racing, Sound};
use dmaplane_loom_tests::memory::LoomRing;
use dmaplane_loom_tests::model::check;
use dmaplane_loom_tests::narrow::{Pair, Pairs};
use dmaplane_ring::atomic::Word;
use dmaplane_ring::queue::{Consumer, Producer, RingMemory, RingWord};
use loom::thread;

const ENTRIES: u32 = 2;

fn ring() -> LoomRing<Sound, Racing> {
    LoomRing::new(ENTRIES, 2)
}

fn store_all(word: &LoomU32<Sound>, values: &[u32]) {
    for value in values {
        word.store_release(*value);
    }
}

#[test]
fn ring_7_a_lying_tail_never_leads_out_of_the_queue() {
    check(|| {
        let ring = ring();
        let hostile = ring.clone();
        let liar = thread::spawn(move || {
            store_all(hostile.word(RingWord::SqTail), &[u32::MAX, 2, 1 << 31, 1]);
            hostile.sq_words(1, 1)[0].store_relaxed(77);
        });
        let mut consumer = Consumer::<_, Pairs>::new(ring.clone());
        for _ in 0..2 {
            assert!(consumer.available() <= ENTRIES);
            for ahead in 0..=ENTRIES {
                consumer.peek(ahead);
            }
            assert!(consumer.seen_available() <= ENTRIES);
            consumer.advance(ENTRIES);
        }
        liar.join().unwrap();
        assert!(consumer.available() <= ENTRIES);
        let consumed = ring.word(RingWord::SqHead).load_relaxed();
        assert!(consumed <= 2, "more consumed than the largest honest tail");
    });
}

/// A tail that goes back must not take back what has been taken: an engine gives back the slots of the SQEs that it has
/// taken, and would take them a second time otherwise.
#[test]
fn ring_7_a_tail_that_goes_back_takes_nothing_back() {
    check(|| {
        let ring = ring();
        let hostile = ring.clone();
        let liar = thread::spawn(move || {
            store_all(hostile.word(RingWord::SqTail), &[2, 0, 1]);
        });
        let mut consumer = Consumer::<_, Pairs>::new(ring.clone());
        let mut taken = 0;
        for _ in 0..2 {
            let mut window = 0;
            while consumer.peek(window).is_some() {
                window += 1;
            }
            consumer.advance(window);
            taken += window;
            let given_back = ring.word(RingWord::SqHead).load_relaxed();
            assert_eq!(given_back, taken, "slots taken are not given back");
        }
        liar.join().unwrap();
    });
}

#[test]
fn ring_7_a_lying_head_never_makes_room_that_is_not_there() {
    check(|| {
        let ring = ring();
        let mut producer = Producer::<_, Pairs>::new(ring.clone());
        let hostile = ring.clone();
        let liar = thread::spawn(move || {
            store_all(hostile.word(RingWord::SqHead), &[u32::MAX, 5, 1, 0]);
        });
        for n in 1..=4 {
            assert!(producer.free() <= ENTRIES);
            if producer.push(&Pair::of(n)) && n == 2 {
                producer.publish();
            }
            assert!(producer.unpublished() <= ENTRIES);
        }
        producer.publish();
        liar.join().unwrap();
        assert!(producer.free() <= ENTRIES);
        let published = ring.word(RingWord::SqTail).load_relaxed();
        assert!(published <= 3, "only head 1 is honest, so one slot of two came free");
    });
}
