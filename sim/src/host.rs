//! The simulated host: memory is vectors, work ends at once or by an event, and every breach of the contract is noted.

use crate::random::Random;
use dmaplane_engine::{
    AllocRequest, Event, Host, ListShape, LocalPart, Message, OpId, Outcome, Post, Request, RequestKind, Target,
    locate_segment,
};
use dmaplane_ring::abi::{Cqe, Errno, Handle, Run};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Work begun for an operation; its event is to come.
#[derive(Clone, Debug)]
pub struct Started {
    /// The operation.
    pub op: OpId,
    /// What.
    pub work: Work,
    /// The engine has asked for its end.
    pub cancelled: bool,
}

/// Kinds of work.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Makes a buffer of this length.
    Alloc(u32, u64),
    /// Ends a buffer.
    Free(u32),
    /// Looks where a buffer's pages lie.
    Placement(u32),
    /// Makes an export in a slot.
    Export(u32),
    /// Brackets access to a buffer.
    Sync(u32),
    /// Waits for a slot's signal.
    WaitSlot(u32),
    /// Waits until the word at an offset of a buffer is at least a value.
    WaitWord(u32, u64, u32),
    /// Copies runs: list, buffer, offset, count.
    ListLoad(u32, u32, u64, u64),
    /// Connects to that plane.
    Connect(u8),
}

/// What of a posted request still touches memory here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// Nothing, or only the peer does, until it answers.
    Over,
    /// The bytes are still to be taken; a `LocalDone` follows.
    Take,
    /// It never reaches the wire; an error follows.
    Unsent,
    /// Bytes land here, so many so far; a `LocalDone` follows.
    Land(u64),
    /// The engine has abandoned it.
    Abandoned,
}

impl Local {
    /// Nothing here touches memory any more.
    pub fn is_over(self) -> bool {
        matches!(self, Local::Over | Local::Abandoned)
    }
}

/// A request of ours, until its peer is dropped.
#[derive(Clone, Debug)]
pub struct Posted {
    /// Toward which peer.
    pub peer: u32,
    /// What was asked.
    pub request: Request,
    /// What it touches here.
    pub post: Post,
    /// What still does.
    pub local: Local,
    /// The bytes, once taken; `None`: the peer reads them from our memory.
    pub taken: Option<Vec<u8>>,
    /// What the peer has sent for a read.
    pub received: Option<Vec<u8>>,
    /// Index pairs of a list transfer.
    pub pairs: Vec<(u32, u32)>,
}

