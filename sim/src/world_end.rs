//! How a run ends: what must hold once everything has had its chance, and what must be left after close(): nothing.

use crate::world::{Fault, Report, World};
use dmaplane_engine::{Stop, Usage};
use dmaplane_ring::abi::{Handle, HandleKind, Opcode, Sqe, SqeFlags, op_flags};

/// More moves than any bounded program needs.
const MOVES_MAX: u32 = 100_000;

impl World {
    /// Clients reap and submit, and all that can happen happens, until nothing does.
    pub fn settle(&mut self) -> Result<(), Fault> {
        for _ in 0..MOVES_MAX {
            let mut busy = self.step()?;
            for plane in 0..self.planes.len() {
                for ring in 0..self.planes[plane].sqs.len() as u32 {
                    busy |= self.reap(plane, ring, usize::MAX) > 0;
                    busy |= self.turn(plane, ring)?.0 > 0;
                }
            }
            if !busy {
                return Ok(());
            }
        }
        Err(format!("no end after {MOVES_MAX} moves: {:?}", self.moves()))
    }

    /// CRD-2, CRD-5: once nothing is on a wire, what a peer may send is what receives are posted for.
    pub fn check_credits(&mut self) -> Result<(), Fault> {
        for plane in 0..self.planes.len() {
            let peers: Vec<(Handle, usize, usize)> = {
                let peers = self.planes[plane].host.peers.values();
                peers.filter(|peer| !peer.gone).map(|peer| (peer.handle, peer.connection, peer.end)).collect()
            };
            for (handle, connection, end) in peers {
                let Some((granted_us, granted_it)) = self.credits(plane, handle)? else {
                    continue;
                };
                let model = &self.planes[plane].model;
                let posted = model.arrivals_left(handle.bits());
                if granted_it > u64::from(posted) && !model.blind {
                    return Err(format!(
                        "CRD-2: plane {plane}: its peer may send {granted_it}, but {posted} receives are posted"
                    ));
                }
                let other = self.connections[connection].planes[1 - end];
                let theirs = self.planes[other].host.peers.values();
                let theirs = theirs.filter(|peer| !peer.gone && peer.connection == connection && peer.end != end);
                let Some(theirs) = theirs.map(|peer| peer.handle).next() else {
                    continue;
                };
                if let Some((_, out)) = self.credits(other, theirs)?
                    && out != granted_us
                    && self.connections[connection].alive
                {
                    return Err(format!("CRD-5: plane {plane} has {granted_us} credits, plane {other} says {out}"));
                }
                let _ = self.settle();
            }
        }
        Ok(())
    }

    fn credits(&mut self, plane: usize, peer: Handle) -> Result<Option<(u64, u64)>, Fault> {
        let state = &self.planes[plane];
        let ring = state.sqs.iter().position(|sq| sq.as_ref().is_some_and(|sq| sq.is_empty()));
        let Some(ring) = ring.filter(|_| !state.closing) else {
            return Ok(None);
        };
        let ring = ring as u32;
        let query = Sqe { opcode: Opcode::CreditQuery as u8, remote: peer.bits(), ..Sqe::default() };
        let number = self.submit(plane, ring, query);
        self.turn(plane, ring)?;
        let cq = &mut self.planes[plane].host.rings[ring as usize].cq;
        let cqe = cq.iter().find(|cqe| Some(cqe.user_data) == number && cqe.res == 0);
        Ok(cqe.map(|cqe| (cqe.word0, cqe.word1)))
    }

    /// Ends everything by the clients' own means and checks that nothing is stuck and no reservation is lost.
    pub fn wind_down(&mut self) -> Result<(), Fault> {
        self.settle()?;
        self.check_credits()?;
        for connection in &mut self.connections {
            connection.kill();
        }
        self.signalled = true;
        // Chains of timeouts without end need a look each.
        for time_ns in [1 << 50].into_iter().chain([u64::MAX; 80]) {
            self.settle()?;
            self.advance(time_ns)?;
        }
        self.settle()?;
        for plane in 0..self.planes.len() {
            let rings = 0..self.planes[plane].sqs.len() as u32;
            for ring in rings {
                // Ends a chain that was left open: a CANCEL in a chain that is refused would be refused with it.
                self.submit(plane, ring, Sqe::default());
                let op_flags = op_flags::CANCEL_ANY | op_flags::CANCEL_FORCE;
                self.submit(plane, ring, Sqe { opcode: Opcode::Cancel as u8, op_flags, ..Sqe::default() });
            }
            // A cancelled WAIT or CONNECT may still have to hear of it.
        }
        self.settle()?;
        // What stood in an SQ behind a DRAIN has been taken only now: a timeout, or a CONNECT and what follows it.
        for _ in 0..80 {
            for connection in &mut self.connections {
                connection.kill();
            }
            self.settle()?;
            self.advance(u64::MAX)?;
        }
        self.settle()?;
        for plane in 0..self.planes.len() {
            self.check_idle(plane)?;
        }
        Ok(())
    }

