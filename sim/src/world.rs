//! Planes and what a client does with them.

use crate::compose::{MIXES, Preparation, Surroundings};
use crate::host::{Packet, SimHost, SimRing, Temper};
use crate::model::Model;
use crate::random::Random;
use crate::storage::{SimEngine, VecMemory};
use dmaplane_engine::{Engine, Identity, Limits, Stop};
use dmaplane_ring::abi::{Cqe, Handle, HandleKind, Opcode, Sqe};
use std::collections::{BTreeMap, VecDeque};

/// What was wrong.
pub type Fault = String;

/// Small tables, so that every limit is met.
pub const LIMITS: Limits = Limits {
    rings: 3,
    operations: 128,
    buffers: 8,
    buffer_bytes: 4096,
    lists: 4,
    leases: 8,
    imports: 8,
    peers: 3,
    listeners: 1,
    slots: 4,
    inbound_per_peer: 2,
};

/// CQ entries of the two rings that a plane begins with.
pub const CQ_ENTRIES: [u32; 2] = [16, 64];
const SQ_ENTRIES: usize = 64;

/// One plane: engine, host and the model of its client.
#[derive(Clone)]
pub struct Plane {
    /// The engine under test.
    pub engine: SimEngine,
    /// Its host.
    pub host: SimHost,
    /// The reference.
    pub model: Model,
    /// SQs of the rings attached.
    pub sqs: Vec<Option<VecDeque<Sqe>>>,
    /// Where others connect.
    pub listener: Handle,
    /// `close` was called.
    pub closing: bool,
}

/// A connection between two planes.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The planes of its ends.
    pub planes: [usize; 2],
    /// Packets toward each end.
    pub queues: [VecDeque<Packet>; 2],
    /// Neither side nor the network has ended it.
    pub alive: bool,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// SQEs taken.
    pub sqes: u64,
    /// CQEs seen.
    pub cqes: u64,
    /// Things that happened outside the engines.
    pub moves: u64,
    /// Terminal CQEs by opcode and by errno (0: success), so that a sweep can show what it has reached.
    pub outcomes: BTreeMap<(u8, i32), u64>,
}

/// Planes joined by a network.
#[derive(Clone)]
pub struct World {
    /// The planes.
    pub planes: Vec<Plane>,
    /// Every connection that there ever was.
    pub connections: Vec<Connection>,
    /// Tokens that planes have exported; how they travel is the clients' business.
    pub tokens: Vec<Vec<u8>>,
    /// The world's dice.
    pub random: Random,
    /// WAITs end.
    pub signalled: bool,
    /// A peer breaks the protocol on purpose: then the engine may say so, and the model does not hold for its sake.
    pub hostile: bool,
    /// What composed SQEs are.
    pub mix: &'static [Opcode],
    /// What was done.
    pub report: Report,
}

impl World {
    /// So many planes, each with two rings and a listener.
    pub fn new(seed: u64, planes: usize, temper: Temper) -> World {
        World::with_limits(seed, planes, temper, LIMITS)
    }

    /// As [`World::new`], with other limits.
    pub fn with_limits(seed: u64, planes: usize, temper: Temper, limits: Limits) -> World {
        let mut random = Random::new(seed);
        let plane = |number| Plane::new(number as u64, Random::new(random.bits()), temper, limits);
        let planes = (0..planes).map(plane).collect();
        World {
            planes,
            connections: Vec::new(),
            tokens: Vec::new(),
            random,
            signalled: false,
            hostile: false,
            mix: MIXES[(seed >> 1) as usize % MIXES.len()],
            report: Report::default(),
        }
    }

    /// Puts an SQE that seven bytes name into an SQ.
    pub fn submit_composed(&mut self, plane: usize, ring: u32, bytes: [u8; 7]) -> Option<u64> {
        let surroundings = Surroundings {
            model: &self.planes[plane].model,
            tokens: &self.tokens,
            planes: self.planes.len() as u8,
            mix: self.mix,
        };
        let (sqe, first) = surroundings.compose(bytes);
        self.prepare(plane, first);
        self.submit(plane, ring, sqe)
    }

    /// The client writes into its buffers, where they are.
    pub fn prepare(&mut self, plane: usize, first: Preparation) {
        for (buffer, offset, bytes) in first {
            if let Some(Some(all)) = self.planes[plane].host.buffers.get_mut(&buffer) {
                let end = (offset as usize + bytes.len()).min(all.len());
                if let Some(range) = all.get_mut(offset as usize..end) {
                    range.copy_from_slice(&bytes[..range.len()]);
                }
            }
        }
    }

