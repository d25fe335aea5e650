//! Running the engine: turns, letting go, sleeping (clauses BAT-1 to BAT-4, RUN-2 to RUN-5).
//!
//! A runner takes the baton, or marks it for who holds it; the holder cannot let go of a marked baton before it has
//! looked again. In a kernel the one who posts may be an interrupt, which cannot run the engine. It takes the baton all
//! the same, lets go at once, and has C start a runner *after* that. So nothing is left lying: a post before a mark is
//! looked at by the holder that was marked; a post before an interrupt's take is looked at by the runner that it asked
//! for, or by the holder that this one then marks; and marks that an interrupt takes off while it holds the baton were
//! made before it let go, so that same runner sees what they stand for.

use crate::context::{Context, Core, NEVER};
use crate::glue::{BUG_INBOX_OVERFLOW, BUG_NO_MESSAGE};
use crate::types::{GlueIncoming, INCOMING_GONE, errno_of};
use core::cell::Cell;
use dmaplane_engine::{Event, Message, Release};
use dmaplane_ring::abi::{Errno, Handle};
use dmaplane_ring::atomic::Word;

/// SQEs taken from one ring in one turn, about (clause RUN-4).
const RING_BUDGET: u32 = 256;
/// Events handled in one turn.
const EVENT_BUDGET: u32 = 256;
/// How long one hold of the baton may last, about: what is left to do is done by another, and others get in between.
const HOLD_NS: u64 = 8_000_000;
/// Turns that a call which is not a run makes before it leaves the rest to one.
const CALL_TURNS: u32 = 4;

/// What came of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// Somebody else runs, and will look again before it lets go.
    Elsewhere = 0,
    /// Until nothing was left to do.
    Idle = 1,
    /// Until the turns were used up; C has been told to run again soon.
    Used = 2,
    /// As idle, and something was done on the way: a poller goes on looking.
    Worked = 3,
}

impl Context {
    /// Runs the engine, at most `turns` turns, unless somebody else does.
    pub(crate) fn run(&self, turns: u32) -> Ran {
        if !self.baton.take_or_mark() {
            return Ran::Elsewhere;
        }
        // SAFETY: we have just taken the baton.
        unsafe { self.run_and_let_go(turns) }
    }

    /// Runs `call`, then the engine. -EAGAIN: somebody else runs; try again.
    pub(crate) fn with_engine<R>(&self, call: impl FnOnce(&mut Core) -> R) -> Result<R, Errno> {
        if !self.baton.try_take() {
            return Err(Errno::EAGAIN);
        }
        // SAFETY: we have just taken the baton; `call` is of this crate and calls nothing that takes it.
        let result = unsafe { self.with_core(call) };
        // SAFETY: we still hold it.
        unsafe { self.run_and_let_go(CALL_TURNS) };
        Ok(result)
    }

    /// Posts an event, from any context.
    pub(crate) fn post(&self, event: &Event) {
        if !self.inbox.post(event) {
            self.glue.bug(BUG_INBOX_OVERFLOW);
        }
        self.look_soon();
    }

    /// Sees to it that somebody looks at everything, from any context.
    pub(crate) fn look_soon(&self) {
        if self.baton.take_or_mark() {
            self.let_go_and_run_soon();
        }
    }

    /// Lets go of the baton for good, and has C start a runner, which then looks for us. The caller holds the baton.
    fn let_go_and_run_soon(&self) {
        // Each round needs a new mark, so this ends when posters do.
        while self.baton.let_go() == Release::LookAgain {}
        self.glue.run_soon();
    }

    /// Says that the poller is about to sleep. `true`: it may, until C is asked to run; all flags are up. `false`:
    /// there is work, or somebody else runs; run, and ask again.
    pub(crate) fn prepare_sleep(&self) -> bool {
        if !self.baton.try_take() {
            return false;
        }
        self.baton.look();
        // SAFETY: we have just taken the baton.
        let idle = unsafe { self.with_core(|core| self.may_sleep(core)) };
        if idle && self.baton.let_go() == Release::Released {
            return true;
        }
        // There is work, or somebody has posted meanwhile. SAFETY: we still hold the baton.
        unsafe { self.stay_awake() };
        false
    }

    /// Says that the poller is awake: clients need not ring. `false`: somebody else runs; try again.
    pub(crate) fn awake(&self) -> bool {
        if !self.baton.try_take() {
            return false;
        }
        // SAFETY: we have just taken the baton.
        unsafe { self.stay_awake() };
        true
    }

    /// Takes the flags down and looks at what came while they were up.
    ///
    /// # Safety
    /// The caller holds the baton, and does not hold it any more when this has returned.
    unsafe fn stay_awake(&self) {
        // SAFETY: the caller's baton, which it gives to the second call.
        unsafe {
            self.with_core(Core::stay_awake);
            self.run_and_let_go(CALL_TURNS);
        }
    }

    /// # Safety
    /// The caller holds the baton, and does not hold it any more when this has returned.
    unsafe fn run_and_let_go(&self, turns: u32) -> Ran {
        let mut left = turns.max(1);
        let mut worked = false;
        let until_ns = Cell::new(0);
        loop {
            self.baton.look();
            // SAFETY: the caller's baton.
            let finished = unsafe { self.with_core(|core| self.turns(core, &mut left, &until_ns, &mut worked)) };
            if !finished {
                self.let_go_and_run_soon();
                return Ran::Used;
            }
            if self.baton.let_go() == Release::Released {
                return if worked { Ran::Worked } else { Ran::Idle };
            }
        }
    }

