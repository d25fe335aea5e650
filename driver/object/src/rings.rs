//! The engine's ends of the rings, by ring index: what comes in, and what goes out.

use crate::areas::Areas;
use crate::glue::{BUG_CQ_OVERFLOW, Glue};
use crate::tables::{Block, KernelTable};
use core::sync::atomic::AtomicU32;
use dmaplane_engine::Stop;
use dmaplane_ring::abi::{Cqe, Sqe};
use dmaplane_ring::atomic::Word;
use dmaplane_ring::queue::{Completions, Submissions};

/// What our flags tell a client to ring for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raised {
    /// For nothing: somebody polls.
    Nothing,
    /// For new SQEs (clause WAKE-1).
    Submissions,
    /// For new SQEs and for room in its CQ (clause WAKE-3).
    Room,
}

/// The SQ of one ring.
struct Inlet {
    submissions: Submissions<Areas>,
    /// Why the head could not be taken when last looked at. What stands behind a blocked head is blocked too.
    blocked: Option<Stop>,
    raised: Raised,
}

/// The SQs of a context's rings.
pub(crate) struct Inlets(KernelTable<Option<Inlet>>);

impl Inlets {
    pub(crate) fn new(block: &mut Block, rings: u32) -> Option<Inlets> {
        block.entries(rings as usize, |_| None).map(Inlets)
    }

    /// Puts a ring in; what was there is over.
    pub(crate) fn attach(&mut self, ring: u32, submissions: Submissions<Areas>) {
        if let Some(place) = self.0.get_mut(ring as usize) {
            *place = Some(Inlet { submissions, blocked: None, raised: Raised::Nothing });
        }
    }

    /// Tells the client that nothing more is taken, and forgets the ring: whether it was there.
    pub(crate) fn detach(&mut self, ring: u32) -> bool {
        let inlet = self.0.get_mut(ring as usize).and_then(Option::take);
        inlet.is_some_and(|mut inlet| {
            inlet.submissions.close();
            true
        })
    }

    /// Tells every client that nothing more is taken (clause RING-9).
    pub(crate) fn close(&mut self) {
        self.0.iter_mut().flatten().for_each(|inlet| inlet.submissions.close());
    }

    /// Hands windows of SQEs to `take`, which says how many were taken and why the rest was not; from each ring about
    /// `budget` at most (clauses RUN-3, RUN-4). Returns whether any was taken.
    pub(crate) fn drain(
        &mut self,
        window: &mut [Sqe],
        budget: u32,
        mut take: impl FnMut(u32, &[Sqe]) -> dmaplane_engine::Take,
    ) -> bool {
        let mut worked = false;
        for (ring, inlet) in self.0.iter_mut().enumerate() {
            let Some(inlet) = inlet else { continue };
            inlet.blocked = None;
            let mut left = budget;
            while left > 0 && inlet.submissions.available() > 0 {
                let mut filled = 0;
                for place in window.iter_mut() {
                    let Some(sqe) = inlet.submissions.peek(filled) else { break };
                    *place = sqe;
                    filled += 1;
                }
                let took = take(ring as u32, window.get(..filled as usize).unwrap_or(&[]));
                inlet.submissions.advance(took.taken);
                left = left.saturating_sub(took.taken.max(1));
                worked |= took.taken > 0;
                if took.stop != Stop::WindowEnd || took.taken == 0 {
                    inlet.blocked = Some(took.stop).filter(|stop| *stop != Stop::WindowEnd);
                    break;
                }
            }
        }
        worked
    }

