//! Rules that transfer slots keep.

use crate::arrival::{PARTS_MAX, Progress};
use crate::transfer_id::TransferId;
use crate::transfer_slot::SLOTS_MAX;

/// Why a transfer could not be begun, ended or released.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SlotError {
    /// A table of no slots, or of more than [`SLOTS_MAX`].
    #[error("a table of {slots} slots cannot be; give 1 to {SLOTS_MAX}")]
    Slots {
        /// Slots as given.
        slots: u32,
    },
    /// No slot is free.
    #[error(
        "all {slots} slots are in use, {retired} of them retired; release some, or begin with a new \
            table (a new exchange) if most are retired"
    )]
    Exhausted {
        /// Slots of the table.
        slots: u32,
        /// Slots retired for good.
        retired: u32,
    },
    /// No parts, or more than [`PARTS_MAX`].
    #[error("a transfer of {parts} parts cannot be; give 1 to {PARTS_MAX}")]
    Parts {
        /// Parts as given.
        parts: u32,
    },
    /// Fewer bytes than parts, although no part may be empty.
    #[error(
        "{parts} parts cannot have {bytes} bytes together, as no part may be empty; give more \
            bytes or fewer parts"
    )]
    Bytes {
        /// Parts as given.
        parts: u32,
        /// Bytes as given.
        bytes: u64,
    },
    /// A transfer that does not have its slot, or no longer.
    #[error("{id} does not have its slot; it was released, or never begun here")]
    NotCurrent {
        /// The transfer.
        id: TransferId,
    },
    /// Not everything is there yet.
    #[error("{id} has {} of {} parts and {} of {} bytes; wait, or abort it",
        progress.parts, progress.expected.parts, progress.bytes, progress.expected.bytes)]
    Incomplete {
        /// The transfer.
        id: TransferId,
        /// What is there.
        progress: Progress,
    },
    /// The transfer was committed or aborted before.
    #[error("{id} has ended already; release it when its lease has ended")]
    AlreadyEnded {
        /// The transfer.
        id: TransferId,
    },
    /// The transfer runs: its slot cannot be given to another.
    #[error("{id} is still running; commit or abort it before its release")]
    StillActive {
        /// The transfer.
        id: TransferId,
    },
}