    /// Turns until nothing is left to do, or none of them is left, or no time: `false`.
    fn turns(&self, core: &mut Core, left: &mut u32, until_ns: &Cell<u64>, any: &mut bool) -> bool {
        loop {
            if *left == 0 {
                return false;
            }
            *left -= 1;
            let worked = self.turn(core, until_ns);
            *any |= worked;
            if worked && !self.is_in_time(until_ns) {
                return false;
            }
            if !worked && (core.polled || self.may_sleep(core)) {
                self.note_deadline(core);
                return true;
            }
        }
    }

    /// Lets others have the processor, and says whether a hold may last longer: its time begins when this is first
    /// asked, so that a poller that finds nothing asks for none. `until_ns` is 0 before.
    fn is_in_time(&self, until_ns: &Cell<u64>) -> bool {
        let now_ns = self.glue.relax();
        if until_ns.get() == 0 {
            until_ns.set(now_ns.saturating_add(HOLD_NS));
        }
        now_ns <= until_ns.get()
    }

    /// Raises all flags, arms C's timer and looks once more; `false`: there is work. Nobody polls from here on.
    fn may_sleep(&self, core: &mut Core) -> bool {
        core.polled = false;
        let idle = core.inlets.raise(&mut core.host.outlets);
        self.note_deadline(core);
        let heard = self.inbox.is_empty() && self.glue.has_next() == 0;
        idle && heard && !core.engine.has_work() && !core.is_due() && !self.close_is_due(core)
    }

    /// One round over everything that may have work; `false` when nothing had any (clause RUN-2).
    fn turn(&self, core: &mut Core, until_ns: &Cell<u64>) -> bool {
        let mut worked = false;
        core.host.traced = self.glue.is_traced() != 0;
        let mut events = EVENT_BUDGET;
        while events > 0
            && let Some(event) = self.inbox.take()
        {
            core.engine.handle(&mut core.host, event);
            worked = true;
            events -= 1;
        }
        worked |= self.hear_peers(core);
        if self.close_is_due(core) {
            core.closing = true;
            core.engine.close(&mut core.host);
            worked = true;
        }
        let Core { engine, host, inlets, window, polled, .. } = core;
        let in_time = || self.is_in_time(until_ns);
        worked |= inlets.drain(window, RING_BUDGET, *polled, in_time, |ring, window| {
            // What came of the window before: its client reaps on another processor.
            if *polled {
                host.publish_early(ring);
            }
            let took = engine.take(host, ring, window);
            host.tally.taken += u64::from(took.taken);
            took
        });
        if core.is_due() {
            core.engine.expire(&mut core.host);
            worked = true;
        }
        if core.engine.has_work() {
            core.engine.step(&mut core.host);
            worked = true;
        }
        core.host.publish(&self.waiters);
        self.tell_closed(core);
        worked
    }

    /// Handles what peers have said, a budget of it: `false` where that was nothing.
    fn hear_peers(&self, core: &mut Core) -> bool {
        if self.glue.has_next() == 0 {
            return false;
        }
        let mut incoming = GlueIncoming::default();
        let mut left = EVENT_BUDGET;
        while left > 0 && self.glue.next(&mut incoming) != 0 {
            left -= 1;
            let peer = Handle::from_bits(incoming.peer);
            let event = match incoming.kind {
                INCOMING_GONE => Some(Event::PeerGone { peer, errno: errno_of(incoming.errno) }),
                _ => Message::decode(&incoming.words).map(|message| {
                    let frame = incoming.frame;
                    Event::Message { peer, frame, message }
                }),
            };
            match event {
                Some(event) => core.engine.handle(&mut core.host, event),
                None => self.glue.bug(BUG_NO_MESSAGE),
            }
        }
        left < EVENT_BUDGET
    }

    fn close_is_due(&self, core: &Core) -> bool {
        // Acquire: pairs with the release in `Context::ask_to_close`; nothing is read by it, but it costs nothing
        // either.
        !core.closing && self.close_asked.load_acquire() != 0
    }

    /// Asks for the context's end, from any context (clause TD-1).
    pub(crate) fn ask_to_close(&self) {
        // Release: before the take or mark, which a runner's look comes behind.
        self.close_asked.store_release(1);
        self.look_soon();
    }

    /// Tells clients and C, once, that nothing of the context is left.
    fn tell_closed(&self, core: &mut Core) {
        if !core.engine.is_closed() || self.closed.load_relaxed() != 0 {
            return;
        }
        core.inlets.close();
        // Release: pairs with the acquire in `Context::is_closed`. Before clients are woken: who looks, and sleeps
        // again because it is not closed yet, is woken by nobody else.
        self.closed.store_release(1);
        core.host.outlets.wake_all(self.glue);
        self.glue.closed();
    }

    /// Tells C of the next deadline, where it has changed; a poller that is awake looks by itself (clause RUN-5).
    fn note_deadline(&self, core: &mut Core) {
        let deadline_ns = core.engine.next_deadline_ns().unwrap_or(NEVER);
        self.deadline_ns.store_relaxed(deadline_ns);
        if !core.polled && core.armed_ns != deadline_ns {
            core.armed_ns = deadline_ns;
            self.glue.arm_timer(deadline_ns);
        }
    }
}

impl Core {
    /// Whether a deadline has come.
    fn is_due(&mut self) -> bool {
        let glue = self.host.glue;
        self.engine.next_deadline_ns().is_some_and(|deadline_ns| deadline_ns <= glue.now_ns())
    }

    /// A poller is awake: the flags come down.
    fn stay_awake(&mut self) {
        self.polled = true;
        self.host.outlets.stage();
        self.inlets.lower();
    }
}
