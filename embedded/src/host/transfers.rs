//! Requests: sent, served, copied, stopped.

use super::copies;
use super::crew::Crew;
use super::fragments::{self, LocalSegments};
use super::lane::Job;
use super::{EmbeddedHost, ListMemory, PeerSlot};
use crate::fabric::shm::{Entry, FragmentSource, Kind, NUMBERS_USED_UP};
use crate::fabric::tcp::Told;
use crate::memory::{Checksum, Moved, Region, SLICE_BYTES};
use crate::runner::Shared;
use crate::storage::Heap;
use dmaplane_engine::Message;
use dmaplane_engine::{Engine, Event, LocalPart, OpId, Outcome, Post, Request, RequestKind, Target};
use dmaplane_ring::abi::{Errno, Handle, IndexPair, MAX_OPERATION_BYTES};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What helpers tell the host.
pub(crate) enum Note {
    /// A buffer's memory is made.
    Allocated { op: OpId, buffer: u32, region: Region },
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

/// What a worker has made ready to be shown to a peer.
pub(crate) struct Prepared {
    pub kind: Kind,
    pub region: Arc<Region>,
    pub offset: u64,
    /// Bytes that the transfer will move.
    pub bytes: u64,
    pub payload: Vec<u8>,
    /// For READ_LIST: where the bytes go.
    pub pairs: Option<Vec<IndexPair>>,
}

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

/// Bytes that may be bounced for one peer's READs at a time: one READ of any length fits.
const BOUNCED_BYTES_MAX: u64 = MAX_OPERATION_BYTES;

/// A READ of ours whose bytes are being copied.
pub(crate) struct Reading {
    pub job: Arc<Job>,
    pub peer: Handle,
    /// The owner's transfer.
    pub transfer: u64,
}

/// A READ of a peer that we serve.
pub(crate) struct Serving {
    pub peer: Handle,
    /// Makes what the peer is shown, where something has to be made.
    pub job: Arc<Job>,
    pub scratch: Option<Arc<Region>>,
    pub bytes: u64,
    /// Bytes of memory made for it.
    pub bounced: u64,
}

/// A region made for one request, kept until the peer has answered.
pub(crate) struct Scratch {
    pub peer: Handle,
    pub region: Arc<Region>,
}

impl EmbeddedHost {
    fn peer_handle(&self, peer: u32) -> Result<Handle, Errno> {
        let slot = self.peers.get(peer as usize).and_then(Option::as_ref).filter(|slot| !slot.ended);
        slot.map(|slot| slot.handle).ok_or(Errno::ECONNRESET)
    }

    pub(super) fn is_connected(&self, peer: Handle) -> bool {
        self.peer_handle(peer.index()) == Ok(peer)
    }

    fn share(&mut self, peer: u32, region: &Arc<Region>) -> Result<u32, Errno> {
        let slot = self.peers.get_mut(peer as usize).and_then(Option::as_mut).ok_or(Errno::ECONNRESET)?;
        let shared = slot.link().ok_or(Errno::ECONNRESET)?.share(region);
        if shared == Err(NUMBERS_USED_UP) {
            tracing::warn!(peer, "shm: all numbers for regions are used up");
            self.end_connection(peer, NUMBERS_USED_UP);
        }
        shared
    }

    /// Segments of a list with the memory that they lie in; with a peer, also that peer's numbers for it.
    pub(super) fn segments(&mut self, list: u32, peer: Option<u32>) -> Result<LocalSegments, Errno> {
        let memory = self.list(list)?;
        let mut regions = HashMap::new();
        for &buffer in &memory.buffers {
            let region = self.region(buffer)?;
            let number = match peer {
                Some(_) if region.descriptor().is_none() => return Err(Errno::EOPNOTSUPP),
                Some(peer) => self.share(peer, &region)?,
                None => 0,
            };
            regions.insert(buffer, (region, number));
        }
        Ok(LocalSegments { memory, regions })
    }