/// The simulated host's checksum. The engine only carries it, so any function will do that tells bytes apart.
pub fn checksum_of(bytes: &[u8]) -> u32 {
    bytes.iter().fold(1, |sum: u32, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
}

/// A peer's transfer here.
#[derive(Clone, Debug)]
pub struct Job {
    /// The engine's name for it.
    pub transfer: OpId,
    /// Whose.
    pub peer: u32,
    /// What came with the request.
    pub frame: u32,
    /// Our memory.
    pub target: Target,
    /// Bytes come in; otherwise they go out.
    pub inward: bool,
    /// Bytes moved.
    pub moved: u64,
    /// What goes out.
    pub out: Vec<u8>,
    /// The engine has called stop.
    pub stopped: bool,
    /// Its request asks for a checksum.
    pub checked: bool,
    /// Of what has landed, where one is asked for; else 0.
    pub checksum: u32,
}

/// What travels between planes.
#[derive(Clone, Debug)]
pub enum Packet {
    /// A message, and what travels with a request.
    Message(Message, Option<Box<Freight>>),
    /// Bytes of a read.
    Data(u64, Vec<u8>),
}

/// What travels with a request.
#[derive(Clone, Debug)]
pub struct Freight {
    /// As the peer asked.
    pub request: Request,
    /// Notification or SEND.
    pub payload: Vec<u8>,
    /// Index pairs.
    pub pairs: Vec<(u32, u32)>,
    /// The initiator's operation, where its bytes are found.
    pub op: OpId,
    /// The bytes, where they were taken at once.
    pub bytes: Option<Vec<u8>>,
}

/// A connection's end here.
#[derive(Clone, Debug)]
pub struct SimPeer {
    /// Which connection.
    pub connection: usize,
    /// Which end of it.
    pub end: usize,
    /// The engine's handle.
    pub handle: Handle,
    /// Requests' freight by frame.
    pub frames: BTreeMap<u32, Freight>,
    /// The engine has ended it.
    pub ended: bool,
    /// `PeerGone` has been handled.
    pub gone: bool,
}

/// A ring as the host has it.
#[derive(Clone, Debug, Default)]
pub struct SimRing {
    /// CQEs that the client has not reaped.
    pub cq: VecDeque<Cqe>,
    /// Its size.
    pub entries: u32,
}

/// How a host behaves, in percent.
#[derive(Clone, Copy, Debug)]
pub struct Temper {
    /// Work that is done at once.
    pub at_once: usize,
    /// Work that fails for want of memory.
    pub fails: usize,
    /// Requests that cannot be sent.
    pub post_fails: usize,
    /// Requests whose bytes the peer reads from our memory, as on shm.
    pub shared_memory: usize,
}

/// The host of one plane.
#[derive(Clone, Debug)]
pub struct SimHost {
    /// The clock.
    pub now_ns: u64,
    /// Its dice.
    pub random: Random,
    /// How it behaves.
    pub temper: Temper,
    /// Rings by index.
    pub rings: Vec<SimRing>,
    /// CQEs in the order of their writing, for the model.
    pub log: Vec<(u32, Cqe)>,
    /// Buffers' bytes; `None` while being made or ended.
    pub buffers: BTreeMap<u32, Option<Vec<u8>>>,
    /// Lists' runs.
    pub lists: BTreeMap<u32, (Vec<ListShape>, bool)>,
    /// Descriptor slots.
    pub slots: BTreeSet<u32>,
    /// Listeners.
    pub listeners: BTreeSet<u32>,
    /// Connections not adopted: connection and end.
    pub pending: BTreeMap<u32, (usize, usize)>,
    next_pending: u32,
    next_frame: u32,
    /// Peers.
    pub peers: BTreeMap<u32, SimPeer>,
    /// Work begun.
    pub started: Vec<Started>,
    /// Requests of ours.
    pub posted: BTreeMap<u64, Posted>,
    /// Transfers of peers.
    pub jobs: Vec<Job>,
    /// Events that the engine has not handled.
    pub events: Vec<Event>,
    /// What goes on the wire: connection, the sender's end, packet.
    pub outbox: Vec<(usize, usize, Packet)>,
    /// Connections to be ended.
    pub hang_up: Vec<usize>,
    /// Breaches of the contract by the engine.
    pub breaches: Vec<String>,
}

impl SimHost {
    /// A host with these dice.
    pub fn new(random: Random, temper: Temper) -> Self {
        SimHost {
            now_ns: 1,
            random,
            temper,
            rings: Vec::new(),
            log: Vec::new(),
            buffers: BTreeMap::new(),
            lists: BTreeMap::new(),
            slots: BTreeSet::new(),
            listeners: BTreeSet::new(),
            pending: BTreeMap::new(),
            next_pending: 1,
            next_frame: 1,
            peers: BTreeMap::new(),
            started: Vec::new(),
            posted: BTreeMap::new(),
            jobs: Vec::new(),
            events: Vec::new(),
            outbox: Vec::new(),
            hang_up: Vec::new(),
            breaches: Vec::new(),
        }
    }

    /// Notes a breach.
    pub fn breach(&mut self, what: impl Into<String>) {
        self.breaches.push(what.into());
    }

    /// A name for a connection that the engine may adopt.
    pub fn offer(&mut self, connection: usize, end: usize) -> u32 {
        let pending = self.next_pending;
        self.next_pending += 1;
        self.pending.insert(pending, (connection, end));
        pending
    }

    /// A name for what came with a request.
    pub fn frame(&mut self, peer: u32, freight: Freight) -> u32 {
        let frame = self.next_frame;
        self.next_frame += 1;
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.frames.insert(frame, freight);
        }
        frame
    }

    /// A live buffer's bytes; noted when there are none.
    pub fn bytes(&mut self, buffer: u32, why: &str) -> Option<&mut Vec<u8>> {
        if !matches!(self.buffers.get(&buffer), Some(Some(_))) {
            self.breach(format!("{why}: buffer {buffer} is not live"));
        }
        self.buffers.get_mut(&buffer).and_then(Option::as_mut)
    }

    fn range(&mut self, buffer: u32, offset: u64, length: u64, why: &str) -> Option<&mut [u8]> {
        let bytes = self.bytes(buffer, why)?;
        let length_now = bytes.len();
        let end = offset.checked_add(length).filter(|&end| end <= length_now as u64);
        let Some(end) = end else {
            self.breach(format!("{why}: {offset}+{length} outside buffer {buffer} of {length_now}"));
            return None;
        };
        self.bytes(buffer, why)?.get_mut(offset as usize..end as usize)
    }

    /// Copies out.
    pub fn peek(&mut self, buffer: u32, offset: u64, length: u64, why: &str) -> Vec<u8> {
        self.range(buffer, offset, length, why).map(|bytes| bytes.to_vec()).unwrap_or_default()
    }

    /// Copies in.
    pub fn poke(&mut self, buffer: u32, offset: u64, bytes: &[u8], why: &str) {
        if let Some(range) = self.range(buffer, offset, bytes.len() as u64, why) {
            range.copy_from_slice(bytes);
        }
    }

    /// The fragments (buffer, offset, length) of list segments; `None` when there is no such segment.
    pub fn fragments(&mut self, list: u32, segments: impl Iterator<Item = u32>) -> Option<Vec<(u32, u64, u32)>> {
        match self.lists.get(&list) {
            Some((shapes, true)) => segments.map(|segment| locate_segment(shapes, segment)).collect(),
            _ => {
                self.breach(format!("list {list} is not sealed"));
                None
            }
        }
    }

    /// Where the bytes of one of our requests lie.
    pub fn local_fragments(&mut self, posted: &Posted) -> Option<Vec<(u32, u64, u32)>> {
        match posted.post {
            Post::Range { buffer, offset, length } => Some(vec![(buffer, offset, length as u32)]),
            Post::List { list, .. } => self.fragments(list, posted.pairs.iter().map(|pair| pair.0)),
        }
    }

    /// Where the bytes of a peer's transfer lie.
    pub fn target_fragments(&mut self, target: &Target, pairs: &[(u32, u32)]) -> Option<Vec<(u32, u64, u32)>> {
        match *target {
            Target::Range { buffer, offset, length } => Some(vec![(buffer, offset, length as u32)]),
            Target::List { list, .. } => self.fragments(list, pairs.iter().map(|pair| pair.1)),
        }
    }

    /// Copies `from..from + length` of what the fragments name, in their order.
    pub fn gather(&mut self, fragments: &[(u32, u64, u32)], from: u64, length: u64, why: &str) -> Vec<u8> {
        let mut all = Vec::new();
        for &(buffer, offset, length) in fragments {
            all.extend(self.peek(buffer, offset, length.into(), why));
        }
        all.get(from as usize..(from + length) as usize).map(<[u8]>::to_vec).unwrap_or_default()
    }

    /// Copies bytes to `from` and on of what the fragments name.
    pub fn scatter(&mut self, fragments: &[(u32, u64, u32)], mut from: u64, mut bytes: &[u8], why: &str) {
        for &(buffer, offset, length) in fragments {
            if bytes.is_empty() {
                return;
            }
            if from >= length.into() {
                from -= u64::from(length);
                continue;
            }
            let here = bytes.len().min((u64::from(length) - from) as usize);
            self.poke(buffer, offset + from, &bytes[..here], why);
            bytes = &bytes[here..];
            from = 0;
        }
    }

    fn begin(&mut self, op: OpId, work: Work) -> Outcome {
        if self.started.iter().any(|started| started.op == op) || self.has_event(op) {
            self.breach(format!("{op:?} started twice"));
        }
        let started = Started { op, work, cancelled: false };
        let waits = matches!(work, Work::WaitSlot(_) | Work::WaitWord(..) | Work::Connect(_));
        if !waits && self.random.percent(self.temper.at_once) {
            let (result, word0, word1) = self.carry_out(&started);
            return Outcome::Done { result, word0, word1 };
        }
        self.started.push(started);
        Outcome::Started
    }

    /// Does the work and says what came of it.
    pub fn carry_out(&mut self, started: &Started) -> (i32, u64, u64) {
        let fails = self.random.percent(self.temper.fails);
        let canceled = (Errno::ECANCELED.as_result(), 0, 0);
        match started.work {
            Work::Alloc(buffer, length) => {
                if started.cancelled || fails {
                    self.buffers.remove(&buffer);
                    return if fails { (Errno::ENOMEM.as_result(), 0, 0) } else { canceled };
                }
                let length = length.next_multiple_of(64);
                self.buffers.insert(buffer, Some(vec![0; length as usize]));
                (0, length, 0)
            }
            Work::Free(buffer) => {
                self.buffers.remove(&buffer);
                (0, 0, 0)
            }
            Work::Placement(buffer) => {
                self.bytes(buffer, "placement");
                (0, 1, 1)
            }
            Work::Export(slot) if fails => {
                self.slots.remove(&slot);
                (Errno::EOPNOTSUPP.as_result(), 0, 0)
            }
            Work::Export(_) => (0, 0, 0),
            Work::Sync(buffer) => {
                self.bytes(buffer, "sync");
                (0, 0, 0)
            }
            Work::WaitSlot(_) | Work::WaitWord(..) if started.cancelled => canceled,
            Work::WaitSlot(slot) => {
                if !self.slots.contains(&slot) {
                    self.breach(format!("waits on slot {slot}, which is not"));
                }
                (0, 0, 0)
            }
            Work::WaitWord(buffer, offset, _) => {
                self.peek(buffer, offset, 4, "wait on a word");
                (0, 0, 0)
            }
            Work::ListLoad(list, buffer, offset, runs) => {
                let bytes = self.peek(buffer, offset, runs * Run::BYTES, "list load");
                if fails || started.cancelled {
                    return (Errno::ENOMEM.as_result(), 0, 0);
                }
                let shapes = bytes.chunks_exact(Run::BYTES as usize).map(|chunk| {
                    let mut words = [0u64; Run::WORDS];
                    for (word, bytes) in words.iter_mut().zip(chunk.chunks_exact(8)) {
                        *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
                    }
                    ListShape { first_segment: 0, run: Run::from_words(words) }
                });
                let shapes = shapes.collect();
                self.lists.insert(list, (shapes, false));
                (0, 0, 0)
            }
            Work::Connect(_) => (Errno::ECONNREFUSED.as_result(), 0, 0),
        }
    }

    fn has_event(&self, op: OpId) -> bool {
        self.events.iter().any(|event| match *event {
            Event::Finished { op: named, .. } | Event::LocalDone { op: named, .. } => named == op,
            Event::Connected { op: named, .. } => named == op,
            _ => false,
        })
    }

    /// Transfers of peers have names of their own, which may be the same bits.
    fn has_transfer_event(&self, name: OpId) -> bool {
        self.events.iter().any(|event| matches!(*event, Event::TransferDone { transfer, .. } if transfer == name))
    }

    fn transfer(
        &mut self,
        transfer: OpId,
        peer: u32,
        frame: u32,
        target: &Target,
        inward: bool,
        checked: bool,
    ) -> Outcome {
        if self.jobs.iter().any(|job| job.transfer == transfer) {
            self.breach(format!("transfer {transfer:?} begun twice"));
        }
        let known = self.peers.get(&peer).is_some_and(|peer| peer.frames.contains_key(&frame));
        if !known {
            self.breach(format!("transfer {transfer:?} of a frame {frame} that is not"));
        }
        if self.random.percent(self.temper.fails) {
            return Outcome::Done { result: Errno::EIO.as_result(), word0: 0, word1: 0 };
        }
        self.jobs.push(Job {
            transfer,
            peer,
            frame,
            target: *target,
            inward,
            moved: 0,
            out: Vec::new(),
            stopped: false,
            checked,
            checksum: 0,
        });
        Outcome::Started
    }

    /// Index pairs as they lie in a buffer.
    fn pairs(&mut self, buffer: u32, offset: u64, count: u64) -> Vec<(u32, u32)> {
        let bytes = self.peek(buffer, offset, count * 8, "index pairs");
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap_or_default());
        bytes.chunks_exact(8).map(|pair| (word(&pair[..4]), word(&pair[4..]))).collect()
    }
}

