//! Who runs the engine, and when (clauses BAT-1 to BAT-4, RUN-1 to RUN-5).
//!
//! [`Shared`] is the one place where the baton guards something: the [`Core`], which is the engine, its host and the
//! engine's ends of the rings. Whoever holds the baton runs turns until nothing is left to do.

use crate::config::{Config, RunMode};
use crate::fabric::{Pending, tcp};
use crate::host::{EmbeddedHost, Note};
use crate::inlet::{Inlet, Progress};
use crate::ring::Ring;
use crate::storage::Heap;
use crate::worker::Workers;
use dmaplane_engine::{Baton, Engine, Event, Identity, Inbox, InboxSlot, Release};
use dmaplane_ring::abi::{Errno, RingLayout};
use dmaplane_ring::atomic::Native;
use dmaplane_ring::queue::HeapRing;
use rustix::event::epoll;
use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Turns that one hold of the baton makes at most: who holds it for a moment's work of its own must not be kept by
/// everybody else's. The rest is left to the service thread.
const HOLD_TURNS: u32 = 16;
/// Nanoseconds between two looks at what rings no bell.
const LOOK_NS: u64 = 100_000;
/// Events handled in one turn.
const EVENT_BUDGET: u32 = 1024;
/// How often who has let go for a call gives its core away, so that the call gets the baton first.
const STEP_ASIDE: u32 = 64;

/// Bells heard at once; others are heard the next time.
const BELLS_AT_ONCE: usize = 16;
/// This process's own bell, among those of peers, which are named by the peer's index.
const OWN_BELL: u64 = u64::MAX;

/// The service thread is awake, and makes a turn before it sleeps: nobody need wake it, whatever is due.
const AWAKE: u64 = 0;

/// Peers that have rung, by their index. It may be another's by now: a look at that one does no harm.
#[derive(Default)]
pub(crate) struct Rung {
    peers: [u32; BELLS_AT_ONCE],
    count: usize,
}

impl Rung {
    pub(crate) fn peers(&self) -> &[u32] {
        &self.peers[..self.count]
    }
}

/// What the baton guards.
pub(crate) struct Core {
    pub engine: Engine<Heap>,
    pub host: EmbeddedHost,
    pub inlets: Vec<Option<Inlet>>,
    /// The service thread sleeps or has just woken: flags on rings and links ask for its bell.
    flags_up: bool,
}

