//! Operations in flight, and the queues that they stand in.

use crate::table::{NONE, Slot, Table};
use core::ops::DerefMut;
use dmaplane_ring::abi::Sqe;

/// Names an operation (or a peer's transfer) toward the host: index and generation, so that a late event is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OpId(u64);

impl OpId {
    /// Makes one.
    pub const fn new(index: u32, generation: u32) -> Self {
        OpId((generation as u64) << 32 | index as u64)
    }

    /// From its bits.
    pub const fn from_bits(bits: u64) -> Self {
        OpId(bits)
    }

    /// Its bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Index in the engine's table.
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    /// Generation of that slot.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Which part of the CQ's reservations an operation counts against (clauses RES-2 to RES-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Ends by this host's own work.
    Local,
    /// LEASE_REVOKE, DISCONNECT, FREE with revoke: a part of their own; beyond it they count as detained, for they may
    /// wait for peers.
    Control,
    /// CANCEL, FREE: the same part; beyond it they count as local, for they end by this host's own work.
    ControlBrief,
    /// A peer, a timer or a signal may detain it.
    Detained,
    /// Waits for a peer's act.
    Passive,
}

/// What an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// For the SQE before it in its chain.
    Linked,
    /// For its turn in the ready queue.
    Ready,
    /// For the host's event.
    Started,
    /// For its time (TIMEOUT, LINK_TIMEOUT).
    Timer,
    /// For something to report (WATCH).
    Watching,
    /// For credit, in its peer's queue.
    AwaitingCredit,
    /// For room in the peer's window, in its peer's queue.
    AwaitingWindow,
    /// For the peer and for the host.
    Posted {
        /// The host still touches our memory.
        local_pending: bool,
        /// What the peer answered.
        answer: Option<(i32, u64)>,
        /// What the host told of the bytes that have landed here.
        checksum: u32,
    },
    /// For the owner's answer to a claim.
    Claiming,
    /// For an arrival, in its peer's receives.
    Receiving,
    /// For a connection, in its listener's queue.
    Accepting,
    /// For its turn among the lists to check, `next` run first.
    CheckingList {
        /// The run to check next.
        next: u32,
    },
    /// For its turn among the lists to end, `next` run first; then it ends with `result`.
    DroppingList {
        /// The run to give back next.
        next: u32,
        /// What LIST_FREE, or a LIST_PREPARE that has failed, comes to.
        result: i32,
    },
    /// For a lease to end (LEASE_REVOKE, FREE with revoke).
    Revoking,
    /// For a peer to be drained (DISCONNECT).
    Disconnecting,
}

/// An operation in flight.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Operation {
    /// The private copy.
    pub sqe: Sqe,
    /// Its ring.
    pub ring: u32,
    /// What its reservations count against.
    pub class: Class,
    /// CQEs reserved and not yet posted.
    pub reserved: u32,
    /// What it waits for.
    pub state: State,
    /// The operation linked behind it.
    pub chain_next: u32,
    /// The LINK_TIMEOUT that guards it, or, for a LINK_TIMEOUT, the operation guarded.
    pub guard: u32,
    /// The peer or other object that it waits at.
    pub object: u32,
    /// Neighbours in the one queue that it stands in.
    pub links: Links,
    /// Neighbours among its ring's operations.
    pub ring_links: Links,
    /// Arrivals so far, for CREDIT_GRANT.
    pub arrived: u32,
    /// CANCEL has asked for its end.
    pub cancelled: bool,
    /// The host cannot tell where the pages lie that it asks for or about; its CQE says so.
    pub unverifiable: bool,
}

/// Neighbours in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Links {
    /// Towards the head.
    pub prev: u32,
    /// Towards the tail.
    pub next: u32,
}

impl Links {
    /// In no queue.
    pub const OUT: Links = Links { prev: NONE, next: NONE };
}

/// A queue through the operations table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Queue {
    /// First.
    pub head: u32,
    /// Last.
    pub tail: u32,
    /// How many.
    pub length: u32,
}

/// Which of an operation's two link pairs a queue uses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Through {
    /// The queue that its state says.
    State,
    /// Its ring's.
    Ring,
}

impl Operation {
    fn links(&mut self, through: Through) -> &mut Links {
        match through {
            Through::State => &mut self.links,
            Through::Ring => &mut self.ring_links,
        }
    }
}

impl Queue {
    /// Nothing in it.
    pub const EMPTY: Queue = Queue { head: NONE, tail: NONE, length: 0 };

    /// Adds at the end.
    pub(crate) fn push_back<M>(&mut self, table: &mut Table<Operation, M>, through: Through, index: u32)
    where
        M: DerefMut<Target = [Slot<Operation>]>,
    {
        let Some(operation) = table.get_mut(index) else {
            return;
        };
        *operation.links(through) = Links { prev: self.tail, next: NONE };
        match table.get_mut(self.tail) {
            Some(last) => last.links(through).next = index,
            None => self.head = index,
        }
        self.tail = index;
        self.length += 1;
    }

    /// Takes out, wherever it stands. The operation must be in this queue.
    pub(crate) fn remove<M>(&mut self, table: &mut Table<Operation, M>, through: Through, index: u32)
    where
        M: DerefMut<Target = [Slot<Operation>]>,
    {
        let Some(operation) = table.get_mut(index) else {
            return;
        };
        let links = core::mem::replace(operation.links(through), Links::OUT);
        match table.get_mut(links.prev) {
            Some(before) => before.links(through).next = links.next,
            None => self.head = links.next,
        }
        match table.get_mut(links.next) {
            Some(behind) => behind.links(through).prev = links.prev,
            None => self.tail = links.prev,
        }
        self.length = self.length.saturating_sub(1);
    }

    /// Takes the first.
    pub(crate) fn pop_front<M>(&mut self, table: &mut Table<Operation, M>, through: Through) -> Option<u32>
    where
        M: DerefMut<Target = [Slot<Operation>]>,
    {
        let index = self.head;
        if index == NONE {
            return None;
        }
        self.remove(table, through, index);
        Some(index)
    }
}