impl Host for SimHost {
    fn now_ns(&mut self) -> u64 {
        self.now_ns
    }

    fn cq_free(&mut self, ring: u32) -> u32 {
        match self.rings.get(ring as usize) {
            Some(ring) => ring.entries.saturating_sub(ring.cq.len() as u32),
            None => 0,
        }
    }

    fn complete(&mut self, ring: u32, cqe: Cqe) {
        let Some(state) = self.rings.get_mut(ring as usize) else {
            return self.breach(format!("a CQE for ring {ring}, which is not"));
        };
        state.cq.push_back(cqe);
        let (waiting, entries) = (state.cq.len(), state.entries as usize);
        if waiting > entries {
            self.breach(format!("RES-1: {waiting} CQEs in the {entries} entries of ring {ring}'s CQ"));
        }
        self.log.push((ring, cqe));
    }

    fn alloc(&mut self, op: OpId, buffer: u32, request: &AllocRequest) -> Outcome {
        if self.buffers.insert(buffer, None).is_some() {
            self.breach(format!("alloc of buffer {buffer}, which is"));
        }
        self.begin(op, Work::Alloc(buffer, request.length_bytes))
    }

    fn free(&mut self, op: Option<OpId>, buffer: u32) -> Outcome {
        self.bytes(buffer, "free");
        if let Some(bytes) = self.buffers.get_mut(&buffer) {
            *bytes = None;
        }
        match op {
            Some(op) => self.begin(op, Work::Free(buffer)),
            None => {
                self.buffers.remove(&buffer);
                Outcome::done(0, 0)
            }
        }
    }

