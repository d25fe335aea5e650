//! Requests over tcp: what the engine's thread says to the I/O thread, and what that says back.
//!
//! Nothing here waits for a socket. Small bytes are copied on the spot; larger ones are named, with a guard that ends a
//! transfer between two system calls of the I/O thread. Long lists are looked up by workers.

use super::copies;
use super::fragments::LocalSegments;
use super::notes::Note;
use super::{EmbeddedHost, split};
use crate::fabric::frames::Frame;
use crate::fabric::tcp::{
    self, Arrived, Command, Ending, Fragment, Guard, IoThread, Landing, Load, OutBody, OutFrame, Sockets, Span, Told,
    wire,
};
use crate::memory::{Checksum, Moved};
use crate::runner::Shared;
use crate::storage::Heap;
use dmaplane_engine::{Engine, Event, LocalPart, Message, OpId, Outcome, Post, Request, RequestKind, Target};
use dmaplane_ring::abi::{Errno, Handle, IndexPair, MAX_OPERATION_BYTES};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// Bytes that travel with their record, copied on the engine's thread.
const INLINE_BYTES_MAX: u64 = tcp::ANSWER_BYTES_MAX;

/// Turns of a poller between two of its looks at the sockets, which may be a system call.
const TURNS_BETWEEN_LOOKS: u32 = 8;

/// An adopted tcp connection.
pub(crate) struct TcpLink {
    pub connection: u64,
    load: Arc<Load>,
}

/// A request of ours whose memory may be touched.
struct Posted {
    guard: Arc<Guard>,
    /// For a READ: the peer. Its answer may come before its bytes, and then waits here for them, so that no READ is
    /// told to have succeeded whose bytes are not there.
    reads_from: Option<Handle>,
    answer: Option<Message>,
}

/// A body that waits in its socket for its place.
struct Waiting {
    connection: u64,
    body: u64,
    table: Vec<Fragment>,
    bytes: u64,
    checksum: bool,
}

/// The host's part that is about tcp.
#[derive(Default)]
pub(crate) struct TcpHost {
    /// Started with the first connection.
    thread: Option<IoThread>,
    /// What this turn has to say to it.
    pub(super) commands: Vec<Command>,
    /// Transfers of peers in flight.
    transfers: HashMap<u64, Arc<Guard>>,
    /// Requests of ours in flight, while the I/O thread may touch our memory for them.
    posts: HashMap<u64, Posted>,
    /// The context's poller looks at the sockets.
    polls: bool,
    /// Its turns since it has last looked.
    turns: u32,
    /// Its last look has left something for the next, which is to come soon.
    goes_on: bool,
}

impl TcpHost {
    /// Carries out what the turn has gathered, or hands it to the I/O thread.
    pub(super) fn flush(&mut self) {
        if let (Some(thread), false) = (&self.thread, self.commands.is_empty()) {
            thread.commands.carry_out(self.commands.drain(..));
        }
    }

    /// Looks at the sockets: for a poller that spins, and for no other thread.
    pub(super) fn poll(&mut self) {
        let Some(thread) = &self.thread else { return };
        self.turns += 1;
        let begins = !std::mem::replace(&mut self.polls, true);
        if begins || self.goes_on || self.turns >= TURNS_BETWEEN_LOOKS {
            self.turns = 0;
            self.goes_on = thread.commands.poll(begins);
        }
    }

    /// The poller is about to sleep.
    pub(super) fn stop_polling(&mut self) {
        if let (Some(thread), true) = (&self.thread, std::mem::take(&mut self.polls)) {
            thread.commands.stop_polling();
        }
    }

    pub(super) fn say(&mut self, connection: u64, message: &Message, payload: &[u8]) {
        if let Some(Command::Say { connection: last, bytes }) = self.commands.last_mut()
            && *last == connection
        {
            return wire::put_message(bytes, message, payload);
        }
        let mut bytes = Vec::with_capacity(wire::HEADER_BYTES + payload.len());
        wire::put_message(&mut bytes, message, payload);
        self.commands.push(Command::Say { connection, bytes });
    }

