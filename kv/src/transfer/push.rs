//! Push: the receiver leases its blocks, the sender writes into them.

use super::notice::NOTICE_USER_BYTES_MAX;
use super::write_lease::WriteLease;
use super::{Cut, Moved, Notice, PagedPool, Terms, TransferError, check_model, pairs_of, plan_in_parts};
use crate::transfer_slot::TransferSlots;
use crate::{BlockTable, ChecksumAlgorithm, Digest64, FragmentPlan, HeadRange, TransferId, TransferManifest};
use dmaplane::{Arrival, Import, Peer, Plane};

/// The receiver's half: blocks that a peer may write into, and what has arrived.
#[derive(Debug)]
#[must_use = "commit or abort it: its blocks and its transfer slot are taken"]
pub struct Landing {
    table: BlockTable,
    lease: WriteLease,
    peer: u64,
}

impl Landing {
    /// Makes room for a sender's tokens, and the manifest that it is to be answered with. `offer` describes the
    /// sender's side, and how many layers and fragments it wants in a part at most; its lease token is of no interest.
    pub fn open(
        plane: &mut Plane,
        pool: &mut PagedPool,
        slots: &mut TransferSlots,
        peer: &Peer,
        offer: &TransferManifest,
    ) -> Result<(Landing, TransferManifest), TransferError> {
        check_model(pool, (&offer.layout, offer.shard))?;
        let terms = Terms::between(pool, offer.shard, offer.layout.block_tokens())?;
        let terms = terms.filter(|terms| terms.heads == pool.heads());
        let wanted = pool.heads();
        let terms = terms.ok_or_else(|| TransferError::Legs { wanted, found: vec![offer.heads] })?;
        let terms = Terms {
            part_layers: offer.part_layers.clamp(1, terms.part_layers),
            part_fragments: offer.part_fragments,
            checksum: terms.checksum.max(offer.checksum),
            ..terms
        };
        let table = pool.allocate(offer.table.tokens())?;
        match WriteLease::open(plane, pool, slots, Some(peer), &table, &terms, None) {
            Ok((lease, manifest)) => {
                let peer = peer.handle().handle().bits();
                Ok((Landing { table, lease, peer }, manifest))
            }
            Err(error) => {
                pool.release(table)?;
                Err(error)
            }
        }
    }

    /// What the sender's immediate will say.
    pub fn transfer(&self) -> TransferId {
        self.lease.transfer()
    }

    /// Counts an arrival; `true` when everything is there. Refused: an immediate of another transfer or an earlier
    /// generation (this one goes on), and a part that is not what was sent (abort this one).
    pub fn arrive(&mut self, slots: &mut TransferSlots, arrival: &Arrival) -> Result<bool, TransferError> {
        self.lease.arrive(slots, self.peer, arrival)
    }

    /// Ends the lease, checks what arrived, and hands out the blocks and the sender's last notice. On an error the
    /// blocks are free again, and nothing of them may be used. (Only where the lease could not be ended they are not:
    /// then the plane is over.)
    pub fn commit(
        self,
        plane: &mut Plane,
        pool: &mut PagedPool,
        slots: &mut TransferSlots,
    ) -> Result<(BlockTable, Notice), TransferError> {
        let Landing { table, lease, .. } = self;
        match lease.end(plane, pool, slots)?.check(pool, &table) {
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
        self.lease.end(plane, pool, slots)?;
        pool.release(self.table)
    }
}

/// The sender's half: writes the sequence into the blocks that the receiver's manifest leases, with one list write for
/// each part. `user` travels with the last byte of the last.
pub fn push(
    plane: &mut Plane,
    pool: &mut PagedPool,
    peer: &Peer,
    table: &BlockTable,
    theirs: &TransferManifest,
    user: &[u8],
) -> Result<Moved, TransferError> {
    let (plan, heads) = plan_in_parts(pool, table, theirs)?;
    check_user(user)?;
    pool.clear_padding(table, theirs.fragment_tokens, 0..theirs.layout.layers())?;
    let import: Import = plane.import(peer, &theirs.lease_token.0)?;
    let moved = write_parts(plane, pool, &import, table, theirs, (&plan, heads), user);
    plane.release(import)?;
    moved
}

pub(crate) fn check_user(user: &[u8]) -> Result<(), TransferError> {
    let (found, most) = (user.len(), NOTICE_USER_BYTES_MAX);
    if found > most { Err(TransferError::UserBytes { found, most }) } else { Ok(()) }
}

fn write_parts(
    plane: &mut Plane,
    pool: &mut PagedPool,
    import: &Import,
    table: &BlockTable,
    theirs: &TransferManifest,
    (plan, heads): (&FragmentPlan, HeadRange),
    user: &[u8],
) -> Result<Moved, TransferError> {
    let (parting, immediate) = (theirs.parting(), theirs.transfer.pack());
    let parts = parting.parts() as u32;
    let mut moved = Moved { bytes: 0, fragments: plan.fragments() };
    for number in 0..parts {
        let part = plan.part(parting.part(number).unwrap_or_default());
        let notice = notice_of(pool, table, theirs.checksum, (&part, heads), number, number + 1 == parts, user)?;
        let (pairs, notice) = (pairs_of(&part), notice.encode());
        let list = pool.list(plane, Cut { tokens: theirs.fragment_tokens, heads })?;
        moved.bytes += match theirs.checksum {
            ChecksumAlgorithm::Crc32c => plane.write_list_checked(list, import, &pairs, immediate, &notice)?,
            _ => plane.write_list(list, import, &pairs, immediate, &notice)?,
        };
    }
    Ok(moved)
}

/// What is told with a part.
pub(crate) fn notice_of(
    pool: &PagedPool,
    table: &BlockTable,
    checksum: ChecksumAlgorithm,
    (part, heads): (&FragmentPlan, HeadRange),
    number: u32,
    is_last: bool,
    user: &[u8],
) -> Result<Notice, TransferError> {
    let digest = match checksum {
        ChecksumAlgorithm::Crc32c => Digest64(pool.crc32c(part, heads)?.into()),
        ChecksumAlgorithm::Xxh3 if is_last => pool.digest_of(table, heads)?,
        ChecksumAlgorithm::Xxh3 | ChecksumAlgorithm::None => Digest64(0),
    };
    let user = if is_last { user.to_vec() } else { Vec::new() };
    Ok(Notice { part: number, is_last, bytes: part.bytes_total(), digest, user })
}
