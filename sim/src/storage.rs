//! The engine's tables as vectors, so that the engine can be cloned and hashed.

use core::fmt::Debug;
use core::hash::Hash;
use dmaplane_engine::{Storage, TableMemory};

/// Tables are vectors.
#[derive(Clone, Copy, Debug)]
pub struct VecStorage;

impl Storage for VecStorage {
    type Table<T: Copy + Debug + Hash> = Vec<T>;
}

/// Makes them.
#[derive(Clone, Copy, Debug)]
pub struct VecMemory;

impl TableMemory<VecStorage> for VecMemory {
    fn table<T: Copy + Debug + Hash>(&mut self, length: usize, blank: T) -> Option<Vec<T>> {
        Some(vec![blank; length])
    }
}

/// The engine under test.
pub type SimEngine = dmaplane_engine::Engine<VecStorage>;
