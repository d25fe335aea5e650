//! One queue between two threads: order, wrap-around, full and empty (clauses RING-4, RING-5).
#![cfg(loom)]

use dmaplane_loom_tests::atomics::{Checked, EntryWords, Orderings, Racing, RelaxedLoads, RelaxedStores, Sound};
use dmaplane_loom_tests::model::check;
use dmaplane_loom_tests::narrow::{Pair, pairs};
use loom::thread;

/// Five entries through two slots: each arrives once, whole, in order.
fn five_through_two_slots<O: Orderings, E: EntryWords>() {
    let (mut producer, mut consumer) = pairs::<O, E>(2);
    let writer = thread::spawn(move || {
        for n in 1..=5 {
            while !producer.push(&Pair::of(n)) {
                thread::yield_now();
            }
            producer.publish();
        }
    });
    for n in 1..=5 {
        let entry = loop {
            match consumer.peek(0) {
                Some(entry) => break entry,
                None => thread::yield_now(),
            }
        };
        assert_eq!(entry.number(), n, "an entry is lost, doubled or early");
        consumer.advance(1);
    }
    writer.join().unwrap();
    assert!(consumer.peek(0).is_none());
}

#[test]
fn ring_5_a_queue_of_two_entries_wraps_around() {
    check(five_through_two_slots::<Sound, Checked>);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_a_relaxed_publication_is_a_race() {
    check(five_through_two_slots::<RelaxedStores, Checked>);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_a_relaxed_look_is_a_race() {
    check(five_through_two_slots::<RelaxedLoads, Checked>);
}

/// Two batches of two through two slots. A batch is seen as a whole or not at all.
fn batches<O: Orderings, E: EntryWords>() {
    let (mut producer, mut consumer) = pairs::<O, E>(2);
    let writer = thread::spawn(move || {
        for batch in [[1, 2], [3, 4]] {
            while producer.free() < 2 {
                thread::yield_now();
            }
            for n in batch {
                assert!(producer.push(&Pair::of(n)));
            }
            assert_eq!(producer.unpublished(), 2);
            assert!(producer.publish());
        }
    });
    for batch in [[1, 2], [3, 4]] {
        let available = loop {
            match consumer.available() {
                0 => thread::yield_now(),
                available => break available,
            }
        };
        assert_eq!(available, 2, "part of a batch is visible");
        for (ahead, n) in batch.into_iter().enumerate() {
            let number = consumer.peek(ahead as u32).map(Pair::number);
            assert_eq!(number, Some(n), "the entry is torn or stale");
        }
        assert!(consumer.peek(2).is_none());
        consumer.advance(2);
    }
    writer.join().unwrap();
}

#[test]
fn ring_4_a_batch_becomes_visible_at_once_and_whole() {
    check(batches::<Sound, Racing>);
}

#[test]
fn ring_4_a_slot_is_not_rewritten_while_it_is_copied() {
    check(batches::<Sound, Checked>);
}

#[test]
#[should_panic(expected = "torn or stale")]
fn control_a_relaxed_publication_tears_a_batch() {
    check(batches::<RelaxedStores, Racing>);
}

#[test]
#[should_panic(expected = "torn or stale")]
fn control_a_relaxed_look_tears_a_batch() {
    check(batches::<RelaxedLoads, Racing>);
}

#[test]
fn ring_4_nothing_is_visible_before_its_publication() {
    check(|| {
        let (mut producer, mut consumer) = pairs::<Sound, Checked>(2);
        let writer = thread::spawn(move || {
            assert!(producer.push(&Pair::of(1)));
            assert!(producer.publish());
            assert!(producer.push(&Pair::of(2)));
            producer
        });
        assert!(consumer.available() <= 1, "an unpublished entry is visible");
        let mut producer = writer.join().unwrap();
        assert_eq!(consumer.available(), 1);
        assert!(producer.publish());
        assert!(!producer.publish(), "there is nothing more to publish");
        assert_eq!(consumer.available(), 2);
    });
}

#[test]
fn ring_4_a_full_queue_refuses_and_loses_nothing() {
    check(|| {
        let (mut producer, mut consumer) = pairs::<Sound, Checked>(2);
        let writer = thread::spawn(move || {
            let mut accepted = Vec::new();
            for n in 1..=4 {
                if producer.push(&Pair::of(n)) {
                    accepted.push(n);
                    producer.publish();
                }
            }
            accepted
        });
        let mut taken = Vec::new();
        for _ in 0..2 {
            if let Some(entry) = consumer.peek(0) {
                taken.push(entry.number());
                consumer.advance(1);
            }
        }
        let early = taken.len();
        let accepted = writer.join().unwrap();
        while let Some(entry) = consumer.peek(0) {
            taken.push(entry.number());
            consumer.advance(1);
        }
        assert_eq!(taken, accepted, "what was accepted arrives, in order");
        assert!(accepted.len() >= 2, "a queue with room refused");
        assert!(accepted.len() <= 2 + early, "a full queue accepted");
    });
}
