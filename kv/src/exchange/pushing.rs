//! A push under way: the sender's half, layer by layer.

use super::links::Link;
use super::signal::{Half, Signal, pack};
use super::{End, Moved, PeerId};
use crate::transfer::holds::{Access, Hold};
use crate::transfer::paged_pool::PagedPool;
use crate::transfer::{TransferError, check_user, notice_of, plan_in_parts};
use crate::{BlockTable, ChecksumAlgorithm, FragmentPlan, HeadRange, Parting, TransferManifest};
use core::ops::Range;
use dmaplane::{Claim, Errno, Import, Notification, Operation, Plane};
use std::collections::VecDeque;

/// Parts of one push, or of one leg of a pull, that are with the peer at a time: more would only wait there, and take
/// places that other transfers need.
pub(super) const PARTS_IN_FLIGHT: usize = 8;

/// How far it is with the peer's lease.
#[derive(Debug)]
enum Stage {
    /// `None`: the ring had no room for it, and it is tried again.
    Claiming(Option<Claim>),
    /// The lease is whoever's: the owner is shown the token, and must have it before the first notification.
    Showing(Import, Option<Operation<()>>),
    Open(Import),
    Over,
}

/// One part: its number, and whether it is the last to be sent.
type Part = (u32, bool);

#[derive(Debug)]
pub(super) struct Push {
    pub(super) peer: PeerId,
    name: String,
    table: BlockTable,
    theirs: TransferManifest,
    plan: FragmentPlan,
    heads: HeadRange,
    parting: Parting,
    stage: Stage,
    hold: Hold,
    /// By layer: computed, and not to be changed any more.
    computed: Vec<bool>,
    /// By group of layers: given to the queue.
    queued: Vec<bool>,
    parts_queued: u32,
    queue: VecDeque<Part>,
    in_flight: Vec<(Part, Operation<()>)>,
    parts_done: u32,
    moved: Moved,
    user: Vec<u8>,
    end: Option<End<()>>,
}

impl Push {
    pub(super) fn start(
        plane: &mut Plane,
        pool: &mut PagedPool,
        (peer, link): (PeerId, &Link),
        table: &BlockTable,
        theirs: &TransferManifest,
    ) -> Result<Push, TransferError> {
        let (plan, heads) = plan_in_parts(pool, table, theirs)?;
        let claim = plane.start_import(&link.peer, &theirs.lease_token.0)?;
        let parting = theirs.parting();
        Ok(Push {
            peer,
            name: link.shown(),
            table: table.clone(),
            theirs: theirs.clone(),
            plan,
            heads,
            parting,
            stage: Stage::Claiming(Some(claim)),
            hold: pool.hold(table, Access::Reads),
            computed: vec![false; parting.layers() as usize],
            queued: vec![false; parting.groups() as usize],
            parts_queued: 0,
            queue: VecDeque::new(),
            in_flight: Vec::new(),
            parts_done: 0,
            moved: Moved::default(),
            user: Vec::new(),
            end: None,
        })
    }

    /// The number that the owner of the blocks has given it.
    pub(super) fn transfer(&self) -> u32 {
        self.theirs.transfer.pack()
    }

    pub(super) fn send_layers(
        &mut self,
        pool: &mut PagedPool,
        layers: Range<u32>,
        user: &[u8],
    ) -> Result<(), TransferError> {
        check_user(user)?;
        // The range is checked by making a plan of it.
        self.plan.layers(layers.clone())?;
        pool.clear_padding(&self.table, self.theirs.fragment_tokens, layers.clone())?;
        pool.seal(&mut self.hold, layers.clone());
        self.computed[layers.start as usize..layers.end as usize].fill(true);
        let parts = self.parting.parts() as u32;
        for group in 0..self.parting.groups() {
            let of_group = self.parting.group_layers(group);
            let is_computed = self.computed[of_group.start as usize..of_group.end as usize].iter().all(|done| *done);
            if !is_computed || self.queued[group as usize] {
                continue;
            }
            self.queued[group as usize] = true;
            for part in self.parting.group_part_numbers(group) {
                self.parts_queued += 1;
                self.queue.push_back((part, self.parts_queued == parts));
            }
        }
        if self.parts_queued == parts && self.user.is_empty() {
            self.user = user.to_vec();
        }
        Ok(())
    }

    /// Ends it: with an error, or because the user says so. What is with the peer already is waited for.
    pub(super) fn give_up(&mut self, plane: &mut Plane, end: End<()>) {
        if self.end.is_none() {
            self.end = Some(end);
            self.queue.clear();
            self.in_flight.iter().for_each(|(_, operation)| operation.cancel(plane));
        }
    }

