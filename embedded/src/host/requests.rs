//! Requests of ours to shm peers: what they show, and until when it is kept.

use super::EmbeddedHost;
use super::copies::{self, Prepared};
use super::fragments::LocalSegments;
use super::notes::Note;
use super::reads::{ReadInto, ReadPost};
use crate::fabric::shm::{Entry, Kind, NUMBERS_USED_UP};
use crate::memory::{Checksum, Region};
use dmaplane_engine::{LocalPart, Message, OpId, Post, Request, RequestKind};
use dmaplane_ring::abi::{Errno, Handle};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A region made for one request, kept until the peer has answered.
pub(crate) struct Scratch {
    pub peer: Handle,
    pub region: Arc<Region>,
}

impl EmbeddedHost {
    pub(super) fn peer_handle(&self, peer: u32) -> Result<Handle, Errno> {
        let slot = self.peers.get(peer as usize).and_then(Option::as_ref).filter(|slot| !slot.ended);
        slot.map(|slot| slot.handle).ok_or(Errno::ECONNRESET)
    }

    pub(super) fn is_connected(&self, peer: Handle) -> bool {
        self.peer_handle(peer.index()) == Ok(peer)
    }

    pub(super) fn share(&mut self, peer: u32, region: &Arc<Region>) -> Result<u32, Errno> {
        let slot = self.peers.get_mut(peer as usize).and_then(Option::as_mut).ok_or(Errno::ECONNRESET)?;
        let shared = slot.link().ok_or(Errno::ECONNRESET)?.share(region);
        if shared == Err(NUMBERS_USED_UP) {
            tracing::warn!(peer, "shm: all numbers for regions are used up");
            self.end_connection(peer, NUMBERS_USED_UP);
        }
        self.make_busy(peer);
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

    pub(super) fn send_prepared(
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

    pub(super) fn drop_scratch(&mut self, peer: u32, region: Arc<Region>) {
        if let Some(Some(slot)) = self.peers.get_mut(peer as usize)
            && let Some(link) = slot.link()
        {
            link.unshare(&region);
            self.make_busy(peer);
        }
        self.give(move |_| drop(region));
    }

    /// The connection is over: what was made for its requests goes. The engine stops and abandons the rest.
    pub(super) fn drop_scratch_of_peer(&mut self, peer: Handle) {
        self.unread.retain(|_, of| *of != peer);
        let gone: Vec<Scratch> =
            self.scratch.extract_if(|_, scratch: &mut Scratch| scratch.peer == peer).map(|(_, gone)| gone).collect();
        self.give(move |_| drop(gone));
    }
}
