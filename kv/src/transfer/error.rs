//! Why a transfer failed.

use crate::arrival::ArrivalError;
use crate::{BlockError, Digest64, ManifestError, PlanError, PoolError, SequenceError, SlotError};
use dmaplane::Errno;

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
    #[error("part {part} arrived with {}, its sender's has {expected:08x}: damaged, or another's", sum(*.found))]
    Checksum {
        /// The part.
        part: u32,
        /// Made while the bytes were copied in; `None`: the sender did not ask for one.
        found: Option<u32>,
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
    /// Parts that no operation of this side can hold.
    #[error(
        "parts of {part_fragments} fragments of {fragment_bytes} bytes, and one operation holds {most} here: use more"
    )]
    Parts {
        /// Fragments of a part, by the manifest.
        part_fragments: u64,
        /// Bytes of one.
        fragment_bytes: u64,
        /// What one operation holds.
        most: u32,
    },
    /// More fragments of tokens than a lease's list can name.
    #[error(
        "a lease names at most 2^20 fragments of tokens and this sequence has {columns}: cut larger ones, or move fewer"
    )]
    Columns {
        /// Fragments of each plane.
        columns: u64,
    },
    /// Heads that are not, or not all, to be had from those that were named.
    #[error("heads {wanted:?} are wanted and {found:?} are had from the peers named: name each that has some, once")]
    Legs {
        /// What this shard holds.
        wanted: crate::HeadRange,
        /// What the manifests offer.
        found: Vec<crate::HeadRange>,
    },
    /// The shards cannot be matched.
    #[error(transparent)]
    Layout(#[from] crate::LayoutError),
    /// The other side has aborted the transfer, or its lease has ended.
    #[error("the peer has ended the transfer{}", because(*.errno))]
    Aborted {
        /// With what its engine has refused; `None`: it has said so.
        errno: Option<dmaplane::Errno>,
    },
    /// Nobody has renewed the lease in time.
    #[error("the lease's time to live is over: renew it in time, or begin anew")]
    Expired,
    /// A token that its owner does not accept.
    #[error(
        "the owner does not accept this token{}: it is forged, was changed, or somebody has shown it before",
        because(Some(*.errno))
    )]
    Rejected {
        /// What the owner's engine said.
        errno: dmaplane::Errno,
    },
    /// A token that is not of this connection's owner.
    #[error("this token is not of the peer as it lives now: it has been started anew since, or another is meant")]
    OtherLife,
    /// The connection has ended.
    #[error("the connection to {name} has ended: it has died, or has hung up")]
    PeerGone {
        /// The peer.
        name: String,
    },
    /// A peer that does not take what it is told.
    #[error("{name} lets {signals} signals of {bytes} bytes wait: send less, or end its connection")]
    Overrun {
        /// The peer.
        name: String,
        /// What waits for it.
        signals: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// A transfer that has ended, or was never begun here.
    #[error("{what} does not name a transfer that is under way here")]
    NoTransfer {
        /// What was given.
        what: String,
    },
    /// A call that this kind of transfer does not have.
    #[error("{what} is not for a transfer of this kind: {why}")]
    WrongKind {
        /// The call.
        what: &'static str,
        /// What it is for.
        why: &'static str,
    },
    /// Too many bytes of the user's.
    #[error("{found} user bytes; at most {most} travel with a transfer")]
    UserBytes {
        /// As given.
        found: usize,
        /// Most.
        most: usize,
    },
    /// A message that no peer of this version sends.
    #[error("the peer sends what this version does not know: {what}")]
    Signal {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A manifest of parts that are announced, given to who does not listen to announcements, or the reverse.
    #[error("the owner {}: use `Exchange::pull` for the one, `pull` for the other", announces(*.announced))]
    Announced {
        /// Whether it announces.
        announced: bool,
    },
    /// Bytes of a block that a peer may touch at the moment.
    #[error("block {block} is leased to a peer: commit, abort or close that transfer first")]
    Leased {
        /// The block.
        block: u32,
    },
    /// A pool that the transfer was not begun with.
    #[error("the transfer is of another pool's blocks: give it the pool that it was opened with")]
    OtherPool,
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

fn because(errno: Option<dmaplane::Errno>) -> String {
    errno.map(|errno| format!(" ({errno})")).unwrap_or_default()
}

fn announces(announced: bool) -> &'static str {
    if announced { "announces the parts one by one" } else { "announces nothing" }
}

fn sum(found: Option<u32>) -> String {
    found.map_or("no CRC-32C".to_owned(), |found| format!("CRC-32C {found:08x}"))
}

impl TransferError {
    /// Whether the peer's connection is what ended.
    pub fn is_peer_gone(&self) -> bool {
        match self {
            TransferError::PeerGone { .. } => true,
            TransferError::Plane(error) => error.is_disconnect(),
            _ => false,
        }
    }

    /// Whether the other side has ended the transfer, or let its lease run out.
    pub fn is_aborted(&self) -> bool {
        match self {
            TransferError::Aborted { .. } | TransferError::Expired => true,
            TransferError::Plane(error) => {
                matches!(error.errno(), Some(Errno::EKEYREVOKED | Errno::EKEYEXPIRED | Errno::ESTALE))
            }
            _ => false,
        }
    }

    /// Why an operation on a peer's lease failed, in a transfer's terms.
    pub(crate) fn of_operation(error: dmaplane::Error, peer: &str) -> TransferError {
        match error.errno() {
            Some(errno @ (Errno::EKEYREVOKED | Errno::ESTALE)) => TransferError::Aborted { errno: Some(errno) },
            Some(Errno::EKEYEXPIRED) => TransferError::Expired,
            Some(Errno::ECONNRESET | Errno::ENOTCONN) => TransferError::PeerGone { name: peer.to_owned() },
            _ => error.into(),
        }
    }

    /// Why a claim of a peer's lease failed.
    pub(crate) fn of_claim(error: dmaplane::Error, peer: &str) -> TransferError {
        match error.errno() {
            Some(errno @ (Errno::EKEYREJECTED | Errno::EBADMSG)) => TransferError::Rejected { errno },
            Some(Errno::EINVAL | Errno::EBADF) => TransferError::OtherLife,
            _ => TransferError::of_operation(error, peer),
        }
    }
}
