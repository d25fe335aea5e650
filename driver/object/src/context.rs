//! A context, as it lies at the start of its block of memory, and who may touch what of it.
//!
//! Two kinds of threads come here. *Runners* hold the baton and have the [`Core`] to themselves. *Posters* come in any
//! context, hard interrupts among them, and touch the inbox, the baton and single words, all of which are atomic.

use crate::glue::Glue;
use crate::host::KernelHost;
use crate::rings::{Inlets, Outlets};
use crate::tables::{Block, Kernel, KernelTable};
use crate::types::Setup;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicU64};
use dmaplane_engine::{Baton, Engine, Inbox, InboxSlot};
use dmaplane_ring::abi::{MAX_CHAIN, Sqe};
use dmaplane_ring::atomic::{Atomics, Native, Word};

/// No deadline.
pub(crate) const NEVER: u64 = u64::MAX;

/// What the baton guards.
pub(crate) struct Core {
    pub(crate) engine: Engine<Kernel>,
    pub(crate) host: KernelHost,
    pub(crate) inlets: Inlets,
    /// Private copies of SQEs: as many as the longest chain has (clause RUN-3). Not on the kernel's small stack.
    pub(crate) window: KernelTable<Sqe>,
    /// A poller is awake: clients need not ring, and it looks at deadlines itself.
    pub(crate) polled: bool,
    /// The engine has been told to close.
    pub(crate) closing: bool,
    /// What C's timer is set to.
    pub(crate) armed_ns: u64,
}

/// One context.
pub struct Context {
    /// Who may touch `core`.
    pub(crate) baton: Baton<Native>,
    pub(crate) inbox: Inbox<Native, KernelTable<InboxSlot<Native>>>,
    pub(crate) glue: Glue,
    /// By ring: clients that C has waiting in ENTER, whose flags need not be up (clause DEV-4).
    pub(crate) waiters: KernelTable<AtomicU32>,
    /// 1: `dmaplane_close` has been called.
    pub(crate) close_asked: AtomicU32,
    /// 1: nothing of the context is left with the glue. Written by runners.
    pub(crate) closed: AtomicU32,
    /// The engine's next deadline when a runner last let go, or [`NEVER`]. Written by runners.
    pub(crate) deadline_ns: AtomicU64,
    /// Touched by the baton's holder only.
    core: UnsafeCell<Core>,
}

// SAFETY: `core` is reached through `with_core` alone, whose callers hold the baton: one thread at a time, with acquire
// and release at the hand-over. `Glue` names a context of C's that any thread may use. Everything else is atomic or
// does not change.
unsafe impl Sync for Context {}

impl Context {
    /// Takes what a context needs from a block; `None` where the block only counts, or is too small.
    pub(crate) fn new(setup: &Setup, glue: Glue, block: &mut Block) -> Option<Context> {
        let limits = setup.limits()?;
        let engine = Engine::new(limits, setup.identity(), block)?;
        let inlets = Inlets::new(block, limits.rings)?;
        let outlets = Outlets::new(block, limits.rings)?;
        let window = block.entries(MAX_CHAIN, |_| Sqe::default())?;
        let waiters = block.entries(limits.rings as usize, |_| AtomicU32::new(0))?;
        // Last: without memory it cannot be made, and nothing behind it would be counted. Peers' messages do not go
        // through it: they are fetched.
        let slots = limits.inbox_slots(0) as usize;
        let slots = block.entries(slots, |position| InboxSlot::new(position, AtomicU32::new, || AtomicU64::new(0)))?;
        let inbox = Inbox::new(slots, AtomicU32::new(0), AtomicU32::new(0))?;
        let host = KernelHost::new(glue, outlets);
        let core = Core { engine, host, inlets, window, polled: false, closing: false, armed_ns: NEVER };
        Some(Context {
            baton: Baton::new(AtomicU32::new(0)),
            inbox,
            glue,
            waiters,
            close_asked: AtomicU32::new(0),
            closed: AtomicU32::new(0),
            deadline_ns: AtomicU64::new(NEVER),
            core: UnsafeCell::new(core),
        })
    }

    /// Runs `call` on what the baton guards.
    ///
    /// # Safety
    /// The caller holds the baton until this has returned, and `call` does not get here again.
    pub(crate) unsafe fn with_core<R>(&self, call: impl FnOnce(&mut Core) -> R) -> R {
        // SAFETY: the caller holds the baton, which one thread does at a time, and the borrow ends before it lets go.
        call(unsafe { &mut *self.core.get() })
    }

    /// Whether the context is closed.
    pub(crate) fn is_closed(&self) -> bool {
        // Acquire: pairs with the release in `Context::tell_closed`; what teardown did is visible to who then destroys.
        self.closed.load_acquire() != 0
    }

    /// Counts a client in that waits for CQEs of this ring, or out: `false` where there is no such ring.
    pub(crate) fn count_waiter(&self, ring: u32, coming: bool) -> bool {
        let Some(waiters) = self.waiters.get(ring as usize) else {
            return false;
        };
        let mut count = waiters.load_relaxed();
        let changed = |count: u32| if coming { count.wrapping_add(1) } else { count.wrapping_sub(1) };
        while let Err(found) = Word::compare_exchange(waiters, count, changed(count)) {
            count = found;
        }
        // Partner: the fence in `peer_sleeps`, behind which `Outlets::publish` looks. Either it sees that somebody
        // waits, or who waits sees what was published.
        Native::fence_full();
        true
    }
}
