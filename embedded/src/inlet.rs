//! A ring as the runner has it: SQEs are taken by budget, and its flags are up while the service thread sleeps (clauses
//! RUN-3, RUN-4, WAKE-1, WAKE-3).

use crate::host::EmbeddedHost;
use crate::storage::Heap;
use dmaplane_engine::{Engine, Stop};
use dmaplane_ring::abi::Sqe;
use dmaplane_ring::queue::{HeapRing, Submissions};
use std::sync::Arc;

/// SQEs looked at at once: the longest chain.
const WINDOW: usize = dmaplane_ring::abi::MAX_CHAIN;
/// SQEs taken from one ring in one turn, so that rings are served fairly.
const RING_BUDGET: u32 = 256;

/// What a look around has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    /// Nothing was to be done.
    Idle,
    /// What was there is done, and nothing came of it that another look would find.
    Settled,
    /// Another look may find more.
    More,
}

/// The engine's end of one SQ.
pub(crate) struct Inlet {
    submissions: Submissions<Arc<HeapRing>>,
    /// Private copies of the SQ's first entries: kept, so that nobody has to clear it for each look.
    window: Box<[Sqe; WINDOW]>,
    /// Why the head of the SQ could not be taken when last looked at, if it could not. What comes behind a head that is
    /// blocked is blocked too.
    blocked: Option<Stop>,
    /// CQ_BLOCKED is up.
    awaits_room: bool,
}

impl Inlet {
    pub(crate) fn new(submissions: Submissions<Arc<HeapRing>>) -> Inlet {
        Inlet { submissions, window: Box::new([Sqe::default(); WINDOW]), blocked: None, awaits_room: false }
    }

    /// Takes what stands in the SQ, within the budget.
    pub(crate) fn take(&mut self, engine: &mut Engine<Heap>, host: &mut EmbeddedHost, index: u32) -> Progress {
        let mut progress = Progress::Idle;
        self.blocked = None;
        let mut budget = RING_BUDGET;
        while budget > 0 {
            let filled = self.submissions.peek_batch(&mut self.window[..]);
            if filled == 0 {
                return progress;
            }
            let take = engine.take(host, index, &self.window[..filled]);
            self.submissions.advance(take.taken);
            host.publish_early(index);
            budget = budget.saturating_sub(take.taken.max(1));
            if take.taken > 0 {
                progress = Progress::Settled;
            }
            if take.stop != Stop::WindowEnd || take.taken == 0 {
                self.blocked = Some(take.stop).filter(|stop| *stop != Stop::WindowEnd);
                break;
            }
        }
        // Something is left, or may be.
        if progress == Progress::Settled { Progress::More } else { progress }
    }

    /// Whether the head could not be taken when last looked at.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Raises the flags that have the client ring our bell, and looks once more; `false`: there is work.
    pub(crate) fn raise(&mut self, host: &mut EmbeddedHost, index: u32) -> bool {
        self.awaits_room = false;
        if self.submissions.prepare_sleep() {
            return true;
        }
        self.submissions.prepare_blocked_sleep();
        self.awaits_room = true;
        // A head that has come since the last look is work. A blocked one waits for an event, which comes through the
        // inbox, or for the client to reap, which it may have done since.
        match self.blocked {
            Some(Stop::CqFull) => host.cq_unchanged(index),
            Some(Stop::Drain | Stop::Closed) => true,
            Some(Stop::WindowEnd) | None => false,
        }
    }

    /// Brings flags that are up to what another thread has found while the service thread slept; `false`: there is
    /// work.
    /// A client that is not asked to ring after reaping does not, and one that is asked in vain does each time.
    pub(crate) fn raise_anew(&mut self, host: &mut EmbeddedHost, index: u32) -> bool {
        self.blocked.is_some() == self.awaits_room || self.raise(host, index)
    }

    /// Lowers the flags.
    pub(crate) fn lower(&mut self) {
        self.awaits_room = false;
        self.submissions.awake();
    }

    /// Nothing more is taken.
    pub(crate) fn close(&mut self) {
        self.submissions.close();
    }
}
