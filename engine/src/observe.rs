//! What whoever looks on is told: each change of an operation (clause OBS-1), and what a context has (clause OBS-2).
//! Nothing of the engine depends on either.

use crate::buffer::BufferState;
use crate::engine::Engine;
use crate::import::ImportState;
use crate::lease::{LeaseState, LeaseTarget};
use crate::operation::State;
use crate::peer::PeerState;
use crate::storage::Storage;
use crate::table::NONE;
use core::ffi::CStr;
use dmaplane_ring::abi::HandleKind;

/// What has become of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It has a place in the table; until now it might have ended at once, unseen.
    Placed,
    /// It waits for something else.
    Moved,
    /// It ends, and its place is given back.
    Ended {
        /// What its CQE says, if it has one.
        result: i32,
    },
}

impl State {
    /// A word for it.
    pub const fn name(&self) -> &'static CStr {
        match self {
            State::Linked => c"linked",
            State::Ready => c"ready",
            State::Started => c"started",
            State::Timer => c"timer",
            State::Watching => c"watching",
            State::AwaitingCredit => c"awaiting-credit",
            State::AwaitingWindow => c"awaiting-window",
            State::Posted { local_pending: true, answer: None, .. } => c"posted",
            State::Posted { local_pending: false, .. } => c"posted-local-done",
            State::Posted { local_pending: true, answer: Some(_), .. } => c"posted-answered",
            State::Claiming => c"claiming",
            State::Receiving => c"receiving",
            State::Accepting => c"accepting",
            State::CheckingList { .. } => c"checking-list",
            State::DroppingList { .. } => c"dropping-list",
            State::Revoking => c"revoking",
            State::Disconnecting => c"disconnecting",
        }
    }
}

/// What a context can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Rings.
    Ring,
    /// Operations in flight.
    Operation,
    /// Buffers.
    Buffer,
    /// Lists.
    List,
    /// Leases.
    Lease,
    /// Imports of peers' leases.
    Import,
    /// Peers, with the credits between us.
    Peer,
    /// Peers' transfers in flight here.
    Transfer,
}

impl RecordKind {
    /// All of them.
    pub const ALL: [RecordKind; 8] = [
        RecordKind::Ring,
        RecordKind::Operation,
        RecordKind::Buffer,
        RecordKind::List,
        RecordKind::Lease,
        RecordKind::Import,
        RecordKind::Peer,
        RecordKind::Transfer,
    ];

    /// A word for several of it.
    pub const fn name(self) -> &'static CStr {
        match self {
            RecordKind::Ring => c"rings",
            RecordKind::Operation => c"operations",
            RecordKind::Buffer => c"buffers",
            RecordKind::List => c"lists",
            RecordKind::Lease => c"leases",
            RecordKind::Import => c"imports",
            RecordKind::Peer => c"peers",
            RecordKind::Transfer => c"transfers",
        }
    }

    /// What a record's words are, in order.
    pub const fn columns(self) -> &'static [&'static CStr] {
        match self {
            RecordKind::Ring => &[c"cq-entries", c"operations", c"reserved"],
            RecordKind::Operation => &[c"user-data", c"opcode", c"ring", c"object", c"reserved", c"cancelled"],
            RecordKind::Buffer => &[c"bytes", c"uses", c"leases"],
            RecordKind::List => &[c"runs", c"segments", c"uses", c"leases"],
            RecordKind::Lease => &[c"target", c"of-list", c"offset", c"length", c"rights", c"in-flight"],
            RecordKind::Import => &[c"peer", c"length", c"rights", c"uses"],
            RecordKind::Peer => &[
                c"credits-to-us",
                c"credits-by-us",
                c"await-credit",
                c"await-window",
                c"posted",
                c"receives",
                c"window",
                c"transfers",
            ],
            RecordKind::Transfer => &[c"peer", c"lease", c"length"],
        }
    }
}

/// One object of a context's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its index in its table.
    pub index: u32,
    /// Its handle; 0 where it has none.
    pub handle: u64,
    /// What it is doing.
    pub state: &'static CStr,
    /// What [`RecordKind::columns`] says.
    pub words: [u64; Record::WORDS],
}

impl Record {
    /// Words of a record, as many as any kind has columns.
    pub const WORDS: usize = 8;

    fn new<const N: usize>(index: u32, handle: u64, state: &'static CStr, some: [u64; N]) -> Record {
        let mut words = [0; Record::WORDS];
        for (to, from) in words.iter_mut().zip(some) {
            *to = from;
        }
        Record { index, handle, state, words }
    }
}

/// None there, as a number that no table has.
const fn or_none(index: u32) -> u64 {
    if index == NONE { u64::MAX } else { index as u64 }
}