    /// Raises the flags that tell clients to ring, where they are not up, and looks once more. `false`: there is work.
    ///
    /// A flag that is up already needs no second look: who has published or reaped since it went up has seen it, or we
    /// have seen what it did, and has rung the doorbell if the last.
    pub(crate) fn raise(&mut self, outlets: &mut Outlets) -> bool {
        let mut idle = true;
        for (ring, inlet) in self.0.iter_mut().enumerate() {
            let Some(inlet) = inlet else { continue };
            let wanted = match inlet.blocked {
                Some(Stop::CqFull | Stop::Drain) => Raised::Room,
                Some(Stop::Closed | Stop::WindowEnd) | None => Raised::Submissions,
            };
            if inlet.raised == wanted {
                continue;
            }
            inlet.raised = wanted;
            if wanted == Raised::Room {
                inlet.submissions.prepare_blocked_sleep();
                // A DRAIN ends by an event, which comes through the inbox; a full CQ by the client's reaping.
                idle &= inlet.blocked != Some(Stop::CqFull) || outlets.is_unreaped(ring as u32);
            } else {
                // What waits in a ring that is closed is never taken.
                idle &= inlet.submissions.prepare_sleep() || inlet.blocked == Some(Stop::Closed);
            }
        }
        idle
    }

    /// Takes the flags down: somebody polls.
    pub(crate) fn lower(&mut self) {
        for inlet in self.0.iter_mut().flatten() {
            inlet.submissions.awake();
            inlet.raised = Raised::Nothing;
        }
    }
}

/// The CQ of one ring.
struct Outlet {
    completions: Completions<Areas>,
    /// CQEs are written and not published.
    dirty: bool,
    /// Room when the engine last asked.
    free_seen: u32,
}

/// The CQs of a context's rings.
pub(crate) struct Outlets(KernelTable<Option<Outlet>>);

impl Outlets {
    pub(crate) fn new(block: &mut Block, rings: u32) -> Option<Outlets> {
        block.entries(rings as usize, |_| None).map(Outlets)
    }

    pub(crate) fn attach(&mut self, ring: u32, completions: Completions<Areas>) {
        if let Some(place) = self.0.get_mut(ring as usize) {
            *place = Some(Outlet { completions, dirty: false, free_seen: 0 });
        }
    }

    pub(crate) fn detach(&mut self, ring: u32) {
        if let Some(place) = self.0.get_mut(ring as usize) {
            *place = None;
        }
    }

    fn of(&mut self, ring: u32) -> Option<&mut Outlet> {
        self.0.get_mut(ring as usize)?.as_mut()
    }

    /// Room for CQEs, unpublished ones counted as taken (clause HOST-5).
    #[inline]
    pub(crate) fn free(&mut self, ring: u32) -> u32 {
        self.of(ring).map_or(0, |outlet| {
            outlet.free_seen = outlet.completions.free();
            outlet.free_seen
        })
    }

    /// Whether the client has reaped nothing since the engine last asked for room.
    fn is_unreaped(&mut self, ring: u32) -> bool {
        self.of(ring).is_none_or(|outlet| outlet.completions.free() == outlet.free_seen)
    }

    /// Writes a CQE.
    #[inline]
    pub(crate) fn push(&mut self, glue: Glue, ring: u32, cqe: &Cqe) {
        let Some(outlet) = self.of(ring) else { return };
        outlet.dirty = true;
        if outlet.completions.push(cqe).is_err() {
            glue.bug(BUG_CQ_OVERFLOW);
        }
    }

    /// Publishes what was written, and wakes the clients that sleep (clause WAKE-2) or wait in ENTER.
    pub(crate) fn publish(&mut self, glue: Glue, waiters: &[AtomicU32]) {
        for (ring, outlet) in self.0.iter_mut().enumerate() {
            if let Some(outlet) = outlet
                && outlet.dirty
            {
                outlet.dirty = false;
                let sleeps = outlet.completions.publish();
                // Behind the fence that looking at the client's flag takes: see `Context::count_waiter`.
                let waits = waiters.get(ring).is_some_and(|waiters| waiters.load_relaxed() > 0);
                if sleeps || waits {
                    glue.wake_client(ring as u32);
                }
            }
        }
    }

    /// Wakes every client: a ring that is closed does not change its CQ's tail (clause RING-9).
    pub(crate) fn wake_all(&mut self, glue: Glue) {
        for (ring, outlet) in self.0.iter_mut().enumerate() {
            if outlet.is_some() {
                glue.wake_client(ring as u32);
            }
        }
    }
}
