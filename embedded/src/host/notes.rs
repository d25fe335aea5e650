//! What helpers tell the host, and what comes of it.

use super::copies::Prepared;
use super::{EmbeddedHost, ListMemory};
use crate::fabric::tcp::Told;
use crate::memory::{Moved, Region};
use crate::storage::Heap;
use dmaplane_engine::{Engine, Event, OpId, Request, RequestKind};
use dmaplane_ring::abi::{Errno, Handle};

/// What helpers tell the host.
pub(crate) enum Note {
    /// A buffer's memory is made.
    Allocated { op: OpId, buffer: u32, region: Region, unverifiable: bool },
    /// A list's runs are in private memory.
    ListLoaded { op: OpId, list: u32, memory: ListMemory },
    /// A WAIT on a descriptor is over: the eventfd's count.
    Waited { op: OpId, outcome: Result<u64, Errno> },
    /// A connection has ended.
    ConnectionLost { peer: Handle },
    /// A request can be sent: what it needs is prepared.
    RequestReady { peer: Handle, op: OpId, request: Request, prepared: Result<Prepared, Errno> },
    /// A peer's transfer into our memory is over.
    CopyEnded { transfer: OpId, outcome: Result<Moved, Errno> },
    /// A READ of ours has been copied, as far as it was.
    ReadEnded { peer: Handle, op: OpId, transfer: u64, outcome: Result<Moved, Errno> },
    /// What a peer's READ needs is prepared.
    ServeReady { peer: Handle, transfer: OpId, reader: u64, prepared: Result<Prepared, Errno> },
    /// The I/O thread's word on a tcp peer.
    Tcp { peer: Handle, told: Told },
    /// Nothing but a reason to look.
    Look,
}

impl EmbeddedHost {
    pub(super) fn handle_note(&mut self, engine: &mut Engine<Heap>, note: Note) {
        match note {
            Note::Allocated { op, buffer, region, unverifiable } => self.allocated(op, buffer, region, unverifiable),
            Note::ListLoaded { op, list, memory } => self.list_loaded(op, list, memory),
            Note::Waited { op, outcome } => self.waited(op, outcome),
            Note::ConnectionLost { peer } => self.connection_lost(engine, peer),
            Note::RequestReady { peer, op, request, prepared } => {
                let result = self.send_prepared(peer, op, &request, prepared);
                match result {
                    // A READ_LIST goes on: its bytes are still to come.
                    Ok(()) if request.kind == RequestKind::ReadList => {}
                    Ok(()) => engine.handle(self, Event::LocalDone { op, result: 0, checksum: 0 }),
                    Err(errno) => engine.handle(self, Event::LocalDone { op, result: errno.as_result(), checksum: 0 }),
                }
            }
            Note::CopyEnded { transfer, outcome } => {
                self.running.remove(&transfer.bits());
                let (result, Moved { bytes, checksum }) = split(outcome);
                engine.handle(self, Event::TransferDone { transfer, result, bytes, checksum });
            }
            Note::ReadEnded { peer, op, transfer, outcome } => {
                self.reading.remove(&op.bits());
                self.end_read(engine, peer, op, transfer, outcome);
            }
            Note::ServeReady { peer, transfer, reader, prepared } => {
                self.serve_prepared(engine, peer, transfer, reader, prepared);
            }
            Note::Tcp { peer, told } => self.take_told(engine, peer, told),
            Note::Look => {}
        }
    }
}

pub(super) fn split(outcome: Result<Moved, Errno>) -> (i32, Moved) {
    match outcome {
        Ok(moved) => (0, moved),
        Err(errno) => (errno.as_result(), Moved { bytes: 0, checksum: 0 }),
    }
}
