//! The consuming end.

use super::{Entry, QueueKind, RingMemory};
use crate::atomic::Word;
use core::marker::PhantomData;

/// Copies entries out once and trusts nothing that it reads (clauses RING-6, RING-7).
#[derive(Debug)]
pub struct Consumer<M, Q> {
    memory: M,
    /// Entries consumed so far. Never read back from shared memory.
    consumed: u32,
    /// The producer's tail when last looked at, clamped so that `seen - consumed <= entries`.
    seen: u32,
    /// Entries in the queue, a power of two, read once.
    entries: u32,
    kind: PhantomData<Q>,
}

impl<M: RingMemory, Q: QueueKind> Consumer<M, Q> {
    /// The end over fresh memory (all counts zero). There must be one consumer a queue.
    pub fn new(memory: M) -> Self {
        let entries = Q::entries(&memory);
        Consumer { memory, consumed: 0, seen: 0, entries, kind: PhantomData }
    }

    /// Where the ring lies.
    #[inline]
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Entries that can be taken, as of now.
    #[inline]
    pub fn available(&mut self) -> u32 {
        // Acquire: pairs with the producer's release in `publish`; the count comes before the entries.
        let tail = self.memory.word(Q::TAIL).load_acquire();
        // More than fits is a lie, and so is a tail that runs backwards: what was peeked could not be given back then,
        // and would be taken twice. Ignore both, and the last honest count stands.
        if tail.wrapping_sub(self.seen) <= self.entries - self.seen_available() {
            self.seen = tail;
        }
        self.seen_available()
    }

    /// Entries known to be there without looking again: a lower bound of [`Consumer::available`].
    #[inline]
    pub fn seen_available(&self) -> u32 {
        self.seen.wrapping_sub(self.consumed)
    }

    /// Copies the entry at `ahead` of the head, if it is there. The copy is all that may be used: memory may change.
    #[inline]
    pub fn peek(&mut self, ahead: u32) -> Option<Q::Entry> {
        if ahead >= self.seen_available() && ahead >= self.available() {
            return None;
        }
        let first = (self.consumed.wrapping_add(ahead) & (self.entries - 1)) as usize * Q::Entry::WORDS;
        let memory = &self.memory;
        Some(Q::Entry::load(|index| Q::entry_word(memory, first + index).load_relaxed()))
    }

    /// Gives `count` slots back to the producer: one release store.
    #[inline]
    pub fn advance(&mut self, count: u32) {
        let count = count.min(self.seen_available());
        if count > 0 {
            self.consumed = self.consumed.wrapping_add(count);
            // Release: pairs with the producer's acquire in `free`; our copies come before its rewriting.
            self.memory.word(Q::HEAD).store_release(self.consumed);
        }
    }
}
