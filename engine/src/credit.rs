//! Credits: RECV, CREDIT_GRANT, CREDIT_QUERY, CREDIT_WATERMARKS, arrivals (clauses CRD-1 to CRD-7).
//!
//! One credit is one posted receive is one reserved CQE.

use crate::engine::{Engine, Flow, Starting};
use crate::host::Host;
use crate::message::{Message, Request, RequestKind};
use crate::operation::{State, Through};
use crate::storage::Storage;
use crate::table::NONE;
use dmaplane_ring::abi::{CqeFlags, Errno, Handle, HandleKind, Opcode, op_flags};

impl<S: Storage> Engine<S> {
    /// RECV and CREDIT_GRANT.
    pub(crate) fn credit_grant<H: Host>(
        &mut self,
        host: &mut H,
        opcode: Opcode,
        op: &mut Starting,
    ) -> Result<Flow, Errno> {
        let count = if opcode == Opcode::Recv { 1 } else { op.sqe.arg32 };
        let slots = op.sqe.op_flags & op_flags::GRANT_SLOTS != 0;
        if count == 0 || (opcode == Opcode::Recv && !slots) {
            return Err(Errno::EINVAL);
        }
        let peer = self.live_peer(Handle::from_bits(op.sqe.remote))?;
        if slots {
            let bytes = op.sqe.length.checked_mul(count.into()).ok_or(Errno::ERANGE)?;
            let buffer = self.buffer_range(Handle::from_bits(op.sqe.local), op.sqe.local_offset, bytes)?;
            self.use_buffer(buffer);
        } else if op.sqe.local != 0 || op.sqe.local_offset != 0 || op.sqe.length != 0 {
            return Err(Errno::EINVAL);
        }
        let index = self.place(host, op, State::Receiving);
        if let Some(operation) = self.operations.get_mut(index) {
            operation.object = peer;
        }
        if let Some(state) = self.peers.get_mut(peer) {
            state.receives.push_back(&mut self.operations, Through::State, index);
        }
        self.grant(host, peer, count);
        Ok(Flow::Pending)
    }

    /// Tells a peer of more credits. The message carries the total, so that it may be told twice and is right.
    pub(crate) fn grant<H: Host>(&mut self, host: &mut H, peer: u32, count: u32) {
        let Some(state) = self.peers.get_mut(peer) else {
            return;
        };
        state.rx_granted = state.rx_granted.wrapping_add(count);
        let total = state.rx_granted;
        host.send(peer, &Message::Credits { total });
    }

    /// A request that brought a credit came to nothing: the receive is still posted, so the credit is the peer's again.
    pub(crate) fn give_credit_back<H: Host>(&mut self, host: &mut H, peer: u32) {
        let count = if cfg!(feature = "seeded-double-credit") { 2 } else { 1 };
        self.grant(host, peer, count);
    }

    /// A peer has granted us more.
    pub(crate) fn credits_arrived<H: Host>(&mut self, host: &mut H, peer: u32, total: u32) {
        let Some(state) = self.peers.get_mut(peer) else {
            return;
        };
        let more = total.wrapping_sub(state.tx_granted);
        // Totals only grow, and by no more than any CQ holds.
        if more > dmaplane_ring::abi::MAX_RING_ENTRIES.saturating_mul(self.limits.rings) {
            return self.breach(host, peer);
        }
        state.tx_granted = total;
        self.pump(host, peer);
    }

    /// CREDIT_QUERY.
    pub(crate) fn credit_query(&mut self, op: &mut Starting) -> Result<Flow, Errno> {
        let peer = self.peers.find(Handle::from_bits(op.sqe.remote), HandleKind::Peer)?;
        let Some(peer) = self.peers.get(peer) else {
            return Err(Errno::EBADF);
        };
        Ok(Flow::Done { result: 0, word0: peer.credits().into(), word1: peer.credits_out().into() })
    }

