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

/// Something of each ring, by its index.
struct ByRing<T> {
    table: KernelTable<Option<T>>,
    /// No ring has this index or one beyond: few contexts have as many rings as they may, and this is walked for each
    /// batch.
    end: usize,
}

impl<T> ByRing<T> {
    fn new(block: &mut Block, rings: u32) -> Option<ByRing<T>> {
        Some(ByRing { table: block.entries(rings as usize, |_| None)?, end: 0 })
    }

    /// Puts a ring's in; what was there is over.
    fn put(&mut self, ring: u32, value: T) {
        if let Some(place) = self.table.get_mut(ring as usize) {
            *place = Some(value);
            self.end = self.end.max(ring as usize + 1);
        }
    }

    fn take(&mut self, ring: u32) -> Option<T> {
        let taken = self.table.get_mut(ring as usize).and_then(Option::take);
        self.end = self.table.iter().take(self.end).rposition(Option::is_some).map_or(0, |last| last + 1);
        taken
    }

    #[inline]
    fn get_mut(&mut self, ring: u32) -> Option<&mut T> {
        self.table.get_mut(ring as usize)?.as_mut()
    }

    /// Those that are there.
    #[inline]
    fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        let all = self.table.iter_mut().take(self.end).enumerate();
        all.filter_map(|(ring, place)| Some((ring as u32, place.as_mut()?)))
    }
}

/// The SQs of a context's rings.
pub(crate) struct Inlets(ByRing<Inlet>);

impl Inlets {
    pub(crate) fn new(block: &mut Block, rings: u32) -> Option<Inlets> {
        ByRing::new(block, rings).map(Inlets)
    }

    /// Puts a ring in; what was there is over.
    pub(crate) fn attach(&mut self, ring: u32, submissions: Submissions<Areas>) {
        self.0.put(ring, Inlet { submissions, blocked: None, raised: Raised::Nothing });
    }

    /// Tells the client that nothing more is taken, and forgets the ring: whether it was there.
    pub(crate) fn detach(&mut self, ring: u32) -> bool {
        self.0.take(ring).is_some_and(|mut inlet| {
            inlet.submissions.close();
            true
        })
    }

    /// Tells every client that nothing more is taken (clause RING-9).
    pub(crate) fn close(&mut self) {
        self.0.iter_mut().for_each(|(_, inlet)| inlet.submissions.close());
    }

    /// Hands windows of SQEs to `take`, which says how many were taken and why the rest was not; from each ring about
    /// `budget` at most, and one window once `in_time`, asked between one window and the next, says that there is no
    /// time left (clauses RUN-3, RUN-4). `polled`: clients write on another processor, as a rule. Returns whether any
    /// was taken.
    pub(crate) fn drain(
        &mut self,
        window: &mut [Sqe],
        budget: u32,
        polled: bool,
        in_time: impl Fn() -> bool,
        mut take: impl FnMut(u32, &[Sqe]) -> dmaplane_engine::Take,
    ) -> bool {
        let mut worked = false;
        for (ring, inlet) in self.0.iter_mut() {
            inlet.blocked = None;
            let mut left = budget;
            while left > 0 && inlet.submissions.available() > 0 {
                if left < budget && worked && !in_time() {
                    break;
                }
                let filled = match polled {
                    true => inlet.submissions.peek_batch(window),
                    false => inlet.submissions.peek_near_batch(window),
                };
                let took = take(ring, window.get(..filled).unwrap_or(&[]));
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
        for (ring, inlet) in self.0.iter_mut() {
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
                idle &= inlet.blocked != Some(Stop::CqFull) || outlets.is_unreaped(ring);
            } else {
                // What waits in a ring that is closed is never taken.
                idle &= inlet.submissions.prepare_sleep() || inlet.blocked == Some(Stop::Closed);
            }
        }
        idle
    }

    /// Takes the flags down: somebody polls.
    pub(crate) fn lower(&mut self) {
        for (_, inlet) in self.0.iter_mut() {
            inlet.submissions.awake();
            inlet.raised = Raised::Nothing;
        }
    }
}

/// The CQ of one ring.
struct Outlet {
    completions: Completions<Areas>,
    /// Something was published since it was last looked at whether the client sleeps.
    untold: bool,
    /// Room when the engine last asked.
    free_seen: u32,
}

/// The CQs of a context's rings.
pub(crate) struct Outlets(ByRing<Outlet>);

impl Outlets {
    pub(crate) fn new(block: &mut Block, rings: u32) -> Option<Outlets> {
        ByRing::new(block, rings).map(Outlets)
    }

