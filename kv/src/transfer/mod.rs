//! Transfers over a plane: push and pull, between pools of different block sizes, committed only when everything is
//! there.
//!
//! The side that owns the memory leases *only the blocks of this request*, as a list of (fragment of tokens, plane).
//! The other side moves between its own pool and that list with one list write or read, or, where one operation cannot
//! hold all, in parts.
//!
//! What both sides have to agree on is in the manifests: the tokens, the size of a fragment, the parts, the checksum.
//! Either side may insist on a checksum ([`PagedPool::set_checksum`]); the stronger one is used.

mod cuts;
mod error;
pub(crate) mod holds;
pub(crate) mod notice;
#[expect(unsafe_code, reason = "lists of leased blocks, operations on them, and slices of the others")]
pub(crate) mod paged_pool;
mod pull;
mod push;
pub(crate) mod read_lease;
pub(crate) mod write_lease;

use cuts::Cut;
pub use error::TransferError;
pub use notice::Notice;
pub use paged_pool::PagedPool;
use paged_pool::list_segment;
pub use pull::{Source, pull};
pub use push::{Landing, push};
pub(crate) use push::{check_user, notice_of};

use crate::plan::greatest_common_divisor;
use crate::{CacheLayout, FragmentPlan, HeadRange, PagedSequence, Shard, TransferManifest};
use dmaplane::IndexPair;

/// What a transfer moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes, padding of last fragments included.
    pub bytes: u64,
    /// Fragments.
    pub fragments: u64,
}

/// What the owner of blocks decides about a transfer before it leases them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) fragment_tokens: u32,
    /// Numbered as in the whole model.
    pub(crate) heads: HeadRange,
    pub(crate) part_layers: u32,
    pub(crate) part_fragments: u32,
    pub(crate) checksum: crate::ChecksumAlgorithm,
}

impl Terms {
    /// The terms between a pool and `shard` of another worker with blocks of `block_tokens` tokens; `None` when they
    /// have no heads in common.
    pub(crate) fn between(pool: &PagedPool, shard: Shard, block_tokens: u32) -> Result<Option<Terms>, TransferError> {
        let layout = pool.geometry().layout();
        let theirs = shard.heads(&layout.unsharded(pool.shard().count)?.shard(shard.count)?)?;
        let Some(heads) = theirs.overlap(pool.heads()) else { return Ok(None) };
        let whole = heads == theirs && heads == pool.heads();
        let common = greatest_common_divisor(layout.block_tokens(), block_tokens);
        Ok(Some(Terms {
            fragment_tokens: if whole { common } else { 1 },
            heads,
            part_layers: layout.layers(),
            part_fragments: u32::MAX,
            checksum: pool.checksum(),
        }))
    }

    /// The heads as the pool numbers them.
    pub(crate) fn cut(&self, pool: &PagedPool) -> Result<Cut, TransferError> {
        let heads = self.heads.from_first(pool.heads().start);
        let heads = heads.ok_or(TransferError::Legs { wanted: pool.heads(), found: vec![self.heads] })?;
        Ok(Cut { tokens: self.fragment_tokens, heads })
    }
}

/// Refuses another model's cache.
pub(crate) fn check_model(pool: &PagedPool, theirs: (&CacheLayout, Shard)) -> Result<(), TransferError> {
    let (layout, shard) = theirs;
    let theirs = layout.unsharded(shard.count)?.compatible_fingerprint();
    let ours = pool.model_fingerprint()?;
    if theirs == ours { Ok(()) } else { Err(TransferError::OtherModel { theirs, ours }) }
}

/// Our fragments against the peer's, and our heads of them.
pub(crate) fn plan_with(
    pool: &PagedPool,
    table: &crate::BlockTable,
    theirs: &TransferManifest,
) -> Result<(FragmentPlan, HeadRange), TransferError> {
    check_model(pool, (&theirs.layout, theirs.shard))?;
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
    let ours = theirs.heads.from_first(pool.heads().start).filter(|_| theirs.heads.end <= pool.heads().end);
    let ours = ours.ok_or_else(|| TransferError::Legs { wanted: theirs.heads, found: vec![pool.heads()] })?;
    let heads = (ours, theirs.local_heads()?);
    let plan = FragmentPlan::of_heads(local, remote, heads, tokens, theirs.fragment_tokens)?;
    Ok((plan, ours))
}

/// As [`plan_with`], for who keeps to the parts that the peer has set: each must be what one operation can hold here.
pub(crate) fn plan_in_parts(
    pool: &PagedPool,
    table: &crate::BlockTable,
    theirs: &TransferManifest,
) -> Result<(FragmentPlan, HeadRange), TransferError> {
    let (plan, ours) = plan_with(pool, table, theirs)?;
    // The first part is a longest one.
    let (fragment_bytes, part_fragments) = (plan.fragment_bytes(), theirs.parting().part_fragments(0));
    let most = pool.part_fragments(fragment_bytes);
    if part_fragments > u64::from(most) {
        return Err(TransferError::Parts { part_fragments, fragment_bytes, most });
    }
    Ok((plan, ours))
}

/// The index pairs of a part of a plan, against the peer's [sequence list](PagedPool::sequence_list).
pub(crate) fn pairs_of(part: &FragmentPlan) -> Vec<IndexPair> {
    let pair = |(pair, ordinal): (crate::FragmentPair, u64)| IndexPair {
        local: pair.local_segment,
        remote: list_segment(part, ordinal),
    };
    part.pairs().zip(part.first_ordinal()..).map(pair).collect()
}
