//! Who runs the engine, and when (clauses BAT-1 to BAT-4, RUN-1 to RUN-5).
//!
//! [`Shared`] is the one place where the baton guards something: the [`Core`], which is the engine, its host and the
//! engine's ends of the rings. Whoever holds the baton runs turns until nothing is left to do.

use crate::config::{Config, RunMode};
use crate::fabric::{Pending, tcp};
use crate::host::{EmbeddedHost, Note};
use crate::storage::Heap;
use crate::worker::Workers;
use dmaplane_engine::{Baton, Engine, Event, Identity, Inbox, InboxSlot, Release, Stop};
use dmaplane_ring::abi::{Errno, Sqe};
use dmaplane_ring::atomic::Native;
use dmaplane_ring::queue::{HeapRing, Submissions};
use rustix::event::epoll;
use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// SQEs looked at at once: the longest chain.
const WINDOW: usize = dmaplane_ring::abi::MAX_CHAIN;
/// SQEs taken from one ring in one turn, so that rings are served fairly.
const RING_BUDGET: u32 = 256;

/// What the baton guards.
pub(crate) struct Core {
    pub engine: Engine<Heap>,
    pub host: EmbeddedHost,
    pub submissions: Vec<Option<Submissions<Arc<HeapRing>>>>,
    /// Why the head of each ring's SQ could not be taken when last looked at, if it could not. What comes behind a head
    /// that is blocked is blocked too.
    pub blocked: Vec<Option<Stop>>,
}

/// One context's shared state.
pub(crate) struct Shared {
    baton: Baton<Native>,
    core: UnsafeCell<Core>,
    inbox: Inbox<Native, Box<[InboxSlot<Native>]>>,
    /// What the host's helpers tell the host.
    notes: Mutex<Vec<Note>>,
    has_notes: AtomicBool,
    /// Calls that wait for the baton; the poller steps aside while there are any.
    callers: AtomicU32,
    /// Wakes the service thread: this process's own, never a peer's.
    bell: OwnedFd,
    /// What the service thread sleeps in: the bell, and one of each shm peer's.
    bells: OwnedFd,
    /// When the service thread will wake by itself; `u64::MAX` while it is awake.
    sleeps_until_ns: AtomicU64,
    pub stopping: AtomicBool,
    pub workers: Workers,
    pub config: Config,
    pub info: dmaplane_engine::PeerInfo,
    /// Connections that no engine has adopted yet.
    pub pending: Mutex<HashMap<u32, Pending>>,
    pub next_pending: AtomicU32,
    start: Instant,
}

// SAFETY: `core` is only touched by the baton's holder (see `with_held`), one at a time, with acquire and release at
// the hand-over; everything else in here is Sync by itself, and everything in `Core` may move between threads.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

fn random_words() -> std::io::Result<[u64; 4]> {
    let mut bytes = [0u8; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
    }
    Ok(words)
}

