//! The consuming end.

use super::{Entry, QueueKind, RingMemory, prefetch, runs};
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
        Some(self.load(self.place(ahead)))
    }

    /// Copies entries from the head on into `window`, as many as there are: how many. As [`Consumer::peek`], the copies
    /// are all that may be used.
    #[inline]
    pub fn peek_batch(&mut self, window: &mut [Q::Entry]) -> usize {
        let seen = self.enough(window.len() as u32);
        let count = seen.min(window.len() as u32);
        // What comes after this window is on its way while the window is handled.
        self.prefetch(0, count);
        self.prefetch(count, (seen - count).min(count));
        self.copy(window, count)
    }

    /// As [`Consumer::peek_batch`], for entries that this processor has written as a rule: nothing is fetched ahead.
    #[inline]
    pub fn peek_near_batch(&mut self, window: &mut [Q::Entry]) -> usize {
        let count = self.enough(window.len() as u32).min(window.len() as u32);
        self.copy(window, count)
    }

    /// Hands up to `most` entries to `each` and gives their slots back at once: how many.
    #[inline]
    pub fn take(&mut self, most: u32, mut each: impl FnMut(Q::Entry)) -> u32 {
        let count = most.min(self.enough(most));
        for ahead in 0..count {
            each(self.load(self.place(ahead)));
        }
        self.advance(count);
        count
    }

    /// Entries that are known to be there; looks again where those are fewer than `wanted`.
    #[inline]
    fn enough(&mut self, wanted: u32) -> u32 {
        match self.seen_available() {
            seen if seen >= wanted => seen,
            _ => self.available(),
        }
    }

    /// The first word of the entry at `ahead` of the head.
    #[inline]
    fn place(&self, ahead: u32) -> usize {
        (self.consumed.wrapping_add(ahead) & (self.entries - 1)) as usize * Q::Entry::WORDS
    }

    /// Copies `count` entries from the head on, which are there, and have room: how many.
    #[inline]
    fn copy(&self, window: &mut [Q::Entry], count: u32) -> usize {
        let (mut rest, mut copied) = (window, 0);
        for run in runs::<M, Q>(&self.memory, self.entries, self.consumed, count) {
            let Some((places, more)) = rest.split_at_mut_checked(run.len() / Q::Entry::WORDS) else { break };
            for (place, words) in places.iter_mut().zip(run.chunks_exact(Q::Entry::WORDS)) {
                *place = load(words);
            }
            copied += places.len();
            rest = more;
        }
        copied
    }

    /// Has entries fetched that will be copied soon.
    #[inline]
    fn prefetch(&self, ahead: u32, count: u32) {
        for position in ahead..ahead + count {
            if let Some(word) = Q::words(&self.memory, self.place(position), 1).first() {
                prefetch::to_read(word);
            }
        }
    }

    #[inline]
    fn load(&self, first: usize) -> Q::Entry {
        load(Q::words(&self.memory, first, Q::Entry::WORDS))
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

/// Copies an entry out.
#[inline(always)]
fn load<E: Entry, W: Word<u64>>(words: &[W]) -> E {
    // A word that is not there would be a broken `RingMemory`; zeroes are no operation's.
    E::load(|index| words.get(index).map_or(0, Word::load_relaxed))
}
