//! Peers and listeners: CONNECT, ACCEPT, DISCONNECT, a peer's death (clauses PEER-1 to PEER-8).

use crate::engine::{Engine, Flow, Starting};
use crate::host::{Host, PeerInfo};
use crate::message::Message;
use crate::operation::{OpId, Queue, State, Through};
use crate::storage::Storage;
use crate::table::NONE;
use dmaplane_ring::abi::{Errno, EventBits, Handle, HandleKind};

/// Connections that a listener keeps until an ACCEPT takes them; more are turned away.
const BACKLOG: usize = 16;

/// A listener.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Listener {
    /// ACCEPTs in flight.
    pub(crate) accepts: Queue,
    /// Connections that wait for one, oldest first; the first `waiting` are valid.
    backlog: [(u32, PeerInfo); BACKLOG],
    waiting: usize,
}

impl Listener {
    pub(crate) const NEW: Listener = Listener {
        accepts: Queue::EMPTY,
        backlog: [(0, PeerInfo { context: [0; 2], window: 0 }); BACKLOG],
        waiting: 0,
    };

    fn push(&mut self, pending: u32, info: PeerInfo) -> bool {
        let Some(place) = self.backlog.get_mut(self.waiting) else {
            return false;
        };
        *place = (pending, info);
        self.waiting += 1;
        true
    }

    pub(crate) fn pop(&mut self) -> Option<(u32, PeerInfo)> {
        if self.waiting == 0 {
            return None;
        }
        let first = *self.backlog.first()?;
        self.backlog.rotate_left(1);
        self.waiting -= 1;
        Some(first)
    }
}

/// A peer.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Peer {
    pub(crate) info: PeerInfo,
    pub(crate) state: PeerState,
    /// Credits that it has granted us since the connection began; wraps.
    pub(crate) tx_granted: u32,
    /// Of those, used; never ahead of `tx_granted`.
    pub(crate) tx_used: u32,
    /// Operations that hold one of them: posted, or waiting for the window.
    pub(crate) credited: u32,
    /// Watermarks of `credited` (clause CRD-7): at `high` no further operation may take a credit until it is down at
    /// `low`, which is less. 0: none.
    pub(crate) high: u32,
    pub(crate) low: u32,
    /// `credited` has been at `high`, and not at `low` since.
    pub(crate) throttled: bool,
    /// Credits that we have granted it; wraps.
    pub(crate) rx_granted: u32,
    /// Of those, arrived; never ahead of `rx_granted`, or it has broken the protocol.
    pub(crate) rx_arrived: u32,
    /// Operations that wait for credit, in order.
    pub(crate) credit_queue: Queue,
    /// Operations that wait for room in its window, in order; those that need a credit have it.
    pub(crate) window_queue: Queue,
    /// Operations that it has been asked for, claims among them.
    pub(crate) posted: Queue,
    /// Of those, requests: at most `info.window`.
    pub(crate) requests: u32,
    /// RECVs and CREDIT_GRANTs, in order; as many arrivals remain in them and in `orphaned` as `rx_granted -
    /// rx_arrived`, plus those of its transfers in flight that notify.
    pub(crate) receives: Queue,
    /// Arrivals that remained in receives of rings that were detached.
    pub(crate) orphaned: u32,
    /// Its transfers in flight here, first of a chain through the inbound table; at most `inbound_per_peer`.
    pub(crate) inbound: u32,
    pub(crate) inbound_count: u32,
    /// The DISCONNECT that waits until it is drained.
    pub(crate) disconnect_op: u32,
}

/// A peer's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PeerState {
    Live,
    /// We end it; its `PeerGone` will come.
    Ending,
    /// Its connection is over. Its handle stays until DISCONNECT takes it back.
    Gone(Errno),
}

impl Peer {
    fn new(info: PeerInfo) -> Peer {
        Peer {
            info,
            state: PeerState::Live,
            tx_granted: 0,
            tx_used: 0,
            credited: 0,
            high: 0,
            low: 0,
            throttled: false,
            rx_granted: 0,
            rx_arrived: 0,
            credit_queue: Queue::EMPTY,
            window_queue: Queue::EMPTY,
            posted: Queue::EMPTY,
            requests: 0,
            receives: Queue::EMPTY,
            orphaned: 0,
            inbound: NONE,
            inbound_count: 0,
            disconnect_op: NONE,
        }
    }

    /// Credits that we may use.
    pub(crate) fn credits(&self) -> u32 {
        self.tx_granted.wrapping_sub(self.tx_used)
    }

    /// Whether the next operation may take a credit.
    pub(crate) fn may_take_credit(&self) -> bool {
        self.credits() > 0 && !self.throttled
    }

