//! The engine's tables on the heap.

use core::fmt::Debug;
use core::hash::Hash;
use dmaplane_engine::{Storage, TableMemory};

/// Boxed slices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heap;

impl Storage for Heap {
    type Table<T: Copy + Debug + Hash> = Box<[T]>;
}

impl TableMemory<Heap> for Heap {
    fn table<T: Copy + Debug + Hash>(&mut self, length: usize, blank: T) -> Option<Box<[T]>> {
        Some(vec![blank; length].into_boxed_slice())
    }
}
