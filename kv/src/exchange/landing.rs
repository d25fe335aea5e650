//! A landing under way: the receiver's half of a push, from one source shard or more.

use super::{FarSide, PeerId, Side};
use crate::transfer::write_lease::WriteLease;
use crate::transfer::{Moved, PagedPool, TransferError};
use crate::transfer_slot::{ArrivalError, TransferSlots};
use crate::{BlockTable, TransferId, TransferManifest};
use dmaplane::{Arrival, Plane};
use std::time::{Duration, Instant};

#[derive(Debug)]
struct Leg {
    lease: WriteLease,
    peer: Option<PeerId>,
    is_complete: bool,
}

#[derive(Debug)]
pub(super) struct Landing {
    table: BlockTable,
    legs: Vec<Leg>,
    pub(super) deadline: Option<Instant>,
}

/// What an arrival has made of a landing.
pub(super) enum Counted {
    /// It goes on.
    Waits,
    /// Everything is there.
    Complete,
    /// It can come to nothing good any more.
    Broken(TransferError),
}

impl Landing {
    /// Takes blocks and leases them to each of `peers` (by source shard) that has heads of this pool.
    pub(super) fn open(
        plane: &mut Plane,
        pool: &mut PagedPool,
        slots: &mut TransferSlots,
        tokens: u32,
        from: &FarSide,
        peers: &[Option<Side<'_>>],
        ttl: Option<Duration>,
    ) -> Result<(Landing, Vec<(u32, TransferManifest)>), TransferError> {
        let legs = from.legs_into(pool)?;
        let table = pool.allocate(tokens)?;
        let mut landing = Landing { table, legs: Vec::new(), deadline: super::deadline(ttl) };
        let mut manifests = Vec::new();
        for (shard, terms) in legs {
            let side = peers.get(shard as usize).copied().flatten();
            let peer = side.map(|(_, link)| &link.peer);
            match WriteLease::open(plane, pool, slots, peer, &landing.table, &terms, ttl) {
                Ok((lease, manifest)) => {
                    landing.legs.push(Leg { lease, peer: side.map(|(peer, _)| peer), is_complete: false });
                    manifests.push((shard, manifest));
                }
                Err(error) => {
                    landing.abort(plane, pool, slots)?;
                    return Err(error);
                }
            }
        }
        Ok((landing, manifests))
    }

    pub(super) fn transfers(&self) -> impl Iterator<Item = TransferId> + '_ {
        self.legs.iter().map(|leg| leg.lease.transfer())
    }

    /// The peers that are known and not done, each with what they call the transfer. Who has sent everything may go.
    pub(super) fn peers(&self) -> impl Iterator<Item = (PeerId, u32)> + '_ {
        let live = self.legs.iter().filter(|leg| !leg.is_complete);
        live.filter_map(|leg| Some((leg.peer?, leg.lease.transfer().pack())))
    }

    /// Whether a live leg of that transfer is with that peer.
    pub(super) fn is_with(&self, peer: PeerId, transfer: TransferId) -> bool {
        self.legs.iter().any(|leg| leg.lease.transfer() == transfer && leg.peer == Some(peer))
    }

    /// A peer shows a token: `false` when it is not this lease's.
    pub(super) fn claim(&mut self, (peer, link): Side<'_>, transfer: TransferId, token: &[u8]) -> bool {
        let Some(leg) = self.legs.iter_mut().find(|leg| leg.lease.transfer() == transfer) else { return false };
        let accepted = leg.lease.claim(link.bits(), token);
        if accepted {
            leg.peer = Some(peer);
        }
        accepted
    }

    /// Counts what has arrived. What belongs to nobody, or to an earlier transfer, changes nothing.
    pub(super) fn arrive(&mut self, slots: &mut TransferSlots, bits: u64, arrival: &Arrival) -> Counted {
        let slot = TransferId::unpack(arrival.immediate.unwrap_or(0)).slot;
        let Some(leg) = self.legs.iter_mut().find(|leg| leg.lease.transfer().slot == slot) else {
            return Counted::Waits;
        };
        if !leg.lease.is_with(bits) {
            return Counted::Waits;
        }
        match leg.lease.arrive(slots, bits, arrival) {
            Ok(is_complete) => leg.is_complete |= is_complete,
            Err(TransferError::Arrival(
                ArrivalError::Stale { .. }
                | ArrivalError::Unknown { .. }
                | ArrivalError::Foreign { .. }
                | ArrivalError::Ended { .. },
            )) => {}
            Err(error) => return Counted::Broken(error),
        }
        if self.legs.iter().all(|leg| leg.is_complete) { Counted::Complete } else { Counted::Waits }
    }

    pub(super) fn renew(&mut self, plane: &mut Plane, ttl: Duration) -> Result<(), TransferError> {
        for leg in &mut self.legs {
            leg.lease.renew(plane, ttl)?;
        }
        self.deadline = super::deadline(Some(ttl));
        Ok(())
    }

    /// Ends the leases, checks everything, and hands out the blocks with the user bytes of the first leg that has some.
    pub(super) fn commit(
        self,
        plane: &mut Plane,
        pool: &mut PagedPool,
        slots: &mut TransferSlots,
    ) -> Result<(BlockTable, Vec<u8>, Moved), TransferError> {
        let Landing { table, legs, .. } = self;
        let mut moved = Moved::default();
        let mut ended = Vec::new();
        for leg in legs {
            moved.bytes += leg.lease.bytes();
            moved.fragments += leg.lease.fragments();
            ended.push(leg.lease.end(plane, pool, slots)?);
        }
        let mut user = Vec::new();
        for leg in ended {
            match leg.check(pool, &table) {
                Ok(notice) if user.is_empty() => user = notice.user,
                Ok(_) => {}
                Err(error) => {
                    pool.release(table)?;
                    return Err(error);
                }
            }
        }
        Ok((table, user, moved))
    }

    /// Ends the leases; the blocks are free when it returns.
    pub(super) fn abort(
        self,
        plane: &mut Plane,
        pool: &mut PagedPool,
        slots: &mut TransferSlots,
    ) -> Result<(), TransferError> {
        for leg in self.legs {
            leg.lease.end(plane, pool, slots)?;
        }
        pool.release(self.table)
    }
}