    /// What came with a message is dropped; bytes that wait in the socket are not wanted.
    pub(super) fn refuse(&mut self, frame: &Frame) {
        if let Some(Arrived::Waiting { connection, body, .. }) = frame.arrived {
            self.commands.push(Command::Refuse { connection, body });
        }
    }

    fn transfer(&mut self, transfer: OpId) -> Arc<Guard> {
        let guard = Arc::new(Guard::default());
        self.transfers.insert(transfer.bits(), guard.clone());
        guard
    }

    fn post(&mut self, op: OpId, reads_from: Option<Handle>) -> Arc<Guard> {
        let guard = Arc::new(Guard::default());
        self.posts.insert(op.bits(), Posted { guard: guard.clone(), reads_from, answer: None });
        guard
    }

    /// A way for a worker to the I/O thread.
    fn outlet(&self) -> Result<impl Fn(Vec<Command>) + Send + 'static, Errno> {
        let commands = self.thread.as_ref().ok_or(Errno::ENOTCONN)?.commands.clone();
        Ok(move |more| commands.push(more))
    }
}

/// The thread's way to the engine.
fn tell_host(shared: Weak<Shared>) -> impl FnMut(Vec<(Handle, Told)>) -> bool {
    move |told| match shared.upgrade() {
        Some(shared) => {
            shared.notes(told.into_iter().map(|(peer, told)| Note::Tcp { peer, told }));
            true
        }
        None => false,
    }
}

/// A record whose bytes are all there: head, one slice, end.
fn whole_frame(mut head: Vec<u8>, connection: u64, bytes: &[u8]) -> Command {
    head.extend_from_slice(&wire::slice_word(bytes.len() as u32));
    head.extend_from_slice(bytes);
    head.extend_from_slice(&wire::end_word());
    Command::Frame { connection, frame: OutFrame { head, body: None } }
}

impl EmbeddedHost {
    /// The connection of a tcp peer that lives.
    pub(super) fn tcp_connection(&self, peer: u32) -> Option<u64> {
        self.peers.get(peer as usize)?.as_ref()?.tcp().map(|link| link.connection)
    }

    pub(super) fn open_tcp(&mut self, peer: Handle, sockets: Box<Sockets>) -> TcpLink {
        let load = Arc::new(Load::default());
        if self.tcp.thread.is_none() {
            match IoThread::start(Box::new(tell_host(self.shared.clone()))) {
                Ok(thread) => self.tcp.thread = Some(thread),
                Err(error) => tracing::error!(%error, "tcp: no thread for it"),
            }
        }
        let Some(thread) = &mut self.tcp.thread else {
            if let Some(shared) = self.shared() {
                shared.note_quietly(Note::Tcp { peer, told: Told::Lost { errno: Errno::ENOMEM } });
            }
            return TcpLink { connection: 0, load };
        };
        let connection = thread.number();
        self.tcp.commands.push(Command::Open { connection, peer, load: load.clone(), sockets });
        TcpLink { connection, load }
    }

