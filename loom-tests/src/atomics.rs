//! Loom's atomics as a family of [`Atomics`], with orderings that a negative control can weaken.

use dmaplane_ring::atomic::{Atomics, Word};
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::fmt::Debug;
use std::marker::PhantomData;

use crate::checked::CheckedWord;

/// The orderings behind the names of [`Word`]'s methods.
pub trait Orderings: Copy + Debug + Send + Sync + 'static {
    /// Of `load_acquire`.
    const LOAD_ACQUIRE: Ordering = Ordering::Acquire;
    /// Of `store_release`.
    const STORE_RELEASE: Ordering = Ordering::Release;
    /// Of an exchange that takes place.
    const EXCHANGE: Ordering = Ordering::AcqRel;
    /// Of an exchange that does not.
    const EXCHANGE_FAILED: Ordering = Ordering::Acquire;
    /// Whether `fence_full` is one.
    const FENCES: bool = true;
}

/// What the names say, as in [`Native`](dmaplane_ring::atomic::Native).
#[derive(Clone, Copy, Debug)]
pub struct Sound;
impl Orderings for Sound {}

/// Broken on purpose: publishing orders nothing.
#[derive(Clone, Copy, Debug)]
pub struct RelaxedStores;
impl Orderings for RelaxedStores {
    const STORE_RELEASE: Ordering = Ordering::Relaxed;
}

/// Broken on purpose: looking orders nothing.
#[derive(Clone, Copy, Debug)]
pub struct RelaxedLoads;
impl Orderings for RelaxedLoads {
    const LOAD_ACQUIRE: Ordering = Ordering::Relaxed;
}

/// Broken on purpose: exchanges order nothing.
#[derive(Clone, Copy, Debug)]
pub struct RelaxedExchanges;
impl Orderings for RelaxedExchanges {
    const EXCHANGE: Ordering = Ordering::Relaxed;
    const EXCHANGE_FAILED: Ordering = Ordering::Relaxed;
}

/// Broken on purpose: full fences do nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoFence;
impl Orderings for NoFence {
    const FENCES: bool = false;
}

/// A word that a model can make.
pub trait NewWord<T: Copy>: Word<T> + Debug + Send + Sync + 'static {
    /// With a value.
    fn new(value: T) -> Self;
}

macro_rules! loom_word {
    ($(#[$doc:meta])* $name:ident, $atomic:ty, $value:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<O> {
            word: $atomic,
            /// Touched before every access of a [chained](Self::chained) word.
            chain: Option<AtomicU32>,
            orderings: PhantomData<O>,
        }

        impl<O: Orderings> NewWord<$value> for $name<O> {
            fn new(value: $value) -> Self {
                $name { word: <$atomic>::new(value), chain: None, orderings: PhantomData }
            }
        }

        impl<O: Orderings> $name<O> {
            /// For a word that a thread may load before it stores to it, while others load it.
            ///
            /// Loom looks for races between a store and the last access alone, so there the thread's own load hides
            /// the loads of others, and orders of execution are left out. An exchange of another word before every
            /// access, relaxed, so that it orders nothing, makes each access race with the one before.
            pub fn chained(value: $value) -> Self {
                $name { chain: Some(AtomicU32::new(0)), ..Self::new(value) }
            }

            fn word(&self) -> &$atomic {
                if let Some(chain) = &self.chain {
                    chain.fetch_add(1, Ordering::Relaxed);
                }
                &self.word
            }
        }

        impl<O: Orderings> Word<$value> for $name<O> {
            fn load_relaxed(&self) -> $value {
                self.word().load(Ordering::Relaxed)
            }
            fn load_acquire(&self) -> $value {
                self.word().load(O::LOAD_ACQUIRE)
            }
            fn store_relaxed(&self, value: $value) {
                self.word().store(value, Ordering::Relaxed);
            }
            fn store_release(&self, value: $value) {
                self.word().store(value, O::STORE_RELEASE);
            }
            fn compare_exchange(&self, current: $value, new: $value) -> Result<$value, $value> {
                self.word().compare_exchange(current, new, O::EXCHANGE, O::EXCHANGE_FAILED)
            }
            fn fetch_or(&self, bits: $value) -> $value {
                self.word().fetch_or(bits, O::EXCHANGE)
            }
            fn swap(&self, value: $value) -> $value {
                self.word().swap(value, O::EXCHANGE)
            }
        }
    };
}

loom_word!(
    /// A 32-bit word: a count or flags.
    LoomU32,
    AtomicU32,
    u32
);
loom_word!(
    /// A 64-bit word of an entry, for models in which somebody may write it at any time.
    LoomU64,
    AtomicU64,
    u64
);

/// What the words of entries are.
pub trait EntryWords: Copy + Debug + Send + Sync + 'static {
    /// Such a word.
    type Word<O: Orderings>: NewWord<u64>;
}

/// Plain memory under loom's race detector: two accesses that nothing orders fail the model. Stricter than the protocol
/// needs (its words are atomic) and far cheaper to explore; right wherever both sides are honest.
#[derive(Clone, Copy, Debug)]
pub struct Checked;
impl EntryWords for Checked {
    type Word<O: Orderings> = CheckedWord;
}

/// Atomics: whatever is read can be old or torn, and nothing complains but the model.
#[derive(Clone, Copy, Debug)]
pub struct Racing;
impl EntryWords for Racing {
    type Word<O: Orderings> = LoomU64<O>;
}

/// Loom's atomics.
#[derive(Clone, Copy, Debug)]
pub struct LoomAtomics<O = Sound, E = Checked>(PhantomData<(O, E)>);

impl<O: Orderings, E: EntryWords> Atomics for LoomAtomics<O, E> {
    type U32 = LoomU32<O>;
    type U64 = E::Word<O>;

    fn fence_full() {
        if O::FENCES {
            fence(Ordering::SeqCst);
        }
    }
}