    /// Puts an SQE into an SQ; its `user_data` becomes the number that comes back. `None`: there is no room or no ring.
    pub fn submit(&mut self, plane: usize, ring: u32, sqe: Sqe) -> Option<u64> {
        let plane = &mut self.planes[plane];
        let sq = plane.sqs.get_mut(ring as usize)?.as_mut()?;
        if sq.len() >= SQ_ENTRIES {
            return None;
        }
        let sqe = plane.model.submitted(ring, sqe);
        sq.push_back(sqe);
        Some(sqe.user_data)
    }

    /// The engine takes what stands in an SQ. Returns how many and why it stopped.
    pub fn turn(&mut self, plane: usize, ring: u32) -> Result<(u32, Stop), Fault> {
        let mut all = 0;
        loop {
            let state = &mut self.planes[plane];
            let Some(Some(sq)) = state.sqs.get_mut(ring as usize) else {
                return Ok((all, Stop::Closed));
            };
            let window: Vec<Sqe> = sq.iter().copied().collect();
            let take = state.engine.take(&mut state.host, ring, &window);
            let taken: Vec<Sqe> = sq.drain(..take.taken as usize).collect();
            let more = !sq.is_empty();
            state.model.taken(&taken, sq.make_contiguous())?;
            self.report.sqes += taken.len() as u64;
            all += take.taken;
            self.after(plane)?;
            if take.taken == 0 || take.stop != Stop::WindowEnd || !more {
                return Ok((all, take.stop));
            }
        }
    }

    /// The client takes CQEs.
    pub fn reap(&mut self, plane: usize, ring: u32, most: usize) -> usize {
        let Some(ring) = self.planes[plane].host.rings.get_mut(ring as usize) else {
            return 0;
        };
        let count = most.min(ring.cq.len());
        ring.cq.drain(..count).count()
    }

    /// Time goes on in all planes.
    pub fn advance(&mut self, nanoseconds: u64) -> Result<(), Fault> {
        for plane in 0..self.planes.len() {
            let state = &mut self.planes[plane];
            state.host.now_ns = state.host.now_ns.saturating_add(nanoseconds);
            if state.engine.next_deadline_ns().is_some_and(|deadline_ns| deadline_ns <= state.host.now_ns) {
                state.engine.expire(&mut state.host);
                self.after(plane)?;
            }
        }
        Ok(())
    }

    /// A client attaches a ring.
    pub fn attach(&mut self, plane: usize, cq_entries: u32) -> Option<u32> {
        self.planes[plane].attach(cq_entries)
    }

    /// A client closes a ring.
    pub fn detach(&mut self, plane: usize, ring: u32) -> Result<(), Fault> {
        let state = &mut self.planes[plane];
        let attached = state.sqs.get_mut(ring as usize).is_some_and(|sq| sq.take().is_some());
        if attached {
            state.model.detached(ring);
            state.engine.detach_ring(&mut state.host, ring);
            self.after(plane)?;
        }
        Ok(())
    }

    /// A client closes its context.
    pub fn close(&mut self, plane: usize) -> Result<(), Fault> {
        let state = &mut self.planes[plane];
        state.closing = true;
        state.engine.close(&mut state.host);
        self.after(plane)
    }

    /// A call puts a buffer in.
    pub fn add_buffer(&mut self, plane: usize, length: u64) -> Option<Handle> {
        let state = &mut self.planes[plane];
        let handle = state.engine.add_buffer(length).ok()?;
        if state.host.buffers.insert(handle.index(), Some(vec![0; length as usize])).is_some() {
            state.host.breach(format!("add_buffer gave buffer {}, which is", handle.index()));
        }
        state.model.handles.insert(handle.bits(), true);
        Some(handle)
    }

    /// A call puts a descriptor slot in.
    pub fn add_slot(&mut self, plane: usize) -> Option<Handle> {
        let state = &mut self.planes[plane];
        let handle = state.engine.add_slot().ok()?;
        if !state.host.slots.insert(handle.index()) {
            state.host.breach(format!("add_slot gave slot {}, which is", handle.index()));
        }
        state.model.handles.insert(handle.bits(), true);
        Some(handle)
    }

    /// A call takes out what is in a slot.
    pub fn remove_slot(&mut self, plane: usize, handle: Handle) {
        let state = &mut self.planes[plane];
        if let Ok(index) = state.engine.remove_slot(handle) {
            if !state.host.slots.remove(&index) {
                state.host.breach(format!("remove_slot gave slot {index}, which is not"));
            }
            state.model.handles.insert(handle.bits(), false);
        }
    }