    pub(super) fn post_tcp(
        &mut self,
        connection: u64,
        peer: Handle,
        op: OpId,
        request: &Request,
        post: &Post,
    ) -> Result<LocalPart, Errno> {
        let message = Message::Request(*request);
        match (request.kind, *post) {
            (RequestKind::Send, Post::Range { buffer, offset, length }) => {
                let mut payload = vec![0; length as usize];
                self.region(buffer)?.read(offset, &mut payload)?;
                self.tcp.say(connection, &message, &payload);
                Ok(LocalPart::Done)
            }
            (RequestKind::Read, Post::Range { buffer, offset, length }) => {
                let span = Span::range(self.region(buffer)?, offset, length)?.checked(request.checksum);
                let guard = self.tcp.post(op, Some(peer));
                let landing = Landing { span, guard, ending: Ending::Operation(op) };
                self.tcp.commands.push(Command::Expect { connection, op: op.bits(), landing });
                self.tcp.say(connection, &message, &[]);
                Ok(LocalPart::Started)
            }
            (_, Post::Range { buffer, offset, length }) => {
                let region = self.region(buffer)?;
                let mut head = Vec::new();
                wire::put_write(&mut head, request);
                if length <= INLINE_BYTES_MAX {
                    let mut bytes = vec![0; length as usize];
                    region.read(offset, &mut bytes)?;
                    self.tcp.commands.push(whole_frame(head, connection, &bytes));
                    return Ok(LocalPart::Done);
                }
                let span = Span::range(region, offset, length)?;
                let guard = self.tcp.post(op, None);
                let body = Some(OutBody { span, guard, ending: Ending::Operation(op) });
                self.tcp.commands.push(Command::Frame { connection, frame: OutFrame { head, body } });
                Ok(LocalPart::Started)
            }
            (kind, Post::List { list, index_buffer, index_offset, count, notification_offset, notification_bytes }) => {
                let segments = self.segments(list, None)?;
                let index = self.region(index_buffer)?;
                let outlet = self.tcp.outlet()?;
                let reads = kind == RequestKind::ReadList;
                let guard = self.tcp.post(op, reads.then_some(peer));
                let request = *request;
                self.give(move |shared| {
                    let prepared = copies::read_pairs(&index, index_offset, count).and_then(|pairs| {
                        let mut payload = vec![0; notification_bytes as usize];
                        if notification_bytes > 0 {
                            index.read(notification_offset, &mut payload)?;
                        }
                        list_commands(connection, &request, &segments, &pairs, &payload, guard.clone())
                    });
                    match prepared {
                        Ok(commands) if !guard.is_stopped() => outlet(commands),
                        // Abandoned meanwhile: the peer never hears of it.
                        Ok(_) => {}
                        Err(errno) if guard.end() => {
                            shared.note(Note::Tcp { peer, told: Told::LocalEnded { op, outcome: Err(errno) } });
                        }
                        Err(_) => {}
                    }
                });
                Ok(LocalPart::Started)
            }
        }
    }

    pub(super) fn copy_in_tcp(
        &mut self,
        transfer: OpId,
        frame: u32,
        target: &Target,
        mut checksum: Checksum,
    ) -> Result<Outcome, Errno> {
        let frame = self.frames.get_mut(frame).ok_or(Errno::EPROTO)?;
        let arrived = frame.arrived.take();
        if let (Some(Arrived::Whole(bytes)), Target::Range { buffer, offset, length }) = (&arrived, *target)
            && bytes.len() as u64 == length
        {
            self.region(buffer)?.write(offset, bytes)?;
            checksum.add(bytes);
            return Ok(Outcome::done(length, checksum.value().into()));
        }
        let Some(Arrived::Waiting { connection, body, table, bytes }) = arrived else { return Err(Errno::EPROTO) };
        let waiting = Waiting { connection, body, table, bytes, checksum: checksum.is_wanted() };
        let started = self.admit(waiting, transfer, target);
        if started.is_err() {
            self.tcp.commands.push(Command::Refuse { connection, body });
        }
        started
    }

