//! An offer under way: the owner's half of a pull, to one reader shard or more, announced layer by layer.

use super::links::Links;
use super::signal::{Half, Last, READY_PARTS_MAX, Signal};
use super::{FarSide, PeerId, Side};
use crate::transfer::read_lease::ReadLease;
use crate::transfer::{PagedPool, TransferError, check_user};
use crate::{BlockTable, ChecksumAlgorithm, TransferId, TransferManifest};
use core::ops::Range;
use dmaplane::Plane;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[derive(Debug)]
struct Leg {
    /// What both sides call it.
    transfer: u32,
    lease: ReadLease,
    peer: Option<PeerId>,
    /// The reader has shown the token: from then on it is told what it may read.
    is_claimed: bool,
    /// By group of layers: announced, or to be as soon as there is a reader.
    queued: Vec<bool>,
    parts_queued: u32,
    /// Parts with their checksums.
    queue: VecDeque<(u32, u32)>,
    /// To go with the last part.
    last: Option<Last>,
    is_done: bool,
}

#[derive(Debug)]
pub(super) struct Offer {
    table: BlockTable,
    legs: Vec<Leg>,
    computed: Vec<bool>,
    checksum: ChecksumAlgorithm,
    pub(super) deadline: Option<Instant>,
}

impl Offer {
    /// Leases the blocks for reading to each of `peers` (by reader shard) that wants heads of this pool.
    pub(super) fn open(
        plane: &mut Plane,
        pool: &mut PagedPool,
        next_transfer: &mut u32,
        table: &BlockTable,
        to: &FarSide,
        peers: &[Option<Side<'_>>],
        ttl: Option<Duration>,
    ) -> Result<(Offer, Vec<(u32, TransferManifest)>), TransferError> {
        let legs = to.legs_from(pool)?;
        let layers = pool.geometry().layout().layers();
        let mut offer = Offer {
            table: table.clone(),
            legs: Vec::new(),
            computed: vec![false; layers as usize],
            checksum: pool.checksum(),
            deadline: super::deadline(ttl),
        };
        let mut manifests = Vec::new();
        for (shard, terms) in legs {
            let side = peers.get(shard as usize).copied().flatten();
            match ReadLease::open(plane, pool, side.map(|(_, link)| &link.peer), table, &terms, ttl) {
                Ok((lease, mut manifest)) => {
                    *next_transfer = next_transfer.wrapping_add(1).max(1);
                    let transfer = *next_transfer;
                    (manifest.transfer, manifest.is_announced) = (TransferId::unpack(transfer), true);
                    offer.legs.push(Leg {
                        transfer,
                        queued: vec![false; lease.parting().groups() as usize],
                        lease,
                        peer: side.map(|(peer, _)| peer),
                        is_claimed: false,
                        parts_queued: 0,
                        queue: VecDeque::new(),
                        last: None,
                        is_done: false,
                    });
                    manifests.push((shard, manifest));
                }
                Err(error) => {
                    offer.end(plane, pool)?;
                    return Err(error);
                }
            }
        }
        Ok((offer, manifests))
    }

    /// The peers that are known and read still, each with what they call the transfer.
    pub(super) fn peers(&self) -> impl Iterator<Item = (PeerId, u32)> + '_ {
        self.legs.iter().filter(|leg| !leg.is_done).filter_map(|leg| Some((leg.peer?, leg.transfer)))
    }

    pub(super) fn is_with(&self, peer: PeerId, transfer: u32) -> bool {
        self.legs.iter().any(|leg| leg.transfer == transfer && leg.peer == Some(peer))
    }

    /// A peer shows a token: `false` when it is not this lease's.
    pub(super) fn claim(&mut self, (peer, _): Side<'_>, transfer: u32, token: &[u8]) -> bool {
        let leg = self.legs.iter_mut().find(|leg| leg.transfer == transfer && leg.lease.is_token(token));
        let Some(leg) = leg.filter(|leg| leg.peer.is_none_or(|bound| bound == peer)) else { return false };
        (leg.peer, leg.is_claimed) = (Some(peer), true);
        true
    }