    fn placement(&mut self, op: OpId, buffer: u32, _node: u32) -> Outcome {
        self.bytes(buffer, "placement");
        self.begin(op, Work::Placement(buffer))
    }

    fn export(&mut self, op: OpId, buffer: u32, slot: u32) -> Outcome {
        self.bytes(buffer, "export");
        if !self.slots.insert(slot) {
            self.breach(format!("export into slot {slot}, which is"));
        }
        self.begin(op, Work::Export(slot))
    }

    fn close_slot(&mut self, slot: u32) {
        if !self.slots.remove(&slot) {
            self.breach(format!("close of slot {slot}, which is not"));
        }
    }

    fn sync(&mut self, op: OpId, buffer: u32, _end: bool) -> Outcome {
        self.bytes(buffer, "sync");
        self.begin(op, Work::Sync(buffer))
    }

    fn wait_slot(&mut self, op: OpId, slot: u32) -> Outcome {
        if !self.slots.contains(&slot) || self.started.iter().any(|s| matches!(s.work, Work::Export(s) if s == slot)) {
            self.breach(format!("a wait on slot {slot}, which is not"));
        }
        self.begin(op, Work::WaitSlot(slot))
    }

    fn wait_word(&mut self, op: OpId, buffer: u32, offset: u64, value: u32) -> Outcome {
        self.peek(buffer, offset, 4, "wait on a word");
        self.begin(op, Work::WaitWord(buffer, offset, value))
    }

