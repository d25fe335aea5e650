//! The four typed ends of a ring, with the sleeping handshake on both queues (clauses WAKE-1 to WAKE-3).

use super::handshake::{peer_sleeps, raise};
use super::{CompletionQueue, Consumer, MappedRing, Producer, RingMemory, RingMismatch, RingWord, SubmissionQueue};
use crate::abi::{Cqe, RingFlags, Sqe};
use crate::atomic::{Atomics, Word};
use core::ops::Deref;

/// The SQ is full; here is your SQE back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);

/// The client's producing end.
#[derive(Debug)]
pub struct Submitter<M>(Producer<M, SubmissionQueue>);

impl<M: RingMemory> Submitter<M> {
    /// Writes an SQE, to be made visible by [`Submitter::publish`].
    #[inline]
    pub fn push(&mut self, sqe: &Sqe) -> Result<(), Full<Sqe>> {
        if self.0.push(sqe) { Ok(()) } else { Err(Full(*sqe)) }
    }

    /// Whether SQEs go straight to their places in the ring, as they should where the client runs the engine itself
    /// ([`Producer::write_through`]).
    pub fn write_through(&mut self, through: bool) {
        self.0.write_through(through);
    }

    /// Writes as many as fit and returns how many.
    pub fn push_batch(&mut self, sqes: &[Sqe]) -> usize {
        sqes.iter().take_while(|sqe| self.0.push(sqe)).count()
    }

    /// Publishes the batch. `true`: the engine sleeps, ring its doorbell.
    #[inline]
    #[must_use = "a sleeping engine needs its doorbell rung"]
    pub fn publish(&mut self) -> bool {
        self.0.publish() && peer_sleeps(self.0.memory(), RingWord::EngineFlags)
    }

    /// Whether the engine sleeps, as far as can be told without a fence: for looking on. What [`Submitter::publish`]
    /// says is what counts.
    pub fn engine_sleeps(&self) -> bool {
        // Relaxed: nothing is concluded from it.
        self.0.memory().word(RingWord::EngineFlags).load_relaxed() & RingFlags::NEED_WAKEUP.bits() != 0
    }

    /// As [`Submitter::publish`], for a client that runs the engine itself right after: whether it sleeps is all one.
    #[inline]
    pub fn publish_without_doorbell(&mut self) {
        self.0.publish();
    }

    /// Whether the engine has taken everything that was published.
    #[inline]
    pub fn all_taken(&mut self) -> bool {
        self.0.free_at_least() == self.0.entries() || self.0.free() == self.0.entries()
    }

    /// Room for SQEs.
    pub fn free(&mut self) -> u32 {
        self.0.free()
    }

    /// Whether the engine has closed the ring: nothing more will be taken. Ask after [`Submitter::publish`]: `false`
    /// means that the engine will still look at what was published.
    pub fn closed(&self) -> bool {
        // Acquire: pairs with the release in `Submissions::close`.
        self.0.memory().word(RingWord::EngineFlags).load_acquire() & RingFlags::CLOSED.bits() != 0
    }
}

/// The client's consuming end.
#[derive(Debug)]
pub struct Completer<M>(Consumer<M, CompletionQueue>);

impl<M: RingMemory> Completer<M> {
    /// Takes one CQE.
    #[inline]
    pub fn reap_one(&mut self) -> Option<Cqe> {
        let cqe = self.0.peek(0)?;
        self.0.advance(1);
        Some(cqe)
    }

    /// Hands up to `most` CQEs of those that are there now to `each` and gives their slots back at once; returns how
    /// many.
    #[inline]
    pub fn reap(&mut self, most: u32, each: impl FnMut(Cqe)) -> u32 {
        self.0.take(most, each)
    }

    /// CQEs waiting.
    #[inline]
    pub fn available(&mut self) -> u32 {
        self.0.available()
    }

    /// Says that this side is about to sleep on the CQ's tail. `Some(tail)`: sleep while the word is `tail`. `None`:
    /// CQEs are there, do not sleep. Call [`Completer::awake`] afterwards either way.
    pub fn prepare_sleep(&mut self) -> Option<u32> {
        raise(self.0.memory(), RingWord::ClientFlags, RingFlags::NONE);
        let tail = self.0.memory().word(RingWord::CqTail).load_acquire();
        if self.0.available() == 0 { Some(tail) } else { None }
    }

    /// Lowers the flag.
    pub fn awake(&mut self) {
        self.0.memory().word(RingWord::ClientFlags).store_relaxed(0);
    }

    /// Whether the engine sleeps until there is room: ask after reaping, and ring the doorbell if so.
    #[inline]
    pub fn engine_awaits_room(&self) -> bool {
        // Partner: the fence in `raise`, from `Submissions::prepare_blocked_sleep`.
        <M::Atomics as Atomics>::fence_full();
        self.0.memory().word(RingWord::EngineFlags).load_relaxed() & RingFlags::CQ_BLOCKED.bits() != 0
    }

    /// Where the ring lies.
    pub fn memory(&self) -> &M {
        self.0.memory()
    }
}

/// The engine's consuming end.
#[derive(Debug)]
pub struct Submissions<M> {
    queue: Consumer<M, SubmissionQueue>,
    /// Flags that outlast sleeping and waking: none, or those of `close`.
    lasting: RingFlags,
}

impl<M: RingMemory> Submissions<M> {
    /// Copies the SQE `ahead` of the head.
    #[inline]
    pub fn peek(&mut self, ahead: u32) -> Option<Sqe> {
        self.queue.peek(ahead)
    }

    /// Copies SQEs from the head on into `window`: how many.
    #[inline]
    pub fn peek_batch(&mut self, window: &mut [Sqe]) -> usize {
        self.queue.peek_batch(window)
    }