    /// These layers are computed: they may be read, and are not to be changed any more.
    pub(super) fn ready_layers(
        &mut self,
        pool: &mut PagedPool,
        layers: Range<u32>,
        user: &[u8],
    ) -> Result<(), TransferError> {
        check_user(user)?;
        let (start, end, all) = (layers.start, layers.end, self.computed.len() as u32);
        if start >= end || end > all {
            return Err(crate::PlanError::LayerRange { start, end, layers: all }.into());
        }
        for leg in &mut self.legs {
            leg.lease.seal(pool, &self.table, layers.clone())?;
        }
        self.computed[start as usize..end as usize].fill(true);
        for leg in &mut self.legs {
            let parting = leg.lease.parting();
            for group in 0..parting.groups() {
                let of_group = parting.group_layers(group);
                let is_computed =
                    self.computed[of_group.start as usize..of_group.end as usize].iter().all(|done| *done);
                if !is_computed || std::mem::replace(&mut leg.queued[group as usize], is_computed) {
                    continue;
                }
                for part in parting.group_part_numbers(group) {
                    let check = match self.checksum {
                        ChecksumAlgorithm::Crc32c => leg.lease.crc32c(pool, Some(part))?,
                        ChecksumAlgorithm::None | ChecksumAlgorithm::Xxh3 => 0,
                    };
                    leg.parts_queued += 1;
                    leg.queue.push_back((part, check));
                }
            }
            if u64::from(leg.parts_queued) == parting.parts() && leg.last.is_none() {
                let digest = match self.checksum {
                    ChecksumAlgorithm::Xxh3 => pool.digest_of(&self.table, leg.lease.heads())?.0,
                    ChecksumAlgorithm::None | ChecksumAlgorithm::Crc32c => 0,
                };
                leg.last = Some(Last { digest, user: user.to_vec() });
            }
        }
        Ok(())
    }

    /// Tells the readers that are there what they may read.
    pub(super) fn announce(&mut self, links: &mut Links) {
        for leg in self.legs.iter_mut().filter(|leg| leg.is_claimed) {
            let Some(link) = leg.peer.and_then(|peer| links.get_mut(peer)) else { continue };
            while !leg.queue.is_empty() {
                let count = leg.queue.len().min(READY_PARTS_MAX);
                let parts = leg.queue.drain(..count).collect();
                let last = if leg.queue.is_empty() { leg.last.clone() } else { None };
                link.say(&Signal::Ready { transfer: leg.transfer, parts, last });
            }
        }
    }

    /// A reader has everything: its lease ends. `true` when all have.
    pub(super) fn done(&mut self, peer: PeerId, transfer: u32) -> bool {
        let leg = self.legs.iter_mut().find(|leg| leg.transfer == transfer && leg.peer == Some(peer));
        if let Some(leg) = leg {
            leg.is_done = true;
        }
        self.is_served()
    }

    /// Whether all readers have everything; of a shard that no reader needs, when all is computed.
    pub(super) fn is_served(&self) -> bool {
        self.legs.iter().all(|leg| leg.is_done) && self.computed.iter().all(|computed| *computed)
    }

    pub(super) fn renew(&mut self, plane: &mut Plane, ttl: Duration) -> Result<(), TransferError> {
        for leg in &mut self.legs {
            leg.lease.renew(plane, ttl)?;
        }
        self.deadline = super::deadline(Some(ttl));
        Ok(())
    }

    /// Ends the leases: what has not been read by now will not be.
    pub(super) fn end(self, plane: &mut Plane, pool: &mut PagedPool) -> Result<(), TransferError> {
        self.legs.into_iter().try_for_each(|leg| leg.lease.end(plane, pool))
    }

    /// Tells the readers that it has ended.
    pub(super) fn say_ended(&self, links: &mut Links) {
        for (peer, transfer) in self.peers() {
            if let Some(link) = links.get_mut(peer) {
                link.say(&Signal::Abort { half: Half::Pull, transfer });
            }
        }
    }
}
