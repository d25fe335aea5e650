//! Everything that happens outside the engines, one thing at a time, in any order.

use crate::host::{Job, Local, Packet, Started, Work, checksum_of};
use crate::world::{Connection, Fault, World};
use dmaplane_engine::{Event, Message, Post};
use dmaplane_ring::abi::{Errno, HandleKind};
use std::collections::VecDeque;

/// Bytes that a copy moves before the engine may have its turn.
const SLICE_BYTES: u64 = 48;

/// Something that can happen.
#[derive(Clone, Copy, Debug)]
pub enum Move {
    /// An engine handles one of its events.
    Event(usize, usize),
    /// Work ends.
    Work(usize, usize),
    /// A peer's transfer goes on by a slice.
    Job(usize, usize),
    /// A request's local part goes on by a slice.
    Local(usize, u64),
    /// A packet arrives.
    Packet(usize, usize),
    /// A plane hears that a connection is over.
    Gone(usize, u32),
    /// An engine goes on with its own work.
    Step(usize),
}

/// Where a transfer's bytes come from.
enum Source {
    Bytes(Vec<u8>),
    NotYet,
    Broken,
}

impl World {
    /// What can happen now.
    pub fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (number, plane) in self.planes.iter().enumerate() {
            let host = &plane.host;
            moves.extend((0..host.events.len()).map(|event| Move::Event(number, event)));
            for (index, started) in host.started.iter().enumerate() {
                let signalled = self.signalled || started.cancelled;
                let ends = match started.work {
                    Work::WaitSlot(_) => signalled,
                    Work::WaitWord(buffer, offset, value) => signalled || word(host, buffer, offset) >= value,
                    _ => true,
                };
                if ends {
                    moves.push(Move::Work(number, index));
                }
            }
            moves.extend((0..host.jobs.len()).map(|job| Move::Job(number, job)));
            for (&op, posted) in &host.posted {
                let goes_on = match posted.local {
                    Local::Over | Local::Abandoned => false,
                    Local::Land(_) => posted.received.is_some(),
                    Local::Take | Local::Unsent => true,
                };
                if goes_on {
                    moves.push(Move::Local(number, op));
                }
            }
            for (&index, peer) in &host.peers {
                let connection = &self.connections[peer.connection];
                if !connection.alive && !peer.gone {
                    moves.push(Move::Gone(number, index));
                }
                if !connection.queues[peer.end].is_empty() {
                    moves.push(Move::Packet(number, peer.connection * 2 + peer.end));
                }
            }
            if plane.engine.has_work() {
                moves.push(Move::Step(number));
            }
        }
        moves
    }

    /// One of the things that can happen does. `false`: there was none.
    pub fn step(&mut self) -> Result<bool, Fault> {
        let moves = self.moves();
        if moves.is_empty() {
            return Ok(false);
        }
        let chosen = moves[self.random.below(moves.len())];
        self.do_move(chosen)?;
        Ok(true)
    }

    /// Does one thing.
    pub fn do_move(&mut self, chosen: Move) -> Result<(), Fault> {
        self.report.moves += 1;
        let plane = match chosen {
            Move::Event(plane, index) => {
                let event = self.planes[plane].host.events.swap_remove(index);
                self.handle(plane, event);
                plane
            }
            Move::Work(plane, index) => {
                let started = self.planes[plane].host.started.swap_remove(index);
                self.work_ends(plane, &started);
                plane
            }
            Move::Job(plane, index) => {
                self.job_goes_on(plane, index)?;
                plane
            }
            Move::Local(plane, op) => {
                self.local_goes_on(plane, op)?;
                plane
            }
            Move::Packet(plane, queue) => {
                self.packet_arrives(plane, queue / 2, queue % 2)?;
                plane
            }
            Move::Gone(plane, peer) => {
                if let Some(state) = self.planes[plane].host.peers.get_mut(&peer) {
                    state.gone = true;
                    let event = Event::PeerGone { peer: state.handle, errno: Errno::ECONNRESET };
                    self.handle(plane, event);
                }
                plane
            }
            Move::Step(plane) => {
                let state = &mut self.planes[plane];
                state.engine.step(&mut state.host);
                plane
            }
        };
        self.after(plane)
    }

    fn handle(&mut self, plane: usize, event: Event) {
        let state = &mut self.planes[plane];
        state.engine.handle(&mut state.host, event);
    }

    fn work_ends(&mut self, plane: usize, started: &Started) {
        let op = started.op;
        if let Work::Connect(number) = started.work
            && (!started.cancelled || self.random.percent(50))
        {
            let target = usize::from(number) % self.planes.len();
            let listens = !self.planes[target].host.listeners.is_empty();
            if listens {
                let connection = self.connections.len();
                let queues = [VecDeque::new(), VecDeque::new()];
                self.connections.push(Connection { planes: [plane, target], queues, alive: true });
                let info = self.planes[target].engine.info();
                let ours = self.planes[plane].host.offer(connection, 0);
                self.planes[plane].host.events.push(Event::Connected { op, pending: ours, info });
                let info = self.planes[plane].engine.info();
                let listener = self.planes[target].listener;
                let theirs = self.planes[target].host.offer(connection, 1);
                self.planes[target].host.events.push(Event::Incoming { listener, pending: theirs, info });
                return;
            }
        }
        let host = &mut self.planes[plane].host;
        let (mut result, word0, word1) = host.carry_out(started);
        if started.cancelled && matches!(started.work, Work::Connect(_)) {
            result = Errno::ECANCELED.as_result();
        }
        host.events.push(Event::Finished { op, result, word0, word1 });
    }

    fn packet_arrives(&mut self, plane: usize, connection: usize, end: usize) -> Result<(), Fault> {
        let Some(packet) = self.connections[connection].queues[end].pop_front() else {
            return Ok(());
        };
        let host = &mut self.planes[plane].host;
        let found = host.peers.iter().find(|(_, peer)| peer.connection == connection && peer.end == end);
        let Some((&index, handle)) = found.map(|(index, peer)| (index, peer.handle)) else {
            return Ok(());
        };
        match packet {
            Packet::Data(op, bytes) => {
                if let Some(posted) = host.posted.get_mut(&op)
                    && matches!(posted.local, Local::Land(_))
                {
                    posted.received = Some(bytes);
                }
            }
            Packet::Message(message, freight) => {
                if Message::decode(&message.encode()) != Some(message) {
                    return Err(format!("WIRE-2: {message:?} does not survive the wire"));
                }
                let frame = freight.map_or(0, |freight| host.frame(index, *freight));
                self.handle(plane, Event::Message { peer: handle, frame, message });
            }
        }
        Ok(())
    }

    /// A slice of a peer's transfer.
    fn job_goes_on(&mut self, plane: usize, index: usize) -> Result<(), Fault> {
        let mut job = self.planes[plane].host.jobs.swap_remove(index);
        let host = &mut self.planes[plane].host;
        let Some(peer) = host.peers.get(&job.peer).cloned() else {
            return Err(format!("plane {plane}: a transfer outlives its peer: {job:?}"));
        };
        let Some(freight) = peer.frames.get(&job.frame).cloned() else {
            return Err(format!("plane {plane}: a transfer outlives its frame: {job:?}"));
        };
        let alive = self.connections[peer.connection].alive;
        if job.stopped || !alive {
            let errno = if job.stopped { Errno::ECANCELED } else { Errno::ECONNRESET };
            return self.job_ends(plane, &job, errno.as_result());
        }
        if self.planes[plane].model.revoked.contains(&freight.request.lease) {
            return Err(format!("plane {plane}: LSE-12: a late access under a revoked lease: {:?}", freight.request));
        }
        let host = &mut self.planes[plane].host;
        let Some(fragments) = host.target_fragments(&job.target, &freight.pairs) else {
            return self.job_ends(plane, &job, Errno::ERANGE.as_result());
        };
        let all: u64 = fragments.iter().map(|fragment| u64::from(fragment.2)).sum();
        let slice = SLICE_BYTES.min(all - job.moved);
        if job.inward {
            let source = match freight.bytes {
                Some(bytes) => Source::Bytes(bytes),
                None => self.source(peer.connection, peer.end, freight.op.bits())?,
            };
            let bytes = match source {
                Source::Bytes(bytes) => bytes,
                Source::NotYet => {
                    self.planes[plane].host.jobs.push(job);
                    return Ok(());
                }
                Source::Broken => return self.job_ends(plane, &job, Errno::EIO.as_result()),
            };
            if bytes.len() as u64 != all {
                return self.job_ends(plane, &job, Errno::EINVAL.as_result());
            }
            let part = &bytes[job.moved as usize..(job.moved + slice) as usize];
            self.planes[plane].host.scatter(&fragments, job.moved, part, "copy_in");
            if job.checked && job.moved + slice == all {
                job.checksum = checksum_of(&bytes);
            }
        } else {
            let part = host.gather(&fragments, job.moved, slice, "serve");
            job.out.extend(part);
        }
        job.moved += slice;
        if job.moved < all {
            self.planes[plane].host.jobs.push(job);
            return Ok(());
        }
        if !job.inward {
            let data = Packet::Data(freight.op.bits(), job.out.clone());
            self.planes[plane].host.outbox.push((peer.connection, peer.end, data));
        }
        self.job_ends(plane, &job, 0)
    }

    fn job_ends(&mut self, plane: usize, job: &Job, result: i32) -> Result<(), Fault> {
        let bytes = if result < 0 { 0 } else { job.moved };
        let event = Event::TransferDone { transfer: job.transfer, result, bytes, checksum: job.checksum };
        self.planes[plane].host.events.push(event);
        Ok(())
    }

    /// What the initiator, at the other end, has to send.
    fn source(&mut self, connection: usize, end: usize, op: u64) -> Result<Source, Fault> {
        let plane = self.connections[connection].planes[1 - end];
        let state = &mut self.planes[plane];
        let Some(posted) = state.host.posted.get(&op).cloned() else {
            return Ok(Source::Broken);
        };
        match (posted.local, &posted.taken) {
            (_, Some(bytes)) => Ok(Source::Bytes(bytes.clone())),
            (Local::Take, None) => Ok(Source::NotYet),
            (Local::Over, None) => {
                self.check_in_flight(plane, &posted.request, &posted.post)?;
                let host = &mut self.planes[plane].host;
                let fragments = host.local_fragments(&posted).unwrap_or_default();
                let all = fragments.iter().map(|fragment| u64::from(fragment.2)).sum();
                Ok(Source::Bytes(host.gather(&fragments, 0, all, "the peer reads")))
            }
            _ => Ok(Source::Broken),
        }
    }

    /// A terminal CQE means that the operation no longer touches its memory.
    fn check_in_flight(&self, plane: usize, request: &dmaplane_engine::Request, post: &Post) -> Result<(), Fault> {
        let (object, offset) = match *post {
            Post::Range { buffer, offset, .. } => ((HandleKind::Buffer, buffer), offset),
            Post::List { list, index_offset, .. } => ((HandleKind::List, list), index_offset),
        };
        if self.planes[plane].model.may_touch(request, object, offset) {
            Ok(())
        } else {
            Err(format!("plane {plane}: XFR-2: memory is touched after the terminal CQE of {request:?}"))
        }
    }

    /// A slice of what a request of ours touches here.
    fn local_goes_on(&mut self, plane: usize, op: u64) -> Result<(), Fault> {
        let Some(mut posted) = self.planes[plane].host.posted.get(&op).cloned() else {
            return Ok(());
        };
        let done = |result| Event::LocalDone {
            op: dmaplane_engine::OpId::from_bits(op),
            result,
            checksum: posted.received.as_deref().map_or(0, checksum_of),
        };
        let event = match posted.local {
            Local::Over | Local::Abandoned => None,
            Local::Unsent => {
                posted.local = Local::Over;
                Some(done(Errno::EIO.as_result()))
            }
            Local::Take => {
                self.check_in_flight(plane, &posted.request, &posted.post)?;
                let host = &mut self.planes[plane].host;
                let fragments = host.local_fragments(&posted).unwrap_or_default();
                let all = fragments.iter().map(|fragment| u64::from(fragment.2)).sum();
                posted.taken = Some(host.gather(&fragments, 0, all, "take"));
                posted.local = Local::Over;
                Some(done(0))
            }
            Local::Land(landed) => {
                self.check_in_flight(plane, &posted.request, &posted.post)?;
                let host = &mut self.planes[plane].host;
                let fragments = host.local_fragments(&posted).unwrap_or_default();
                let bytes = posted.received.as_deref().unwrap_or_default();
                let end = (landed + SLICE_BYTES).min(bytes.len() as u64);
                host.scatter(&fragments, landed, &bytes[landed as usize..end as usize], "land");
                if end == bytes.len() as u64 {
                    posted.local = Local::Over;
                    Some(done(0))
                } else {
                    posted.local = Local::Land(end);
                    None
                }
            }
        };
        let host = &mut self.planes[plane].host;
        host.events.extend(event);
        host.posted.insert(op, posted);
        Ok(())
    }
}

fn word(host: &crate::host::SimHost, buffer: u32, offset: u64) -> u32 {
    let bytes = host.buffers.get(&buffer).and_then(Option::as_ref);
    let word = bytes.and_then(|bytes| bytes.get(offset as usize..offset as usize + 4));
    word.map_or(0, |word| u32::from_le_bytes(word.try_into().unwrap_or_default()))
}