/// One context's shared state.
pub(crate) struct Shared {
    baton: Baton<Native>,
    core: UnsafeCell<Core>,
    inbox: Inbox<Native, Box<[InboxSlot<Native>]>>,
    /// What the host's helpers tell the host.
    notes: Mutex<Vec<Note>>,
    has_notes: AtomicBool,
    /// Calls that wait for the baton; everybody else steps aside while there are any.
    callers: AtomicU32,
    /// Wakes the service thread: this process's own, never a peer's.
    bell: OwnedFd,
    /// What the service thread sleeps in: the bell, and one of each shm peer's.
    bells: OwnedFd,
    /// When the service thread will wake by itself; [`AWAKE`] while it is awake.
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
        epoll::add(&bells, &bell, epoll::EventData::new_u64(OWN_BELL), epoll::EventFlags::IN)?;
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
                inlets: Vec::new(),
                flags_up: false,
            }),
            inbox,
            notes: Mutex::new(Vec::new()),
            has_notes: AtomicBool::new(false),
            callers: AtomicU32::new(0),
            bell,
            bells,
            sleeps_until_ns: AtomicU64::new(AWAKE),
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

    /// Runs the engine if nobody does, and no call waits to: for a client that has nothing better to do. Nobody need
    /// look again for it, since the service thread looks anyway.
    pub(crate) fn assist(&self) {
        // Acquire: as in `with_core`, nothing is read by it.
        if self.callers.load(Ordering::Acquire) == 0 && self.baton.try_take() {
            self.run_and_let_go();
        }
    }

    /// Rings the service thread's bell.
    pub(crate) fn ring_bell(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Attaches a ring.
    pub(crate) fn attach(self: &Arc<Shared>, layout: RingLayout) -> Result<Ring, Errno> {
        let (client, engine) = HeapRing::pair(layout);
        let index = self.with_core(|_, core| {
            let index = core.engine.attach_ring(layout.cq_entries)?;
            if core.inlets.len() <= index as usize {
                core.inlets.resize_with(index as usize + 1, || None);
            }
            core.inlets[index as usize] = Some(Inlet::new(engine.submissions));
            core.host.add_ring(index, engine.completions);
            Ok(index)
        })?;
        // The service thread may sleep, and has raised no flag on a ring that it did not know.
        self.ring_bell();
        Ok(Ring::new(client, self.clone(), index))
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
        let fatal = AbortOnDrop;
        // SAFETY: the caller holds the baton, which one thread does at a time, and this borrow ends before it lets go;
        // `call` cannot get here again, since nothing reachable from `Core` has the baton's holder call `with_held`.
        let result = call(unsafe { &mut *self.core.get() });
        std::mem::forget(fatal);
        result
    }

    /// Runs turns until nothing is left to do, a call waits for the baton, or the turns of one hold are used up; then
    /// lets go. Makes one turn at least.
    fn run_and_let_go(&self) {
        let mut turns = HOLD_TURNS;
        loop {
            // A mark that stands already is taken off when letting go fails for it: one turn too many at most.
            let mut idle = false;
            while !idle && turns > 0 {
                turns -= 1;
                idle = self.with_held(|core| self.turn(core)) != Progress::More;
                // Acquire: as in `with_core`, nothing is read by it.
                if self.callers.load(Ordering::Acquire) > 0 {
                    break;
                }
            }
            if !idle {
                return self.leave_the_rest();
            }
            // The service thread may sleep, and has seen nothing of what these turns have brought.
            let Some(until_ns) = self.with_held(|core| self.leave_idle(core)) else { continue };
            self.wake_before(until_ns);
            if self.baton.let_go() == Release::Released {
                return;
            }
        }
    }

    /// Sees to what the service thread would have seen to before it slept: how long it may sleep now. `None`: there is
    /// work.
    fn leave_idle(&self, core: &mut Core) -> Option<u64> {
        let mut idle = true;
        if core.flags_up {
            for (index, inlet) in core.inlets.iter_mut().enumerate() {
                if let Some(inlet) = inlet {
                    idle &= inlet.raise_anew(&mut core.host, index as u32);
                }
            }
        }
        idle.then(|| self.sleep_time(core))
    }

    /// Lets go although there is work: the service thread goes on with it, or a call that waits, which makes a turn of
    /// its own before it lets go. Marks that are taken off here were set before we let go, so that whoever holds the
    /// baton next sees what they stand for (clause BAT-3).
    fn leave_the_rest(&self) {
        self.let_go_for_good();
        // After letting go, so that who is woken finds the baton free.
        self.wake_before(0);
        for _ in 0..STEP_ASIDE {
            if self.callers.load(Ordering::Acquire) == 0 {
                break;
            }
            std::thread::yield_now();
        }
    }

    /// Wakes the service thread if it would sleep longer than that. One that is awake takes the baton by itself, makes
    /// a turn, and looks how long it may sleep.
    fn wake_before(&self, wanted_ns: u64) {
        // Acquire: pairs with the service thread's release before it sleeps.
        if wanted_ns < self.sleeps_until_ns.load(Ordering::Acquire) {
            self.ring_bell();
        }
    }

    /// Lets go of the baton, marked or not: somebody is sure to look later. Each round needs a new mark.
    fn let_go_for_good(&self) {
        while self.baton.let_go() == Release::LookAgain {}
    }

    /// One round over everything that may have work.
    pub(crate) fn turn(&self, core: &mut Core) -> Progress {
        let mut worked = false;
        let mut events = EVENT_BUDGET;
        while events > 0
            && let Some(event) = self.inbox.take()
        {
            core.engine.handle(&mut core.host, event);
            worked = true;
            events -= 1;
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
        let (mut inlets, mut blocked) = (Progress::Idle, false);
        for (index, inlet) in core.inlets.iter_mut().enumerate() {
            if let Some(inlet) = inlet {
                inlets = inlets.max(inlet.take(&mut core.engine, &mut core.host, index as u32));
                blocked |= inlet.is_blocked();
            }
        }
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
        // What the host has reported to itself meanwhile: the end of a connection that could not be written to.
        // One ring's SQEs may have set free what stands blocked in another's.
        worked |= blocked && inlets == Progress::Settled;
        if worked || !self.inbox.is_empty() || self.has_notes.load(Ordering::Relaxed) { Progress::More } else { inlets }
    }

    /// Raises every flag that tells others to ring our bell, and looks once more: how long to sleep. `None`: there is
    /// work.
    fn prepare_sleep(&self, core: &mut Core) -> Option<u64> {
        core.flags_up = true;
        let mut idle = true;
        for (index, inlet) in core.inlets.iter_mut().enumerate() {
            if let Some(inlet) = inlet {
                idle &= inlet.raise(&mut core.host, index as u32);
            }
        }
        idle &= core.host.announce_sleep() && self.inbox.is_empty() && !self.has_notes.load(Ordering::Acquire);
        idle.then(|| self.sleep_time(core))
    }

    fn wake_up(&self, core: &mut Core) {
        core.flags_up = false;
        core.inlets.iter_mut().flatten().for_each(Inlet::lower);
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
        let mut spins = 0u32;
        // Heard in the last sleep, for the next turn.
        let mut rung = Rung::default();
        // Acquire: pairs with the release of whoever stops us.
        while !self.stopping.load(Ordering::Acquire) {
            let mut worked = false;
            if self.baton.try_take() {
                self.baton.look();
                worked = self.with_held(|core| {
                    // Also after a wake-up that found the baton held, and after work that was found while going to
                    // sleep: a flag that stays up costs every client and peer a system call for each batch.
                    if core.flags_up {
                        self.wake_up(core);
                    }
                    if rung.count > 0 {
                        core.host.hear(&std::mem::take(&mut rung));
                    }
                    if !idle.is_zero() {
                        core.host.poll_sockets();
                    }
                    self.turn(core) != Progress::Idle
                });
                rounds = rounds.wrapping_add(1);
                if worked {
                    awake_since = Instant::now();
                    rounds = 0;
                } else if (idle.is_zero() || (rounds.is_multiple_of(64) && awake_since.elapsed() >= idle))
                    && let Some(until_ns) = self.with_held(|core| self.prepare_sleep(core))
                {
                    // Release: pairs with the acquire of who wakes us; the baton orders it, too.
                    self.sleeps_until_ns.store(until_ns, Ordering::Release);
                    if self.baton.let_go() == Release::Released {
                        rung = self.sleep(until_ns);
                        self.sleeps_until_ns.store(AWAKE, Ordering::Release);
                        (awake_since, rounds) = (Instant::now(), 0);
                        continue;
                    }
                    self.sleeps_until_ns.store(AWAKE, Ordering::Release);
                }
                // What a mark stands for is seen by the next turn, which comes before any sleep.
                self.let_go_for_good();
            }
            while self.callers.load(Ordering::Acquire) > 0 {
                std::thread::yield_now();
            }
            if worked {
                spins = 0;
            } else {
                spins = spins.wrapping_add(1);
                dmaplane_ring::wait::relax(spins);
            }
        }
    }

    /// Until when the service thread may sleep. Nobody rings when a word is written or a peer makes room: those are
    /// looked at now and then.
    fn sleep_time(&self, core: &Core) -> u64 {
        let deadline = core.engine.next_deadline_ns().unwrap_or(u64::MAX);
        if core.host.waits_on_words() || core.host.has_backlog() {
            deadline.min(self.now_ns() + LOOK_NS)
        } else {
            deadline
        }
    }

    /// Sleeps until then, or until somebody rings.
    fn sleep(&self, until_ns: u64) -> Rung {
        let left = (until_ns != u64::MAX).then(|| Duration::from_nanos(until_ns.saturating_sub(self.now_ns())));
        let rung = self.listen(left);
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
        rung
    }

    /// Which peers have rung, when one has, or after that time. A ring is told of once.
    pub(crate) fn listen(&self, at_most: Option<Duration>) -> Rung {
        let timeout = at_most.map(|left| rustix::event::Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut events = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; BELLS_AT_ONCE];
        let mut rung = Rung::default();
        let heard = epoll::wait(&self.bells, &mut events[..], timeout.as_ref());
        for event in heard.iter().flat_map(|(heard, _)| heard.iter()) {
            let name = event.data.u64();
            if name != OWN_BELL {
                rung.peers[rung.count] = name as u32;
                rung.count += 1;
            }
        }
        rung
    }

    /// From now on a peer's bell wakes the service thread. Edges are enough, and nobody has to read it: so nothing that
    /// the peer does to it costs anybody else a wake-up.
    pub(crate) fn watch_bell(&self, bell: BorrowedFd<'_>, peer: u32) -> Result<(), Errno> {
        let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.bells, bell, epoll::EventData::new_u64(peer.into()), edges).map_err(crate::memory::errno)
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
/// ever. So it ends the process. Forgotten where there was none.
struct AbortOnDrop;

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        std::process::abort();
    }
}

/// What a helper thread reports when it could not do its work.
pub(crate) fn failed(op: dmaplane_engine::OpId, errno: Errno) -> Event {
    Event::Finished { op, result: errno.as_result(), word0: 0, word1: 0 }
}

#[cfg(test)]
mod tests;