    /// RES-1, TD-1: nothing is in flight, and the whole CQ can be reserved again.
    fn check_idle(&mut self, plane: usize) -> Result<(), Fault> {
        let state = &self.planes[plane];
        // An ACCEPT with DRAIN holds its ring until somebody connects: that is what was asked for.
        let asked_for = |sqe: &Sqe| sqe.opcode == Opcode::Accept as u8 && sqe.flags & SqeFlags::DRAIN.bits() != 0;
        if state.closing || state.model.entries.iter().any(|entry| asked_for(&entry.sqe)) {
            return Ok(());
        }
        let outstanding = state.model.outstanding();
        if state.engine.usage().operations > 0 || !outstanding.is_empty() {
            return Err(format!("TD-1: plane {plane}: stuck: {:?} {outstanding:?}", state.engine.usage()));
        }
        for ring in 0..state.sqs.len() as u32 {
            if self.planes[plane].sqs[ring as usize].is_none() {
                continue;
            }
            let entries = self.planes[plane].host.rings[ring as usize].entries;
            let expected = entries - entries / 8;
            for _ in 0..expected {
                self.submit(plane, ring, Sqe::default());
            }
            let (taken, stop) = self.turn(plane, ring)?;
            if taken != expected || stop != Stop::WindowEnd {
                return Err(format!(
                    "RES-1: plane {plane} ring {ring}: idle, but {taken} of {expected} NOPs have room: {stop:?}"
                ));
            }
            self.reap(plane, ring, usize::MAX);
        }
        Ok(())
    }

    /// close() of every plane, in any order, at any moment; then nothing may be left (clauses TD-1 to TD-7).
    pub fn finish(mut self) -> Result<Report, Fault> {
        self.signalled = true;
        while let Some(plane) = self.any_open() {
            self.close(plane)?;
            for _ in 0..self.random.below(20) {
                self.step()?;
            }
        }
        for moves in 0.. {
            if !self.step()? {
                break;
            }
            if moves > MOVES_MAX {
                return Err(format!("TD-3: teardown does not end: {:?}", self.moves()));
            }
        }
        for (number, plane) in self.planes.iter().enumerate() {
            let usage = plane.engine.usage();
            if !plane.engine.is_closed() || usage != Usage::default() {
                return Err(format!("TD-6: plane {number} closed: {}, left: {usage:?}", plane.engine.is_closed()));
            }
            let outstanding = plane.model.outstanding();
            if !outstanding.is_empty() {
                return Err(format!("CQE-1: plane {number}: closed without CQEs of {outstanding:?}"));
            }
            let host = &plane.host;
            let left = [
                host.buffers.len(),
                host.lists.len(),
                host.slots.len(),
                host.peers.len(),
                host.listeners.len(),
                host.started.len(),
                host.jobs.len(),
            ];
            if left != [0; 7] {
                return Err(format!(
                    "TD-6: plane {number}: the host keeps buffers, lists, slots, peers, listeners, work, jobs {left:?}"
                ));
            }
        }
        Ok(self.report)
    }

    fn any_open(&mut self) -> Option<usize> {
        let open: Vec<usize> = (0..self.planes.len()).filter(|&plane| !self.planes[plane].closing).collect();
        open.get(self.random.below(open.len())).copied()
    }

    /// Live handles of a kind, typed for the builders.
    pub fn live(&self, plane: usize, kind: HandleKind) -> Vec<Handle> {
        self.planes[plane].live(kind).into_iter().map(Handle::from_bits).collect()
    }
}