    fn cancel_work(&mut self, op: OpId) {
        let reported = self.has_event(op);
        match self.started.iter_mut().find(|started| started.op == op) {
            Some(started) => started.cancelled = true,
            None if reported => {}
            None => self.breach(format!("cancel of work {op:?}, which is not")),
        }
    }

    fn read_bytes(&mut self, buffer: u32, offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        match self.range(buffer, offset, bytes.len() as u64, "read_bytes") {
            Some(range) => bytes.copy_from_slice(range),
            None => return Err(Errno::EIO),
        }
        Ok(())
    }

    fn write_bytes(&mut self, buffer: u32, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.poke(buffer, offset, bytes, "write_bytes");
        Ok(())
    }

    fn list_load(&mut self, op: OpId, list: u32, buffer: u32, offset: u64, runs: u64) -> Outcome {
        if self.lists.insert(list, (Vec::new(), false)).is_some() {
            self.breach(format!("list_load of list {list}, which is"));
        }
        self.begin(op, Work::ListLoad(list, buffer, offset, runs))
    }

    fn list_run(&mut self, list: u32, run: u32) -> Option<Run> {
        match self.lists.get(&list) {
            Some((shapes, _)) => shapes.get(run as usize).map(|shape| shape.run),
            None => {
                self.breach(format!("list_run of list {list}, which is not"));
                None
            }
        }
    }

