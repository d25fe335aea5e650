//! What waits for the ring, class by class, and what of each class is in flight.
//!
//! The classes' bounds add up to less than the CQ, and each lies within its share of clause RES-2. So whatever is
//! pushed is taken at once: nothing is ever -ENOBUFS, nothing at the SQ's head waits, and an operation that a peer
//! detains keeps no revoke from its turn. What is beyond waits here, in order.

use crate::host::Ring;
use dmaplane_ring::abi::{Cqe, Opcode, Sqe};
use dmaplane_ring::build::Nop;
use std::collections::VecDeque;

pub(super) const SQ_ENTRIES: u32 = 256;
pub(super) const CQ_ENTRIES: u32 = 4096;
/// Peers whose receives a plane's ring has room for.
pub(super) const PEERS_MAX: usize = 92;
/// Operations with peers at a time.
pub(super) const DETAINED_MAX: u32 = 1500;

const RECEIVES_MAX: u32 = PEERS_MAX as u32 * crate::mailbox::SLOTS as u32;
const CONTROL_MAX: u32 = 256;
const LOCAL_MAX: u32 = 480;
const ACCEPTS_MAX: u32 = 64;

// Clauses RES-2 to RES-5; one local entry is the probe's, and one detained one the timer's.
const _: () = {
    let (control, passive) = (2 * CONTROL_MAX, RECEIVES_MAX + ACCEPTS_MAX);
    assert!(control <= CQ_ENTRIES / 8);
    assert!(LOCAL_MAX < CQ_ENTRIES / 8);
    assert!(passive <= CQ_ENTRIES / 2);
    assert!(passive + DETAINED_MAX < CQ_ENTRIES - 2 * (CQ_ENTRIES / 8));
};

/// Why something was pushed: the upper three bits of its user_data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A future waits for it, or has.
    Operation,
    /// A slot of a mailbox.
    Receive,
    /// Ends a dropped object.
    Burial,
    /// Cancels an operation.
    Cancel,
    /// Tells when the SQ has room.
    Probe,
    /// Tells when to try again what was busy.
    Retry,
}

/// What is bounded together: the next three bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// CANCEL, FREE: never wait for peers.
    Brief,
    /// LEASE_REVOKE, DISCONNECT: may wait for peers.
    Ending,
    Local,
    Receive,
    Accept,
    Timer,
    Detained,
}

const CLASSES: [Class; 7] =
    [Class::Brief, Class::Ending, Class::Local, Class::Receive, Class::Accept, Class::Timer, Class::Detained];
const PURPOSES: [Purpose; 6] =
    [Purpose::Operation, Purpose::Receive, Purpose::Burial, Purpose::Cancel, Purpose::Probe, Purpose::Retry];
const PURPOSE_SHIFT: u32 = 61;
const CLASS_SHIFT: u32 = 58;
const NUMBER: u64 = (1 << CLASS_SHIFT) - 1;

impl Class {
    fn of(sqe: &Sqe) -> Class {
        match Opcode::from_byte(sqe.opcode) {
            Some(Opcode::Cancel | Opcode::Free) => Class::Brief,
            Some(Opcode::Accept) => Class::Accept,
            Some(Opcode::Timeout) => Class::Timer,
            Some(opcode) if opcode.is_control() => Class::Ending,
            Some(opcode) if opcode.is_passive() => Class::Receive,
            Some(opcode) if opcode.is_detained() => Class::Detained,
            Some(_) | None => Class::Local,
        }
    }

    fn most(self) -> u32 {
        match self {
            Class::Brief | Class::Ending => CONTROL_MAX,
            Class::Local => LOCAL_MAX,
            Class::Receive => RECEIVES_MAX,
            Class::Accept => ACCEPTS_MAX,
            Class::Timer => 1,
            Class::Detained => DETAINED_MAX,
        }
    }
}

/// The purpose and the number of a user_data.
pub(super) fn decode(user_data: u64) -> (Purpose, u64) {
    let purpose = PURPOSES.get((user_data >> PURPOSE_SHIFT) as usize).copied();
    (purpose.unwrap_or(Purpose::Cancel), user_data & NUMBER)
}

/// The ring and its queues.
#[derive(Debug)]
pub(super) struct Line {
    ring: Ring,
    /// Nobody but us runs the engine for this ring.
    enters: bool,
    /// By class.
    waiting: [VecDeque<Sqe>; CLASSES.len()],
    /// By class: pushed, and their CQEs not reaped.
    in_flight: [u32; CLASSES.len()],
    probing: bool,
    next_number: u64,
    /// Operations that were given up where they waited: skipped when their turn comes.
    dead: usize,
    armed: bool,
}

