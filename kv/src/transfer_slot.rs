//! The receiver's side of a pushed transfer: what has arrived, and when it may be used.
//!
//! ```text
//!            begin            commit: all is there         release: the lease
//!   free ------------> active ---------------------> ended has ended -------------> free, next
//!                         |                            ^                            generation,
//!                         +----------------------------+                            or retired
//!                                    abort
//! ```
//!
//! - **Completion is by count and assumes no order.** Fabrics deliver the parts of a transfer in
//!   any order; the receiver counts notifications and bytes.
//! - **Late arrivals are refused, and counted.** An immediate names a slot *and* its generation.
//!   What belongs to an earlier transfer, to another peer or to an ended transfer never counts for
//!   the one that has the slot now.
//! - **A slot is reused as soon as the transfer's lease has ended**, which is when its memory is: it
//!   waits for no acknowledgement. What the peer had said by then and is not read yet names the old
//!   generation. A slot is never reused once its generation would wrap: after 65,535 transfers it is
//!   retired for good, and a new one takes its place as long as 16 bits can name one. (So a table
//!   ends after 2^32 transfers, and says so.)
//!
//! A notification says that bytes came under a lease; the lease is what protects the memory. This
//! table only decides when the receiver believes that a transfer is whole.

use std::collections::VecDeque;

use crate::arrival::Active;
pub use crate::arrival::{ArrivalError, Expected, PARTS_MAX, Progress, Refused};
pub use crate::slot_error::SlotError;
use crate::transfer_id::TransferId;

/// Most slots of a table: what 16 bits can name.
pub const SLOTS_MAX: u32 = 1 << 16;
/// What became of a released slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Released {
    /// It can be used again, with the next generation.
    Reusable,
    /// Its generations are used up: it is never used again.
    Retired,
}

#[derive(Debug, Clone)]
enum State {
    /// The slot's generation is the one that the next transfer will have.
    Free,
    Active(Active),
    Ended,
    /// The slot's generation is the last, and was used.
    Retired,
}

#[derive(Debug, Clone)]
struct Slot {
    generation: u16,
    state: State,
}

/// The transfer slots of one connection, at its receiving end.
///
/// ```
/// use dmaplane_kv::transfer_slot::{ArrivalError, Expected, TransferSlots};
///
/// let mut slots = TransferSlots::new(8)?;
/// let id = slots.begin(Expected { parts: 2, bytes: 8192 }, None)?;
/// let peer = 1;
/// assert!(!slots.arrive(peer, id.pack(), 4096)?.is_complete());
/// assert!(slots.commit(id).is_err());
/// assert!(slots.arrive(peer, id.pack(), 4096)?.is_complete());
/// slots.commit(id)?;
/// slots.release(id)?;
/// assert!(matches!(slots.arrive(peer, id.pack(), 4096), Err(ArrivalError::Stale { .. })));
/// assert_eq!(slots.refused().stale, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct TransferSlots {
    slots: Vec<Slot>,
    /// First in, first out, so that a slot rests as long as possible. Invariant: exactly the slots
    /// in `State::Free`.
    free: VecDeque<u16>,
    retired: u32,
    /// Slots that the table may come to have, those in place of retired ones included.
    most: u32,
    refused: Refused,
}

/// A slot that nobody has had.
const NEW: Slot = Slot { generation: 1, state: State::Free };

impl TransferSlots {
    /// A table of `slots` slots that can be used.
    pub fn new(slots: u32) -> Result<TransferSlots, SlotError> {
        TransferSlots::with_most(slots, SLOTS_MAX)
    }

    fn with_most(slots: u32, most: u32) -> Result<TransferSlots, SlotError> {
        if !(1..=SLOTS_MAX).contains(&slots) {
            return Err(SlotError::Slots { slots });
        }
        Ok(TransferSlots {
            slots: vec![NEW; slots as usize],
            free: (0..=u16::MAX).take(slots as usize).collect(),
            retired: 0,
            most,
            refused: Refused::default(),
        })
    }

    /// Takes a slot for a transfer with `peer`, or with whichever peer is first heard of.
    pub fn begin(&mut self, expected: Expected, peer: Option<u64>) -> Result<TransferId, SlotError> {
        let Expected { parts, bytes } = expected;
        if !(1..=PARTS_MAX).contains(&parts) {
            return Err(SlotError::Parts { parts });
        }
        if bytes < u64::from(parts) {
            return Err(SlotError::Bytes { parts, bytes });
        }
        let Some(index) = self.free.pop_front() else {
            return Err(SlotError::Exhausted { slots: self.slots.len() as u32, retired: self.retired });
        };
        let slot = &mut self.slots[usize::from(index)];
        debug_assert!(matches!(slot.state, State::Free));
        slot.state = State::Active(Active::new(expected, peer));
        Ok(TransferId { slot: index, generation: slot.generation })
    }

