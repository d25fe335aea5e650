//! Transfers over a plane: push and pull, between pools of different block sizes, committed only when everything is
//! there.
//!
//! The side that owns the memory leases *only the blocks of this request*, as a list in token order
//! (layer, plane, fragment); the other side moves between its own pool and that list with one list write or read.

mod error;
mod notice;
mod paged_pool;
mod pull;
mod push;

pub use error::TransferError;
pub use notice::Notice;
pub use paged_pool::PagedPool;
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

/// Our fragments against the peer's list, which holds the sequence in token order.
fn pairs_with(
    pool: &PagedPool,
    table: &crate::BlockTable,
    theirs: &TransferManifest,
) -> Result<(FragmentPlan, Vec<IndexPair>), TransferError> {
    let local = PagedSequence::new(pool.geometry(), table)?;
    let their_pool = theirs.pool()?;
    let remote = PagedSequence::new(&their_pool, &theirs.table)?;
    let plan = FragmentPlan::with_fragment_tokens(local, remote, theirs.table.tokens(), theirs.fragment_tokens)?;
    let pairs = plan.pairs().zip(0..).map(|(pair, ordinal)| IndexPair { local: pair.local_segment, remote: ordinal });
    let pairs = pairs.collect();
    Ok((plan, pairs))
}

/// The largest fragments that both block sizes allow.
fn common_fragment(one: u32, other: u32) -> u32 {
    let (mut one, mut other) = (one, other);
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}
