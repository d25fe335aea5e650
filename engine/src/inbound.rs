//! What peers ask of us: their transfers under our leases, and their messages (clauses INB-1 to INB-7).

use crate::engine::Engine;
use crate::host::{Host, Outcome, Target};
use crate::lease::{Lease, LeaseState, LeaseTarget};
use crate::message::{Message, Request, RequestKind};
use crate::operation::{Links, OpId};
use crate::storage::Storage;
use crate::table::NONE;
use dmaplane_ring::abi::{
    Errno, EventBits, MAX_LIST_SEGMENTS, MAX_NOTIFICATION_BYTES, MAX_OPERATION_BYTES, MAX_SEND_BYTES, Rights,
};

/// A peer's transfer in flight here.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Inbound {
    pub(crate) peer: u32,
    /// The host's name for what travelled with the request.
    pub(crate) frame: u32,
    pub(crate) request: Request,
    pub(crate) lease: u32,
    /// Neighbours among the peer's transfers.
    pub(crate) links: Links,
    /// The host has been told to stop it.
    pub(crate) stopped: bool,
}

impl<S: Storage> Engine<S> {
    /// A peer's request. Whatever comes of it, the peer gets one `Done`.
    pub(crate) fn request<H: Host>(&mut self, host: &mut H, peer: u32, frame: u32, request: &Request) {
        let within = self.peers.get(peer).is_some_and(|state| state.inbound_count < self.limits.inbound_per_peer);
        let lengths = match request.kind {
            RequestKind::Write => request.length <= MAX_OPERATION_BYTES && request.payload_bytes == 0,
            RequestKind::Read => request.length <= MAX_OPERATION_BYTES && request.payload_bytes == 0 && !request.notify,
            RequestKind::WriteList => {
                request.length <= MAX_LIST_SEGMENTS && u64::from(request.payload_bytes) <= MAX_NOTIFICATION_BYTES
            }
            RequestKind::ReadList => {
                request.length <= MAX_LIST_SEGMENTS && !request.notify && request.payload_bytes == 0
            }
            RequestKind::Send => {
                request.notify && request.length <= MAX_SEND_BYTES && request.length == u64::from(request.payload_bytes)
            }
        };
        // Nobody would be told it.
        let idle_checksum = request.checksum
            && match request.kind {
                RequestKind::Write | RequestKind::WriteList => !request.notify,
                RequestKind::Read | RequestKind::ReadList => false,
                RequestKind::Send => true,
            };
        if !within
            || !lengths
            || idle_checksum
            || request.length == 0
            || (request.notify && !self.take_credit_of_peer(peer))
        {
            host.drop_frame(peer, frame);
            return self.breach(host, peer);
        }
        if request.kind == RequestKind::Send {
            let outcome = self.arrive(host, peer, frame, request, 0);
            host.drop_frame(peer, frame);
            let result = outcome.err().map_or(0, Errno::as_result);
            host.send(peer, &Message::Done { op: request.op, result, bytes: request.length });
            return;
        }
        match self.admit_request(peer, request) {
            Ok((index, target)) => self.begin_inbound(host, peer, frame, request, index, &target),
            Err(errno) => self.refuse_request(host, peer, frame, request, errno),
        }
    }

    /// The lease and what may be touched under it.
    fn admit_request(&self, peer: u32, request: &Request) -> Result<(u32, Target), Errno> {
        let (need, list) = match request.kind {
            RequestKind::Write => (Rights::WRITE, false),
            RequestKind::WriteList => (Rights::WRITE, true),
            RequestKind::ReadList => (Rights::READ, true),
            RequestKind::Read | RequestKind::Send => (Rights::READ, false),
        };
        let (index, lease) = self.admit(peer, request.lease, need, list)?;
        Ok((index, target(&lease, request)?))
    }

    fn begin_inbound<H: Host>(
        &mut self,
        host: &mut H,
        peer: u32,
        frame: u32,
        request: &Request,
        lease: u32,
        target: &Target,
    ) {
        let inbound = Inbound { peer, frame, request: *request, lease, links: Links::OUT, stopped: false };
        // The table holds `inbound_per_peer` for every peer, so there is a place.
        let Some((index, generation)) = self.inbound.insert(inbound) else {
            return self.refuse_request(host, peer, frame, request, Errno::ENFILE);
        };
        self.link_inbound(peer, index);
        if let Some(lease) = self.leases.get_mut(lease) {
            lease.in_flight += 1;
        }
        let transfer = OpId::new(index, generation);
        let outcome = match request.kind {
            RequestKind::Write | RequestKind::WriteList => {
                host.copy_in(transfer, peer, frame, target, request.checksum)
            }
            _ => host.serve(transfer, peer, frame, target),
        };
        if let Outcome::Done { result, word0: bytes, word1: checksum } = outcome {
            self.inbound_done(host, transfer, result, bytes, checksum as u32);
        }
    }