    /// An operation takes a credit.
    pub(crate) fn take_credit(&mut self) {
        self.tx_used = self.tx_used.wrapping_add(1);
        self.credited += 1;
        self.throttled |= self.high > 0 && self.credited >= self.high;
    }

    /// An operation that took one has ended; `unsent`: the credit is ours again.
    pub(crate) fn end_credited(&mut self, unsent: bool) {
        if unsent {
            self.tx_used = self.tx_used.wrapping_sub(1);
        }
        self.credited = self.credited.saturating_sub(1);
        self.throttled &= self.credited > self.low;
    }

    /// Sets both watermarks; 0 and 0: none.
    pub(crate) fn set_watermarks(&mut self, high: u32, low: u32) {
        (self.high, self.low) = (high, low);
        self.throttled = high > 0 && self.credited >= high;
    }

    /// Credits that it may use.
    pub(crate) fn credits_out(&self) -> u32 {
        self.rx_granted.wrapping_sub(self.rx_arrived)
    }
}

impl<S: Storage> Engine<S> {
    /// The index of a peer whose connection lives.
    pub(crate) fn live_peer(&self, handle: Handle) -> Result<u32, Errno> {
        let index = self.peers.find(handle, HandleKind::Peer)?;
        match self.peers.get(index).map(|peer| peer.state) {
            Some(PeerState::Live) => Ok(index),
            Some(PeerState::Gone(errno)) => Err(errno),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// The peer with that context: -ENOTCONN when there is none. Walks the table; SQEs that name the peer do not.
    pub(crate) fn peer_of_context(&self, context: [u64; 2]) -> Result<u32, Errno> {
        let mut from = 0;
        while let Some(index) = self.peers.next_used(from) {
            if self.peers.get(index).is_some_and(|p| p.info.context == context && p.state == PeerState::Live) {
                return Ok(index);
            }
            from = index + 1;
        }
        Err(Errno::ENOTCONN)
    }

    /// CONNECT.
    pub(crate) fn connect<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let (offset, length) = (op.sqe.local_offset, op.sqe.length);
        if length > 255 {
            return Err(Errno::EMSGSIZE);
        }
        let buffer = self.buffer_range(Handle::from_bits(op.sqe.local), offset, length)?;
        if !self.peers.has_room() {
            return Err(Errno::ENFILE);
        }
        self.use_buffer(buffer);
        Ok(self.start(host, op, buffer, |host, id| host.connect(id, buffer, offset, length)))
    }

    /// The host has reached the peer.
    pub(crate) fn connected<H: Host>(&mut self, host: &mut H, op: OpId, pending: u32, info: PeerInfo) {
        let index = self
            .find_op(op)
            .filter(|&index| self.operations.get(index).is_some_and(|operation| operation.state == State::Started));
        let Some(index) = index else {
            return host.reject(pending);
        };
        let Some(operation) = self.operations.get(index).copied() else {
            return;
        };
        self.unuse_buffer(operation.object);
        if operation.cancelled {
            host.reject(pending);
            return self.finish(host, index, Errno::ECANCELED.as_result(), 0, 0);
        }
        match self.adopt(host, pending, info) {
            Ok(peer) => self.finish(host, index, 0, peer.bits(), 0),
            Err(errno) => self.finish(host, index, errno.as_result(), 0, 0),
        }
    }

    fn adopt<H: Host>(&mut self, host: &mut H, pending: u32, info: PeerInfo) -> Result<Handle, Errno> {
        if info.window == 0 {
            host.reject(pending);
            return Err(Errno::EPROTO);
        }
        let Some((index, _)) = self.peers.insert(Peer::new(info)) else {
            host.reject(pending);
            return Err(Errno::ENFILE);
        };
        let handle = self.peers.handle(index, HandleKind::Peer);
        host.adopt(pending, handle);
        Ok(handle)
    }

    /// ACCEPT.
    pub(crate) fn accept<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let listener = self.listeners.find(Handle::from_bits(op.sqe.local), HandleKind::Listener)?;
        if let Some((pending, info)) = self.listeners.get_mut(listener).and_then(Listener::pop) {
            let peer = self.adopt(host, pending, info)?;
            return Ok(Flow::Done { result: 0, word0: peer.bits(), word1: 0 });
        }
        let index = self.place(host, op, State::Accepting);
        if let Some(operation) = self.operations.get_mut(index) {
            operation.object = listener;
        }
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.accepts.push_back(&mut self.operations, Through::State, index);
        }
        Ok(Flow::Pending)
    }

    /// Somebody has connected.
    pub(crate) fn incoming<H: Host>(&mut self, host: &mut H, listener: Handle, pending: u32, info: PeerInfo) {
        let Ok(index) = self.listeners.find(listener, HandleKind::Listener) else {
            return host.reject(pending);
        };
        let Some(state) = self.listeners.get_mut(index) else {
            return;
        };
        let Some(accept) = state.accepts.pop_front(&mut self.operations, Through::State) else {
            if !state.push(pending, info) {
                host.reject(pending);
            }
            return;
        };
        match self.adopt(host, pending, info) {
            Ok(peer) => self.finish(host, accept, 0, peer.bits(), 0),
            Err(errno) => self.finish(host, accept, errno.as_result(), 0, 0),
        }
    }

    /// DISCONNECT: ends the connection, and when nothing of it is in flight takes the handle back.
    pub(crate) fn disconnect<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let index = self.peers.find(Handle::from_bits(op.sqe.remote), HandleKind::Peer)?;
        if self.peers.get(index).is_some_and(|peer| peer.disconnect_op != NONE) {
            return Err(Errno::EALREADY);
        }
        let waiting = self.place(host, op, State::Disconnecting);
        if let Some(operation) = self.operations.get_mut(waiting) {
            operation.object = index;
        }
        if let Some(peer) = self.peers.get_mut(index) {
            peer.disconnect_op = waiting;
        }
        self.end_peer(host, index);
        self.try_drop_peer(host, index);
        Ok(Flow::Pending)
    }

    /// Asks the host to end a connection, once.
    pub(crate) fn end_peer<H: Host>(&mut self, host: &mut H, index: u32) {
        if let Some(peer) = self.peers.get_mut(index)
            && peer.state == PeerState::Live
        {
            peer.state = PeerState::Ending;
            host.disconnect(index);
        }
    }

    /// The peer broke the protocol.
    pub(crate) fn breach<H: Host>(&mut self, host: &mut H, index: u32) {
        self.statistics.breaches += 1;
        self.end_peer(host, index);
    }

    /// A connection is over: everything of it ends, in the order of clause TD-2.
    pub(crate) fn peer_gone<H: Host>(&mut self, host: &mut H, handle: Handle, errno: Errno) {
        let Ok(index) = self.peers.find(handle, HandleKind::Peer) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        if matches!(peer.state, PeerState::Gone(_)) {
            return;
        }
        let asked_for = peer.state == PeerState::Ending && peer.disconnect_op != NONE;
        peer.state = PeerState::Gone(errno);
        let first_inbound = peer.inbound;
        self.stop_inbound_chain(host, first_inbound);
        self.end_leases_of_peer(host, index);
        self.end_imports_of_peer(index);
        self.fail_operations_of_peer(host, index, errno);
        if !asked_for {
            self.raise(host, EventBits::PEER_GONE);
        }
        self.try_drop_peer(host, index);
    }

    /// Takes a gone peer's handle back once nothing of it is in flight and a DISCONNECT asks for it.
    pub(crate) fn try_drop_peer<H: Host>(&mut self, host: &mut H, index: u32) {
        let Some(peer) = self.peers.get(index).copied() else {
            return;
        };
        let drained = peer.inbound_count == 0 && peer.posted.length == 0 && peer.receives.length == 0;
        if !matches!(peer.state, PeerState::Gone(_)) || !drained || peer.disconnect_op == NONE {
            return;
        }
        self.peers.remove(index);
        host.drop_peer(index);
        self.finish(host, peer.disconnect_op, 0, 0, 0);
    }

    /// A peer said something.
    pub(crate) fn message<H: Host>(&mut self, host: &mut H, handle: Handle, frame: u32, message: &Message) {
        let Ok(index) = self.peers.find(handle, HandleKind::Peer) else {
            return;
        };
        if self.peers.get(index).is_none_or(|peer| peer.state != PeerState::Live) {
            return host.drop_frame(index, frame);
        }
        match *message {
            Message::Request(request) => self.request(host, index, frame, &request),
            Message::Done { op, result, bytes } => self.answered(host, index, OpId::from_bits(op), result, bytes),
            Message::Credits { total } => self.credits_arrived(host, index, total),
            Message::Claim { op, lease, tag, import } => {
                let answer = match self.claimed_by_peer(index, lease, tag, import) {
                    Ok(lease) => Message::Claimed {
                        op,
                        result: 0,
                        rights: lease.rights,
                        list: matches!(lease.target, crate::lease::LeaseTarget::List(_)),
                        length: lease.length,
                    },
                    Err(errno) => Message::Claimed {
                        op,
                        result: errno.as_result(),
                        rights: dmaplane_ring::abi::Rights::NONE,
                        list: false,
                        length: 0,
                    },
                };
                host.send(index, &answer);
            }
            Message::Claimed { .. } => self.claim_answered(host, index, message),
            Message::Stop { lease, import } => self.stop_import(host, index, lease, import),
            Message::Stopped { lease } => self.stopped_by_peer(host, index, lease),
            Message::Released { lease } => self.released_by_peer(host, index, lease),
        }
    }
}