    fn list_seal(&mut self, list: u32) {
        match self.lists.get_mut(&list) {
            Some((shapes, sealed @ false)) => {
                *sealed = true;
                let mut first = 0;
                for shape in shapes {
                    shape.first_segment = first;
                    first += shape.run.count;
                }
            }
            _ => self.breach(format!("list_seal of list {list}")),
        }
    }

    fn list_drop(&mut self, list: u32) {
        if self.lists.remove(&list).is_none() {
            self.breach(format!("list_drop of list {list}, which is not"));
        }
    }

    fn connect(&mut self, op: OpId, buffer: u32, offset: u64, length: u64) -> Outcome {
        let plane = self.peek(buffer, offset, length, "connect").first().copied().unwrap_or(0);
        if self.random.percent(self.temper.fails) {
            return Outcome::failed(Errno::ECONNREFUSED);
        }
        self.begin(op, Work::Connect(plane))
    }

    fn adopt(&mut self, pending: u32, handle: Handle) {
        let Some((connection, end)) = self.pending.remove(&pending) else {
            return self.breach(format!("adopt of {pending}, which is not pending"));
        };
        let peer = SimPeer { connection, end, handle, frames: BTreeMap::new(), ended: false, gone: false };
        if self.peers.insert(handle.index(), peer).is_some() {
            self.breach(format!("adopt as peer {}, which is", handle.index()));
        }
    }

    fn reject(&mut self, pending: u32) {
        match self.pending.remove(&pending) {
            Some((connection, _)) => self.hang_up.push(connection),
            None => self.breach(format!("reject of {pending}, which is not pending")),
        }
    }

    fn disconnect(&mut self, peer: u32) {
        let twice = match self.peers.get_mut(&peer) {
            Some(peer) => {
                self.hang_up.push(peer.connection);
                std::mem::replace(&mut peer.ended, true)
            }
            None => return self.breach(format!("disconnect of peer {peer}, which is not")),
        };
        if twice {
            self.breach(format!("disconnect of peer {peer}, twice"));
        }
    }

    fn drop_peer(&mut self, peer: u32) {
        let Some(state) = self.peers.remove(&peer) else {
            return self.breach(format!("drop of peer {peer}, which is not"));
        };
        if !state.gone {
            self.breach(format!("drop of peer {peer} before it is gone"));
        }
        if !state.frames.is_empty() {
            self.breach(format!("peer {peer} dropped with frames {:?}", state.frames.keys()));
        }
        let jobs = self.jobs.iter().filter(|job| job.peer == peer).count();
        let local = self.posted.values().filter(|posted| posted.peer == peer && !posted.local.is_over()).count();
        if jobs + local > 0 {
            self.breach(format!("peer {peer} dropped with {jobs} transfers and {local} local parts in flight"));
        }
        self.posted.retain(|_, posted| posted.peer != peer);
    }

    fn close_listener(&mut self, listener: u32) {
        if !self.listeners.remove(&listener) {
            self.breach(format!("close of listener {listener}, which is not"));
        }
    }

    fn send(&mut self, peer: u32, message: &Message) {
        match self.peers.get(&peer) {
            Some(peer) => self.outbox.push((peer.connection, peer.end, Packet::Message(*message, None))),
            None => self.breach(format!("send to peer {peer}, which is not")),
        }
    }