    /// Refuses a request: both sides hear of it (clause INB-4).
    fn refuse_request<H: Host>(&mut self, host: &mut H, peer: u32, frame: u32, request: &Request, errno: Errno) {
        host.drop_frame(peer, frame);
        if request.notify {
            self.give_credit_back(host, peer);
        }
        self.statistics.refused += 1;
        self.statistics.refused_lease = request.lease;
        host.send(peer, &Message::Done { op: request.op, result: errno.as_result(), bytes: 0 });
        self.raise(host, EventBits::ACCESS_REFUSED);
    }

    fn link_inbound(&mut self, peer: u32, index: u32) {
        let Some(state) = self.peers.get_mut(peer) else {
            return;
        };
        let head = core::mem::replace(&mut state.inbound, index);
        state.inbound_count += 1;
        if let Some(inbound) = self.inbound.get_mut(index) {
            inbound.links = Links { prev: NONE, next: head };
        }
        if let Some(inbound) = self.inbound.get_mut(head) {
            inbound.links.prev = index;
        }
    }

    fn unlink_inbound(&mut self, peer: u32, links: Links) {
        match self.inbound.get_mut(links.prev) {
            Some(before) => before.links.next = links.next,
            None => {
                if let Some(state) = self.peers.get_mut(peer) {
                    state.inbound = links.next;
                }
            }
        }
        if let Some(behind) = self.inbound.get_mut(links.next) {
            behind.links.prev = links.prev;
        }
        if let Some(state) = self.peers.get_mut(peer) {
            state.inbound_count = state.inbound_count.saturating_sub(1);
        }
    }

    /// A peer's transfer touches our memory no more.
    pub(crate) fn inbound_done<H: Host>(
        &mut self,
        host: &mut H,
        transfer: OpId,
        result: i32,
        bytes: u64,
        checksum: u32,
    ) {
        let index = transfer.index();
        if self.inbound.generation(index) != transfer.generation() {
            return;
        }
        let Some(inbound) = self.inbound.remove(index) else {
            return;
        };
        let Inbound { peer, frame, request, lease, links, .. } = inbound;
        self.unlink_inbound(peer, links);
        let mut result = result;
        if let Some(state) = self.leases.get_mut(lease) {
            state.in_flight = state.in_flight.saturating_sub(1);
            // Stopped because its lease ends: the peer is told why. (What has ended well has done so before its lease
            // has: a READ, too, read only what was still leased, clause LSE-11.)
            if let LeaseState::Ending { errno, .. } = state.state
                && result < 0
            {
                result = errno.as_result();
            }
        }
        let out_of_range = [Errno::ERANGE, Errno::EINVAL, Errno::EPROTO].map(Errno::as_result).contains(&result);
        if out_of_range {
            // The host has found what the engine does not look at: a segment that the leased list does not have.
            self.statistics.refused += 1;
            self.statistics.refused_lease = request.lease;
            self.raise(host, EventBits::ACCESS_REFUSED);
        }
        if request.notify {
            if result >= 0 {
                result = self.arrive(host, peer, frame, &request, checksum).err().map_or(0, Errno::as_result);
            } else {
                self.give_credit_back(host, peer);
            }
        }
        host.drop_frame(peer, frame);
        host.send(peer, &Message::Done { op: request.op, result, bytes });
        self.try_end_lease(host, lease);
        self.try_drop_peer(host, peer);
    }

    /// Tells the host to stop every transfer under a lease. Each one's `TransferDone` follows.
    pub(crate) fn stop_inbound_of_lease<H: Host>(&mut self, host: &mut H, holder: u32, lease: u32) {
        let mut index = self.peers.get(holder).map_or(NONE, |peer| peer.inbound);
        while let Some(inbound) = self.inbound.get(index).copied() {
            if inbound.lease == lease {
                self.stop_inbound(host, index);
            }
            index = inbound.links.next;
        }
    }

    /// Stops a chain of transfers.
    pub(crate) fn stop_inbound_chain<H: Host>(&mut self, host: &mut H, first: u32) {
        let mut index = first;
        while let Some(inbound) = self.inbound.get(index).copied() {
            self.stop_inbound(host, index);
            index = inbound.links.next;
        }
    }

    fn stop_inbound<H: Host>(&mut self, host: &mut H, index: u32) {
        let transfer = OpId::new(index, self.inbound.generation(index));
        if let Some(inbound) = self.inbound.get_mut(index)
            && !inbound.stopped
        {
            inbound.stopped = true;
            host.stop(transfer);
        }
    }
}

/// What of a lease's target a request touches: -ERANGE outside of it.
fn target(lease: &Lease, request: &Request) -> Result<Target, Errno> {
    match lease.target {
        LeaseTarget::List(list) => Ok(Target::List { list, count: request.length }),
        LeaseTarget::Buffer(buffer) => {
            let end = request.offset.checked_add(request.length).ok_or(Errno::ERANGE)?;
            if end > lease.length {
                return Err(Errno::ERANGE);
            }
            Ok(Target::Range { buffer, offset: lease.offset + request.offset, length: request.length })
        }
    }
}
