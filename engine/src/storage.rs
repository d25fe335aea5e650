//! Where the engine's tables lie: the host hands them in once.

use crate::buffer::Buffer;
use crate::control::DescriptorSlot;
use crate::import::Import;
use crate::inbound::Inbound;
use crate::lease::Lease;
use crate::limits::Limits;
use crate::list::List;
use crate::operation::Operation;
use crate::peer::{Listener, Peer};
use crate::ring::RingState;
use crate::table::Slot;
use crate::timer::TimerSlot;
use core::fmt::Debug;
use core::hash::Hash;
use core::ops::DerefMut;

/// A family of tables: boxed slices in a program, vmalloc'ed ones in the kernel, vectors in a search.
pub trait Storage {
    /// A table of so many entries, which never changes its length.
    type Table<T: Copy + Debug + Hash>: DerefMut<Target = [T]>;
}

/// Makes one table at a time; `None` when there is no memory.
pub trait TableMemory<S: Storage> {
    /// A table of `length` copies of `blank`.
    fn table<T: Copy + Debug + Hash>(&mut self, length: usize, blank: T) -> Option<S::Table<T>>;
}

/// All the tables of a context.
pub(crate) struct Tables<S: Storage> {
    pub rings: S::Table<RingState>,
    pub operations: S::Table<Slot<Operation>>,
    pub buffers: S::Table<Slot<Buffer>>,
    pub lists: S::Table<Slot<List>>,
    pub leases: S::Table<Slot<Lease>>,
    pub imports: S::Table<Slot<Import>>,
    pub peers: S::Table<Slot<Peer>>,
    pub listeners: S::Table<Slot<Listener>>,
    pub slots: S::Table<Slot<DescriptorSlot>>,
    pub inbound: S::Table<Slot<Inbound>>,
    pub timers: S::Table<TimerSlot>,
}

impl<S: Storage> Tables<S> {
    /// Takes all memory at once; `None` when any of it is missing (what was taken is given back by dropping it).
    pub fn new(limits: &Limits, memory: &mut impl TableMemory<S>) -> Option<Self> {
        Some(Tables {
            rings: memory.table(limits.rings as usize, RingState::VACANT)?,
            operations: memory.table(limits.operations as usize, Slot::VACANT)?,
            buffers: memory.table(limits.buffers as usize, Slot::VACANT)?,
            lists: memory.table(limits.lists as usize, Slot::VACANT)?,
            leases: memory.table(limits.leases as usize, Slot::VACANT)?,
            imports: memory.table(limits.imports as usize, Slot::VACANT)?,
            peers: memory.table(limits.peers as usize, Slot::VACANT)?,
            listeners: memory.table(limits.listeners as usize, Slot::VACANT)?,
            slots: memory.table(limits.slots as usize, Slot::VACANT)?,
            inbound: memory.table(limits.inbound() as usize, Slot::VACANT)?,
            timers: memory.table(limits.timers() as usize, TimerSlot::VACANT)?,
        })
    }
}
