//! A ring of loom's words.

use crate::atomics::{Checked, EntryWords, LoomAtomics, LoomU32, NewWord, Orderings, Sound};
use dmaplane_ring::abi::{Cqe, Sqe};
use dmaplane_ring::queue::{Client, Engine, RingMemory, RingWord};
use std::sync::Arc;

/// A ring's words, shared by its two sides. An index beyond the entries panics.
#[derive(Debug)]
pub struct LoomRing<O: Orderings = Sound, E: EntryWords = Checked>(Arc<Words<O, E>>);

#[derive(Debug)]
struct Words<O: Orderings, E: EntryWords> {
    single: [LoomU32<O>; 6],
    sq: Vec<E::Word<O>>,
    cq: Vec<E::Word<O>>,
    sq_entries: u32,
    cq_entries: u32,
}

impl<O: Orderings, E: EntryWords> LoomRing<O, E> {
    /// Zeroed. The sizes may be smaller than those of a ring in memory, whose CQ has 16 entries at least.
    pub fn new(sq_entries: u32, cq_entries: u32) -> Self {
        assert!(sq_entries.is_power_of_two() && cq_entries.is_power_of_two());
        let entries = |words: usize| (0..words).map(|_| NewWord::new(0)).collect();
        LoomRing(Arc::new(Words {
            single: std::array::from_fn(|_| NewWord::new(0)),
            sq: entries(sq_entries as usize * Sqe::WORDS),
            cq: entries(cq_entries as usize * Cqe::WORDS),
            sq_entries,
            cq_entries,
        }))
    }

    /// Both sides of a fresh ring.
    pub fn pair(sq_entries: u32, cq_entries: u32) -> (Client<Self>, Engine<Self>) {
        let ring = Self::new(sq_entries, cq_entries);
        (Client::new(ring.clone()), Engine::new(ring))
    }
}

impl<O: Orderings, E: EntryWords> Clone for LoomRing<O, E> {
    fn clone(&self) -> Self {
        LoomRing(self.0.clone())
    }
}

impl<O: Orderings, E: EntryWords> RingMemory for LoomRing<O, E> {
    type Atomics = LoomAtomics<O, E>;

    fn sq_entries(&self) -> u32 {
        self.0.sq_entries
    }
    fn cq_entries(&self) -> u32 {
        self.0.cq_entries
    }
    fn word(&self, which: RingWord) -> &LoomU32<O> {
        &self.0.single[which as usize]
    }
    fn sq_words(&self, first: usize, count: usize) -> &[E::Word<O>] {
        &self.0.sq[first..self.0.sq.len().min(first + count)]
    }
    fn cq_words(&self, first: usize, count: usize) -> &[E::Word<O>] {
        &self.0.cq[first..self.0.cq.len().min(first + count)]
    }
}

/// An SQE that can be told from others.
pub fn sqe(user_data: u64) -> Sqe {
    Sqe { user_data, ..Sqe::default() }
}