    fn admit(&mut self, waiting: Waiting, transfer: OpId, target: &Target) -> Result<Outcome, Errno> {
        let Waiting { connection, body, table, bytes, checksum } = waiting;
        let ending = Ending::Transfer(transfer);
        match *target {
            Target::Range { buffer, offset, length } if length == bytes => {
                let span = Span::range(self.region(buffer)?, offset, length)?.checked(checksum);
                let landing = Landing { span, guard: self.tcp.transfer(transfer), ending };
                self.tcp.commands.push(Command::Admit { connection, body, landing });
            }
            Target::List { list, count } if count == table.len() as u64 => {
                let segments = self.segments(list, None)?;
                let outlet = self.tcp.outlet()?;
                let guard = self.tcp.transfer(transfer);
                self.give(move |shared| match segments.span(&table) {
                    Ok(span) => {
                        let span = span.checked(checksum);
                        outlet(vec![Command::Admit { connection, body, landing: Landing { span, guard, ending } }]);
                    }
                    Err(errno) => {
                        outlet(vec![Command::Refuse { connection, body }]);
                        transfer_failed(shared, &guard, transfer, errno);
                    }
                });
            }
            _ => return Err(Errno::EPROTO),
        }
        Ok(Outcome::Started)
    }

    pub(super) fn serve_tcp(
        &mut self,
        connection: u64,
        transfer: OpId,
        frame: u32,
        source: &Target,
    ) -> Result<Outcome, Errno> {
        let frame = self.frames.get_mut(frame).ok_or(Errno::EPROTO)?;
        let Some(Arrived::Asked { op, table }) = frame.arrived.take() else { return Err(Errno::EPROTO) };
        let ending = Ending::Transfer(transfer);
        let read_data = move |bytes| {
            let mut head = Vec::new();
            wire::put_read_data(&mut head, op, bytes);
            head
        };
        match *source {
            Target::Range { buffer, offset, length } if length <= INLINE_BYTES_MAX => {
                let mut bytes = vec![0; length as usize];
                self.region(buffer)?.read(offset, &mut bytes)?;
                self.tcp.commands.push(whole_frame(read_data(length), connection, &bytes));
                return Ok(Outcome::done(length, 0));
            }
            Target::Range { buffer, offset, length } => {
                let span = Span::range(self.region(buffer)?, offset, length)?;
                let body = Some(OutBody { span, guard: self.tcp.transfer(transfer), ending });
                let frame = OutFrame { head: read_data(length), body };
                self.tcp.commands.push(Command::Frame { connection, frame });
            }
            Target::List { list, count } if count == table.len() as u64 => {
                let segments = self.segments(list, None)?;
                let outlet = self.tcp.outlet()?;
                let guard = self.tcp.transfer(transfer);
                self.give(move |shared| match segments.span(&table) {
                    Ok(span) => {
                        let head = read_data(span.left());
                        let body = Some(OutBody { span, guard, ending });
                        outlet(vec![Command::Frame { connection, frame: OutFrame { head, body } }]);
                    }
                    Err(errno) => transfer_failed(shared, &guard, transfer, errno),
                });
            }
            Target::List { .. } => return Err(Errno::EPROTO),
        }
        Ok(Outcome::Started)
    }

    /// `false`: it is no transfer over tcp.
    pub(super) fn stop_tcp(&mut self, transfer: OpId) -> bool {
        let Some(guard) = self.tcp.transfers.get(&transfer.bits()) else { return false };
        if guard.stop() {
            self.tcp.transfers.remove(&transfer.bits());
            let result = Errno::EKEYREVOKED.as_result();
            self.report(Event::TransferDone { transfer, result, bytes: 0, checksum: 0 });
        }
        true
    }

    /// `false`: it is no request over tcp.
    pub(super) fn abandon_tcp(&mut self, op: OpId) -> bool {
        let Some(posted) = self.tcp.posts.get(&op.bits()) else { return false };
        if posted.guard.stop() {
            self.tcp.posts.remove(&op.bits());
            self.report(Event::LocalDone { op, result: 0, checksum: 0 });
        }
        true
    }

