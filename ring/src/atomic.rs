//! The atomics that the ring is generic over, so that loom can run it: loom's words cannot lie in mapped memory.
//!
//! Only the orderings that the ring, the inbox and the baton use exist here. Each use names its partner.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// A shared word.
pub trait Word<T: Copy> {
    /// No ordering.
    fn load_relaxed(&self) -> T;
    /// Pairs with a release store of the same word.
    fn load_acquire(&self) -> T;
    /// No ordering.
    fn store_relaxed(&self, value: T);
    /// Pairs with an acquire load of the same word.
    fn store_release(&self, value: T);
    /// Read-modify-write, acquire and release. `Err` holds the value that was there.
    fn compare_exchange(&self, current: T, new: T) -> Result<T, T>;
    /// Sets bits and returns the earlier value, acquire and release.
    fn fetch_or(&self, bits: T) -> T;
    /// Replaces the value and returns the earlier one, acquire and release.
    fn swap(&self, value: T) -> T;
}

/// A family of atomics.
pub trait Atomics: 'static {
    /// 32-bit words: heads, tails, flags.
    type U32: Word<u32>;
    /// 64-bit words: entries.
    type U64: Word<u64>;
    /// A full fence; its partner is another full fence (clause WAKE-1).
    fn fence_full();
}

/// The machine's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

impl Atomics for Native {
    type U32 = AtomicU32;
    type U64 = AtomicU64;

    #[inline]
    fn fence_full() {
        fence(Ordering::SeqCst);
    }
}

macro_rules! native_word {
    ($atomic:ty, $value:ty) => {
        impl Word<$value> for $atomic {
            #[inline]
            fn load_relaxed(&self) -> $value {
                self.load(Ordering::Relaxed)
            }
            #[inline]
            fn load_acquire(&self) -> $value {
                self.load(Ordering::Acquire)
            }
            #[inline]
            fn store_relaxed(&self, value: $value) {
                self.store(value, Ordering::Relaxed);
            }
            #[inline]
            fn store_release(&self, value: $value) {
                self.store(value, Ordering::Release);
            }
            #[inline]
            fn compare_exchange(&self, current: $value, new: $value) -> Result<$value, $value> {
                self.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
            }
            #[inline]
            fn fetch_or(&self, bits: $value) -> $value {
                self.fetch_or(bits, Ordering::AcqRel)
            }
            #[inline]
            fn swap(&self, value: $value) -> $value {
                self.swap(value, Ordering::AcqRel)
            }
        }
    };
}

native_word!(AtomicU32, u32);
native_word!(AtomicU64, u64);
