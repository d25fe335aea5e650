//! A queue with entries of two words, so that exploring racing words stays affordable.

use crate::atomics::{EntryWords, Orderings};
use crate::memory::LoomRing;
use dmaplane_ring::atomic::Atomics;
use dmaplane_ring::queue::{Consumer, Entry, Producer, QueueKind, RingMemory, RingWord};

/// Two words that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(pub u64, pub u64);

impl Pair {
    /// The pair of number `n`.
    pub fn of(n: u64) -> Self {
        Pair(n, n + 100)
    }

    /// Its number.
    pub fn number(self) -> u64 {
        assert_eq!(self, Pair::of(self.0), "the entry is torn or stale");
        self.0
    }
}

impl Entry for Pair {
    const WORDS: usize = 2;

    fn store(&self, mut store: impl FnMut(usize, u64)) {
        store(0, self.0);
        store(1, self.1);
    }

    fn load(mut load: impl FnMut(usize) -> u64) -> Self {
        Pair(load(0), load(1))
    }
}

/// A queue of pairs in the SQ's words.
#[derive(Clone, Copy, Debug)]
pub struct Pairs;

impl QueueKind for Pairs {
    type Entry = Pair;
    type Staged = [Pair; 1];
    const NOTHING_STAGED: [Pair; 1] = [Pair(0, 0)];
    const TAIL: RingWord = RingWord::SqTail;
    const HEAD: RingWord = RingWord::SqHead;

    fn entries<M: RingMemory>(memory: &M) -> u32 {
        memory.sq_entries()
    }

    fn words<M: RingMemory>(memory: &M, first: usize, count: usize) -> &[<M::Atomics as Atomics>::U64] {
        assert!(first < memory.sq_entries() as usize * Pair::WORDS, "an index beyond the queue");
        memory.sq_words(first, count)
    }
}

/// The producing end of a queue of pairs.
pub type PairProducer<O, E> = Producer<LoomRing<O, E>, Pairs>;
/// The consuming end of a queue of pairs.
pub type PairConsumer<O, E> = Consumer<LoomRing<O, E>, Pairs>;

/// Both ends of a fresh queue.
pub fn pairs<O: Orderings, E: EntryWords>(entries: u32) -> (PairProducer<O, E>, PairConsumer<O, E>) {
    let ring = LoomRing::new(entries, 2);
    (Producer::new(ring.clone()), Consumer::new(ring))
}