    /// CREDIT_WATERMARKS: high in the low half of `arg64`, low in the high half.
    pub(crate) fn credit_watermarks<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let (high, low) = (op.sqe.arg64 as u32, (op.sqe.arg64 >> 32) as u32);
        if low >= high && op.sqe.arg64 != 0 {
            return Err(Errno::EINVAL);
        }
        let peer = self.live_peer(Handle::from_bits(op.sqe.remote))?;
        if let Some(state) = self.peers.get_mut(peer) {
            state.set_watermarks(high, low);
        }
        self.pump(host, peer);
        Ok(Flow::ok(0))
    }

    /// Whether a peer may use a credit now: it takes it, or has broken the protocol.
    pub(crate) fn take_credit_of_peer(&mut self, peer: u32) -> bool {
        let Some(state) = self.peers.get_mut(peer) else {
            return false;
        };
        if state.credits_out() == 0 {
            return false;
        }
        state.rx_arrived = state.rx_arrived.wrapping_add(1);
        true
    }

    /// Something has arrived for the first posted receive: its CQE. Returns what the sender is told.
    pub(crate) fn arrive<H: Host>(
        &mut self,
        host: &mut H,
        peer: u32,
        frame: u32,
        request: &Request,
        checksum: u32,
    ) -> Result<(), Errno> {
        let Some(state) = self.peers.get_mut(peer) else {
            return Err(Errno::ENOTCONN);
        };
        let index = state.receives.head;
        if index == NONE && state.orphaned > 0 {
            state.orphaned -= 1;
            return Err(Errno::ECANCELED);
        }
        let Some(operation) = self.operations.get_mut(index) else {
            return Err(Errno::EPROTO);
        };
        let sqe = operation.sqe;
        let count = if sqe.opcode == Opcode::Recv as u8 { 1 } else { sqe.arg32 };
        let slot = operation.arrived;
        operation.arrived += 1;
        let last = operation.arrived >= count;
        let slots = sqe.op_flags & op_flags::GRANT_SLOTS != 0;
        let payload = request.payload_bytes;
        let offset = sqe.local_offset.saturating_add(sqe.length.saturating_mul(slot.into()));
        let mut outcome = Ok(());
        if payload > 0 {
            let fits = slots && u64::from(payload) <= sqe.length;
            let buffer = Handle::from_bits(sqe.local).index();
            outcome = if fits { host.deliver(peer, frame, buffer, offset, payload) } else { Err(Errno::EMSGSIZE) };
        }
        let mut flags = CqeFlags::NONE;
        if request.kind != RequestKind::Send {
            flags = flags.with(CqeFlags::IMMEDIATE);
        }
        if payload > 0 && outcome.is_ok() {
            flags = flags.with(CqeFlags::PAYLOAD);
        }
        let result = match outcome {
            Ok(()) => payload as i32,
            Err(errno) => errno.as_result(),
        };
        let mut high = payload;
        if request.checksum {
            // `res` has the payload's length, too.
            flags = flags.with(CqeFlags::CHECKSUM);
            high = checksum;
        }
        let word0 = u64::from(request.immediate) | u64::from(high) << 32;
        let word1 = if slots { offset } else { 0 };
        if last {
            if let Some(state) = self.peers.get_mut(peer) {
                state.receives.remove(&mut self.operations, Through::State, index);
            }
            self.release_receive(index);
            self.finish_with(host, index, result, flags, word0, word1);
        } else {
            self.post_more(host, index, result, flags, (word0, word1));
        }
        outcome
    }

    /// Ends the receives of a ring that goes: nobody would hear of what came for them. Their credits are with their
    /// peers and stay there; what those bring, once no other receive is posted, is dropped (clause TD-7).
    pub(crate) fn orphan_receives<H: Host>(&mut self, host: &mut H, ring: u32) {
        let mut index = self.rings.get(ring as usize).map_or(NONE, |ring| ring.operations.head);
        while let Some(operation) = self.operations.get(index).copied() {
            let next = operation.ring_links.next;
            let generation = self.operations.generation(next);
            let behind_next = self.operations.get(next).map_or(NONE, |operation| operation.ring_links.next);
            if operation.state == State::Receiving {
                let count = if operation.sqe.opcode == Opcode::Recv as u8 { 1 } else { operation.sqe.arg32 };
                if let Some(peer) = self.peers.get_mut(operation.object) {
                    peer.receives.remove(&mut self.operations, Through::State, index);
                    peer.orphaned = peer.orphaned.saturating_add(count.saturating_sub(operation.arrived));
                }
                self.release_receive(index);
                self.finish(host, index, Errno::ECANCELED.as_result(), 0, 0);
            }
            // Ending one ends at most its LINK_TIMEOUT with it, which stands right behind it.
            let ended_too = next != NONE && self.operations.generation(next) != generation;
            index = if ended_too { behind_next } else { next };
        }
    }

    /// Lets go of the buffer that a receive holds.
    pub(crate) fn release_receive(&mut self, index: u32) {
        let Some(operation) = self.operations.get(index) else {
            return;
        };
        if operation.sqe.op_flags & op_flags::GRANT_SLOTS != 0 {
            let buffer = Handle::from_bits(operation.sqe.local).index();
            self.unuse_buffer(buffer);
        }
    }

    /// Ends all receives posted for a peer.
    pub(crate) fn fail_receives<H: Host>(&mut self, host: &mut H, peer: u32, errno: Errno) {
        while let Some(state) = self.peers.get_mut(peer) {
            let Some(index) = state.receives.pop_front(&mut self.operations, Through::State) else {
                return;
            };
            debug_assert!(index != NONE);
            self.release_receive(index);
            self.finish(host, index, errno.as_result(), 0, 0);
        }
    }
}
