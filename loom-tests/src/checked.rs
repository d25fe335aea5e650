//! Plain memory under loom's race detector.

use crate::atomics::NewWord;
use dmaplane_ring::atomic::Word;
use loom::cell::UnsafeCell;

/// A value that threads share without atomics because they say that something orders their accesses. Loom fails the
/// model where nothing does.
#[derive(Debug)]
pub struct CheckedCell<T>(UnsafeCell<T>);

// SAFETY: loom runs one thread of a model at a time, switches only inside its own operations, none of which happens
// while `read` or `write` holds a pointer (their closures return plain values), and panics before an access that
// nothing orders after an earlier one.
unsafe impl<T: Send> Sync for CheckedCell<T> {}

impl<T: Clone> CheckedCell<T> {
    /// With a value.
    pub fn new(value: T) -> Self {
        CheckedCell(UnsafeCell::new(value))
    }

    /// A copy.
    pub fn read(&self) -> T {
        // SAFETY: the cell lives and, as above, nobody else is inside it.
        self.0.with(|value| unsafe { (*value).clone() })
    }

    /// Replaces the value.
    pub fn write(&self, new: T) {
        // SAFETY: as in `read`.
        self.0.with_mut(|value| unsafe { *value = new });
    }
}

/// A word of an entry as plain memory. Only loads and stores exist: nothing exchanges entries.
#[derive(Debug)]
pub struct CheckedWord(CheckedCell<u64>);

impl NewWord<u64> for CheckedWord {
    fn new(value: u64) -> Self {
        CheckedWord(CheckedCell::new(value))
    }
}

impl Word<u64> for CheckedWord {
    fn load_relaxed(&self) -> u64 {
        self.0.read()
    }
    fn store_relaxed(&self, value: u64) {
        self.0.write(value);
    }
    fn load_acquire(&self) -> u64 {
        unimplemented!("entries are loaded relaxed")
    }
    fn store_release(&self, _: u64) {
        unimplemented!("entries are stored relaxed")
    }
    fn compare_exchange(&self, _: u64, _: u64) -> Result<u64, u64> {
        unimplemented!("entries are not exchanged")
    }
    fn fetch_or(&self, _: u64) -> u64 {
        unimplemented!("entries are not exchanged")
    }
    fn swap(&self, _: u64) -> u64 {
        unimplemented!("entries are not exchanged")
    }
}