    /// The I/O thread's word.
    pub(super) fn take_told(&mut self, engine: &mut Engine<Heap>, peer: Handle, told: Told) {
        let weight = told.weight();
        match told {
            Told::TransferEnded { transfer, outcome } => {
                self.tcp.transfers.remove(&transfer.bits());
                let (result, Moved { bytes, checksum }) = split(outcome);
                engine.handle(self, Event::TransferDone { transfer, result, bytes, checksum });
            }
            Told::LocalEnded { op, outcome } => {
                let posted = self.tcp.posts.remove(&op.bits());
                let (result, Moved { checksum, .. }) = split(outcome);
                engine.handle(self, Event::LocalDone { op, result, checksum });
                if let (Some(message), true) = (posted.and_then(|posted| posted.answer), result >= 0) {
                    engine.handle(self, Event::Message { peer, frame: 0, message });
                }
            }
            Told::Lost { errno } if self.is_connected(peer) => self.end_connection(peer.index(), errno),
            Told::Message { message, payload, arrived } if self.is_connected(peer) => {
                let link = self.peers.get(peer.index() as usize).and_then(Option::as_ref).and_then(|slot| slot.tcp());
                if let Some(link) = link
                    && link.load.taken(weight)
                {
                    self.tcp.commands.push(Command::Look { connection: link.connection });
                }
                if let Message::Done { op, result: 0.., .. } = message
                    && let Some(posted) = self.tcp.posts.get_mut(&op)
                    && posted.reads_from == Some(peer)
                {
                    posted.answer = Some(message);
                    return;
                }
                let frame = match (payload.is_empty(), &arrived) {
                    (true, None) => 0,
                    _ => self.frames.insert(Frame { peer: peer.index(), payload, arrived, ..Frame::default() }),
                };
                engine.handle(self, Event::Message { peer, frame, message });
            }
            // The peer is gone, and with it what it said.
            Told::Lost { .. } | Told::Message { .. } => {}
        }
    }
}

fn transfer_failed(shared: &Shared, guard: &Guard, transfer: OpId, errno: Errno) {
    if guard.end() {
        let told = Told::TransferEnded { transfer, outcome: Err(errno) };
        shared.note(Note::Tcp { peer: Handle::from_bits(0), told });
    }
}

/// What a list request makes the I/O thread do.
fn list_commands(
    connection: u64,
    request: &Request,
    segments: &LocalSegments,
    pairs: &[IndexPair],
    payload: &[u8],
    guard: Arc<Guard>,
) -> Result<Vec<Command>, Errno> {
    let op = OpId::from_bits(request.op);
    let ending = Ending::Operation(op);
    let (mut local, mut remote) = (Vec::with_capacity(pairs.len()), Vec::with_capacity(pairs.len()));
    for pair in pairs {
        let length = segments.length(pair.local)?;
        local.push(Fragment { segment: pair.local, length });
        remote.push(Fragment { segment: pair.remote, length });
    }
    let span = segments.span(&local)?.checked(request.checksum && request.kind == RequestKind::ReadList);
    let mut head = Vec::new();
    if request.kind == RequestKind::ReadList {
        wire::put_read_list(&mut head, request, &remote);
        let landing = Landing { span, guard, ending };
        let frame = OutFrame { head, body: None };
        return Ok(vec![Command::Expect { connection, op: op.bits(), landing }, Command::Frame { connection, frame }]);
    }
    wire::put_write_list(&mut head, request, payload, &remote);
    let body = Some(OutBody { span, guard, ending });
    Ok(vec![Command::Frame { connection, frame: OutFrame { head, body } }])
}

impl LocalSegments {
    /// The memory of fragments of this list, all checked: -ERANGE for a segment that it has not, -EINVAL for one of
    /// another length, -EMSGSIZE for more bytes than an operation may move.
    fn span(&self, table: &[Fragment]) -> Result<Span, Errno> {
        let pieces = table.iter().map(|fragment| self.piece(fragment.segment, fragment.length));
        let span = Span::pieces(table.len(), pieces)?;
        if (1..=MAX_OPERATION_BYTES).contains(&span.left()) { Ok(span) } else { Err(Errno::EMSGSIZE) }
    }
}
