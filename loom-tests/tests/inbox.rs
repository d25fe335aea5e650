//! Many post, one takes (clauses INBOX-1 to INBOX-4).
#![cfg(loom)]

use dmaplane_loom_tests::atomics::{Orderings, RelaxedExchanges, RelaxedLoads, RelaxedStores, Sound};
use dmaplane_loom_tests::context::{event, inbox, number, try_inbox};
use dmaplane_loom_tests::model::check;
use loom::thread;
use std::sync::Arc;

/// Two posters, a taker, two slots, three events: posts and takes meet in the same slots, and the third event wraps or
/// finds the inbox full.
fn two_posters_and_a_taker<O: Orderings>() {
    let inbox = Arc::new(inbox::<O>(2));
    let posters = [[10, 11].as_slice(), &[20]].map(|events| {
        let inbox = inbox.clone();
        thread::spawn(move || {
            let accepted = events.iter().copied().filter(|n| inbox.post(&event(*n)));
            accepted.collect::<Vec<_>>()
        })
    });
    let mut taken: Vec<u32> = (0..2).filter_map(|_| inbox.take().map(number)).collect();
    let early = taken.len();
    let [first, second] = posters.map(|poster| poster.join().unwrap());
    taken.extend(std::iter::from_fn(|| inbox.take().map(number)));
    assert!(inbox.is_empty(), "an event is there that cannot be taken");
    let (of_first, of_second): (Vec<u32>, Vec<u32>) = taken.iter().partition(|n| **n < 20);
    assert_eq!(of_first, first, "events are lost, doubled or out of order");
    assert_eq!(of_second, second, "events are lost, doubled or out of order");
    assert!(taken.len() >= 2, "an inbox with room refused");
    assert!(taken.len() <= 2 + early, "a full inbox accepted");
}

#[test]
fn inbox_loses_and_doubles_nothing_and_keeps_each_poster_s_order() {
    check(two_posters_and_a_taker::<Sound>);
}

/// One poster, a taker, three events through two slots.
fn one_poster_and_a_taker<O: Orderings>() {
    let inbox = Arc::new(inbox::<O>(2));
    let other = inbox.clone();
    let poster = thread::spawn(move || (1..=3).filter(|n| other.post(&event(*n))).count());
    let early = (0..2).filter_map(|_| inbox.take().map(number)).count();
    let accepted = poster.join().unwrap();
    let late = std::iter::from_fn(|| inbox.take().map(number)).count();
    assert_eq!(early + late, accepted, "events are lost or doubled");
}

#[test]
fn inbox_hands_a_slot_back_and_forth() {
    check(one_poster_and_a_taker::<Sound>);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_a_relaxed_sequence_number_is_a_race() {
    check(one_poster_and_a_taker::<RelaxedStores>);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_a_relaxed_look_at_the_sequence_number_is_a_race() {
    check(one_poster_and_a_taker::<RelaxedLoads>);
}

#[test]
fn inbox_of_one_slot_is_refused() {
    check(|| {
        // Its only slot would look free for the next post while it still holds the last one.
        assert!(try_inbox::<Sound>(1).is_none());
        assert!(try_inbox::<Sound>(3).is_none());
        assert!(try_inbox::<Sound>(2).is_some());
    });
}

#[test]
fn inbox_says_when_it_is_full_and_keeps_what_it_holds() {
    check(|| {
        let inbox = Arc::new(inbox::<Sound>(2));
        let posters = [1, 2].map(|n| {
            let inbox = inbox.clone();
            thread::spawn(move || inbox.post(&event(n)))
        });
        let mut posted = vec![(3, inbox.post(&event(3)))];
        for (n, poster) in [1, 2].into_iter().zip(posters) {
            posted.push((n, poster.join().unwrap()));
        }
        let mut accepted: Vec<u32> = posted.iter().filter(|p| p.1).map(|p| p.0).collect();
        assert_eq!(accepted.len(), 2, "two slots take two of three events");
        let mut taken: Vec<u32> = std::iter::from_fn(|| inbox.take().map(number)).collect();
        taken.sort_unstable();
        accepted.sort_unstable();
        assert_eq!(taken, accepted);
    });
}

/// The sizing rule: the engine starts work only where a slot is free for its end, so no post may be refused. The engine
/// takes an event, starts work with that slot, takes the next one, starts work with that slot; the posters are ordered
/// after the take that made their work possible, and only after that one.
fn posts_within_the_bound<O: Orderings>() {
    let inbox = Arc::new(inbox::<O>(2));
    assert!(inbox.post(&event(1)) && inbox.post(&event(2)));
    let posters = [3, 4].map(|n| {
        inbox.take().expect("it was posted");
        let inbox = inbox.clone();
        thread::spawn(move || {
            assert!(inbox.post(&event(n)), "a post within the bound was refused");
        })
    });
    for poster in posters {
        poster.join().unwrap();
    }
    let mut taken: Vec<u32> = std::iter::from_fn(|| inbox.take().map(number)).collect();
    taken.sort_unstable();
    assert_eq!(taken, [3, 4]);
}

#[test]
fn inbox_never_refuses_a_post_within_its_bound() {
    check(posts_within_the_bound::<Sound>);
}

#[test]
#[should_panic(expected = "a post within the bound was refused")]
fn control_with_relaxed_exchanges_of_the_tail_a_post_is_refused() {
    check(posts_within_the_bound::<RelaxedExchanges>);
}