impl<S: Storage> Engine<S> {
    /// The first object of a kind from table index `from` on.
    pub fn next_record(&self, kind: RecordKind, from: u32) -> Option<Record> {
        match kind {
            RecordKind::Ring => self.ring_record(from),
            RecordKind::Operation => self.operation_record(from),
            RecordKind::Buffer => {
                let index = self.buffers.next_used(from)?;
                let buffer = self.buffers.get(index)?;
                let state = match buffer.state {
                    BufferState::Allocating => c"allocating",
                    BufferState::Live if buffer.free_op != NONE => c"revoking",
                    BufferState::Live => c"live",
                    BufferState::Freeing => c"freeing",
                };
                let handle = self.buffers.handle(index, HandleKind::Buffer).bits();
                let words = [buffer.length_bytes, buffer.uses.into(), buffer.leases.into()];
                Some(Record::new(index, handle, state, words))
            }
            RecordKind::List => {
                let index = self.lists.next_used(from)?;
                let list = self.lists.get(index)?;
                let handle = self.lists.handle(index, HandleKind::List).bits();
                let words = [list.runs.into(), list.segments, list.uses.into(), list.leases.into()];
                Some(Record::new(index, handle, if list.live { c"live" } else { c"in-the-making" }, words))
            }
            RecordKind::Lease => self.lease_record(from),
            RecordKind::Import => {
                let index = self.imports.next_used(from)?;
                let import = self.imports.get(index)?;
                let state = match import.state {
                    ImportState::Claiming => c"claiming",
                    ImportState::Live => c"live",
                    ImportState::Stopping => c"stopping",
                    ImportState::Dead(_) => c"dead",
                };
                let handle = self.imports.handle(index, HandleKind::Import).bits();
                let words = [or_none(import.peer), import.length, import.rights.bits().into(), import.uses.into()];
                Some(Record::new(index, handle, state, words))
            }
            RecordKind::Peer => self.peer_record(from),
            RecordKind::Transfer => {
                let index = self.inbound.next_used(from)?;
                let transfer = self.inbound.get(index)?;
                let words = [transfer.peer, transfer.lease].map(or_none);
                let words = [words[0], words[1], transfer.request.length];
                Some(Record::new(index, 0, if transfer.stopped { c"stopping" } else { c"moving" }, words))
            }
        }
    }

    fn ring_record(&self, from: u32) -> Option<Record> {
        let mut rings = self.rings.iter().enumerate().skip(from as usize);
        let (index, ring) = rings.find(|(_, ring)| ring.attached() || ring.operations.length > 0)?;
        let state = if ring.attached() { c"attached" } else { c"detached" };
        let words = [ring.cq_entries, ring.operations.length, ring.reserved_total()].map(u64::from);
        Some(Record::new(index as u32, 0, state, words))
    }

    fn operation_record(&self, from: u32) -> Option<Record> {
        let index = self.operations.next_used(from)?;
        let operation = self.operations.get(index)?;
        let words = [
            operation.sqe.user_data,
            operation.sqe.opcode.into(),
            operation.ring.into(),
            or_none(operation.object),
            operation.reserved.into(),
            operation.cancelled.into(),
        ];
        Some(Record::new(index, self.op_id(index).bits(), operation.state.name(), words))
    }

    fn lease_record(&self, from: u32) -> Option<Record> {
        let index = self.leases.next_used(from)?;
        let lease = self.leases.get(index)?;
        let state = match lease.state {
            LeaseState::Live if lease.holder == NONE => c"unclaimed",
            LeaseState::Live => c"live",
            LeaseState::Ending { awaiting_stopped: true, .. } => c"awaiting-stopped",
            LeaseState::Ending { .. } => c"ending",
            LeaseState::Ended(_) => c"ended",
        };
        let (target, of_list) = match lease.target {
            LeaseTarget::Buffer(buffer) => (buffer, 0),
            LeaseTarget::List(list) => (list, 1),
        };
        let (rights, in_flight) = (lease.rights.bits().into(), lease.in_flight.into());
        let words = [target.into(), of_list, lease.offset, lease.length, rights, in_flight];
        Some(Record::new(index, self.leases.handle(index, HandleKind::Lease).bits(), state, words))
    }

    fn peer_record(&self, from: u32) -> Option<Record> {
        let index = self.peers.next_used(from)?;
        let peer = self.peers.get(index)?;
        let state = match peer.state {
            PeerState::Live if peer.throttled => c"throttled",
            PeerState::Live => c"live",
            PeerState::Ending => c"ending",
            PeerState::Gone(_) => c"gone",
        };
        let words = [
            peer.credits(),
            peer.rx_granted.wrapping_sub(peer.rx_arrived),
            peer.credit_queue.length,
            peer.window_queue.length,
            peer.posted.length,
            peer.receives.length,
            peer.info.window,
            peer.inbound_count,
        ];
        let handle = self.peers.handle(index, HandleKind::Peer).bits();
        Some(Record::new(index, handle, state, words.map(u64::from)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_kind_has_more_columns_than_a_record_has_words() {
        for kind in RecordKind::ALL {
            assert!(kind.columns().len() <= Record::WORDS, "{kind:?}");
        }
    }
}