    /// As [`Submissions::peek_batch`], for a client that runs the engine itself: see [`Consumer::peek_near_batch`].
    #[inline]
    pub fn peek_near_batch(&mut self, window: &mut [Sqe]) -> usize {
        self.queue.peek_near_batch(window)
    }

    /// Gives slots back.
    #[inline]
    pub fn advance(&mut self, count: u32) {
        self.queue.advance(count);
    }

    /// SQEs waiting.
    #[inline]
    pub fn available(&mut self) -> u32 {
        self.queue.available()
    }

    /// Says that the engine is about to sleep; `false` when there is work after all. [`Submissions::awake`] afterwards.
    pub fn prepare_sleep(&mut self) -> bool {
        raise(self.queue.memory(), RingWord::EngineFlags, self.lasting);
        self.queue.available() == 0
    }

    /// As [`Submissions::prepare_sleep`], for an engine that cannot take what waits before the client reaps. The
    /// caller looks at the CQ's room once more after this and before it sleeps.
    pub fn prepare_blocked_sleep(&mut self) {
        raise(self.queue.memory(), RingWord::EngineFlags, RingFlags::CQ_BLOCKED.with(self.lasting));
    }

    /// Lowers the flags; a closed ring stays closed.
    pub fn awake(&mut self) {
        // Relaxed: where CLOSED lasts, the fence in `close` orders the CQEs before it.
        self.queue.memory().word(RingWord::EngineFlags).store_relaxed(self.lasting.bits());
    }

    /// Tells the client that nothing more is taken. What a client published without seeing this afterwards is there
    /// when the caller looks once more: either it is taken then, or its client knows.
    ///
    /// This alone wakes nobody, for the CQ's tail does not change.
    pub fn close(&mut self) {
        self.lasting = RingFlags::CLOSED.with(RingFlags::NEED_WAKEUP);
        // Release: pairs with the acquire in `Submitter::closed`; CQEs published before are visible to it.
        self.queue.memory().word(RingWord::EngineFlags).store_release(self.lasting.bits());
        // Partner: the fence in `peer_sleeps`. Either the client sees the flag, or we see what it published.
        <M::Atomics as Atomics>::fence_full();
    }
}

/// The engine's producing end.
#[derive(Debug)]
pub struct Completions<M>(Producer<M, CompletionQueue>);

impl<M: RingMemory> Completions<M> {
    /// Whether CQEs go straight to their places in the ring, as they should where its client runs the engine
    /// ([`Producer::write_through`]).
    pub fn write_through(&mut self, through: bool) {
        self.0.write_through(through);
    }

    /// Writes a CQE, to be made visible by [`Completions::publish`].
    #[inline(always)]
    pub fn push(&mut self, cqe: &Cqe) -> Result<(), Full<Cqe>> {
        if self.0.push(cqe) { Ok(()) } else { Err(Full(*cqe)) }
    }

    /// Publishes the batch, or the rest of it. `true`: the client sleeps on its CQ, wake it.
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.0.publish();
        peer_sleeps(self.0.memory(), RingWord::ClientFlags)
    }

    /// Publishes what there is of the batch while more of it is still to come: the client sees it. One that sleeps is
    /// woken for it only by the [`Completions::publish`] that has to follow.
    #[inline]
    pub fn publish_early(&mut self) {
        self.0.publish();
    }

    /// Whether the client sleeps on its CQ, or is just about to: ask after `Submissions::close`, and go on waking it as
    /// long as it does, for the tail does not change then, and it may have looked at it before it falls asleep.
    pub fn client_sleeps(&self) -> bool {
        peer_sleeps(self.0.memory(), RingWord::ClientFlags)
    }

    /// CQEs written and not yet published.
    #[inline]
    pub fn unpublished(&self) -> u32 {
        self.0.unpublished()
    }

    /// Room for CQEs without looking at what the client has reaped since: a lower bound of [`Completions::free`].
    #[inline]
    pub fn free_at_least(&self) -> u32 {
        self.0.free_at_least()
    }

    /// Room for CQEs, counting unpublished ones as taken.
    #[inline]
    pub fn free(&mut self) -> u32 {
        self.0.free()
    }

    /// Where the ring lies.
    pub fn memory(&self) -> &M {
        self.0.memory()
    }
}

/// What a client holds of a ring.
#[derive(Debug)]
pub struct Client<M> {
    /// Towards the engine.
    pub submitter: Submitter<M>,
    /// From the engine.
    pub completer: Completer<M>,
}

/// What an engine's host holds of a ring.
#[derive(Debug)]
pub struct Engine<M> {
    /// From the client.
    pub submissions: Submissions<M>,
    /// Towards the client.
    pub completions: Completions<M>,
}

impl<M: RingMemory> Client<M> {
    /// The client's ends over fresh memory; there must be one client a ring.
    pub fn new(memory: M) -> Self
    where
        M: Clone,
    {
        Client { submitter: Submitter(Producer::new(memory.clone())), completer: Completer(Consumer::new(memory)) }
    }
}

impl<O, M: Deref<Target = MappedRing<O>> + RingMemory + Clone> Client<M> {
    /// As [`Client::new`], over memory that somebody else has made a ring: looks that it is one, of this ABI version
    /// and of the sizes that the call which attached it said (clause RING-2).
    pub fn attach(memory: M) -> Result<Self, RingMismatch> {
        memory.check_identity()?;
        Ok(Client::new(memory))
    }
}

impl<M: RingMemory> Engine<M> {
    /// The engine's ends over fresh memory; there must be one engine a ring.
    pub fn new(memory: M) -> Self
    where
        M: Clone,
    {
        Engine {
            submissions: Submissions { queue: Consumer::new(memory.clone()), lasting: RingFlags::NONE },
            completions: Completions(Producer::new(memory)),
        }
    }
}
