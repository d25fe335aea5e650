//! What a context's threads share besides its rings: the inbox, the baton and the engine's state.

use crate::atomics::{Checked, LoomAtomics, LoomU32, NewWord, Orderings};
use crate::checked::CheckedCell;
use dmaplane_engine::{Baton, Event, Inbox, InboxSlot, OpId, Release};

/// An inbox of loom's words.
pub type LoomInbox<O> = Inbox<LoomAtomics<O, Checked>, Vec<InboxSlot<LoomAtomics<O, Checked>>>>;

/// An empty inbox, of a size that an inbox can have.
pub fn inbox<O: Orderings>(slots: u32) -> LoomInbox<O> {
    try_inbox(slots).expect("a power of two, and not one")
}

/// An empty inbox.
pub fn try_inbox<O: Orderings>(slots: u32) -> Option<LoomInbox<O>> {
    let slots = (0..slots).map(|position| InboxSlot::new(position, LoomU32::chained, || NewWord::new(0))).collect();
    Inbox::new(slots, LoomU32::chained(0), NewWord::new(0))
}

/// An event of number `n` that uses several words.
pub fn event(n: u32) -> Event {
    Event::Finished { op: OpId::new(n, 7), result: n as i32, word0: u64::from(n) + 100, word1: u64::from(n) + 200 }
}

/// The number of an event, which must be whole.
pub fn number(taken: Event) -> u32 {
    match taken {
        Event::Finished { op, .. } => {
            assert_eq!(taken, event(op.index()), "the event is torn or stale");
            op.index()
        }
        _ => panic!("nobody posted {taken:?}"),
    }
}

/// The baton, or one broken on purpose.
pub trait Hand: Send + Sync + 'static {
    /// A free one.
    fn free() -> Self;
    /// As [`Baton::take_or_mark`].
    fn take_or_mark(&self) -> bool;
    /// As [`Baton::let_go`].
    fn let_go(&self) -> Release;
}

impl<O: Orderings> Hand for Baton<LoomAtomics<O>> {
    fn free() -> Self {
        Baton::new(LoomU32::chained(0))
    }
    fn take_or_mark(&self) -> bool {
        Baton::take_or_mark(self)
    }
    fn let_go(&self) -> Release {
        Baton::let_go(self)
    }
}

/// How a hold ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// Nothing was left to do, or somebody else sees to it.
    Idle,
    /// The turns were used up: somebody else has to be told.
    Used,
}

/// Inbox, baton, and an engine whose whole state is the numbers of the events that it was given.
#[derive(Debug)]
pub struct Context<H, O: Orderings> {
    /// Where events come in.
    pub inbox: LoomInbox<O>,
    /// Who may run the engine.
    pub baton: H,
    /// Plain memory: only the baton orders who touches it.
    pub engine: CheckedCell<Vec<u32>>,
}

impl<H: Hand, O: Orderings> Context<H, O> {
    /// With an empty inbox.
    pub fn new(inbox_slots: u32) -> Self {
        Context { inbox: inbox(inbox_slots), baton: H::free(), engine: CheckedCell::new(Vec::new()) }
    }

    /// What a host does with an event: post it, then run the engine unless somebody else does.
    pub fn post_and_run(&self, n: u32) {
        assert!(self.inbox.post(&event(n)), "the inbox is long enough");
        if self.baton.take_or_mark() {
            self.run();
        }
    }

    /// What the baton's holder does.
    pub fn run(&self) {
        self.run_within(u32::MAX);
    }

    /// As [`Context::post_and_run`], within a hold of so many turns.
    pub fn post_and_run_within(&self, n: u32, turns: u32) -> Ran {
        assert!(self.inbox.post(&event(n)), "the inbox is long enough");
        if self.baton.take_or_mark() { self.run_within(turns) } else { Ran::Idle }
    }

    /// What a holder does that makes at most so many turns, of one event each.
    pub fn run_within(&self, mut turns: u32) -> Ran {
        loop {
            while turns > 0
                && let Some(event) = self.inbox.take()
            {
                turns -= 1;
                let mut seen = self.engine.read();
                seen.push(number(event));
                self.engine.write(seen);
            }
            if turns == 0 {
                while self.baton.let_go() == Release::LookAgain {}
                return Ran::Used;
            }
            if self.baton.let_go() == Release::Released {
                return Ran::Idle;
            }
        }
    }
}