    pub(crate) fn attach(&mut self, ring: u32, completions: Completions<Areas>) {
        self.0.put(ring, Outlet { completions, untold: false, free_seen: 0 });
    }

    pub(crate) fn detach(&mut self, ring: u32) {
        self.0.take(ring);
    }

    /// Somebody polls: clients reap on other processors.
    pub(crate) fn stage(&mut self) {
        self.0.iter_mut().for_each(|(_, outlet)| outlet.completions.write_through(false));
    }

    /// Room for CQEs, unpublished ones counted as taken (clause HOST-5).
    #[inline]
    pub(crate) fn free(&mut self, ring: u32) -> u32 {
        self.0.get_mut(ring).map_or(0, |outlet| {
            outlet.free_seen = outlet.completions.free();
            outlet.free_seen
        })
    }

    /// At most what [`Outlets::free`] says, without looking at what the client has reaped since.
    #[inline]
    pub(crate) fn free_at_least(&mut self, ring: u32) -> u32 {
        self.0.get_mut(ring).map_or(0, |outlet| outlet.completions.free_at_least())
    }

    /// Whether the client has reaped nothing since the engine last asked for room.
    fn is_unreaped(&mut self, ring: u32) -> bool {
        self.0.get_mut(ring).is_none_or(|outlet| outlet.completions.free() == outlet.free_seen)
    }

    /// Writes a CQE.
    #[inline]
    pub(crate) fn push(&mut self, glue: Glue, ring: u32, cqe: &Cqe) {
        let Some(outlet) = self.0.get_mut(ring) else { return };
        if outlet.completions.push(cqe).is_err() {
            glue.bug(BUG_CQ_OVERFLOW);
        }
    }

    /// Writes a CQE if more entries than `held` are free by [`Outlets::free_at_least`]: whether it was written.
    #[inline(always)]
    pub(crate) fn push_beyond(&mut self, ring: u32, held: u32, cqe: &Cqe) -> bool {
        let outlet = self.0.get_mut(ring);
        outlet.is_some_and(|outlet| held < outlet.completions.free_at_least() && outlet.completions.push(cqe).is_ok())
    }

    /// CQEs written and not yet published, of all rings.
    pub(crate) fn unpublished(&mut self) -> u64 {
        self.0.iter_mut().map(|(_, outlet)| u64::from(outlet.completions.unpublished())).sum()
    }

    /// The same of one ring.
    pub(crate) fn unpublished_to(&mut self, ring: u32) -> u64 {
        self.0.get_mut(ring).map_or(0, |outlet| u64::from(outlet.completions.unpublished()))
    }

    /// Publishes what was written to one ring in mid-turn. Whether its client sleeps is looked at by
    /// [`Outlets::publish`], once a turn, for that costs a fence.
    #[inline]
    pub(crate) fn publish_early(&mut self, ring: u32) {
        if let Some(outlet) = self.0.get_mut(ring) {
            outlet.untold |= outlet.completions.unpublished() > 0;
            outlet.completions.publish_early();
        }
    }

    /// Publishes what was written, and wakes the clients that sleep (clause WAKE-2) or wait in ENTER.
    pub(crate) fn publish(&mut self, glue: Glue, waiters: &[AtomicU32]) {
        for (ring, outlet) in self.0.iter_mut() {
            if core::mem::take(&mut outlet.untold) || outlet.completions.unpublished() > 0 {
                let sleeps = outlet.completions.publish();
                // Behind the fence that looking at the client's flag takes: see `Context::count_waiter`.
                let waits = waiters.get(ring as usize).is_some_and(|waiters| waiters.load_relaxed() > 0);
                if sleeps || waits {
                    glue.wake_client(ring);
                }
            }
        }
    }

    /// Wakes every client: a ring that is closed does not change its CQ's tail (clause RING-9).
    pub(crate) fn wake_all(&mut self, glue: Glue) {
        self.0.iter_mut().for_each(|(ring, _)| glue.wake_client(ring));
    }
}
