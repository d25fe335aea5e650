//! Posters hand the engine to each other (clauses BAT-1 to BAT-4).
//!
//! The engine's state is plain memory under loom's race detector: two holders at a time, or a hand-over that orders
//! nothing, fail every model here.
#![cfg(loom)]

use dmaplane_engine::{Baton, Release};
use dmaplane_loom_tests::atomics::{LoomAtomics, LoomU32, NewWord, Orderings, RelaxedExchanges, Sound};
use dmaplane_loom_tests::context::{Context, Hand, Ran, event};
use dmaplane_loom_tests::model::{check, check_within};
use dmaplane_loom_tests::sleeping::Doorbell;
use dmaplane_ring::atomic::Word;
use loom::thread;
use std::sync::Arc;

/// Each of `posters` posts its events, one by one; when all are done, somebody has given each to the engine.
fn every_event_is_drained<H: Hand, O: Orderings>(posters: &[&'static [u32]]) {
    let context = Arc::new(Context::<H, O>::new(4));
    let (here, elsewhere) = posters.split_first().expect("a poster");
    let threads: Vec<_> = elsewhere
        .iter()
        .map(|events| {
            let (context, events) = (context.clone(), *events);
            thread::spawn(move || events.iter().for_each(|n| context.post_and_run(*n)))
        })
        .collect();
    here.iter().for_each(|n| context.post_and_run(*n));
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(context.inbox.is_empty(), "an event lies in the inbox and nobody runs");
    assert!(context.baton.take_or_mark(), "nobody holds the baton, but it is not free");
    let mut seen = context.engine.read();
    let mut posted = posters.concat();
    seen.sort_unstable();
    posted.sort_unstable();
    assert_eq!(seen, posted, "an event is lost or doubled");
}

type RealBaton<O> = Baton<LoomAtomics<O>>;

#[test]
fn bat_no_event_is_lost_between_two_posters() {
    check(|| every_event_is_drained::<RealBaton<Sound>, Sound>(&[&[1, 2], &[3, 4]]));
}

#[test]
fn bat_no_event_is_lost_between_three_posters() {
    check_within(2, || every_event_is_drained::<RealBaton<Sound>, Sound>(&[&[1], &[2], &[3]]));
}

/// Two threads that want the baton for themselves; nothing but the baton orders their accesses to the engine.
fn hand_over<O: Orderings>() {
    let context = Arc::new(Context::<RealBaton<O>, Sound>::new(2));
    let other = context.clone();
    let add = |context: &Context<RealBaton<O>, Sound>, n| {
        if context.baton.try_take() {
            let mut seen = context.engine.read();
            seen.push(n);
            context.engine.write(seen);
            assert_eq!(context.baton.let_go(), Release::Released, "nobody marks");
        }
    };
    let thread = thread::spawn(move || add(&other, 1));
    add(&context, 2);
    thread.join().unwrap();
    assert!(!context.engine.read().is_empty(), "a free baton was refused to both");
}

#[test]
fn bat_the_engine_s_state_comes_with_the_baton() {
    check(hand_over::<Sound>);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_a_relaxed_hand_over_is_a_race_for_the_engine() {
    check(hand_over::<RelaxedExchanges>);
}

#[test]
#[should_panic(expected = "an event lies in the inbox and nobody runs")]
fn control_a_relaxed_mark_loses_an_event() {
    check(|| every_event_is_drained::<RealBaton<RelaxedExchanges>, Sound>(&[&[1], &[2]]));
}

#[test]
fn bat_one_who_only_tries_never_runs_beside_the_holder() {
    check(|| {
        let context = Arc::new(Context::<RealBaton<Sound>, Sound>::new(4));
        let other = context.clone();
        let passer_by = thread::spawn(move || {
            if other.baton.try_take() {
                other.run();
            }
        });
        context.post_and_run(1);
        passer_by.join().unwrap();
        assert_eq!(context.engine.read(), [1], "an event is lost or doubled");
        assert!(context.baton.try_take());
    });
}

#[test]
fn bat_a_holder_that_looks_before_it_drains_misses_nothing() {
    check(|| {
        let context = Arc::new(Context::<RealBaton<Sound>, Sound>::new(4));
        let other = context.clone();
        assert!(context.baton.take_or_mark());
        let poster = thread::spawn(move || other.post_and_run(1));
        // A mark from here on is taken off by looking, so looking has to come before draining.
        context.baton.look();
        context.run();
        poster.join().unwrap();
        assert_eq!(context.engine.read(), [1], "an event is lost or doubled");
    });
}

/// Posters that make so many turns, and a runner that is told of what they leave, and of what it leaves itself: it
/// looks once meanwhile, and in the end until nothing is told of any more.
fn what_is_left_is_told_of(posters_turns: u32, runners_turns: u32, tell: fn(&Doorbell, Ran)) {
    let context = Arc::new(Context::<RealBaton<Sound>, Sound>::new(4));
    let bell = Arc::new(Doorbell::new());
    let post = move |context: &Context<RealBaton<Sound>, Sound>, bell: &Doorbell, n| {
        tell(bell, context.post_and_run_within(n, posters_turns));
    };
    let serve = move |context: &Context<RealBaton<Sound>, Sound>, bell: &Doorbell| {
        let rung = bell.has_rung();
        if rung && context.baton.take_or_mark() {
            tell(bell, context.run_within(runners_turns));
        }
        rung
    };
    let (other, others_bell) = (context.clone(), bell.clone());
    let poster = thread::spawn(move || {
        post(&other, &others_bell, 1);
        post(&other, &others_bell, 2);
    });
    let (served, runners_bell) = (context.clone(), bell.clone());
    let runner = thread::spawn(move || serve(&served, &runners_bell));
    post(&context, &bell, 3);
    poster.join().unwrap();
    runner.join().unwrap();
    while serve(&context, &bell) {}
    assert!(context.inbox.is_empty(), "an event lies in the inbox and nobody runs");
    assert!(context.baton.take_or_mark(), "nobody holds the baton, but it is not free");
    let mut seen = context.engine.read();
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3], "an event is lost or doubled");
}