    /// Counts an arrival of `bytes` bytes that says nothing but its immediate data, as on RDMA. A
    /// part that is sent twice before all are there cannot be told from a missing one: fabrics that
    /// retry above their own reliability must number their parts.
    pub fn arrive(&mut self, peer: u64, immediate: u32, bytes: u64) -> Result<Progress, ArrivalError> {
        self.count_arrival(peer, immediate, None, bytes)
    }

    /// Counts the arrival of part `part`, counted from 0, of `bytes` bytes. For notifications that
    /// can carry a number: a part that arrives twice is refused.
    pub fn arrive_part(&mut self, peer: u64, immediate: u32, part: u32, bytes: u64) -> Result<Progress, ArrivalError> {
        self.count_arrival(peer, immediate, Some(part), bytes)
    }

    /// How much of a running transfer has arrived.
    pub fn progress(&self, id: TransferId) -> Result<Progress, SlotError> {
        match self.slots.get(usize::from(id.slot)) {
            Some(Slot { generation, state: State::Active(active) }) if *generation == id.generation => {
                Ok(active.progress())
            }
            Some(Slot { generation, state: State::Ended }) if *generation == id.generation => {
                Err(SlotError::AlreadyEnded { id })
            }
            _ => Err(SlotError::NotCurrent { id }),
        }
    }

    /// Ends a transfer of which everything is there. From now on its data may be used.
    pub fn commit(&mut self, id: TransferId) -> Result<(), SlotError> {
        let progress = self.progress(id)?;
        if !progress.is_complete() {
            return Err(SlotError::Incomplete { id, progress });
        }
        self.slots[usize::from(id.slot)].state = State::Ended;
        Ok(())
    }

    /// Ends a transfer whatever is there. (Its lease must be revoked before its memory is reused.)
    pub fn abort(&mut self, id: TransferId) -> Result<(), SlotError> {
        self.progress(id)?;
        self.slots[usize::from(id.slot)].state = State::Ended;
        Ok(())
    }

    /// Gives the slot of an ended transfer back. Call it when its lease has ended: what comes late is
    /// told from the next transfer by its generation.
    pub fn release(&mut self, id: TransferId) -> Result<Released, SlotError> {
        match self.progress(id) {
            Ok(_) => return Err(SlotError::StillActive { id }),
            Err(SlotError::AlreadyEnded { .. }) => {}
            Err(other) => return Err(other),
        }
        let slot = &mut self.slots[usize::from(id.slot)];
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            slot.state = State::Free;
            self.free.push_back(id.slot);
            Ok(Released::Reusable)
        } else {
            slot.state = State::Retired;
            self.retired += 1;
            self.replace_retired();
            Ok(Released::Retired)
        }
    }

    /// Adds a slot where one was retired, while there are numbers.
    fn replace_retired(&mut self) {
        if let Some(number) = u16::try_from(self.slots.len()).ok().filter(|&number| u32::from(number) < self.most) {
            self.slots.push(NEW);
            self.free.push_back(number);
        }
    }

    /// Arrivals refused so far.
    pub const fn refused(&self) -> Refused {
        self.refused
    }

    /// Slots that can be taken now.
    pub fn free_slots(&self) -> u32 {
        self.free.len() as u32
    }

    /// Slots that are never used again.
    pub const fn retired_slots(&self) -> u32 {
        self.retired
    }

    fn count_arrival(
        &mut self,
        peer: u64,
        immediate: u32,
        part: Option<u32>,
        bytes: u64,
    ) -> Result<Progress, ArrivalError> {
        let result = self.try_arrival(peer, TransferId::unpack(immediate), part, bytes);
        if let Err(error) = &result {
            self.refused.count(error);
        }
        result
    }

    /// Refuses, and counts, an arrival that names no slot's generation of now. For who looks at more of an arrival than
    /// its number: what is late says nothing about the transfer that has the slot.
    pub(crate) fn check_current(&mut self, id: TransferId) -> Result<(), ArrivalError> {
        let result = self.current(id).map(|_| ());
        if let Err(error) = &result {
            self.refused.count(error);
        }
        result
    }

    fn try_arrival(
        &mut self,
        peer: u64,
        id: TransferId,
        part: Option<u32>,
        bytes: u64,
    ) -> Result<Progress, ArrivalError> {
        match &mut self.current(id)?.state {
            State::Active(active) => active.count(peer, id, part, bytes),
            State::Ended => Err(ArrivalError::Ended { id }),
            State::Free | State::Retired => Err(ArrivalError::Unknown { id }),
        }
    }

    /// The slot that has this generation now.
    fn current(&mut self, id: TransferId) -> Result<&mut Slot, ArrivalError> {
        let Some(slot) = self.slots.get_mut(usize::from(id.slot)) else {
            return Err(ArrivalError::Unknown { id });
        };
        let current = slot.generation;
        let retired = matches!(slot.state, State::Retired);
        if id.generation == 0 || id.generation > current {
            return Err(ArrivalError::Unknown { id });
        }
        if id.generation < current || retired {
            return Err(ArrivalError::Stale { id, current });
        }
        Ok(slot)
    }
}

#[cfg(test)]
mod tests;
