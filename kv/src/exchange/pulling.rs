//! A pull under way: the reader's half, part by part as they are announced.

use super::links::{Link, Links};
use super::pushing::PARTS_IN_FLIGHT;
use super::signal::{Half, Last, Signal};
use super::{End, PeerId, Side};
use crate::transfer::holds::{Access, Hold};
use crate::transfer::{Moved, PagedPool, TransferError, plan_in_parts};
use crate::{Attention, BlockTable, ChecksumAlgorithm, Digest64, FragmentPlan, HeadRange, Parting, TransferManifest};
use dmaplane::{Claim, Cqe, Errno, Import, Operation, Plane};
use std::collections::VecDeque;

#[derive(Debug)]
enum Stage {
    /// `None`: the ring had no room for it, and it is tried again.
    Claiming(Option<Claim>),
    Open(Import),
    Over,
}

/// A part and what its owner says that it is checked by.
type Part = (u32, u32);

#[derive(Debug)]
struct Leg {
    peer: PeerId,
    name: String,
    theirs: TransferManifest,
    plan: FragmentPlan,
    heads: HeadRange,
    parting: Parting,
    stage: Stage,
    /// The owner was shown the token: it knows whose the lease is, and announces.
    is_shown: bool,
    /// By part.
    is_announced: Vec<bool>,
    queue: VecDeque<Part>,
    in_flight: Vec<(Part, Operation<()>)>,
    parts_done: u32,
    last: Option<Last>,
}

#[derive(Debug)]
pub(super) struct Pull {
    table: BlockTable,
    hold: Hold,
    legs: Vec<Leg>,
    moved: Moved,
    end: Option<End<()>>,
}

/// Whether these heads are all of a pool's, each once.
fn check_legs(pool: &PagedPool, found: Vec<HeadRange>) -> Result<(), TransferError> {
    let wanted = pool.heads();
    let mut sorted = found.clone();
    sorted.sort_by_key(|heads| heads.start);
    let mut next = wanted.start;
    let is_right = sorted.iter().all(|heads| std::mem::replace(&mut next, heads.end) == heads.start);
    let is_right = is_right && next == wanted.end && !found.is_empty();
    // All of a latent cache is one head; a second source of it would be too many.
    let is_right =
        is_right && !(matches!(pool.geometry().layout().attention(), Attention::Latent { .. }) && found.len() > 1);
    if is_right { Ok(()) } else { Err(TransferError::Legs { wanted, found }) }
}

