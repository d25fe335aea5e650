//! What differs between the SQ and the CQ: entry type and words.

use super::{RingMemory, RingWord};
use crate::abi::{Cqe, Sqe};
use crate::atomic::Atomics;
use core::fmt::Debug;

/// A fixed-size entry, moved as relaxed 64-bit words so that a racing writer is never undefined behaviour.
pub trait Entry: Copy {
    /// 64-bit words of one entry.
    const WORDS: usize;
    /// Hands each word to `store`, first to last.
    fn store(&self, store: impl FnMut(usize, u64));
    /// Takes each word from `load`, once.
    fn load(load: impl FnMut(usize) -> u64) -> Self;
}

macro_rules! entry {
    ($entry:ty: $($index:literal)*) => {
        impl Entry for $entry {
            const WORDS: usize = <$entry>::WORDS;

            #[inline(always)]
            fn store(&self, mut store: impl FnMut(usize, u64)) {
                // Word by word, and in no loop: an entry made of constants is stored as such, and never in memory else.
                let words = self.to_words();
                $(store($index, words[$index]);)*
            }

            #[inline(always)]
            fn load(mut load: impl FnMut(usize) -> u64) -> Self {
                Self::from_words([$(load($index)),*])
            }
        }
    };
}

entry!(Sqe: 0 1 2 3 4 5 6 7);
entry!(Cqe: 0 1 2 3);

/// Which of a ring's two queues.
pub trait QueueKind {
    /// What it carries.
    type Entry: Entry;
    /// Where the producer keeps entries until it moves them into the ring, all at once. A ring's lines are in the
    /// consumer's cache, and a store that waits for one holds up every store behind it: those of a batch side by side
    /// wait at the same time, those among the stores of the program that makes the entries one after the other. It
    /// costs a copy, so whoever makes entries quickly, or one at a time, has room for none here.
    type Staged: AsRef<[Self::Entry]> + AsMut<[Self::Entry]> + Debug;
    /// What that is at first.
    const NOTHING_STAGED: Self::Staged;
    /// The word that counts entries published.
    const TAIL: RingWord;
    /// The word that counts entries consumed.
    const HEAD: RingWord;
    /// Entries, a power of two.
    fn entries<M: RingMemory>(memory: &M) -> u32;
    /// `count` words of the queue's entries from word `first` on, or as many as come before its end.
    fn words<M: RingMemory>(memory: &M, first: usize, count: usize) -> &[<M::Atomics as Atomics>::U64];
}

/// Client to engine.
#[derive(Clone, Copy, Debug)]
pub struct SubmissionQueue;

impl QueueKind for SubmissionQueue {
    type Entry = Sqe;
    type Staged = [Sqe; 32];
    const NOTHING_STAGED: [Sqe; 32] = [Sqe::from_words([0; Sqe::WORDS]); 32];
    const TAIL: RingWord = RingWord::SqTail;
    const HEAD: RingWord = RingWord::SqHead;

    #[inline]
    fn entries<M: RingMemory>(memory: &M) -> u32 {
        memory.sq_entries()
    }

    #[inline(always)]
    fn words<M: RingMemory>(memory: &M, first: usize, count: usize) -> &[<M::Atomics as Atomics>::U64] {
        memory.sq_words(first, count)
    }
}

/// Engine to client.
#[derive(Clone, Copy, Debug)]
pub struct CompletionQueue;

impl QueueKind for CompletionQueue {
    type Entry = Cqe;
    type Staged = [Cqe; 32];
    const NOTHING_STAGED: [Cqe; 32] = [Cqe::from_words([0; Cqe::WORDS]); 32];
    const TAIL: RingWord = RingWord::CqTail;
    const HEAD: RingWord = RingWord::CqHead;

    #[inline]
    fn entries<M: RingMemory>(memory: &M) -> u32 {
        memory.cq_entries()
    }

    #[inline(always)]
    fn words<M: RingMemory>(memory: &M, first: usize, count: usize) -> &[<M::Atomics as Atomics>::U64] {
        memory.cq_words(first, count)
    }
}
