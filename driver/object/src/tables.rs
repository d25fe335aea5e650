//! The block of memory that C hands in, carved into tables.
//!
//! The same walk over the same tables is made twice: once to count bytes, with tables that are empty, and once to
//! carve. So the two cannot disagree.

use core::fmt::Debug;
use core::hash::Hash;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use dmaplane_engine::{Storage, TableMemory};

/// A table in the block. The block is C's, so that dropping a table frees nothing.
#[derive(Debug)]
pub(crate) struct KernelTable<T> {
    /// The first of `length` entries, initialised, that nothing else refers to while the table lives.
    start: NonNull<T>,
    length: usize,
}

// SAFETY: a table owns its entries, as a box would.
unsafe impl<T: Send> Send for KernelTable<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for KernelTable<T> {}

impl<T> Deref for KernelTable<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `Block::table` has made so many entries there, for this table alone.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T> DerefMut for KernelTable<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `&mut self` lends them to nobody else.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl<T> AsRef<[T]> for KernelTable<T> {
    #[inline]
    fn as_ref(&self) -> &[T] {
        self
    }
}

/// Bytes behind each table that are nobody's: none, but where a sanitizer is told of them.
const GAP_BYTES: usize = if cfg!(feature = "guarded-tables") { 64 } else { 0 };

/// Has the sanitizer watch a gap.
#[cfg(feature = "guarded-tables")]
fn guard(gap: *mut u8) {
    unsafe extern "C" {
        fn __asan_poison_memory_region(start: *const core::ffi::c_void, bytes: usize);
    }
    // SAFETY: so many bytes of the block, which nothing refers to.
    unsafe { __asan_poison_memory_region(gap.cast(), GAP_BYTES) };
}

#[cfg(not(feature = "guarded-tables"))]
fn guard(_gap: *mut u8) {}

/// A block of memory, from which tables are taken one behind the other.
pub(crate) struct Block {
    /// Null when bytes are only counted.
    start: *mut u8,
    /// Bytes of the block.
    bytes: usize,
    /// Bytes taken.
    taken: usize,
}

impl Block {
    /// A block without memory: its tables are empty, and it counts what they would need.
    pub(crate) fn counting() -> Block {
        Block { start: core::ptr::null_mut(), bytes: usize::MAX, taken: 0 }
    }

    /// A block over memory.
    ///
    /// # Safety
    /// `start` is valid for writes of `bytes` bytes, aligned to a page, and everything in it belongs to this block, and
    /// to what is carved from it, for as long as any of that lives.
    pub(crate) unsafe fn over(start: NonNull<u8>, bytes: usize) -> Block {
        Block { start: start.as_ptr(), bytes, taken: 0 }
    }

    /// Bytes taken so far.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// Room for `length` entries of `T`, not initialised. `None`: the block is used up, or only counts.
    pub(crate) fn room<T>(&mut self, length: usize) -> Option<NonNull<T>> {
        let from = self.taken.checked_next_multiple_of(align_of::<T>())?;
        let end = from.checked_add(size_of::<T>().checked_mul(length)?)?;
        let with_gap = end.checked_add(GAP_BYTES)?;
        if with_gap > self.bytes {
            return None;
        }
        self.taken = with_gap;
        if self.start.is_null() {
            return None;
        }
        // SAFETY: the gap begins within the block, or at its end.
        guard(unsafe { self.start.add(end) });
        // SAFETY: `from` is at most `end`, which is at most the block's bytes.
        NonNull::new(unsafe { self.start.add(from) }.cast())
    }

    /// A table of `length` entries.
    pub(crate) fn entries<T>(&mut self, length: usize, mut make: impl FnMut(u32) -> T) -> Option<KernelTable<T>> {
        let counting = self.start.is_null();
        let Some(start) = self.room::<T>(length) else {
            return counting.then_some(KernelTable { start: NonNull::dangling(), length: 0 });
        };
        for index in 0..length {
            // SAFETY: `room` has given out so many entries, aligned, and to nobody else.
            unsafe { start.add(index).write(make(index as u32)) };
        }
        Some(KernelTable { start, length })
    }
}

/// The engine's tables as they lie in the block.
pub(crate) struct Kernel;

impl Storage for Kernel {
    type Table<T: Copy + Debug + Hash> = KernelTable<T>;
}

impl TableMemory<Kernel> for Block {
    fn table<T: Copy + Debug + Hash>(&mut self, length: usize, blank: T) -> Option<KernelTable<T>> {
        self.entries(length, |_| blank)
    }
}
