//! READs of ours: the peer shows where the bytes are, and we copy them.

use super::EmbeddedHost;
use super::crew::Crew;
use super::fragments::{self, LocalSegments};
use super::lane::Job;
use super::notes::{Note, split};
use crate::fabric::shm::{Entry, Kind};
use crate::memory::{Checksum, Moved, Region, SLICE_BYTES};
use crate::storage::Heap;
use dmaplane_engine::{Engine, Event, OpId};
use dmaplane_ring::abi::{Errno, Handle, IndexPair};
use std::sync::Arc;

/// A READ or READ_LIST whose bytes the peer is to show.
pub(crate) struct ReadPost {
    pub peer: Handle,
    pub into: ReadInto,
    pub checksum: Checksum,
}

impl ReadPost {
    /// Whether a worker still makes what a READ_LIST shows the peer.
    fn is_preparing(&self) -> bool {
        matches!(&self.into, ReadInto::List { pairs, .. } if pairs.is_empty())
    }
}

pub(crate) enum ReadInto {
    Range { region: Arc<Region>, offset: u64, length: u64 },
    List { segments: LocalSegments, pairs: Vec<IndexPair> },
}

/// A READ of ours whose bytes are being copied.
pub(crate) struct Reading {
    pub job: Arc<Job>,
    pub peer: Handle,
    /// The owner's transfer.
    pub transfer: u64,
}

impl EmbeddedHost {
    pub(super) fn await_read(&mut self, op: OpId, read: ReadPost) {
        self.unread.insert(op.bits(), read.peer);
        self.reads.insert(op.bits(), read);
    }

    /// A READ's answer. An honest owner says that it went well only when we have said so, which is when all its bytes
    /// are here: earlier, or after a copy that failed, the client would take old bytes for the owner's.
    pub(super) fn read_answered(&mut self, peer: Handle, op: u64, result: i32) -> Result<(), Errno> {
        if self.unread.get(&op) != Some(&peer) {
            return Ok(());
        }
        self.unread.remove(&op);
        if result < 0 { Ok(()) } else { Err(Errno::EPROTO) }
    }

    /// The peer has shown where a READ's bytes are: copy them.
    pub(super) fn begin_read(
        &mut self,
        peer: Handle,
        op: OpId,
        transfer: u64,
        number: u32,
        offset: u64,
    ) -> Result<(), Errno> {
        let Some(read) = self.reads.get(&op.bits()).filter(|read| read.peer == peer) else {
            // Abandoned: say so, that the peer may let go of its memory.
            let words = [transfer, 0, Errno::ECANCELED.raw() as u64, 0];
            self.send_entry(peer.index(), Entry::of_fabric(Kind::ServeEnd, words), Vec::new());
            return Ok(());
        };
        if read.is_preparing() {
            // The peer cannot know of it.
            return Err(Errno::EPROTO);
        }
        let slot = self.peers.get_mut(peer.index() as usize).and_then(Option::as_mut).ok_or(Errno::ECONNRESET)?;
        let link = slot.link().ok_or(Errno::ECONNRESET)?;
        // While this may fail the READ stays where the end of the connection finds it, and ends it.
        let source = link.peer_region(number)?;
        let regions = link.regions();
        let Some(read) = self.reads.remove(&op.bits()) else { return Ok(()) };
        if let ReadInto::Range { region, offset: at, length } = &read.into
            && *length <= SLICE_BYTES as u64
            && source.is_ready(offset, *length)
        {
            let outcome = fragments::copy_slice(region, *at, &source, offset, *length, read.checksum);
            if let Some(shared) = self.shared() {
                shared.note_quietly(Note::ReadEnded { peer, op, transfer, outcome });
            }
            return Ok(());
        }
        let copy = move |crew: &Crew<'_>| match read.into {
            ReadInto::Range { region, offset: at, length } => {
                fragments::copy_range(&region, at, &source, offset, length, read.checksum, crew)
            }
            ReadInto::List { segments, pairs } => {
                segments.copy_read(&pairs, &regions, &source, offset, read.checksum, crew)
            }
        };
        let job = Arc::new(Job::default());
        self.reading.insert(op.bits(), Reading { job: job.clone(), peer, transfer });
        self.give_for(peer.index(), job, move |shared, job| {
            let outcome = copy(&Crew::new(&shared.workers, job));
            shared.note(Note::ReadEnded { peer, op, transfer, outcome });
        });
        Ok(())
    }

    pub(super) fn end_read(
        &mut self,
        engine: &mut Engine<Heap>,
        peer: Handle,
        op: OpId,
        transfer: u64,
        outcome: Result<Moved, Errno>,
    ) {
        let (result, Moved { bytes, checksum }) = split(outcome);
        if result >= 0 {
            self.unread.remove(&op.bits());
        }
        self.say_read_ended(peer, transfer, bytes, result);
        engine.handle(self, Event::LocalDone { op, result: 0, checksum });
    }

    pub(super) fn say_read_ended(&mut self, peer: Handle, transfer: u64, bytes: u64, result: i32) {
        if self.is_connected(peer) {
            let words = [transfer, bytes, (-result) as u64, 0];
            self.send_entry(peer.index(), Entry::of_fabric(Kind::ServeEnd, words), Vec::new());
        }
    }

    pub(super) fn abandon_op(&mut self, op: OpId) {
        if self.abandon_tcp(op) {
            return;
        }
        if let Some(reading) = self.reading.get(&op.bits()) {
            if reading.job.stop() {
                let (peer, transfer) = (reading.peer, reading.transfer);
                self.reading.remove(&op.bits());
                self.say_read_ended(peer, transfer, 0, Errno::ECANCELED.as_result());
                self.report(Event::LocalDone { op, result: 0, checksum: 0 });
            }
            return;
        }
        if let Some(read) = self.reads.remove(&op.bits()) {
            // A READ_LIST that a worker still prepares ends with that worker's note.
            if !read.is_preparing() {
                self.report(Event::LocalDone { op, result: 0, checksum: 0 });
            }
        }
        // What a worker prepares to send ends with its note, too.
    }
}
