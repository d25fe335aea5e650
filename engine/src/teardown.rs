//! Teardown: one order, one road for close, kill, removal and failed set-up (clauses TD-1 to TD-7).

use crate::engine::Engine;
use crate::host::Host;
use crate::lease::Ending;
use crate::list::SLICE_RUNS;
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
    /// Nothing is in flight: the objects go back to the host, a slice a turn.
    GivingBack(Cursor),
    /// Everything is given back to the host.
    Closed,
}

/// How far the objects have been given back: users before what they use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    kind: Kind,
    /// The first index of that kind that may be in use.
    from: u32,
    /// The run of the list at `from` that is next.
    run: u32,
}

/// Kinds of objects, in the order in which they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Peers,
    Imports,
    Leases,
    Lists,
    Slots,
    Buffers,
}

impl Kind {
    fn next(self) -> Option<Kind> {
        match self {
            Kind::Peers => Some(Kind::Imports),
            Kind::Imports => Some(Kind::Leases),
            Kind::Leases => Some(Kind::Lists),
            Kind::Lists => Some(Kind::Slots),
            Kind::Slots => Some(Kind::Buffers),
            Kind::Buffers => None,
        }
    }
}

/// What giving back one object counts for, in runs of a list.
const OBJECT_RUNS: u32 = 16;

impl<S: Storage> Engine<S> {
    /// Ends a ring. Its operations are cancelled as far as they can be, the others end without a CQE.
    pub fn detach_ring<H: Host>(&mut self, host: &mut H, ring: u32) {
        let Some(state) = self.rings.get_mut(ring as usize) else {
            return;
        };
        if !state.attached() {
            return;
        }
        state.detach();
        self.orphan_receives(host, ring);
        self.cancel_ring(host, ring);
        self.settle(host);
        if let Some(state) = self.rings.get_mut(ring as usize)
            && !state.attached()
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
        self.rings.iter_mut().for_each(RingState::close);
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
    pub(crate) fn advance_teardown(&mut self) {
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
        // From here on nothing is in flight and no event can come.
        self.phase = Phase::GivingBack(Cursor { kind: Kind::Peers, from: 0, run: 0 });
    }

    /// Gives back one slice of a closed context's objects.
    pub(crate) fn give_back_slice<H: Host>(&mut self, host: &mut H) {
        let mut left = SLICE_RUNS;
        while left > 0
            && let Phase::GivingBack(at) = self.phase
        {
            let runs = self.give_back(host, at, left);
            left = left.saturating_sub(runs.max(OBJECT_RUNS));
        }
    }

    /// Gives back one object, or at most `most` runs of a list; returns how many runs.
    fn give_back<H: Host>(&mut self, host: &mut H, at: Cursor, most: u32) -> u32 {
        let found = match at.kind {
            Kind::Peers => self.peers.next_used(at.from),
            Kind::Imports => self.imports.next_used(at.from),
            Kind::Leases => self.leases.next_used(at.from),
            Kind::Lists => self.lists.next_used(at.from),
            Kind::Slots => self.slots.next_used(at.from),
            Kind::Buffers => self.buffers.next_used(at.from),
        };
        let Some(index) = found else {
            self.phase = match at.kind.next() {
                Some(kind) => Phase::GivingBack(Cursor { kind, from: 0, run: 0 }),
                None => Phase::Closed,
            };
            return 0;
        };
        let mut next = Cursor { from: index + 1, run: 0, ..at };
        let mut runs = 0;
        match at.kind {
            Kind::Peers => {
                self.peers.remove(index);
                host.drop_peer(index);
            }
            Kind::Imports => {
                self.imports.remove(index);
            }
            Kind::Leases => {
                self.leases.remove(index);
            }
            Kind::Lists => {
                runs = self.lists.get(index).map_or(0, |list| list.checked).saturating_sub(at.run).min(most);
                if let Some(run) = self.drop_list(host, index, at.run, most) {
                    next = Cursor { from: index, run, ..at };
                }
            }
            Kind::Slots => {
                self.slots.remove(index);
                host.close_slot(index);
            }
            Kind::Buffers => {
                self.buffers.remove(index);
                let _ = host.free(None, index);
            }
        }
        self.phase = Phase::GivingBack(next);
        runs
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