    /// Goes on. `Some` when it has ended and nothing of it touches the blocks any more.
    pub(super) fn poll(
        &mut self,
        plane: &mut Plane,
        pool: &mut PagedPool,
        link: Option<&mut Link>,
    ) -> Option<End<Moved>> {
        self.poll_stage(plane, link.as_deref());
        self.poll_parts(plane);
        if self.end.is_none() {
            match link {
                Some(_) => {
                    if let Err(error) = self.send_parts(plane, pool) {
                        self.give_up(plane, End::Failed(error));
                    }
                }
                None => self.give_up(plane, End::Failed(TransferError::PeerGone { name: self.name.clone() })),
            }
        }
        let is_done = self.end.is_none() && u64::from(self.parts_done) == self.parting.parts();
        if !is_done && (self.end.is_none() || !self.in_flight.is_empty() || self.is_pending()) {
            return None;
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        Some(match self.end.take() {
            None => End::Done(Moved { fragments: self.plan.fragments(), ..self.moved }),
            Some(end) => {
                if let Some(link) = link {
                    self.say_ended(link, &stage);
                }
                match end {
                    End::Failed(error) => End::Failed(error),
                    _ => End::Aborted,
                }
            }
        })
    }

    /// Gives the blocks back to the pool, when [`Push::poll`] has said that it is over.
    pub(super) fn close(self, pool: &mut PagedPool) -> Result<(), TransferError> {
        pool.let_go(self.hold)
    }

    /// Tells the owner that it has come to nothing, however far it was.
    fn say_ended(&self, link: &mut Link, stage: &Stage) {
        let is_known = match stage {
            // Who has not got the lease has no business with the landing.
            Stage::Over => return,
            Stage::Claiming(_) if !self.theirs.is_bound => return,
            Stage::Claiming(_) | Stage::Open(_) => true,
            Stage::Showing(..) => false,
        };
        // An owner that does not know yet whose the lease is would not believe the end.
        if !is_known {
            link.say(&Signal::claim(Half::Landing, &self.theirs));
        }
        link.say(&Signal::Abort { half: Half::Landing, transfer: self.transfer() });
    }

    /// Whether something other than a part is still with the peer.
    fn is_pending(&self) -> bool {
        matches!(self.stage, Stage::Claiming(Some(_)) | Stage::Showing(_, Some(_)))
    }

    fn poll_stage(&mut self, plane: &mut Plane, link: Option<&Link>) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Claiming(Some(mut claim)) => match claim.poll(plane) {
                None => Stage::Claiming(Some(claim)),
                Some(Err(error)) if error.errno() == Some(Errno::ENOBUFS) => Stage::Claiming(None),
                Some(Ok(import)) if self.theirs.is_bound => Stage::Open(import),
                Some(Ok(import)) => Stage::Showing(import, None),
                Some(Err(error)) => {
                    let error = TransferError::of_claim(error, &self.name);
                    self.give_up(plane, End::Failed(error));
                    Stage::Over
                }
            },
            Stage::Showing(import, Some(mut showing)) => match showing.poll(plane) {
                None => Stage::Showing(import, Some(showing)),
                Some(Ok(_)) => Stage::Open(import),
                Some(Err(error)) if error.errno() == Some(Errno::ENOBUFS) => Stage::Showing(import, None),
                Some(Err(error)) => {
                    let error = TransferError::of_operation(error, &self.name);
                    self.give_up(plane, End::Failed(error));
                    Stage::Over
                }
            },
            Stage::Claiming(None) if self.end.is_none() => {
                let token = &self.theirs.lease_token.0;
                Stage::Claiming(link.and_then(|link| plane.start_import(&link.peer, token).ok()))
            }
            other => other,
        };
        if let (Stage::Showing(_, showing @ None), Some(link), None) = (&mut self.stage, link, &self.end) {
            let claim = Signal::claim(Half::Landing, &self.theirs);
            *showing = plane.start_send(&link.peer, &pack([&claim.encode()].into_iter()).0).ok();
        }
    }

    fn poll_parts(&mut self, plane: &mut Plane) {
        let mut place = 0;
        while let Some((part, operation)) = self.in_flight.get_mut(place) {
            let part = *part;
            let Some(ended) = operation.poll(plane) else {
                place += 1;
                continue;
            };
            drop(self.in_flight.swap_remove(place));
            match ended {
                Ok(cqe) => {
                    self.parts_done += 1;
                    self.moved.bytes += cqe.word0;
                }
                // The ring has too much to wait for: later.
                Err(error) if error.errno() == Some(Errno::ENOBUFS) && self.end.is_none() => {
                    self.queue.push_front(part);
                }
                Err(error) => {
                    let error = TransferError::of_operation(error, &self.name);
                    self.give_up(plane, End::Failed(error));
                }
            }
        }
    }

    fn send_parts(&mut self, plane: &mut Plane, pool: &mut PagedPool) -> Result<(), TransferError> {
        let Stage::Open(import) = &self.stage else { return Ok(()) };
        while self.in_flight.len() < PARTS_IN_FLIGHT {
            let Some((number, is_last)) = self.queue.pop_front() else { break };
            let part = self.plan.part(self.parting.part(number).unwrap_or_default());
            let of_part = (&part, self.heads);
            let notice = notice_of(pool, &self.table, self.theirs.checksum, of_part, number, is_last, &self.user)?;
            let checksum = self.theirs.checksum == ChecksumAlgorithm::Crc32c;
            let (immediate, bytes) = (self.theirs.transfer.pack(), notice.encode());
            let notification = Notification { immediate, bytes: &bytes, checksum };
            let operation = pool.start_write(plane, &self.hold, import, of_part, notification)?;
            self.in_flight.push(((number, is_last), operation));
        }
        Ok(())
    }
}
