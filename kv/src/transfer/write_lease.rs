//! A lease under which one sender writes into a sequence's blocks, and what has arrived under it.

use super::holds::{Access, Hold};
use super::{Notice, PagedPool, Terms, TransferError};
use crate::transfer_slot::{Expected, TransferSlots};
use crate::{
    BlockTable, ChecksumAlgorithm, FragmentPlan, HeadRange, LeaseToken, Parting, SlotError, TransferId,
    TransferManifest,
};
use dmaplane::{Arrival, Leased, List, Peer, Plane, Rights};
use std::time::Duration;

/// What was wrong with the first part that was.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// Its checksum.
    Checksum { found: Option<u32>, expected: u32 },
    /// How many bytes its notification said.
    Bytes { found: u64, expected: u64 },
}

fn undamaged(damage: Option<(u32, Damage)>) -> Result<(), TransferError> {
    match damage {
        None => Ok(()),
        Some((part, Damage::Bytes { found, expected })) => Err(TransferError::PartBytes { part, found, expected }),
        Some((part, Damage::Checksum { found, expected })) => Err(TransferError::Checksum { part, found, expected }),
    }
}

/// One sender's half of a landing.
#[derive(Debug)]
#[must_use = "end it: its lease is live and its transfer slot taken"]
pub(crate) struct WriteLease {
    transfer: TransferId,
    lease: Leased<List>,
    hold: Hold,
    token: Vec<u8>,
    /// The engine's handle of the peer that it is with; `None` until an unbound one is claimed.
    peer: Option<u64>,
    parting: Parting,
    fragment_bytes: u64,
    /// Numbered within the pool.
    heads: HeadRange,
    checksum: ChecksumAlgorithm,
    last: Option<Notice>,
    damage: Option<(u32, Damage)>,
}

/// The most fragments of a part on these terms.
pub(crate) fn part_fragments(pool: &PagedPool, plan: &FragmentPlan, terms: &Terms) -> Result<u32, TransferError> {
    let (most, fragment_bytes) = (pool.part_fragments(plan.fragment_bytes()), plan.fragment_bytes());
    match most.min(terms.part_fragments) {
        0 => Err(TransferError::Parts { part_fragments: 1, fragment_bytes, most }),
        part_fragments => Ok(part_fragments),
    }
}

impl WriteLease {
    /// Leases the blocks of `table` to one peer, or to the first that shows the token; and what that is to be told.
    pub(crate) fn open(
        plane: &mut Plane,
        pool: &mut PagedPool,
        slots: &mut TransferSlots,
        peer: Option<&Peer>,
        table: &BlockTable,
        terms: &Terms,
        time_to_live: Option<Duration>,
    ) -> Result<(WriteLease, TransferManifest), TransferError> {
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
        let parts = u32::try_from(parting.parts()).map_err(|_| SlotError::Parts { parts: u32::MAX })?;
        let bytes = parting.fragments() * plan.fragment_bytes();
        let bound_to = peer.map(|peer| peer.handle().handle().bits());
        let transfer = slots.begin(Expected { parts, bytes }, bound_to)?;
        let granted = plane.grant_list_for(list, Rights::WRITE, peer, time_to_live);
        let exported = granted.and_then(|lease| match plane.token(&lease) {
            Ok(token) => Ok((lease, token)),
            // Nobody has the token; but the blocks may be used again only when nobody could.
            Err(error) => plane.revoke(lease).and(Err(error)),
        });
        let (lease, token) = match exported {
            Ok(exported) => exported,
            Err(error) => {
                slots.abort(transfer)?;
                slots.release(transfer)?;
                return Err(error.into());
            }
        };
        manifest.transfer = transfer;
        manifest.lease_token = LeaseToken(token.clone());
        let opened = WriteLease {
            transfer,
            lease,
            hold: pool.hold(table, Access::Writes),
            token,
            peer: bound_to,
            parting,
            fragment_bytes: plan.fragment_bytes(),
            heads: cut.heads,
            checksum: terms.checksum,
            last: None,
            damage: None,
        };
        Ok((opened, manifest))
    }

