//! The producing end.

use super::{Entry, QueueKind, RingMemory, runs};
use crate::atomic::Word;
use core::marker::PhantomData;

/// Writes entries privately and publishes them by batch: one release store whatever their number (clause RING-4).
#[derive(Debug)]
pub struct Producer<M, Q: QueueKind> {
    memory: M,
    /// Entries written so far, published or not. Never read back from shared memory (clause RING-6).
    written: u32,
    /// The last of those, which are not in the ring yet.
    staged: Q::Staged,
    /// How many: at most what `staged` holds, and `written - published`.
    staged_count: u32,
    /// Nothing is staged: see [`Producer::write_through`].
    through: bool,
    /// What the other side has been told; at most `written`.
    published: u32,
    /// The consumer's head when last looked at, clamped so that `written - consumed <= entries`.
    consumed: u32,
    /// Entries in the queue, a power of two, read once.
    entries: u32,
    kind: PhantomData<Q>,
}

impl<M: RingMemory, Q: QueueKind> Producer<M, Q> {
    /// The end over fresh memory (all counts zero). There must be one producer a queue.
    pub fn new(memory: M) -> Self {
        let entries = Q::entries(&memory);
        Producer {
            memory,
            written: 0,
            staged: Q::NOTHING_STAGED,
            staged_count: 0,
            through: false,
            published: 0,
            consumed: 0,
            entries,
            kind: PhantomData,
        }
    }

    /// Says whether entries go straight to their places, whatever a batch has: right where the two ends run on one
    /// processor as a rule, whose cache has the ring's lines, so that staging is but a copy more.
    pub fn write_through(&mut self, through: bool) {
        self.move_staged();
        self.through = through;
    }

    /// Where the ring lies.
    #[inline]
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Room for entries, as of now.
    #[inline]
    pub fn free(&mut self) -> u32 {
        // Acquire: pairs with the consumer's release in `advance`; its reads of the slots come before our rewriting.
        let head = self.memory.word(Q::HEAD).load_acquire();
        // A head beyond what we published, or one that runs backwards, is a lie: keep the last honest one (RING-7).
        if head.wrapping_sub(self.consumed) <= self.published.wrapping_sub(self.consumed) {
            self.consumed = head;
        }
        self.entries - self.written.wrapping_sub(self.consumed)
    }

    /// Entries of the queue.
    #[inline]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Room without looking at the consumer's head again: a lower bound of [`Producer::free`].
    #[inline]
    pub fn free_at_least(&self) -> u32 {
        self.entries - self.written.wrapping_sub(self.consumed)
    }

    /// Writes an entry that [`Producer::publish`] will make visible; `false` when the queue is full.
    #[inline(always)]
    pub fn push(&mut self, entry: &Q::Entry) -> bool {
        if self.free_at_least() == 0 && self.free() == 0 {
            return false;
        }
        // What may be a batch of one goes straight to its place, too.
        if self.through || self.staged.as_ref().is_empty() || self.written == self.published {
            place::<M, Q>(&self.memory, self.entries, self.written, entry);
        } else {
            if self.staged_count as usize >= self.staged.as_ref().len() {
                self.move_staged();
            }
            if let Some(place) = self.staged.as_mut().get_mut(self.staged_count as usize) {
                *place = *entry;
            }
            self.staged_count += 1;
        }
        self.written = self.written.wrapping_add(1);
        true
    }

    /// Moves what is staged into the ring.
    // Once for many entries, so not into whoever makes them.
    #[inline(never)]
    fn move_staged(&mut self) {
        let position = self.written.wrapping_sub(self.staged_count);
        let mut rest = self.staged.as_ref();
        for run in runs::<M, Q>(&self.memory, self.entries, position, self.staged_count) {
            let Some((entries, more)) = rest.split_at_checked(run.len() / Q::Entry::WORDS) else { break };
            for (entry, words) in entries.iter().zip(run.chunks_exact(Q::Entry::WORDS)) {
                store(words, entry);
            }
            rest = more;
        }
        self.staged_count = 0;
    }

    /// Entries written and not yet published.
    #[inline]
    pub fn unpublished(&self) -> u32 {
        self.written.wrapping_sub(self.published)
    }

    /// Makes everything written visible at once; returns whether there was anything.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.published == self.written {
            return false;
        }
        if self.staged_count > 0 {
            self.move_staged();
        }
        self.published = self.written;
        // Release: pairs with the consumer's acquire in `available`; the entries come before the count.
        self.memory.word(Q::TAIL).store_release(self.written);
        true
    }
}

/// Writes an entry into the ring.
#[inline(always)]
fn place<M: RingMemory, Q: QueueKind>(memory: &M, entries: u32, position: u32, entry: &Q::Entry) {
    let first = (position & (entries - 1)) as usize * Q::Entry::WORDS;
    store(Q::words(memory, first, Q::Entry::WORDS), entry);
}

#[inline(always)]
fn store<E: Entry, W: Word<u64>>(words: &[W], entry: &E) {
    entry.store(|index, word| {
        if let Some(place) = words.get(index) {
            place.store_relaxed(word);
        }
    });
}