impl Line {
    pub(super) fn new(ring: Ring, enters: bool) -> Line {
        let (waiting, in_flight) = (Default::default(), Default::default());
        Line { ring, enters, waiting, in_flight, probing: false, next_number: 1, dead: 0, armed: false }
    }

    /// A number that no other has had.
    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Has an SQE wait for its turn: its user_data.
    pub(super) fn enqueue(&mut self, mut sqe: Sqe, purpose: Purpose, number: u64) -> u64 {
        let class = Class::of(&sqe);
        sqe.user_data = (purpose as u64) << PURPOSE_SHIFT | (class as u64) << CLASS_SHIFT | number & NUMBER;
        self.waiting[class as usize].push_back(sqe);
        sqe.user_data
    }

    /// One that waited is wanted no more. `wanted` tells which are, once it is worth looking.
    pub(super) fn forget_one(&mut self, wanted: impl Fn(u64) -> bool) {
        self.dead += 1;
        if self.dead > 64 && self.dead > self.waiting.iter().map(VecDeque::len).sum::<usize>() / 2 {
            self.dead = 0;
            self.waiting.iter_mut().for_each(|queue| queue.retain(|sqe| wanted(sqe.user_data)));
        }
    }

    /// Takes one that waits out of its queue.
    pub(super) fn remove(&mut self, user_data: u64) {
        if let Some(queue) = self.waiting.get_mut((user_data >> CLASS_SHIFT & 7) as usize) {
            queue.retain(|sqe| sqe.user_data != user_data);
        }
    }

    /// Pushes what may be pushed, as one batch; `push` is told of each, and says whether it is still wanted. Returns
    /// whether there was any.
    pub(super) fn push_waiting(&mut self, mut push: impl FnMut(u64) -> bool) -> bool {
        let mut pushed = false;
        'classes: for class in CLASSES {
            let index = class as usize;
            while self.in_flight[index] < class.most()
                && let Some(sqe) = self.waiting[index].front()
            {
                // The last entry is the probe's.
                if self.ring.free() < 2 {
                    pushed |= self.probe();
                    break 'classes;
                }
                if push(sqe.user_data) {
                    // There is room, and nobody else pushes.
                    let _ = self.ring.push(*sqe);
                    self.in_flight[index] += 1;
                    pushed = true;
                } else {
                    self.dead = self.dead.saturating_sub(1);
                }
                self.waiting[index].pop_front();
            }
        }
        if pushed {
            self.ring.submit();
            if self.enters {
                self.ring.enter();
            }
        }
        pushed
    }

    /// Nobody tells a client that the SQ has room again; but SQEs are taken in order, so the end of the last one says
    /// that all before it are gone.
    fn probe(&mut self) -> bool {
        if self.probing || self.ring.free() == 0 {
            return false;
        }
        let user_data = (Purpose::Probe as u64) << PURPOSE_SHIFT | (Class::Local as u64) << CLASS_SHIFT;
        self.probing = self.ring.push(Nop::new().user_data(user_data)).is_ok();
        self.probing
    }

    /// Takes the CQEs that are there.
    pub(super) fn reap(&mut self, into: &mut Vec<Cqe>) {
        self.ring.reap(CQ_ENTRIES, |cqe| into.push(cqe));
        for cqe in into {
            if decode(cqe.user_data).0 == Purpose::Probe {
                self.probing = false;
            } else if let Some(in_flight) = self.in_flight.get_mut((cqe.user_data >> CLASS_SHIFT & 7) as usize) {
                *in_flight = in_flight.saturating_sub(1);
            }
        }
    }

    /// Ends the ring: the CQEs that nobody has reaped.
    pub(super) fn end(self) -> Vec<Cqe> {
        let mut left = Vec::new();
        self.ring.detach(|cqe| left.push(cqe));
        left
    }

    /// Asks for the eventfd to be rung; `false` when there is something to reap already.
    pub(super) fn arm(&mut self) -> bool {
        self.armed = true;
        self.ring.arm()
    }

    pub(super) fn disarm(&mut self) {
        if std::mem::take(&mut self.armed) {
            self.ring.disarm();
        }
    }

    pub(super) fn closed(&self) -> bool {
        self.ring.closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_data_names_purpose_class_and_number() {
        for (index, purpose) in PURPOSES.into_iter().enumerate() {
            assert_eq!(purpose as usize, index);
            assert_eq!(decode((purpose as u64) << PURPOSE_SHIFT | 5 << CLASS_SHIFT | 77), (purpose, 77));
        }
        for (index, class) in CLASSES.into_iter().enumerate() {
            assert_eq!(class as usize, index);
        }
    }
}