impl Pull {
    /// Takes blocks, and claims the lease of each manifest.
    pub(super) fn start(
        plane: &mut Plane,
        pool: &mut PagedPool,
        from: &[(Side<'_>, &TransferManifest)],
    ) -> Result<Pull, TransferError> {
        check_legs(pool, from.iter().map(|(_, theirs)| theirs.heads).collect())?;
        if from.iter().any(|(_, theirs)| !theirs.is_announced) {
            return Err(TransferError::Announced { announced: false });
        }
        let tokens = from.first().map_or(0, |(_, theirs)| theirs.table.tokens());
        let table = pool.allocate(tokens)?;
        match claim(plane, pool, &table, from) {
            Ok(legs) => {
                let hold = pool.hold(&table, Access::Writes);
                Ok(Pull { table, hold, legs, moved: Moved::default(), end: None })
            }
            Err(error) => {
                pool.release(table)?;
                Err(error)
            }
        }
    }

    pub(super) fn is_with(&self, peer: PeerId, transfer: u32) -> bool {
        self.legs.iter().any(|leg| leg.peer == peer && leg.theirs.transfer.pack() == transfer)
    }

    pub(super) fn has_peer(&self, peer: PeerId) -> bool {
        self.legs.iter().any(|leg| leg.peer == peer)
    }

    /// The owner says what may be read.
    pub(super) fn ready(
        &mut self,
        peer: PeerId,
        transfer: u32,
        parts: &[Part],
        last: Option<Last>,
    ) -> Result<(), TransferError> {
        let leg = self.legs.iter_mut().find(|leg| leg.peer == peer && leg.theirs.transfer.pack() == transfer);
        let Some(leg) = leg else { return Ok(()) };
        for &(part, check) in parts {
            match leg.is_announced.get_mut(part as usize) {
                Some(announced @ false) => *announced = true,
                _ => return Err(TransferError::Signal { what: "a part that there is not, or for the second time" }),
            }
            leg.queue.push_back((part, check));
        }
        leg.last = last.or(leg.last.take());
        Ok(())
    }

    /// Ends it: with an error, or because the user says so. Reads that are under way are waited for.
    pub(super) fn give_up(&mut self, plane: &mut Plane, end: End<()>) {
        if self.end.is_none() {
            self.end = Some(end);
            for leg in &mut self.legs {
                leg.queue.clear();
                leg.in_flight.iter().for_each(|(_, operation)| operation.cancel(plane));
            }
        }
    }

    /// Goes on. `Some` when it has ended and nothing writes to the blocks any more.
    pub(super) fn poll(&mut self, plane: &mut Plane, pool: &mut PagedPool, links: &mut Links) -> Option<End<()>> {
        let mut failed = None;
        for leg in &mut self.legs {
            let polled = leg.poll(plane, links, self.end.is_some(), &mut self.moved);
            let polled = polled.and_then(|()| match self.end {
                None => leg.read_parts(plane, pool, &self.hold),
                Some(_) => Ok(()),
            });
            failed = failed.or(polled.err());
        }
        if let Some(error) = failed {
            self.give_up(plane, End::Failed(error));
        }
        let is_done = self.end.is_none() && self.legs.iter().all(Leg::is_done);
        let is_quiet =
            self.legs.iter().all(|leg| leg.in_flight.is_empty() && !matches!(leg.stage, Stage::Claiming(Some(_))));
        match (is_done, self.end.is_some() && is_quiet) {
            (true, _) => Some(End::Done(())),
            (_, true) => self.end.take(),
            _ => None,
        }
    }

    /// Checks what has come, after [`Pull::poll`] has said that it is over, and tells the owners. The blocks are free
    /// again unless all is well.
    pub(super) fn close(
        mut self,
        pool: &mut PagedPool,
        links: &mut Links,
        end: End<()>,
    ) -> End<(BlockTable, Vec<u8>, Moved)> {
        let let_go = pool.let_go(self.hold);
        let is_own = let_go.is_ok();
        let table = self.table;
        let checked = match (end, let_go) {
            (_, Err(error)) => Err(End::Failed(error)),
            (End::Done(()), Ok(())) => {
                self.legs.iter().try_for_each(|leg| leg.check(pool, &table)).map_err(End::Failed)
            }
            (End::Failed(error), Ok(())) => Err(End::Failed(error)),
            (End::Aborted, Ok(())) => Err(End::Aborted),
        };
        for leg in &mut self.legs {
            let stage = std::mem::replace(&mut leg.stage, Stage::Over);
            // Who was refused the lease has no business with the offer, nor who has not got one that is whoever's.
            let is_ours = matches!(stage, Stage::Open(_)) || leg.theirs.is_bound && !matches!(stage, Stage::Over);
            if let Some(link) = links.get_mut(leg.peer).filter(|_| is_ours) {
                let transfer = leg.theirs.transfer.pack();
                if checked.is_err() && !leg.is_shown {
                    // An owner that does not know yet whose the lease is would not believe the end.
                    link.say(&Signal::claim(Half::Offer, &leg.theirs));
                }
                link.say(&match checked {
                    Ok(()) => Signal::Done { transfer },
                    Err(_) => Signal::Abort { half: Half::Offer, transfer },
                });
            }
        }
        match checked {
            Ok(()) => {
                let users = self.legs.into_iter().filter_map(|leg| leg.last.map(|last| last.user));
                let user = users.reduce(|first, next| if first.is_empty() { next } else { first });
                End::Done((table, user.unwrap_or_default(), self.moved))
            }
            // In another pool these are somebody else's blocks.
            Err(end) if !is_own => end,
            Err(end) => match pool.release(table) {
                Ok(()) => end,
                Err(error) => End::Failed(error),
            },
        }
    }
}

fn claim(
    plane: &mut Plane,
    pool: &PagedPool,
    table: &BlockTable,
    from: &[(Side<'_>, &TransferManifest)],
) -> Result<Vec<Leg>, TransferError> {
    let mut plans = Vec::new();
    for (_, theirs) in from {
        plans.push(plan_in_parts(pool, table, theirs)?);
    }
    let mut legs = Vec::new();
    for (&((peer, link), theirs), (plan, heads)) in from.iter().zip(plans) {
        let claim = plane.start_import(&link.peer, &theirs.lease_token.0)?;
        let parting = theirs.parting();
        legs.push(Leg {
            peer,
            name: link.shown(),
            theirs: theirs.clone(),
            plan,
            heads,
            parting,
            stage: Stage::Claiming(Some(claim)),
            is_shown: false,
            is_announced: vec![false; parting.parts() as usize],
            queue: VecDeque::new(),
            in_flight: Vec::new(),
            parts_done: 0,
            last: None,
        });
    }
    Ok(legs)
}

impl Leg {
    fn is_done(&self) -> bool {
        u64::from(self.parts_done) == self.parting.parts() && self.last.is_some()
    }

    fn poll(
        &mut self,
        plane: &mut Plane,
        links: &mut Links,
        is_ending: bool,
        moved: &mut Moved,
    ) -> Result<(), TransferError> {
        let link: Option<&mut Link> = links.get_mut(self.peer);
        if link.is_none() && !is_ending {
            return Err(TransferError::PeerGone { name: self.name.clone() });
        }
        if let (Stage::Claiming(claim @ None), Some(link), false) = (&mut self.stage, &link, is_ending) {
            *claim = plane.start_import(&link.peer, &self.theirs.lease_token.0).ok();
        }
        if let Stage::Claiming(Some(claim)) = &mut self.stage
            && let Some(ended) = claim.poll(plane)
        {
            self.stage = match ended {
                Ok(import) => Stage::Open(import),
                Err(error) if error.errno() == Some(Errno::ENOBUFS) => Stage::Claiming(None),
                Err(error) => {
                    self.stage = Stage::Over;
                    return Err(TransferError::of_claim(error, &self.name));
                }
            };
            if let Some(link) = link.filter(|_| !is_ending && matches!(self.stage, Stage::Open(_))) {
                link.say(&Signal::claim(Half::Offer, &self.theirs));
                self.is_shown = true;
            }
        }
        let mut place = 0;
        let mut result = Ok(());
        while let Some((part, operation)) = self.in_flight.get_mut(place) {
            let part = *part;
            let Some(ended) = operation.poll(plane) else {
                place += 1;
                continue;
            };
            drop(self.in_flight.swap_remove(place));
            let ended = match ended {
                Ok(cqe) => self.count(part, &cqe, moved),
                // The ring has too much to wait for: later.
                Err(error) if error.errno() == Some(Errno::ENOBUFS) && !is_ending => {
                    self.queue.push_front(part);
                    Ok(())
                }
                Err(error) => Err(TransferError::of_operation(error, &self.name)),
            };
            result = result.and(ended);
        }
        result
    }

    fn count(&mut self, (part, check): Part, cqe: &Cqe, moved: &mut Moved) -> Result<(), TransferError> {
        let (found, fragments) = (cqe.word0, self.parting.part_fragments(part));
        let expected = fragments * self.plan.fragment_bytes();
        if found != expected {
            return Err(TransferError::PartBytes { part, found, expected });
        }
        if self.theirs.checksum == ChecksumAlgorithm::Crc32c && cqe.word1 as u32 != check {
            return Err(TransferError::Checksum { part, found: Some(cqe.word1 as u32), expected: check });
        }
        self.parts_done += 1;
        moved.bytes += found;
        moved.fragments += fragments;
        Ok(())
    }

    fn read_parts(&mut self, plane: &mut Plane, pool: &mut PagedPool, hold: &Hold) -> Result<(), TransferError> {
        let Stage::Open(import) = &self.stage else { return Ok(()) };
        while self.in_flight.len() < PARTS_IN_FLIGHT {
            let Some(part) = self.queue.pop_front() else { break };
            let plan = self.plan.part(self.parting.part(part.0).unwrap_or_default());
            let checksum = self.theirs.checksum == ChecksumAlgorithm::Crc32c;
            let operation = pool.start_read(plane, hold, import, (&plan, self.heads), checksum)?;
            self.in_flight.push((part, operation));
        }
        Ok(())
    }

    fn check(&self, pool: &PagedPool, table: &BlockTable) -> Result<(), TransferError> {
        let last = self.last.as_ref().ok_or(TransferError::Notice { found: 0 })?;
        if self.theirs.checksum == ChecksumAlgorithm::Xxh3 {
            let (found, expected) = (pool.digest_of(table, self.heads)?, Digest64(last.digest));
            if found != expected {
                return Err(TransferError::Digest { found, expected });
            }
        }
        Ok(())
    }
}
