//! Why a transfer failed.

use crate::arrival::ArrivalError;
use crate::{BlockError, Digest64, ManifestError, PlanError, PoolError, SequenceError, SlotError};

/// Why a transfer failed. Nothing of it is used then: what was allocated for it is free again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The plane refused, or the peer is gone.
    #[error(transparent)]
    Plane(#[from] dmaplane::Error),
    /// The two sides' descriptions do not fit.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The pool is not as described.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The pool has no blocks left, or a block is not its own.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A table that is not of its pool.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The peer's description is damaged.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// No transfer slot, or a wrong one.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// Something arrived that does not belong to this transfer.
    #[error(transparent)]
    Arrival(#[from] ArrivalError),
    /// What arrived is not what was sent.
    #[error("the cache that arrived has digest {found}, the sender's has {expected}: it was damaged or is another's")]
    Digest {
        /// Of what arrived.
        found: Digest64,
        /// What the sender said.
        expected: Digest64,
    },
    /// A part's bytes are not those that were sent.
    #[error(
        "part {part} arrived with CRC-32C {found:08x}, the sender's has {expected:08x}: it was damaged or is another's"
    )]
    Checksum {
        /// The part.
        part: u32,
        /// Made while the bytes were copied in; `None`: the fabric did not make one.
        found: u32,
        /// What the sender said.
        expected: u32,
    },
    /// The peer checks by less than this side insists on.
    #[error("the transfer is checked by {theirs:?}, and this pool insists on {ours:?}; agree on the stronger")]
    WeakChecksum {
        /// What the manifest says.
        theirs: crate::ChecksumAlgorithm,
        /// What the pool insists on.
        ours: crate::ChecksumAlgorithm,
    },
    /// A part of other bytes than its fragments have.
    #[error(
        "part {part} says {found} bytes, its fragments have {expected}; the sender is confused, abort the transfer"
    )]
    PartBytes {
        /// The part.
        part: u32,
        /// What the notification says.
        found: u64,
        /// What it should say.
        expected: u64,
    },
    /// The receiver wants another number of tokens than the sender has.
    #[error("the peer wants {theirs} tokens and the sequence has {ours}; send it an offer of this sequence")]
    Tokens {
        /// What the peer's manifest says.
        theirs: u32,
        /// The sequence's.
        ours: u32,
    },
    /// Parts that no operation can hold.
    #[error("{fragments} fragments of {fragment_bytes} bytes do not fit in {parts} parts: use more")]
    Parts {
        /// Fragments of the transfer.
        fragments: u64,
        /// Bytes of one.
        fragment_bytes: u64,
        /// What the manifest says.
        parts: u32,
    },
    /// Bytes of a block that a peer may touch at the moment.
    #[error("block {block} is leased to a peer: commit, abort or close that transfer first")]
    Leased {
        /// The block.
        block: u32,
    },
    /// An arrival for another transfer: give it to that one.
    #[error("an arrival for {found}, not for {ours}")]
    OtherTransfer {
        /// What the immediate names.
        found: crate::TransferId,
        /// This transfer.
        ours: crate::TransferId,
    },
    /// A notification that no sender of this version makes.
    #[error("a notification of {found} bytes; this version's has at least 24")]
    Notice {
        /// Its length.
        found: usize,
    },
    /// The peer's cache is of another model.
    #[error("the peer's cache is of another model: fingerprint {theirs:?}, ours {ours:?}")]
    OtherModel {
        /// The peer's.
        theirs: crate::Fingerprint,
        /// Ours.
        ours: crate::Fingerprint,
    },
}
