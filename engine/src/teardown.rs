//! Teardown: one order, one road for close, kill, removal and failed set-up (clauses TD-1 to TD-7).

use crate::engine::Engine;
use crate::host::Host;
use crate::lease::Ending;
use crate::operation::{State, Through};
use crate::peer::PeerState;
use crate::ring::RingState;
use crate::storage::Storage;
use dmaplane_ring::abi::Errno;

/// How far a context's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// In use.
    Open,
    /// Intake is stopped, leases end, peers are drained, operations end.
    Draining,
    /// Everything is given back to the host.
    Closed,
}

impl<S: Storage> Engine<S> {
    /// Ends a ring. Its operations are cancelled as far as they can be, the others end without a CQE.
    pub fn detach_ring<H: Host>(&mut self, host: &mut H, ring: u32) {
        let Some(state) = self.rings.get_mut(ring as usize) else {
            return;
        };
        if !state.attached {
            return;
        }
        state.attached = false;
        self.cancel_ring(host, ring);
        self.settle(host);
        if let Some(state) = self.rings.get_mut(ring as usize)
            && !state.attached
            && state.operations.length == 0
            && state.cq_entries > 0
        {
            self.cq_entries -= state.cq_entries;
            *state = RingState::VACANT;
        }
    }

    /// Begins the context's end. [`Engine::is_closed`] says when it is over; events must go on being handled until
    /// then.
    pub fn close<H: Host>(&mut self, host: &mut H) {
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Draining;
        let mut from = 0;
        while let Some(lease) = self.leases.next_used(from) {
            self.end_lease(host, lease, Ending::Now, Errno::EKEYREVOKED);
            from = lease + 1;
        }
        from = 0;
        while let Some(peer) = self.peers.next_used(from) {
            self.end_peer(host, peer);
            from = peer + 1;
        }
        from = 0;
        while let Some(listener) = self.listeners.next_used(from) {
            self.close_listener(host, listener);
            from = listener + 1;
        }
        for ring in 0..self.rings.len() as u32 {
            self.cancel_ring(host, ring);
        }
        self.settle(host);
    }

    /// Whether nothing of the context is left with the host.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    fn close_listener<H: Host>(&mut self, host: &mut H, index: u32) {
        while let Some(listener) = self.listeners.get_mut(index) {
            if let Some((pending, _)) = listener.pop() {
                host.reject(pending);
            } else if let Some(accept) = listener.accepts.pop_front(&mut self.operations, Through::State) {
                self.finish(host, accept, Errno::ECANCELED.as_result(), 0, 0);
            } else {
                break;
            }
        }
        host.close_listener(index);
        self.listeners.remove(index);
    }

    /// Goes on with the context's end as far as it can.
    pub(crate) fn advance_teardown<H: Host>(&mut self, host: &mut H) {
        if self.phase != Phase::Draining || self.operations.used() > 0 || self.inbound.used() > 0 {
            return;
        }
        let mut from = 0;
        while let Some(index) = self.peers.next_used(from) {
            if self.peers.get(index).is_some_and(|peer| !matches!(peer.state, PeerState::Gone(_))) {
                return;
            }
            from = index + 1;
        }
        // From here on nothing is in flight and no event can come: the objects go, users before what they use.
        while let Some(index) = self.peers.next_used(0) {
            self.peers.remove(index);
            host.drop_peer(index);
        }
        while let Some(index) = self.imports.next_used(0) {
            self.imports.remove(index);
        }
        while let Some(index) = self.leases.next_used(0) {
            self.leases.remove(index);
        }
        while let Some(index) = self.lists.next_used(0) {
            self.drop_list(host, index);
        }
        while let Some(index) = self.slots.next_used(0) {
            self.slots.remove(index);
            host.close_slot(index);
        }
        while let Some(index) = self.buffers.next_used(0) {
            self.buffers.remove(index);
            let _ = host.free(None, index);
        }
        self.phase = Phase::Closed;
    }

    /// Operations that only an event can end, for a host that checks its own teardown.
    pub fn operations_awaiting_host(&self) -> u32 {
        let mut count = 0;
        let mut from = 0;
        while let Some(index) = self.operations.next_used(from) {
            if self.operations.get(index).is_some_and(|operation| operation.state == State::Started) {
                count += 1;
            }
            from = index + 1;
        }
        count
    }
}
