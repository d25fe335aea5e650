//! A lease under which one reader reads a sequence's blocks.

use super::holds::{Access, Hold};
use super::write_lease::part_fragments;
use super::{PagedPool, Terms, TransferError};
use crate::{BlockTable, FragmentPlan, HeadRange, LeaseToken, Parting, TransferManifest};
use core::ops::Range;
use dmaplane::{Leased, List, Peer, Plane, Rights};
use std::time::Duration;

/// One reader's half of a source. Nothing of the blocks is fixed before it is [sealed](ReadLease::seal).
#[derive(Debug)]
#[must_use = "end it: its lease is live"]
pub(crate) struct ReadLease {
    lease: Leased<List>,
    hold: Hold,
    token: Vec<u8>,
    plan: FragmentPlan,
    parting: Parting,
    /// Numbered within the pool.
    heads: HeadRange,
    fragment_tokens: u32,
}

impl ReadLease {
    /// Leases the blocks of `table` to one peer, or to the first that shows the token; and what that is to be told.
    pub(crate) fn open(
        plane: &mut Plane,
        pool: &mut PagedPool,
        peer: Option<&Peer>,
        table: &BlockTable,
        terms: &Terms,
        time_to_live: Option<Duration>,
    ) -> Result<(ReadLease, TransferManifest), TransferError> {
        let cut = terms.cut(pool)?;
        let (list, plan) = pool.sequence_list(plane, table, cut)?;
        let mut manifest = TransferManifest {
            heads: terms.heads,
            fragment_tokens: terms.fragment_tokens,
            part_layers: terms.part_layers,
            part_fragments: part_fragments(pool, &plan, terms)?,
            checksum: terms.checksum,
            is_bound: peer.is_some(),
            ..pool.describe(table)?
        };
        let parting = manifest.parting();
        let lease = plane.grant_list_for(list, Rights::READ, peer, time_to_live)?;
        let token = match plane.token(&lease) {
            Ok(token) => token,
            Err(error) => return plane.revoke(lease).map_or_else(|late| Err(late.into()), |_| Err(error.into())),
        };
        manifest.lease_token = LeaseToken(token.clone());
        let (heads, fragment_tokens) = (cut.heads, cut.tokens);
        let hold = pool.hold(table, Access::Reads);
        Ok((ReadLease { lease, hold, token, plan, parting, heads, fragment_tokens }, manifest))
    }

    /// These layers may be read from now on: they are fixed, and what lies behind the last token is zeros.
    pub(crate) fn seal(
        &mut self,
        pool: &mut PagedPool,
        table: &BlockTable,
        layers: Range<u32>,
    ) -> Result<(), TransferError> {
        pool.clear_padding(table, self.fragment_tokens, layers.clone())?;
        pool.seal(&mut self.hold, layers);
        Ok(())
    }

    pub(crate) fn parting(&self) -> Parting {
        self.parting
    }

    pub(crate) fn heads(&self) -> HeadRange {
        self.heads
    }

    /// The CRC-32C of a part, or of everything.
    pub(crate) fn crc32c(&self, pool: &PagedPool, part: Option<u32>) -> Result<u32, TransferError> {
        match part.and_then(|part| self.parting.part(part)) {
            Some(ordinals) => pool.crc32c(&self.plan.part(ordinals), self.heads),
            None => pool.crc32c(&self.plan, self.heads),
        }
    }

    /// Whether these bytes are the lease's token.
    pub(crate) fn is_token(&self, token: &[u8]) -> bool {
        self.token == token
    }

    pub(crate) fn renew(&mut self, plane: &mut Plane, time_to_live: Duration) -> Result<(), TransferError> {
        plane.renew(&self.lease, time_to_live).map_err(|error| TransferError::of_operation(error, "a peer"))
    }

    /// Ends the lease: a read that has not succeeded by now will not.
    pub(crate) fn end(self, plane: &mut Plane, pool: &mut PagedPool) -> Result<(), TransferError> {
        // The list is dropped: it ends with a later call, and nobody waits for that.
        drop(plane.revoke(self.lease)?);
        pool.let_go(self.hold)
    }
}