    pub(super) fn post_request(
        &mut self,
        peer: u32,
        op: OpId,
        request: &Request,
        post: &Post,
    ) -> Result<LocalPart, Errno> {
        let handle = self.peer_handle(peer)?;
        if let Some(connection) = self.tcp_connection(peer) {
            return self.post_tcp(connection, handle, op, request, post);
        }
        let message = Message::Request(*request).encode();
        let request = *request;
        let checksum = Checksum::new(request.checksum);
        match (request.kind, *post) {
            (RequestKind::Send, Post::Range { buffer, offset, length }) => {
                let mut payload = vec![0; length as usize];
                self.region(buffer)?.read(offset, &mut payload)?;
                self.send_entry(peer, Entry { message, ..Entry::default() }, payload);
                Ok(LocalPart::Done)
            }
            (RequestKind::Read, Post::Range { buffer, offset, length }) => {
                let into = ReadInto::Range { region: self.region(buffer)?, offset, length };
                self.await_read(op, ReadPost { peer: handle, into, checksum });
                self.send_entry(peer, Entry { message, ..Entry::default() }, Vec::new());
                Ok(LocalPart::Started)
            }
            (_, Post::Range { buffer, offset, length }) => {
                let region = self.region(buffer)?;
                if region.descriptor().is_some() {
                    let number = self.share(peer, &region)?;
                    let mut entry = Entry::of_fabric(Kind::Source, [number.into(), offset, 0, 0]);
                    entry.message = message;
                    self.send_entry(peer, entry, Vec::new());
                    return Ok(LocalPart::Done);
                }
                self.give(move |shared| {
                    let prepared = copies::bounce(&region, offset, length, &AtomicBool::new(false));
                    shared.note(Note::RequestReady { peer: handle, op, request, prepared });
                });
                Ok(LocalPart::Started)
            }
            (kind, Post::List { list, index_buffer, index_offset, count, notification_offset, notification_bytes }) => {
                let sends = kind == RequestKind::WriteList;
                let segments = self.segments(list, sends.then_some(peer))?;
                let index = self.region(index_buffer)?;
                if !sends {
                    let into = ReadInto::List { segments, pairs: Vec::new() };
                    self.await_read(op, ReadPost { peer: handle, into, checksum });
                    self.give(move |shared| {
                        let prepared = copies::remote_index(&index, index_offset, count);
                        shared.note(Note::RequestReady { peer: handle, op, request, prepared });
                    });
                    return Ok(LocalPart::Started);
                }
                self.give(move |shared| {
                    let prepared = copies::read_pairs(&index, index_offset, count).and_then(|pairs| {
                        let mut prepared = segments.sources(Kind::ListSource, &pairs)?;
                        prepared.payload = vec![0; notification_bytes as usize];
                        index.read(notification_offset, &mut prepared.payload)?;
                        Ok(prepared)
                    });
                    shared.note(Note::RequestReady { peer: handle, op, request, prepared });
                });
                Ok(LocalPart::Started)
            }
        }
    }