    pub(crate) fn transfer(&self) -> TransferId {
        self.transfer
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.parting.fragments() * self.fragment_bytes
    }

    pub(crate) fn fragments(&self) -> u64 {
        self.parting.fragments()
    }

    /// Gives an unbound lease to the peer that has shown its token, if it is this one's; `false` if not.
    pub(crate) fn claim(&mut self, peer: u64, token: &[u8]) -> bool {
        let accepted = self.token == token && self.peer.is_none_or(|bound| bound == peer);
        if accepted {
            self.peer = Some(peer);
        }
        accepted
    }

    pub(crate) fn is_with(&self, peer: u64) -> bool {
        self.peer == Some(peer)
    }

    pub(crate) fn renew(&mut self, plane: &mut Plane, time_to_live: Duration) -> Result<(), TransferError> {
        plane.renew(&self.lease, time_to_live).map_err(|error| TransferError::of_operation(error, "a peer"))
    }

    /// Counts an arrival; `true` when everything is there. Refused: an immediate of another transfer or an earlier
    /// generation (this one goes on), and a part that is not what was sent (this one is damaged for good).
    pub(crate) fn arrive(
        &mut self,
        slots: &mut TransferSlots,
        peer: u64,
        arrival: &Arrival,
    ) -> Result<bool, TransferError> {
        let found = TransferId::unpack(arrival.immediate.unwrap_or(0));
        if found.slot != self.transfer.slot {
            return Err(TransferError::OtherTransfer { found, ours: self.transfer });
        }
        // What an earlier transfer's sender says counts for nothing here, however it is made.
        slots.check_current(found)?;
        let notice = Notice::decode(&arrival.payload)?;
        let (part, bytes) = (notice.part, notice.bytes);
        let progress = slots.arrive_part(peer, found.pack(), part, bytes)?;
        let expected = self.parting.part_fragments(part) * self.fragment_bytes;
        if bytes != expected {
            self.damage.get_or_insert((part, Damage::Bytes { found: bytes, expected }));
        } else if self.checksum == ChecksumAlgorithm::Crc32c {
            // A sender that asked for no checksum has not kept to the manifest.
            let (found, expected) = (arrival.checksum, notice.digest.0 as u32);
            if found != Some(expected) {
                self.damage.get_or_insert((part, Damage::Checksum { found, expected }));
            }
        }
        undamaged(self.damage)?;
        if notice.is_last {
            self.last = Some(notice);
        }
        Ok(progress.is_complete())
    }

    /// Ends the lease: nothing lands any more. What is still on its way is refused. What has been said already and is
    /// not read yet names this slot with this generation, and is refused by that.
    pub(crate) fn end(
        self,
        plane: &mut Plane,
        pool: &mut PagedPool,
        slots: &mut TransferSlots,
    ) -> Result<Ended, TransferError> {
        let WriteLease { transfer, lease, hold, damage, heads, checksum, last, .. } = self;
        // The list is dropped: it ends with a later call, and nobody waits for that.
        drop(plane.revoke(lease)?);
        let let_go = pool.let_go(hold);
        let complete = slots.commit(transfer);
        if complete.is_err() {
            slots.abort(transfer)?;
        }
        slots.release(transfer)?;
        let_go?;
        Ok(Ended { complete, damage, heads, checksum, last })
    }
}

/// A lease that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    complete: Result<(), SlotError>,
    damage: Option<(u32, Damage)>,
    heads: HeadRange,
    checksum: ChecksumAlgorithm,
    last: Option<Notice>,
}

impl Ended {
    /// Checks that everything had arrived, as it was sent. Once all leases on these blocks have ended.
    pub(crate) fn check(self, pool: &PagedPool, table: &BlockTable) -> Result<Notice, TransferError> {
        self.complete?;
        undamaged(self.damage)?;
        let notice = self.last.ok_or(TransferError::Notice { found: 0 })?;
        if self.checksum == ChecksumAlgorithm::Xxh3 {
            let (found, expected) = (pool.digest_of(table, self.heads)?, notice.digest);
            if found != expected {
                return Err(TransferError::Digest { found, expected });
            }
        }
        Ok(notice)
    }
}