    /// Everything that follows a call of an engine: its CQEs go to the model, its packets onto the wire.
    pub fn after(&mut self, plane: usize) -> Result<(), Fault> {
        let state = &mut self.planes[plane];
        for (ring, cqe) in std::mem::take(&mut state.host.log) {
            self.report.cqes += 1;
            state.model.completed(ring, &cqe).map_err(|fault| format!("plane {plane}: {fault}"))?;
            let sqe = state.model.entries[cqe.user_data as usize].sqe;
            *self.report.outcomes.entry((sqe.opcode, cqe.res.min(0))).or_default() += 1;
            if sqe.opcode == Opcode::LeaseExport as u8 && cqe.res > 0 {
                // A FREE in the same batch may have been quicker than the client.
                let bytes = state.host.buffers.get(&Handle::from_bits(sqe.local).index()).and_then(Option::as_ref);
                let start = sqe.local_offset as usize;
                let token = bytes.and_then(|bytes| bytes.get(start..start + cqe.res as usize));
                self.tokens.extend(token.map(<[u8]>::to_vec));
            }
        }
        if let Some(breach) = state.host.breaches.first() {
            return Err(format!("plane {plane}: host contract: {breach}"));
        }
        if state.engine.statistics().breaches > 0 && !self.hostile {
            return Err(format!("plane {plane}: it calls an honest peer a breaker of the protocol"));
        }
        for connection in std::mem::take(&mut state.host.hang_up) {
            self.connections[connection].kill();
        }
        let outbox = std::mem::take(&mut self.planes[plane].host.outbox);
        for (connection, end, packet) in outbox {
            let connection = &mut self.connections[connection];
            if connection.alive {
                connection.queues[1 - end].push_back(packet);
            }
        }
        Ok(())
    }

    /// Submits one SQE, and moves the world until its CQE comes.
    pub fn run(&mut self, plane: usize, ring: u32, sqe: Sqe) -> Result<Cqe, Fault> {
        let number = self.submit(plane, ring, sqe).ok_or("no room in the SQ")?;
        for _ in 0..10_000 {
            self.turn(plane, ring)?;
            let cq = &mut self.planes[plane].host.rings[ring as usize].cq;
            if let Some(at) = cq.iter().position(|cqe| cqe.user_data == number && cqe.is_terminal()) {
                return Ok(cq.remove(at).unwrap_or_default());
            }
            self.step()?;
        }
        Err(format!("{sqe:?} never ends"))
    }

    /// As [`World::run`], for one that must succeed.
    pub fn ok(&mut self, plane: usize, ring: u32, sqe: impl Into<Sqe>) -> Result<Cqe, Fault> {
        let sqe = sqe.into();
        let cqe = self.run(plane, ring, sqe)?;
        if cqe.res < 0 { Err(format!("{sqe:?} came to {:?}", cqe.result())) } else { Ok(cqe) }
    }
}

impl Plane {
    fn new(number: u64, random: Random, temper: Temper, limits: Limits) -> Plane {
        let identity = Identity { context: [number + 1, 7], token_key: [number ^ 0xabcd, 9] };
        let engine = Engine::new(limits, identity, &mut VecMemory).expect("vectors are always to be had");
        let host = SimHost::new(random, temper);
        let (model, sqs) = (Model::default(), vec![None; limits.rings as usize]);
        let mut plane = Plane { engine, host, model, sqs, listener: Handle::NULL, closing: false };
        plane.host.rings = vec![SimRing::default(); limits.rings as usize];
        plane.listener = plane.engine.add_listener().expect("the first listener");
        plane.host.listeners.insert(plane.listener.index());
        plane.model.handles.insert(plane.listener.bits(), true);
        for entries in CQ_ENTRIES {
            plane.attach(entries);
        }
        plane
    }

    fn attach(&mut self, cq_entries: u32) -> Option<u32> {
        let ring = self.engine.attach_ring(cq_entries).ok()?;
        self.host.rings[ring as usize] = SimRing { cq: VecDeque::new(), entries: cq_entries };
        self.sqs[ring as usize] = Some(VecDeque::new());
        Some(ring)
    }

    /// Handles of live objects of a kind.
    pub fn live(&self, kind: HandleKind) -> Vec<u64> {
        self.model.handles_of(kind, true)
    }
}

impl Connection {
    /// Ends it; what is under way is lost.
    pub fn kill(&mut self) {
        self.alive = false;
        self.queues = [VecDeque::new(), VecDeque::new()];
    }
}
