//! Tables of slots with generations (clauses HND-1 to HND-4).

use core::fmt::Debug;
use core::hash::Hash;
use core::marker::PhantomData;
use core::ops::DerefMut;
use dmaplane_ring::abi::{Errno, Handle, HandleKind};
use dmaplane_ring::nospec;

/// No index.
pub(crate) const NONE: u32 = u32::MAX;
/// `next_free` of a slot in use.
const IN_USE: u32 = u32::MAX - 1;
/// `next_free` of a slot whose generations are used up: it is never used again (clause HND-4).
const RETIRED: u32 = u32::MAX - 2;

/// One slot.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Slot<T> {
    /// Generation of the object in it, or of the next one. Never 0, so that handle 0 names nothing.
    generation: u32,
    /// The next free slot, or [`NONE`], [`IN_USE`], [`RETIRED`].
    next_free: u32,
    value: Option<T>,
}

impl<T> Slot<T> {
    /// A slot never used.
    pub const VACANT: Slot<T> = Slot { generation: 1, next_free: NONE, value: None };
}

/// A table over memory `M`, with a free list through the vacant slots.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Table<T, M> {
    memory: M,
    free: u32,
    used: u32,
    /// Generations wrap instead of retiring their slot: for what no client holds a handle of.
    recycles: bool,
    value: PhantomData<T>,
}

impl<T: Copy + Debug + Hash, M: DerefMut<Target = [Slot<T>]>> Table<T, M> {
    pub fn new(mut memory: M) -> Self {
        let length = memory.len() as u32;
        for (index, slot) in memory.iter_mut().enumerate() {
            let next = index as u32 + 1;
            *slot = Slot { next_free: if next < length { next } else { NONE }, ..Slot::VACANT };
        }
        let free = if length > 0 { 0 } else { NONE };
        Table { memory, free, used: 0, recycles: false, value: PhantomData }
    }

    /// A table whose slots are never retired. Operations and peers' transfers are named only toward the host, for as
    /// long as they are in flight: no name of theirs is 2^32 uses old.
    pub fn recycling(memory: M) -> Self {
        Table { recycles: true, ..Table::new(memory) }
    }

    pub fn used(&self) -> u32 {
        self.used
    }

    pub fn has_room(&self) -> bool {
        self.free != NONE
    }

    pub fn capacity(&self) -> u32 {
        self.memory.len() as u32
    }

    /// Puts a value in; `None` when the table is full.
    pub fn insert(&mut self, value: T) -> Option<(u32, u32)> {
        let index = self.free;
        let slot = self.memory.get_mut(index as usize)?;
        self.free = slot.next_free;
        slot.next_free = IN_USE;
        slot.value = Some(value);
        self.used += 1;
        Some((index, slot.generation))
    }

    /// Takes a value out and ends its generation.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let slot = self.memory.get_mut(index as usize)?;
        let value = slot.value.take()?;
        self.used -= 1;
        let next = match slot.generation.checked_add(1) {
            None if self.recycles => Some(1),
            next => next,
        };
        match next {
            Some(generation) => {
                slot.generation = generation;
                slot.next_free = self.free;
                self.free = index;
            }
            None => slot.next_free = RETIRED,
        }
        Some(value)
    }

    /// The slot at an index that may be a client's or a peer's number (clause SEC-3).
    #[inline]
    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        self.memory.get(nospec::clamp(index as usize, self.memory.len()))
    }

    #[inline]
    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<T>> {
        let index = nospec::clamp(index as usize, self.memory.len());
        self.memory.get_mut(index)
    }

    pub fn get(&self, index: u32) -> Option<&T> {
        self.slot(index)?.value.as_ref()
    }

    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slot_mut(index)?.value.as_mut()
    }

    pub fn generation(&self, index: u32) -> u32 {
        self.slot(index).map_or(0, |slot| slot.generation)
    }

    /// The index that a handle names: -EBADF for another kind or no object, -ESTALE for an earlier generation.
    pub fn find(&self, handle: Handle, kind: HandleKind) -> Result<u32, Errno> {
        let slot = self.slot(handle.index()).ok_or(Errno::EBADF)?;
        if !handle.is(kind) {
            return Err(Errno::EBADF);
        }
        if cfg!(feature = "seeded-skipped-generation") && slot.value.is_some() {
            return Ok(handle.index());
        }
        if slot.generation != handle.generation() {
            return Err(if handle.generation() == 0 { Errno::EBADF } else { Errno::ESTALE });
        }
        if slot.value.is_some() { Ok(handle.index()) } else { Err(Errno::EBADF) }
    }

    pub fn handle(&self, index: u32, kind: HandleKind) -> Handle {
        Handle::new(kind, index, self.generation(index))
    }

    /// The first index at or after `from` that is in use.
    pub fn next_used(&self, from: u32) -> Option<u32> {
        let rest = self.memory.get(from as usize..)?;
        rest.iter().position(|slot| slot.value.is_some()).map(|ahead| from + ahead as u32)
    }

    #[cfg(test)]
    pub fn set_generation(&mut self, index: u32, generation: u32) {
        self.memory[index as usize].generation = generation;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    fn table(length: usize) -> Table<u8, Vec<Slot<u8>>> {
        Table::new(vec![Slot::VACANT; length])
    }

    #[test]
    fn hnd_3_a_stale_handle_is_estale_and_a_wrong_one_ebadf() {
        let mut table = table(2);
        let (index, _) = table.insert(5).unwrap();
        let handle = table.handle(index, HandleKind::Buffer);
        assert_eq!(table.find(handle, HandleKind::Buffer), Ok(index));
        assert_eq!(table.find(handle, HandleKind::List), Err(Errno::EBADF));
        assert_eq!(table.find(Handle::NULL, HandleKind::Buffer), Err(Errno::EBADF));
        assert_eq!(table.find(Handle::new(HandleKind::Buffer, 7, 1), HandleKind::Buffer), Err(Errno::EBADF));
        table.remove(index);
        assert_eq!(table.find(handle, HandleKind::Buffer), Err(Errno::ESTALE));
        table.insert(6).unwrap();
        assert_eq!(table.find(handle, HandleKind::Buffer), Err(Errno::ESTALE));
    }

    #[test]
    fn hnd_4_a_slot_whose_generation_would_wrap_is_retired() {
        let mut table = table(1);
        table.set_generation(0, u32::MAX);
        let (index, generation) = table.insert(1).unwrap();
        assert_eq!(generation, u32::MAX);
        table.remove(index);
        assert_eq!(table.insert(2), None, "the only slot is retired");
    }

    #[test]
    fn a_recycling_table_never_loses_a_slot() {
        let mut table = Table::recycling(vec![Slot::VACANT; 1]);
        table.set_generation(0, u32::MAX);
        for generation in [u32::MAX, 1, 2] {
            assert_eq!(table.insert(1u8), Some((0, generation)));
            table.remove(0);
        }
    }

    #[test]
    fn lim_2_a_full_table_takes_nothing() {
        let mut table = table(2);
        assert!(table.insert(1).is_some() && table.insert(2).is_some());
        assert_eq!((table.insert(3), table.used(), table.has_room()), (None, 2, false));
    }
}