impl Shared {
    pub(crate) fn new(config: Config) -> std::io::Result<Arc<Shared>> {
        let [a, b, c, d] = random_words()?;
        let identity = Identity { context: [a, b], token_key: [c, d] };
        let engine = Engine::<Heap>::new(config.limits, identity, &mut Heap)
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::OutOfMemory))?;
        let workers = Workers::start(config.workers)?;
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let bell = rustix::event::eventfd(0, flags)?;
        let bells = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&bells, &bell, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        // Messages go from the links straight to the engine; none waits in the inbox.
        let slots = config.limits.inbox_slots(1024);
        let slots: Box<[_]> = (0..slots).map(|n| InboxSlot::new(n, Into::into, || 0.into())).collect();
        let inbox = Inbox::new(slots, 0.into(), 0.into()).ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(Arc::new_cyclic(|weak| Shared {
            baton: Baton::new(0.into()),
            info: engine.info(),
            core: UnsafeCell::new(Core {
                engine,
                host: EmbeddedHost::new(weak.clone(), &config),
                submissions: Vec::new(),
                blocked: Vec::new(),
            }),
            inbox,
            notes: Mutex::new(Vec::new()),
            has_notes: AtomicBool::new(false),
            callers: AtomicU32::new(0),
            bell,
            bells,
            sleeps_until_ns: AtomicU64::new(u64::MAX),
            stopping: AtomicBool::new(false),
            workers,
            config,
            pending: Mutex::new(HashMap::new()),
            next_pending: AtomicU32::new(1),
            start: Instant::now(),
        }))
    }

    /// The engine's clock.
    pub(crate) fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Posts an event without running the engine: for the host itself, whose caller holds the baton.
    pub(crate) fn post_quietly(&self, event: Event) {
        // Sized so that this cannot happen; going on without the event would lose a completion.
        assert!(self.inbox.post(&event), "the inbox is full: {event:?}");
    }

    /// Posts an event and sees to it that it is handled.
    pub(crate) fn post(&self, event: Event) {
        self.post_quietly(event);
        self.kick();
    }

    /// Tells the host something, for the host itself.
    pub(crate) fn note_quietly(&self, note: Note) {
        self.notes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(note);
        // Release: pairs with the acquire swap in `turn`.
        self.has_notes.store(true, Ordering::Release);
    }

    /// Tells the host something, and sees to it that it is handled.
    pub(crate) fn note(&self, note: Note) {
        self.note_quietly(note);
        self.kick();
    }

    /// Tells the host several things at once.
    pub(crate) fn notes(&self, notes: impl IntoIterator<Item = Note>) {
        self.notes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend(notes);
        // Release: pairs with the acquire swap in `turn`.
        self.has_notes.store(true, Ordering::Release);
        self.kick();
    }

    /// Runs the engine, unless somebody else does, who then looks again.
    pub(crate) fn kick(&self) {
        if self.baton.take_or_mark() {
            self.run_and_let_go();
        }
    }

    /// Rings the service thread's bell.
    pub(crate) fn ring_bell(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Runs `call` on the core: for calls that are not SQEs.
    pub(crate) fn with_core<R>(&self, call: impl FnOnce(&Shared, &mut Core) -> R) -> R {
        self.callers.fetch_add(1, Ordering::AcqRel);
        while !self.baton.try_take() {
            std::thread::yield_now();
        }
        self.callers.fetch_sub(1, Ordering::AcqRel);
        let result = self.with_held(|core| call(self, core));
        self.run_and_let_go();
        result
    }

    /// The only way to the core. The caller holds the baton.
    fn with_held<R>(&self, call: impl FnOnce(&mut Core) -> R) -> R {
        let _fatal = AbortOnPanic { unwinding: std::thread::panicking() };
        // SAFETY: the caller holds the baton, which one thread does at a time, and this borrow ends before it lets go;
        // `call` cannot get here again, since nothing reachable from `Core` has the baton's holder call `with_held`.
        call(unsafe { &mut *self.core.get() })
    }

    fn run_and_let_go(&self) {
        loop {
            self.baton.look();
            self.with_held(|core| while self.turn(core) {});
            let deadline = self.with_held(|core| core.engine.next_deadline_ns());
            // Acquire: pairs with the service thread's release before it sleeps.
            if deadline.is_some_and(|deadline| deadline < self.sleeps_until_ns.load(Ordering::Acquire)) {
                self.ring_bell();
            }
            if self.baton.let_go() == Release::Released {
                return;
            }
        }
    }

    /// One round over everything that may have work; `false` when nothing had any.
    pub(crate) fn turn(&self, core: &mut Core) -> bool {
        let mut worked = false;
        while let Some(event) = self.inbox.take() {
            core.engine.handle(&mut core.host, event);
            worked = true;
        }
        // Acquire: pairs with the release in `note`.
        if self.has_notes.load(Ordering::Relaxed) && self.has_notes.swap(false, Ordering::Acquire) {
            let notes = std::mem::take(&mut *self.notes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
            for note in notes {
                core.host.take_note(&mut core.engine, note);
            }
            worked = true;
        }
        worked |= core.host.poll_links(&mut core.engine);
        worked |= Self::take_submissions(core);
        if let Some(deadline_ns) = core.engine.next_deadline_ns()
            && deadline_ns <= self.now_ns()
        {
            core.engine.expire(&mut core.host);
            worked = true;
        }
        if core.engine.has_work() {
            core.engine.step(&mut core.host);
            worked = true;
        }
        worked |= core.host.poll_words();
        core.host.flush();
        worked
    }

    fn take_submissions(core: &mut Core) -> bool {
        let mut worked = false;
        for (index, ring) in core.submissions.iter_mut().enumerate() {
            let Some(submissions) = ring else { continue };
            if let Some(blocked) = core.blocked.get_mut(index) {
                *blocked = None;
            }
            let mut budget = RING_BUDGET;
            while budget > 0 && submissions.available() > 0 {
                let mut window = [Sqe::default(); WINDOW];
                let mut filled = 0;
                while let Some(place) = window.get_mut(filled)
                    && let Some(sqe) = submissions.peek(filled as u32)
                {
                    *place = sqe;
                    filled += 1;
                }
                let take = core.engine.take(&mut core.host, index as u32, &window[..filled]);
                submissions.advance(take.taken);
                budget = budget.saturating_sub(take.taken.max(1));
                worked |= take.taken > 0;
                if take.stop != Stop::WindowEnd || take.taken == 0 {
                    if let Some(blocked) = core.blocked.get_mut(index) {
                        *blocked = Some(take.stop).filter(|stop| *stop != Stop::WindowEnd);
                    }
                    break;
                }
            }
        }
        worked
    }

    /// Raises every flag that tells others to ring our bell, and looks once more; `false`: there is work.
    fn prepare_sleep(&self, core: &mut Core) -> bool {
        let mut idle = true;
        for (index, ring) in core.submissions.iter_mut().enumerate() {
            let Some(submissions) = ring else { continue };
            if submissions.prepare_sleep() {
                continue;
            }
            submissions.prepare_blocked_sleep();
            // A head that has come since the last look is work. A blocked one waits for an event, which comes through
            // the inbox, or for the client to reap, which it may have done since.
            idle &= match core.blocked.get(index).copied().flatten() {
                Some(Stop::CqFull) => core.host.cq_unchanged(index as u32),
                Some(Stop::Drain | Stop::Closed) => true,
                Some(Stop::WindowEnd) | None => false,
            };
        }
        core.host.announce_sleep() && idle && self.inbox.is_empty() && !self.has_notes.load(Ordering::Acquire)
    }

    fn wake_up(&self, core: &mut Core) {
        for submissions in core.submissions.iter_mut().flatten() {
            submissions.awake();
        }
        core.host.awake();
    }

    /// The service thread: polls in poller mode, sleeps otherwise, and sees to peers and timers.
    pub(crate) fn serve(&self) {
        let idle = match self.config.mode {
            RunMode::Poller { idle } => idle,
            RunMode::Inline | RunMode::Enter => Duration::ZERO,
        };
        let mut awake_since = Instant::now();
        let mut rounds = 0u32;
        loop {
            let mut slept = false;
            if self.baton.try_take() {
                self.baton.look();
                let worked = self.with_held(|core| self.turn(core));
                rounds = rounds.wrapping_add(1);
                if worked {
                    awake_since = Instant::now();
                    rounds = 0;
                } else if idle.is_zero() || (rounds.is_multiple_of(64) && awake_since.elapsed() >= idle) {
                    let timeout = self.with_held(|core| {
                        // Look at links that have ended and the like before sleeping, too.
                        if !self.prepare_sleep(core) {
                            self.wake_up(core);
                            return None;
                        }
                        Some(self.sleep_time(core))
                    });
                    if let Some(until) = timeout {
                        // Release: pairs with the acquire in `run_and_let_go`.
                        self.sleeps_until_ns.store(until, Ordering::Release);
                        if self.baton.let_go() == Release::Released {
                            self.sleep(until);
                            slept = true;
                            self.sleeps_until_ns.store(u64::MAX, Ordering::Release);
                            if self.stopping.load(Ordering::Acquire) {
                                return;
                            }
                            if !self.baton.take_or_mark() {
                                continue;
                            }
                        }
                        self.sleeps_until_ns.store(u64::MAX, Ordering::Release);
                        self.with_held(|core| self.wake_up(core));
                        awake_since = Instant::now();
                        rounds = 0;
                    }
                }
                while self.baton.let_go() == Release::LookAgain {
                    self.with_held(|core| while self.turn(core) {});
                }
            }
            if !slept {
                if self.stopping.load(Ordering::Acquire) {
                    return;
                }
                while self.callers.load(Ordering::Acquire) > 0 {
                    std::thread::yield_now();
                }
                dmaplane_ring::wait::relax(rounds);
            }
        }
    }

    fn sleep_time(&self, core: &Core) -> u64 {
        let deadline = core.engine.next_deadline_ns().unwrap_or(u64::MAX);
        if core.host.waits_on_words() || core.host.has_backlog() {
            deadline.min(self.now_ns() + 100_000)
        } else {
            deadline
        }
    }

    fn sleep(&self, until_ns: u64) {
        let timeout = (until_ns != u64::MAX).then(|| {
            let left = until_ns.saturating_sub(self.now_ns());
            rustix::event::Timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as i64 }
        });
        let mut events = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; 16];
        let _ = epoll::wait(&self.bells, &mut events[..], timeout.as_ref());
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
    }

    /// From now on a peer's bell wakes the service thread. Edges are enough, and nobody has to read it: so nothing that
    /// the peer does to it costs anybody else a wake-up.
    pub(crate) fn watch_bell(&self, bell: BorrowedFd<'_>) -> Result<(), Errno> {
        let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.bells, bell, epoll::EventData::new_u64(1), edges).map_err(crate::memory::errno)
    }

    pub(crate) fn unwatch_bell(&self, bell: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.bells, bell);
    }

    /// What tcp peers are told and what they must know.
    pub(crate) fn own(&self) -> tcp::Own {
        tcp::Own { info: self.info, key: self.config.key }
    }

    /// Keeps a connection until an engine adopts it: its number.
    pub(crate) fn keep_pending(&self, pending: Pending) -> u32 {
        let number = self.next_pending.fetch_add(1, Ordering::Relaxed);
        self.pending.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(number, pending);
        number
    }

    pub(crate) fn take_pending(&self, number: u32) -> Option<Pending> {
        self.pending.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&number)
    }
}

/// A panic in the core leaves state that nobody may use, and a baton that nobody lets go: everybody would wait for
/// ever. So it ends the process.
struct AbortOnPanic {
    /// The caller was unwinding before: that panic is not the core's.
    unwinding: bool,
}

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.unwinding {
            std::process::abort();
        }
    }
}

/// What a helper thread reports when it could not do its work.
pub(crate) fn failed(op: dmaplane_engine::OpId, errno: Errno) -> Event {
    Event::Finished { op, result: errno.as_result(), word0: 0, word1: 0 }
}