    pub(super) fn handle_note(&mut self, engine: &mut Engine<Heap>, note: Note) {
        match note {
            Note::Allocated { op, buffer, region } => self.allocated(op, buffer, region),
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

    fn send_prepared(
        &mut self,
        peer: Handle,
        op: OpId,
        request: &Request,
        prepared: Result<Prepared, Errno>,
    ) -> Result<(), Errno> {
        let abandoned = request.kind == RequestKind::ReadList && !self.reads.contains_key(&op.bits());
        let prepared = prepared.and_then(|prepared| match self.is_connected(peer) {
            true if !abandoned => Ok(prepared),
            true => Err(Errno::ECANCELED),
            false => Err(Errno::ECONNRESET),
        });
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(errno) => {
                self.reads.remove(&op.bits());
                self.unread.remove(&op.bits());
                return Err(errno);
            }
        };
        if let (Some(pairs), Some(read)) = (prepared.pairs, self.reads.get_mut(&op.bits()))
            && let ReadInto::List { pairs: place, .. } = &mut read.into
        {
            *place = pairs;
        }
        let number = self.share(peer.index(), &prepared.region).inspect_err(|_| {
            self.reads.remove(&op.bits());
            self.unread.remove(&op.bits());
        })?;
        let mut entry = Entry::of_fabric(prepared.kind, [number.into(), prepared.offset, prepared.bytes, 0]);
        entry.message = Message::Request(*request).encode();
        self.scratch.insert(op.bits(), Scratch { peer, region: prepared.region });
        self.send_entry(peer.index(), entry, prepared.payload);
        Ok(())
    }

    /// The peer reads nothing more of what was made for a request. Whose request it was is looked at here, since a
    /// forged answer to another peer's must not take from under that peer what it reads.
    pub(super) fn request_answered(&mut self, peer: Handle, op: u64) {
        if self.scratch.get(&op).is_some_and(|scratch| scratch.peer == peer)
            && let Some(scratch) = self.scratch.remove(&op)
        {
            self.drop_scratch(peer.index(), scratch.region);
        }
    }

    fn await_read(&mut self, op: OpId, read: ReadPost) {
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

    fn drop_scratch(&mut self, peer: u32, region: Arc<Region>) {
        if let Some(Some(slot)) = self.peers.get_mut(peer as usize)
            && let Some(link) = slot.link()
        {
            link.unshare(&region);
        }
        self.give(move |_| drop(region));
    }

    pub(super) fn start_copy_in(
        &mut self,
        transfer: OpId,
        peer: u32,
        frame: u32,
        target: &Target,
        checksum: Checksum,
    ) -> Outcome {
        let tried = match self.tcp_connection(peer) {
            Some(_) => self.copy_in_tcp(transfer, frame, target, checksum),
            None => self.try_copy_in(transfer, peer, frame, target, checksum),
        };
        match tried {
            Ok(outcome) => outcome,
            Err(errno) => Outcome::failed(errno),
        }
    }

    fn try_copy_in(
        &mut self,
        transfer: OpId,
        peer: u32,
        frame: u32,
        target: &Target,
        checksum: Checksum,
    ) -> Result<Outcome, Errno> {
        let words = self.frames.get(frame).ok_or(Errno::EPROTO)?.words;
        let kind = Kind::from_word(words[0]);
        let number = u32::try_from(words[1]).map_err(|_| Errno::EPROTO)?;
        let slot = self.peers.get_mut(peer as usize).and_then(Option::as_mut).ok_or(Errno::ECONNRESET)?;
        let link = slot.link().ok_or(Errno::ECONNRESET)?;
        let source = link.peer_region(number)?;
        let offset = words[2];
        match (*target, kind) {
            (Target::Range { buffer, offset: at, length }, Some(Kind::Source)) => {
                let region = self.region(buffer)?;
                if length <= SLICE_BYTES as u64 && source.is_ready(offset, length) {
                    let moved = fragments::copy_slice(&region, at, &source, offset, length, checksum)?;
                    return Ok(Outcome::done(moved.bytes, moved.checksum.into()));
                }
                self.run(transfer, peer, move |crew| {
                    fragments::copy_range(&region, at, &source, offset, length, checksum, crew)
                });
            }
            (Target::List { list, count }, Some(Kind::ListSource)) => {
                let regions = link.regions();
                let segments = self.segments(list, None)?;
                self.run(transfer, peer, move |crew| {
                    segments.copy_in(&regions, &source, offset, count, checksum, crew)
                });
            }
            _ => return Err(Errno::EPROTO),
        }
        Ok(Outcome::Started)
    }

    /// Runs a copy of a transfer on a worker.
    fn run(
        &mut self,
        transfer: OpId,
        peer: u32,
        copy: impl FnOnce(&Crew<'_>) -> Result<Moved, Errno> + Send + 'static,
    ) {
        let job = Arc::new(Job::default());
        self.running.insert(transfer.bits(), job.clone());
        self.give_for(peer, job, move |shared, job| {
            let outcome = copy(&Crew::new(&shared.workers, job));
            shared.note(Note::CopyEnded { transfer, outcome });
        });
    }

    /// Gives work for a peer to a worker, behind that peer's other work.
    fn give_for(&self, peer: u32, job: Arc<Job>, work: impl FnOnce(&Shared, &Arc<Job>) + Send + 'static) {
        if let (Some(shared), Some(Some(slot))) = (self.shared(), self.peers.get(peer as usize)) {
            slot.lane.post(&shared, job, work);
        }
    }

    pub(super) fn start_serve(&mut self, transfer: OpId, peer: u32, frame: u32, source: &Target) -> Outcome {
        if let Some(connection) = self.tcp_connection(peer) {
            return match self.serve_tcp(connection, transfer, frame, source) {
                Ok(outcome) => outcome,
                Err(errno) => Outcome::failed(errno),
            };
        }
        match self.try_serve(transfer, peer, frame, source) {
            Ok(()) => Outcome::Started,
            Err(errno) => {
                self.serving.remove(&transfer.bits());
                Outcome::failed(errno)
            }
        }
    }

    fn try_serve(&mut self, transfer: OpId, peer: u32, frame: u32, source: &Target) -> Result<(), Errno> {
        let handle = self.peer_handle(peer)?;
        let words = self.frames.get(frame).ok_or(Errno::EPROTO)?.words;
        let reader = words[7];
        let job = Arc::new(Job::default());
        let serving = Serving { peer: handle, job: job.clone(), scratch: None, bytes: 0, bounced: 0 };
        self.serving.insert(transfer.bits(), serving);
        match *source {
            Target::Range { buffer, offset, length } => {
                let region = self.region(buffer)?;
                if region.descriptor().is_some() {
                    let number = self.share(peer, &region)?;
                    if let Some(serving) = self.serving.get_mut(&transfer.bits()) {
                        serving.bytes = length;
                    }
                    let words = [reader, transfer.bits(), number.into(), offset];
                    self.send_entry(peer, Entry::of_fabric(Kind::Serve, words), Vec::new());
                    return Ok(());
                }
                if !self.may_bounce(handle, length) {
                    // A peer that never says that it is done would have us make a window full of copies.
                    return Err(Errno::EAGAIN);
                }
                if let Some(serving) = self.serving.get_mut(&transfer.bits()) {
                    serving.bounced = length;
                }
                self.give_for(peer, job, move |shared, job| {
                    let prepared = copies::bounce(&region, offset, length, job.stop_flag());
                    shared.note(Note::ServeReady { peer: handle, transfer, reader, prepared });
                });
            }
            Target::List { list, count } => {
                let number = u32::try_from(words[1]).map_err(|_| Errno::EPROTO)?;
                if Kind::from_word(words[0]) != Some(Kind::ListIndex) {
                    return Err(Errno::EPROTO);
                }
                let segments = self.segments(list, Some(peer))?;
                let slot = self.peers.get_mut(peer as usize).and_then(Option::as_mut).ok_or(Errno::ECONNRESET)?;
                let index = slot.link().ok_or(Errno::ECONNRESET)?.peer_region(number)?;
                let offset = words[2];
                self.give_for(peer, job, move |shared, _| {
                    let pairs = copies::read_remote_index(&index, offset, count);
                    let prepared = pairs.and_then(|pairs| segments.sources(Kind::ServeList, &pairs));
                    shared.note(Note::ServeReady { peer: handle, transfer, reader, prepared });
                });
            }
        }
        Ok(())
    }

    fn may_bounce(&self, peer: Handle, length: u64) -> bool {
        let of_peer = self.serving.values().filter(|serving| serving.peer == peer);
        of_peer.map(|serving| serving.bounced).sum::<u64>() + length <= BOUNCED_BYTES_MAX
    }

    fn serve_prepared(
        &mut self,
        engine: &mut Engine<Heap>,
        peer: Handle,
        transfer: OpId,
        reader: u64,
        prepared: Result<Prepared, Errno>,
    ) {
        if !self.serving.contains_key(&transfer.bits()) {
            // Stopped meanwhile: its end has been reported.
            return;
        }
        let sent = prepared.and_then(|prepared| {
            let number = self.share(peer.index(), &prepared.region)?;
            if let Some(serving) = self.serving.get_mut(&transfer.bits()) {
                serving.scratch = Some(prepared.region);
                serving.bytes = prepared.bytes;
            }
            let kind = if prepared.kind == Kind::ServeList { Kind::ServeList } else { Kind::Serve };
            let words = [reader, transfer.bits(), number.into(), prepared.offset];
            self.send_entry(peer.index(), Entry::of_fabric(kind, words), Vec::new());
            Ok(())
        });
        if let Err(errno) = sent {
            self.serving.remove(&transfer.bits());
            engine.handle(self, Event::TransferDone { transfer, result: errno.as_result(), bytes: 0, checksum: 0 });
        }
    }

    /// Entries that are between the hosts alone.
    pub(super) fn take_fabric_entry(&mut self, peer: Handle, kind: Kind, entry: &Entry) -> Result<(), Errno> {
        let [_, first, second, third, fourth, ..] = entry.fabric;
        match kind {
            Kind::RegionDrop => {
                let slot = self.peers.get_mut(peer.index() as usize).and_then(Option::as_mut);
                let region = slot.and_then(PeerSlot::link).ok_or(Errno::ECONNRESET)?.forget(first)?;
                // Unmapping gigabytes takes long: not on the engine's thread.
                self.give(move |_| drop(region));
                Ok(())
            }
            Kind::ServeEnd => {
                let transfer = OpId::from_bits(first);
                if self.serving.get(&first).is_none_or(|serving| serving.peer != peer) {
                    // Stopped before the reader knew.
                    return Ok(());
                }
                let Some(serving) = self.serving.remove(&first) else { return Ok(()) };
                if let Some(scratch) = serving.scratch {
                    self.drop_scratch(peer.index(), scratch);
                }
                let result = if third == 0 { 0 } else { Errno::from_raw(third as i32).as_result() };
                let bytes = if result == 0 { serving.bytes } else { second.min(serving.bytes) };
                self.report(Event::TransferDone { transfer, result, bytes, checksum: 0 });
                Ok(())
            }
            _ => {
                let number = u32::try_from(third).map_err(|_| Errno::EPROTO)?;
                self.begin_read(peer, OpId::from_bits(first), second, number, fourth)
            }
        }
    }

    /// The peer has shown where a READ's bytes are: copy them.
    fn begin_read(&mut self, peer: Handle, op: OpId, transfer: u64, number: u32, offset: u64) -> Result<(), Errno> {
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

    fn end_read(
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

    fn say_read_ended(&mut self, peer: Handle, transfer: u64, bytes: u64, result: i32) {
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

    pub(super) fn stop_transfer(&mut self, transfer: OpId) {
        if self.stop_tcp(transfer) {
            return;
        }
        if let Some(job) = self.running.get(&transfer.bits()) {
            if job.stop() {
                self.running.remove(&transfer.bits());
                let result = Errno::EKEYREVOKED.as_result();
                self.report(Event::TransferDone { transfer, result, bytes: 0, checksum: 0 });
            }
        } else if let Some(serving) = self.serving.remove(&transfer.bits()) {
            // What a worker still makes for it is thrown away, and nobody else sees it.
            let _ = serving.job.stop();
            if let Some(scratch) = serving.scratch {
                self.drop_scratch(serving.peer.index(), scratch);
            }
            let result = Errno::ECANCELED.as_result();
            self.report(Event::TransferDone { transfer, result, bytes: 0, checksum: 0 });
        }
    }

    /// The connection is over: what was made for its requests goes. The engine stops and abandons the rest.
    pub(super) fn drop_scratch_of_peer(&mut self, peer: Handle) {
        self.unread.retain(|_, of| *of != peer);
        let gone: Vec<Scratch> =
            self.scratch.extract_if(|_, scratch: &mut Scratch| scratch.peer == peer).map(|(_, gone)| gone).collect();
        self.give(move |_| drop(gone));
    }
}

pub(super) fn split(outcome: Result<Moved, Errno>) -> (i32, Moved) {
    match outcome {
        Ok(moved) => (0, moved),
        Err(errno) => (errno.as_result(), Moved { bytes: 0, checksum: 0 }),
    }
}

const _: () = assert!(FragmentSource::BYTES == 24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::sync::Weak;

    /// SEC-5: a peer that reads memory without a descriptor, and never says that it is done.
    #[test]
    fn sec_5_one_peers_reads_are_bounced_without_bound() {
        let mut host = EmbeddedHost::new(Weak::new(), &Config::default());
        let [peer, other] = [1, 2].map(Handle::from_bits);
        assert!(host.may_bounce(peer, MAX_OPERATION_BYTES));
        let bounced = MAX_OPERATION_BYTES / 2;
        host.serving.insert(1, Serving { peer, job: Arc::default(), scratch: None, bytes: 0, bounced });
        assert!(host.may_bounce(peer, bounced) && host.may_bounce(other, MAX_OPERATION_BYTES));
        assert!(!host.may_bounce(peer, MAX_OPERATION_BYTES));
    }
}