fn ring_when_used(bell: &Doorbell, ran: Ran) {
    if ran == Ran::Used {
        bell.ring();
    }
}

#[test]
fn bat_3_a_holder_that_leaves_work_loses_none_when_it_tells_of_it() {
    check(|| what_is_left_is_told_of(1, u32::MAX, ring_when_used));
}

/// The driver's: an interrupt posts, takes the baton, lets go without a look, and has a runner started, whose turns are
/// bounded too.
#[test]
fn bat_3_an_interrupt_that_never_runs_the_engine_leaves_nothing_lying() {
    check(|| what_is_left_is_told_of(0, 2, ring_when_used));
}

#[test]
#[should_panic(expected = "an event lies in the inbox and nobody runs")]
fn control_leaving_work_without_telling_loses_an_event() {
    check(|| what_is_left_is_told_of(1, u32::MAX, |_, _| {}));
}

/// The mark that an interrupt takes off as it lets go may be another poster's, who counts on it: telling before letting
/// go has the runner find the baton held, and mark it, and go.
#[test]
#[should_panic(expected = "an event lies in the inbox and nobody runs")]
fn control_telling_before_letting_go_loses_an_event() {
    check(|| {
        let context = Arc::new(Context::<RealBaton<Sound>, Sound>::new(4));
        let other = context.clone();
        let bell = Arc::new(Doorbell::new());
        let runners_bell = bell.clone();
        let runner = thread::spawn(move || {
            if runners_bell.has_rung() && other.baton.take_or_mark() {
                other.run();
            }
        });
        assert!(context.inbox.post(&event(1)));
        if context.baton.take_or_mark() {
            bell.ring();
            while context.baton.let_go() == Release::LookAgain {}
        }
        runner.join().unwrap();
        if bell.has_rung() && context.baton.take_or_mark() {
            context.run();
        }
        assert!(context.inbox.is_empty(), "an event lies in the inbox and nobody runs");
    });
}

const FREE: u32 = 0;
const HELD: u32 = 1;
const MARKED: u32 = 2;

/// Broken on purpose: lets go without asking for marks.
#[derive(Debug)]
struct Careless(LoomU32<Sound>);

impl Hand for Careless {
    fn free() -> Self {
        Careless(NewWord::new(FREE))
    }
    fn take_or_mark(&self) -> bool {
        self.0.compare_exchange(FREE, HELD).is_ok()
    }
    fn let_go(&self) -> Release {
        self.0.store_release(FREE);
        Release::Released
    }
}

#[test]
#[should_panic(expected = "an event lies in the inbox and nobody runs")]
fn control_letting_go_without_asking_for_marks_loses_an_event() {
    check(|| every_event_is_drained::<Careless, Sound>(&[&[1], &[2]]));
}

/// Broken on purpose: who finds a mark adds none of its own, so the mark's taker does not see this post.
#[derive(Debug)]
struct Relying(LoomU32<Sound>);

impl Hand for Relying {
    fn free() -> Self {
        Relying(NewWord::new(FREE))
    }
    fn take_or_mark(&self) -> bool {
        loop {
            match self.0.compare_exchange(FREE, HELD) {
                Ok(_) => return true,
                Err(MARKED) => return false,
                Err(_) => {
                    if self.0.compare_exchange(HELD, MARKED).is_ok() {
                        return false;
                    }
                }
            }
        }
    }
    fn let_go(&self) -> Release {
        match self.0.compare_exchange(HELD, FREE) {
            Ok(_) => Release::Released,
            Err(_) => {
                self.0.swap(HELD);
                Release::LookAgain
            }
        }
    }
}

#[test]
#[should_panic(expected = "an event lies in the inbox and nobody runs")]
fn control_relying_on_another_s_mark_loses_an_event() {
    check(|| every_event_is_drained::<Relying, Sound>(&[&[1], &[2], &[3]]));
}

#[test]
#[should_panic(expected = "an event lies in the inbox and nobody runs")]
fn control_marking_before_posting_loses_an_event() {
    check(|| {
        let context = Arc::new(Context::<RealBaton<Sound>, Sound>::new(4));
        let other = context.clone();
        let poster = thread::spawn(move || {
            let holds = other.baton.take_or_mark();
            assert!(other.inbox.post(&event(2)));
            if holds {
                other.run();
            }
        });
        context.post_and_run(1);
        poster.join().unwrap();
        assert!(context.inbox.is_empty(), "an event lies in the inbox and nobody runs");
    });
}