    fn post(&mut self, peer: u32, op: OpId, request: &Request, post: &Post) -> Result<LocalPart, Errno> {
        let Some(state) = self.peers.get(&peer).cloned() else {
            self.breach(format!("post to peer {peer}, which is not"));
            return Err(Errno::ENOTCONN);
        };
        if state.gone {
            self.breach(format!("post to peer {peer}, which is gone"));
        }
        if self.posted.contains_key(&op.bits()) {
            self.breach(format!("{op:?} posted twice"));
        }
        if self.random.percent(self.temper.post_fails) {
            return Err(Errno::EIO);
        }
        let (pairs, payload) = match *post {
            Post::Range { buffer, offset, length } if request.kind == RequestKind::Send => {
                (Vec::new(), self.peek(buffer, offset, length, "send"))
            }
            Post::Range { .. } => (Vec::new(), Vec::new()),
            Post::List { index_buffer, index_offset, count, notification_offset, notification_bytes, .. } => (
                self.pairs(index_buffer, index_offset, count),
                self.peek(index_buffer, notification_offset, notification_bytes.into(), "notification"),
            ),
        };
        let mut posted = Posted {
            peer,
            request: *request,
            post: *post,
            local: Local::Over,
            taken: None,
            received: None,
            pairs: pairs.clone(),
        };
        // Indices are the client's own; a wrong one is an error of this operation alone.
        let Some(fragments) = self.local_fragments(&posted) else {
            return Err(Errno::ERANGE);
        };
        let all: u64 = fragments.iter().map(|fragment| u64::from(fragment.2)).sum();
        let reads = matches!(request.kind, RequestKind::Read | RequestKind::ReadList);
        let mut bytes = None;
        if request.kind == RequestKind::Send {
            posted.taken = Some(Vec::new());
        } else if reads {
            posted.local = Local::Land(0);
        } else if self.random.percent(self.temper.fails) {
            posted.local = Local::Unsent;
        } else if self.random.percent(self.temper.shared_memory) {
            // The peer reads from our memory until it answers.
        } else if self.random.percent(50) {
            posted.local = Local::Take;
        } else {
            bytes = Some(self.gather(&fragments, 0, all, "post"));
            posted.taken = bytes.clone();
        }
        let local = posted.local;
        self.posted.insert(op.bits(), posted);
        if local != Local::Unsent {
            let freight = Freight { request: *request, payload, pairs, op, bytes };
            let packet = Packet::Message(Message::Request(*request), Some(Box::new(freight)));
            self.outbox.push((state.connection, state.end, packet));
        }
        Ok(if local == Local::Over { LocalPart::Done } else { LocalPart::Started })
    }

    fn abandon(&mut self, op: OpId) {
        let known = self.has_event(op);
        match self.posted.get_mut(&op.bits()) {
            Some(posted) if !posted.local.is_over() => {
                posted.local = Local::Abandoned;
                self.events.push(Event::LocalDone { op, result: Errno::ECANCELED.as_result(), checksum: 0 });
            }
            Some(_) if known => {}
            _ => self.breach(format!("abandon of {op:?}, which has no local part in flight")),
        }
    }

    fn copy_in(&mut self, transfer: OpId, peer: u32, frame: u32, target: &Target, checksum: bool) -> Outcome {
        self.transfer(transfer, peer, frame, target, true, checksum)
    }

    fn serve(&mut self, transfer: OpId, peer: u32, frame: u32, source: &Target) -> Outcome {
        self.transfer(transfer, peer, frame, source, false, false)
    }

    fn stop(&mut self, transfer: OpId) {
        let reported = self.has_transfer_event(transfer);
        match self.jobs.iter_mut().find(|job| job.transfer == transfer) {
            Some(job) => job.stopped = true,
            None if reported => {}
            None => self.breach(format!("stop of transfer {transfer:?}, which is not")),
        }
    }

    fn deliver(&mut self, peer: u32, frame: u32, buffer: u32, offset: u64, length: u32) -> Result<(), Errno> {
        let payload = self.peers.get(&peer).and_then(|peer| peer.frames.get(&frame)).map(|f| f.payload.clone());
        match payload {
            Some(payload) if payload.len() == length as usize => self.poke(buffer, offset, &payload, "deliver"),
            _ => self.breach(format!("deliver of {length} bytes of frame {frame}, which has not that many")),
        }
        Ok(())
    }

    fn drop_frame(&mut self, peer: u32, frame: u32) {
        if frame == 0 {
            return;
        }
        let dropped = self.peers.get_mut(&peer).and_then(|peer| peer.frames.remove(&frame));
        if dropped.is_none() {
            self.breach(format!("drop of frame {frame} of peer {peer}, which is not"));
        }
    }
}
