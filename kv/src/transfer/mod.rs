//! Transfers over a plane: push and pull, between pools of different block sizes, committed only when everything is
//! there.
//!
//! The side that owns the memory leases *only the blocks of this request*, as a list of (fragment of tokens, plane).
//! The other side moves between its own pool and that list with one list write or read, or, where one operation cannot
//! hold all, in parts.
//!
//! What both sides have to agree on is in the manifests: the tokens, the size of a fragment, the parts, the checksum.
//! Either side may insist on a checksum ([`PagedPool::set_checksum`]); the stronger one is used.

mod error;
mod notice;
#[expect(unsafe_code, reason = "lists of leased blocks, and slices of the others")]
mod paged_pool;
mod pull;
mod push;

pub use error::TransferError;
pub use notice::Notice;
pub use paged_pool::PagedPool;
use paged_pool::list_segment;
pub use pull::{Source, pull};
pub use push::{Landing, push};

use crate::{FragmentPlan, PagedSequence, TransferManifest};
use dmaplane::IndexPair;

/// What a transfer moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Bytes, padding of last fragments included.
    pub bytes: u64,
    /// Fragments.
    pub fragments: u64,
}

/// Our fragments against the peer's.
fn plan_with(
    pool: &PagedPool,
    table: &crate::BlockTable,
    theirs: &TransferManifest,
) -> Result<FragmentPlan, TransferError> {
    let (wanted, tokens) = (theirs.table.tokens(), table.tokens());
    if wanted != tokens {
        return Err(TransferError::Tokens { theirs: wanted, ours: tokens });
    }
    if theirs.checksum < pool.checksum() {
        return Err(TransferError::WeakChecksum { theirs: theirs.checksum, ours: pool.checksum() });
    }
    let local = PagedSequence::new(pool.geometry(), table)?;
    let their_pool = theirs.pool()?;
    let remote = PagedSequence::new(&their_pool, &theirs.table)?;
    Ok(FragmentPlan::with_fragment_tokens(local, remote, tokens, theirs.fragment_tokens)?)
}

/// The index pairs of a part of a plan, against the peer's [sequence list](PagedPool::sequence_list).
fn pairs_of(part: &FragmentPlan) -> Vec<IndexPair> {
    let pair = |(pair, ordinal): (crate::FragmentPair, u64)| IndexPair {
        local: pair.local_segment,
        remote: list_segment(part, ordinal),
    };
    part.pairs().zip(part.first_ordinal()..).map(pair).collect()
}

/// How many fragments each part of a transfer has, the last one perhaps fewer.
fn part_fragments(fragments: u64, parts: u32) -> u64 {
    fragments.div_ceil(u64::from(parts.max(1)))
}

/// The largest fragments that both block sizes allow.
fn common_fragment(one: u32, other: u32) -> u32 {
    let (mut one, mut other) = (one, other);
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}
