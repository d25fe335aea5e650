//! Push: the receiver leases its blocks, the sender writes into them.

use super::{Moved, Notice, PagedPool, TransferError, common_fragment, pairs_of, part_fragments, plan_with};
use crate::transfer_slot::{Expected, TransferSlots};
use crate::{BlockTable, ChecksumAlgorithm, Digest64, FragmentPlan, LeaseToken, TransferId, TransferManifest};
use dmaplane::{Arrival, Import, Leased, List, Peer, Plane, Rights};

/// What is to come: how its parts share out its fragments.
#[derive(Debug, Clone, Copy)]
struct Shape {
    fragments: u64,
    fragment_bytes: u64,
    parts: u32,
}

impl Shape {
    /// A plan in as few parts of at most `most` fragments as it takes.
    fn of(plan: &FragmentPlan, most: u32) -> Result<Shape, TransferError> {
        let (fragments, fragment_bytes) = (plan.fragments(), plan.fragment_bytes());
        let parts = match u64::from(most) {
            0 => None,
            most => u32::try_from(fragments.div_ceil(most)).ok(),
        };
        let parts = parts.ok_or(TransferError::Parts { fragments, fragment_bytes, parts: u32::MAX })?;
        Ok(Shape { fragments, fragment_bytes, parts }.whole())
    }

    /// In so many parts at least, as far as there are fragments.
    fn in_parts(self, parts: u32) -> Shape {
        let most = u32::try_from(self.fragments).unwrap_or(u32::MAX);
        Shape { parts: self.parts.max(parts.min(most)), ..self }.whole()
    }

    /// Without parts that would be empty.
    fn whole(self) -> Shape {
        let parts = self.fragments.div_ceil(part_fragments(self.fragments, self.parts));
        Shape { parts: parts as u32, ..self }
    }

    fn bytes(&self) -> u64 {
        self.fragments * self.fragment_bytes
    }

    fn part_bytes(&self, part: u32) -> u64 {
        let each = part_fragments(self.fragments, self.parts);
        let before = u64::from(part) * each;
        each.min(self.fragments.saturating_sub(before)) * self.fragment_bytes
    }
}

/// The receiver's half: blocks that a peer may write into, and what has arrived.
#[derive(Debug)]
#[must_use = "commit or abort it: its blocks and its transfer slot are taken"]
pub struct Landing {
    transfer: TransferId,
    table: BlockTable,
    lease: Leased<List>,
    peer: u64,
    shape: Shape,
    checksum: ChecksumAlgorithm,
    last: Option<Notice>,
    /// The first part that arrived damaged: then there is no commit.
    damaged: Option<(u32, u32, u32)>,
}

