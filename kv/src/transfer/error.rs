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
