//! Push: the receiver leases its blocks, the sender writes into them.

use super::{Moved, Notice, PagedPool, TransferError, common_fragment, pairs_with};
use crate::transfer_slot::{Expected, TransferSlots};
use crate::{BlockTable, ChecksumAlgorithm, LeaseToken, TransferId, TransferManifest};
use dmaplane::{Arrival, Import, Leased, List, Peer, Plane, Rights};

/// The receiver's half: blocks that a peer may write into, and what has arrived.
#[derive(Debug)]
#[must_use = "commit or abort it: its blocks and its transfer slot are taken"]
pub struct Landing {
    transfer: TransferId,
    table: BlockTable,
    lease: Leased<List>,
    peer: u64,
    last: Option<Notice>,
}

impl Landing {
    /// Makes room for a sender's tokens, and the manifest that it is to be answered with. `offer` describes the
    /// sender's side; its lease token is of no interest.
    pub fn open(
        plane: &mut Plane,
        pool: &mut PagedPool,
        slots: &mut TransferSlots,
        peer: &Peer,
        offer: &TransferManifest,
    ) -> Result<(Landing, TransferManifest), TransferError> {
        let layout = *pool.geometry().layout();
        let (theirs, ours) = (offer.layout.compatible_fingerprint(), layout.compatible_fingerprint());
        if theirs != ours {
            return Err(TransferError::OtherModel { theirs, ours });
        }
        let fragment_tokens = common_fragment(layout.block_tokens(), offer.layout.block_tokens());
        let table = pool.allocate(offer.table.tokens())?;
        match Self::lease(plane, pool, slots, peer, &table, fragment_tokens) {
            Ok((transfer, lease, token)) => {
                let manifest = TransferManifest {
                    layout,
                    pool_blocks: pool.geometry().blocks(),
                    table: table.clone(),
                    fragment_tokens,
                    parts: 1,
                    transfer,
                    checksum: ChecksumAlgorithm::Xxh3,
                    lease_token: LeaseToken(token),
                    user: Vec::new(),
                };
                let peer = peer.handle().handle().bits();
                Ok((Landing { transfer, table, lease, peer, last: None }, manifest))
            }
            Err(error) => {
                pool.release(table)?;
                Err(error)
            }
        }
    }

    fn lease(
        plane: &mut Plane,
        pool: &PagedPool,
        slots: &mut TransferSlots,
        peer: &Peer,
        table: &BlockTable,
        fragment_tokens: u32,
    ) -> Result<(TransferId, Leased<List>, Vec<u8>), TransferError> {
        let (list, plan) = pool.sequence_list(plane, table, fragment_tokens)?;
        let expected = Expected { parts: 1, bytes: plan.bytes_total() };
        let transfer = slots.begin(expected, Some(peer.handle().handle().bits()))?;
        let granted = plane.grant_list(list, Rights::WRITE, peer).map_err(TransferError::from);
        let exported = granted.and_then(|lease| Ok((plane.token(&lease)?, lease)));
        match exported {
            Ok((token, lease)) => Ok((transfer, lease, token)),
            Err(error) => {
                slots.abort(transfer)?;
                slots.release(transfer)?;
                Err(error)
            }
        }
    }

    /// What the sender's immediate will say.
    pub fn transfer(&self) -> TransferId {
        self.transfer
    }

    /// Counts an arrival; `true` when everything is there. An immediate of an earlier generation is refused.
    pub fn arrive(&mut self, slots: &mut TransferSlots, arrival: &Arrival) -> Result<bool, TransferError> {
        let notice = Notice::decode(&arrival.payload)?;
        let immediate = arrival.immediate.unwrap_or(0);
        let progress = slots.arrive_part(self.peer, immediate, notice.part, notice.bytes)?;
        self.last = Some(notice);
        Ok(progress.is_complete())
    }

    /// Ends the lease, checks the digest, and hands out the blocks and the sender's notice. On an error the blocks are
    /// free again, and nothing of them may be used.
    pub fn commit(
        self,
        plane: &mut Plane,
        pool: &mut PagedPool,
        slots: &mut TransferSlots,
    ) -> Result<(BlockTable, Notice), TransferError> {
        let Landing { transfer, table, lease, last, .. } = self;
        let list = plane.revoke(lease)?;
        plane.free_list(list)?;
        let committed = slots.commit(transfer).map_err(TransferError::from).and_then(|()| {
            let notice = last.ok_or(TransferError::Notice { found: 0 })?;
            let (found, expected) = (pool.digest(&table)?, notice.digest);
            if found == expected { Ok(notice) } else { Err(TransferError::Digest { found, expected }) }
        });
        if committed.is_err() {
            let _ = slots.abort(transfer);
        }
        // The lease is over and its peer has been told: nothing of it can come any more.
        slots.release(transfer)?;
        match committed {
            Ok(notice) => Ok((table, notice)),
            Err(error) => {
                pool.release(table)?;
                Err(error)
            }
        }
    }

    /// Ends the lease, whatever has arrived; the blocks are free at once.
    pub fn abort(
        self,
        plane: &mut Plane,
        pool: &mut PagedPool,
        slots: &mut TransferSlots,
    ) -> Result<(), TransferError> {
        let list = plane.revoke(self.lease)?;
        plane.free_list(list)?;
        slots.abort(self.transfer)?;
        slots.release(self.transfer)?;
        pool.release(self.table)
    }
}

/// The sender's half: writes the sequence into the blocks that the receiver's manifest leases, with one list write.
/// `user` travels with the last byte.
pub fn push(
    plane: &mut Plane,
    pool: &mut PagedPool,
    peer: &Peer,
    table: &BlockTable,
    theirs: &TransferManifest,
    user: &[u8],
) -> Result<Moved, TransferError> {
    let (plan, pairs) = pairs_with(pool, table, theirs)?;
    pool.clear_padding(table, theirs.fragment_tokens)?;
    let notice = Notice { part: 0, bytes: plan.bytes_total(), digest: pool.digest(table)?, user: user.to_vec() };
    let import: Import = plane.import(peer, &theirs.lease_token.0)?;
    let list = pool.list(plane, theirs.fragment_tokens)?;
    let moved = plane.write_list(list, &import, &pairs, theirs.transfer.pack(), &notice.encode());
    plane.release(import)?;
    Ok(Moved { bytes: moved?, fragments: plan.fragments() })
}