impl Landing {
    /// Makes room for a sender's tokens, and the manifest that it is to be answered with. `offer` describes the
    /// sender's side, and how many parts it wants at least; its lease token is of no interest.
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
        let plan = match pool.sequence_list(plane, &table, fragment_tokens) {
            Ok((list, plan)) => Self::lease(plane, pool, slots, peer, list, &plan, offer.parts),
            Err(error) => Err(error),
        };
        match plan {
            Ok((transfer, shape, lease, token)) => {
                pool.note_lease(&table, true, 1);
                let checksum = pool.checksum().max(offer.checksum);
                let manifest = TransferManifest {
                    layout,
                    pool_blocks: pool.geometry().blocks(),
                    table: table.clone(),
                    fragment_tokens,
                    parts: shape.parts,
                    transfer,
                    checksum,
                    lease_token: LeaseToken(token),
                    user: Vec::new(),
                };
                let peer = peer.handle().handle().bits();
                let landing = Landing { transfer, table, lease, peer, shape, checksum, last: None, damaged: None };
                Ok((landing, manifest))
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
        list: List,
        plan: &FragmentPlan,
        parts: u32,
    ) -> Result<(TransferId, Shape, Leased<List>, Vec<u8>), TransferError> {
        let shape = Shape::of(plan, pool.part_fragments(plan.fragment_bytes()))?.in_parts(parts);
        let expected = Expected { parts: shape.parts, bytes: shape.bytes() };
        let transfer = slots.begin(expected, Some(peer.handle().handle().bits()))?;
        let exported = plane.grant_list(list, Rights::WRITE, peer).and_then(|lease| match plane.token(&lease) {
            Ok(token) => Ok((lease, token)),
            // Nobody has the token; but the blocks may be used again only when nobody could.
            Err(error) => plane.revoke(lease).and(Err(error)),
        });
        match exported {
            Ok((lease, token)) => Ok((transfer, shape, lease, token)),
            Err(error) => {
                slots.abort(transfer)?;
                slots.release(transfer)?;
                Err(error.into())
            }
        }
    }

    /// What the sender's immediate will say.
    pub fn transfer(&self) -> TransferId {
        self.transfer
    }

    /// Counts an arrival; `true` when everything is there. Refused: an immediate of another transfer or an earlier
    /// generation (this one goes on), and a part that is not what was sent (abort this one).
    pub fn arrive(&mut self, slots: &mut TransferSlots, arrival: &Arrival) -> Result<bool, TransferError> {
        let found = TransferId::unpack(arrival.immediate.unwrap_or(0));
        if found.slot != self.transfer.slot {
            return Err(TransferError::OtherTransfer { found, ours: self.transfer });
        }
        let notice = Notice::decode(&arrival.payload)?;
        let (part, bytes) = (notice.part, notice.bytes);
        let progress = slots.arrive_part(self.peer, found.pack(), part, bytes)?;
        let expected_bytes = self.shape.part_bytes(part);
        if bytes != expected_bytes {
            self.damaged.get_or_insert((part, 0, 0));
            return Err(TransferError::PartBytes { part, found: bytes, expected: expected_bytes });
        }
        if self.checksum == ChecksumAlgorithm::Crc32c {
            // A sender that asked for no checksum has not kept to the manifest.
            let (found, expected) = (arrival.checksum, notice.digest.0 as u32);
            if found != Some(expected) {
                let found = found.unwrap_or(0);
                self.damaged.get_or_insert((part, found, expected));
                return Err(TransferError::Checksum { part, found, expected });
            }
        }
        self.last = Some(notice);
        Ok(progress.is_complete())
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
        let Landing { transfer, table, lease, last, checksum, damaged, .. } = self;
        end(plane, pool, lease, &table)?;
        let committed = slots.commit(transfer).map_err(TransferError::from).and_then(|()| {
            if let Some((part, found, expected)) = damaged {
                return Err(TransferError::Checksum { part, found, expected });
            }
            let notice = last.ok_or(TransferError::Notice { found: 0 })?;
            if checksum == ChecksumAlgorithm::Xxh3 {
                let (found, expected) = (pool.digest(&table)?, notice.digest);
                if found != expected {
                    return Err(TransferError::Digest { found, expected });
                }
            }
            Ok(notice)
        });
        if committed.is_err() {
            let _ = slots.abort(transfer);
        }
        // The lease is over: what is still on its way is refused. What has been said already and is not read yet names
        // this slot with this generation, and is refused by that.
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
        end(plane, pool, self.lease, &self.table)?;
        slots.abort(self.transfer)?;
        slots.release(self.transfer)?;
        pool.release(self.table)
    }
}

/// Ends a landing's lease: nothing lands in its blocks any more.
fn end(plane: &mut Plane, pool: &mut PagedPool, lease: Leased<List>, table: &BlockTable) -> Result<(), TransferError> {
    let list = plane.revoke(lease)?;
    pool.note_lease(table, true, -1);
    plane.free_list(list)?;
    Ok(())
}

/// The sender's half: writes the sequence into the blocks that the receiver's manifest leases, with one list write for
/// each part. `user` travels with the last byte of each.
pub fn push(
    plane: &mut Plane,
    pool: &mut PagedPool,
    peer: &Peer,
    table: &BlockTable,
    theirs: &TransferManifest,
    user: &[u8],
) -> Result<Moved, TransferError> {
    let plan = plan_with(pool, table, theirs)?;
    let (fragments, fragment_bytes) = (plan.fragments(), plan.fragment_bytes());
    let each = part_fragments(fragments, theirs.parts);
    let most = pool.part_fragments(fragment_bytes);
    let each = u32::try_from(each)
        .ok()
        .filter(|&each| each <= most && fragments.div_ceil(each.into()) == u64::from(theirs.parts));
    let each = each.ok_or(TransferError::Parts { fragments, fragment_bytes, parts: theirs.parts })?;
    pool.clear_padding(table, theirs.fragment_tokens)?;
    let digest = match theirs.checksum {
        ChecksumAlgorithm::Xxh3 => pool.digest(table)?,
        ChecksumAlgorithm::None | ChecksumAlgorithm::Crc32c => Digest64(0),
    };
    let import: Import = plane.import(peer, &theirs.lease_token.0)?;
    let mut moved = Ok(Moved { bytes: 0, fragments });
    for (number, part) in (0..).zip(plan.chunks(each)?) {
        let notice = Notice { part: number, bytes: part.bytes_total(), digest, user: user.to_vec() };
        match (write_part(plane, pool, &import, theirs, &part, notice), &mut moved) {
            (Ok(bytes), Ok(moved)) => moved.bytes += bytes,
            (Err(error), _) => {
                moved = Err(error);
                break;
            }
            (Ok(_), Err(_)) => {}
        }
    }
    plane.release(import)?;
    moved
}

fn write_part(
    plane: &mut Plane,
    pool: &mut PagedPool,
    import: &Import,
    theirs: &TransferManifest,
    part: &FragmentPlan,
    mut notice: Notice,
) -> Result<u64, TransferError> {
    let (pairs, immediate) = (pairs_of(part), theirs.transfer.pack());
    let checked = theirs.checksum == ChecksumAlgorithm::Crc32c;
    if checked {
        notice.digest = Digest64(pool.crc32c(part)?.into());
    }
    let list = pool.list(plane, theirs.fragment_tokens)?;
    Ok(if checked {
        plane.write_list_checked(list, import, &pairs, immediate, &notice.encode())?
    } else {
        plane.write_list(list, import, &pairs, immediate, &notice.encode())?
    })
}
