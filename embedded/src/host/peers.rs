//! Connections: made, adopted, polled, ended.

use super::lane::Lane;
use super::tcp::TcpLink;
use super::{EmbeddedHost, Note};
use crate::fabric::Connection;
use crate::fabric::address::Address;
use crate::fabric::frames::{FABRIC_WORDS, Frame};
use crate::fabric::shm::{self, ENTRIES, Entry, Kind, Link};
use crate::fabric::tcp;
use crate::memory::Region;
use crate::runner::{Shared, failed};
use crate::storage::Heap;
use dmaplane_engine::{Engine, Event, Message, OpId, Outcome, RequestKind, WIRE_WORDS};
use dmaplane_ring::abi::{Errno, Handle};
use rustix::event::{PollFd, PollFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Entries taken from one link in one turn.
const LINK_BUDGET: u32 = 128;
/// Looks at a link that bring nothing before it is looked at now and then only.
const QUIET_LOOKS: u32 = 4096;
/// Quiet links that a turn looks at.
const QUIET_LINKS_A_TURN: usize = 8;
/// How long a quiet link may wait for its look, however much each turn has to do.
const QUIET_LINKS_WITHIN: Duration = Duration::from_micros(200);

/// An adopted connection of either fabric.
pub(super) enum PeerLink {
    Shm(Box<Link>),
    Tcp(TcpLink),
    /// It has ended.
    None,
}

/// A peer's connection.
pub(crate) struct PeerSlot {
    pub(super) handle: Handle,
    pub(super) connection: PeerLink,
    /// Copies to and from it.
    pub(super) lane: Arc<Lane>,
    /// Its end has been reported: nothing more is read or sent.
    pub(super) ended: bool,
    /// It stands among the busy links.
    busy: bool,
    /// Looks since it has brought something.
    quiet_looks: u32,
}

/// Which links a turn looks at: its cost must not grow with the peers that say nothing.
#[derive(Default)]
pub(super) struct BusyLinks {
    /// Peers that are looked at in every turn: who has lately sent or been sent something, and all that have something
    /// to be sent.
    busy: Vec<u32>,
    /// The next of all to be looked at.
    cursor: usize,
    /// When all were last looked at.
    all_looked_at: Option<Instant>,
    /// Somebody has rung: the next turn looks at all.
    look_at_all: bool,
}

impl PeerSlot {
    pub(super) fn link(&mut self) -> Option<&mut Link> {
        match &mut self.connection {
            PeerLink::Shm(link) if !self.ended => Some(link),
            _ => None,
        }
    }

    pub(super) fn tcp(&self) -> Option<&TcpLink> {
        match &self.connection {
            PeerLink::Tcp(link) if !self.ended => Some(link),
            _ => None,
        }
    }
}

impl EmbeddedHost {
    pub(crate) fn put_listener(&mut self, listener: u32, socket: OwnedFd) {
        self.listeners.insert(listener, socket);
    }

    pub(super) fn start_connect(&mut self, op: OpId, buffer: u32, offset: u64, length: u64) -> Outcome {
        let mut bytes = vec![0; length as usize];
        let read = self.region(buffer).and_then(|region| region.read(offset, &mut bytes));
        let address = read.and_then(|()| {
            let text = std::str::from_utf8(&bytes).map_err(|_| Errno::EINVAL)?;
            text.parse::<Address>().map_err(|_| Errno::EINVAL)
        });
        let address = match address {
            Ok(address) => address,
            Err(errno) => return Outcome::failed(errno),
        };
        // May take seconds: not a worker's time either.
        let weak = self.shared.clone();
        let cancelled = Arc::new(AtomicBool::new(false));
        self.connecting.retain(|_, flag| flag.strong_count() > 0);
        self.connecting.insert(op.bits(), Arc::downgrade(&cancelled));
        let connecting = std::thread::Builder::new().name("dmaplane-connect".into());
        let spawned = connecting.spawn(move || {
            let Some(shared) = weak.upgrade() else { return };
            let connected = match address {
                Address::Shm(path) => shm::connect(&path, &shared.info, &cancelled),
                Address::Tcp(host_port) => tcp::connect(&host_port, &shared.own()),
            };
            match connected {
                Ok(pending) => {
                    let info = pending.info;
                    let pending = shared.keep_pending(pending);
                    shared.post(Event::Connected { op, pending, info });
                }
                Err(errno) => shared.post(failed(op, errno)),
            }
        });
        if spawned.is_err() { Outcome::failed(Errno::ENOMEM) } else { Outcome::Started }
    }

    pub(super) fn cancel_connect(&mut self, op: OpId) {
        if let Some(flag) = self.connecting.remove(&op.bits()).and_then(|flag| flag.upgrade()) {
            // Release: pairs with the connecting thread's acquire.
            flag.store(true, Ordering::Release);
        }
    }

    pub(super) fn adopt_pending(&mut self, pending: u32, peer: Handle) {
        let Some(pending) = self.shared().and_then(|shared| shared.take_pending(pending)) else { return };
        let index = peer.index() as usize;
        if self.peers.len() <= index {
            self.peers.resize_with(index + 1, || None);
        }
        let connection = match pending.connection {
            Connection::Shm(link) => {
                if let Some(shared) = self.shared()
                    && let Err(errno) = shared.watch_bell(link.bell())
                {
                    // Nobody would wake us for it.
                    tracing::error!(%errno, "shm: a peer's bell cannot be watched");
                    link.shut_down();
                }
                watch_socket(self.shared.clone(), peer, link.socket().try_clone_to_owned());
                PeerLink::Shm(link)
            }
            Connection::Tcp(sockets) => PeerLink::Tcp(self.open_tcp(peer, sockets)),
        };
        let lane = Arc::default();
        self.peers[index] =
            Some(PeerSlot { handle: peer, connection, lane, ended: false, busy: false, quiet_looks: 0 });
        self.make_busy(peer.index());
        // What came before the peer had a name may already be in the link: the next turn reads it.
        if let Some(shared) = self.shared() {
            shared.note_quietly(Note::Look);
            // Whoever runs the engine now, the service thread may sleep, and has raised no flag on this link.
            shared.ring_bell();
        }
    }

    /// Ends a connection and reports it, once.
    pub(super) fn end_connection(&mut self, peer: u32, errno: Errno) {
        let Some(Some(slot)) = self.peers.get_mut(peer as usize) else { return };
        if std::mem::replace(&mut slot.ended, true) {
            return;
        }
        let handle = slot.handle;
        match std::mem::replace(&mut slot.connection, PeerLink::None) {
            PeerLink::Shm(link) => {
                link.shut_down();
                if let Some(shared) = self.shared() {
                    // By hand, since the peer has it, too, and may keep it.
                    shared.unwatch_bell(link.bell());
                }
                // What the peer has handed over goes now, not when somebody calls DISCONNECT, and on another thread.
                self.give(move |_| drop(link));
            }
            PeerLink::Tcp(link) => {
                let close = tcp::Command::Close { connection: link.connection };
                self.tcp.commands.push(close);
            }
            PeerLink::None => {}
        }
        self.drop_scratch_of_peer(handle);
        self.report(Event::PeerGone { peer: handle, errno });
    }

    pub(super) fn connection_lost(&mut self, engine: &mut Engine<Heap>, peer: Handle) {
        let current = self.peers.get(peer.index() as usize).and_then(Option::as_ref);
        if current.is_some_and(|slot| slot.handle == peer) {
            // What it said before it died still counts: all that was published, which is no more than there are
            // entries.
            self.poll_link(engine, peer.index(), ENTRIES);
            self.end_connection(peer.index(), Errno::ECONNRESET);
        }
    }

    pub(super) fn send_message(&mut self, peer: u32, message: &Message) {
        if let Some(connection) = self.tcp_connection(peer) {
            return self.tcp.say(connection, message, &[]);
        }
        self.send_entry(peer, Entry { message: message.encode(), ..Entry::default() }, Vec::new());
    }

    pub(super) fn send_entry(&mut self, peer: u32, entry: Entry, payload: Vec<u8>) {
        let Some(Some(slot)) = self.peers.get_mut(peer as usize) else { return };
        let Some(link) = slot.link() else { return };
        if !link.send(entry, payload) {
            tracing::warn!(peer, "the peer has not read its messages for too long");
            self.end_connection(peer, Errno::ETIMEDOUT);
        }
        self.make_busy(peer);
    }

    /// A link that something is to be sent over, or has come from.
    pub(super) fn make_busy(&mut self, peer: u32) {
        if let Some(Some(slot)) = self.peers.get_mut(peer as usize) {
            slot.quiet_looks = 0;
            if !std::mem::replace(&mut slot.busy, true) {
                self.links.busy.push(peer);
            }
        }
    }

    /// Its number may be another's soon.
    pub(super) fn forget_link(&mut self, peer: u32) {
        self.links.busy.retain(|&busy| busy != peer);
    }

    pub(super) fn flush_links(&mut self) {
        for place in 0..self.links.busy.len() {
            let index = self.links.busy[place];
            let Some(Some(slot)) = self.peers.get_mut(index as usize) else { continue };
            let peer = slot.handle;
            match slot.link().map(Link::flush) {
                None | Some(Ok(())) => {}
                // It is dead, and what it said before is still to be read.
                Some(Err(Errno::ECONNRESET)) => {
                    if let Some(shared) = self.shared() {
                        shared.note_quietly(Note::ConnectionLost { peer });
                    }
                }
                Some(Err(errno)) => self.end_connection(index, errno),
            }
        }
    }

    /// Whether a peer has yet to make room for what we have to say: nobody rings when it does.
    pub(crate) fn has_backlog(&self) -> bool {
        let slots = self.links.busy.iter().filter_map(|&index| self.peers.get(index as usize)?.as_ref());
        slots.into_iter().any(|slot| match &slot.connection {
            PeerLink::Shm(link) => !slot.ended && link.has_backlog(),
            PeerLink::Tcp(_) | PeerLink::None => false,
        })
    }

    pub(super) fn unshare_everywhere(&mut self, region: &Arc<Region>) {
        for index in 0..self.peers.len() as u32 {
            let link = self.peers[index as usize].as_mut().and_then(PeerSlot::link);
            if link.is_some_and(|link| link.unshare(region)) {
                self.make_busy(index);
            }
        }
    }

    /// Reads what peers have sent.
    pub(crate) fn poll_links(&mut self, engine: &mut Engine<Heap>) -> bool {
        let mut worked = false;
        let mut place = 0;
        while let Some(&index) = self.links.busy.get(place) {
            if self.poll_link(engine, index, LINK_BUDGET) {
                worked = true;
            } else if self.has_gone_quiet(index) {
                self.links.busy.swap_remove(place);
                continue;
            }
            place += 1;
        }
        for _ in 0..self.quiet_links_due() {
            let index = self.links.cursor % self.peers.len();
            self.links.cursor = index + 1;
            // The busy ones have been looked at.
            let quiet = self.peers[index].as_ref().is_some_and(|slot| !slot.busy);
            if quiet && self.poll_link(engine, index as u32, LINK_BUDGET) {
                self.make_busy(index as u32);
                worked = true;
            }
        }
        worked
    }

    /// How many of the quiet links this turn looks at.
    fn quiet_links_due(&mut self) -> usize {
        let all = self.peers.len();
        let has_rung = std::mem::take(&mut self.links.look_at_all);
        if all <= QUIET_LINKS_A_TURN {
            return all;
        }
        let now = Instant::now();
        let last = self.links.all_looked_at.get_or_insert(now);
        if has_rung || now.duration_since(*last) >= QUIET_LINKS_WITHIN {
            *last = now;
            return all;
        }
        QUIET_LINKS_A_TURN
    }

    /// After a look that has brought nothing: whether the link need not be looked at in every turn any more.
    fn has_gone_quiet(&mut self, index: u32) -> bool {
        let Some(Some(slot)) = self.peers.get_mut(index as usize) else { return true };
        // While its backlog keeps it busy there is no bound.
        slot.quiet_looks = slot.quiet_looks.saturating_add(1);
        let rests = match &slot.connection {
            PeerLink::Shm(link) => slot.quiet_looks > QUIET_LOOKS && !link.has_backlog(),
            PeerLink::Tcp(_) | PeerLink::None => true,
        };
        slot.busy = !rests;
        rests
    }

    fn poll_link(&mut self, engine: &mut Engine<Heap>, index: u32, budget: u32) -> bool {
        let mut worked = false;
        for _ in 0..budget {
            let Some(Some(slot)) = self.peers.get_mut(index as usize) else { break };
            let peer = slot.handle;
            let Some(received) = slot.link().and_then(Link::receive) else { break };
            worked = true;
            let outcome =
                received.and_then(|(kind, entry, payload)| self.take_entry(engine, peer, kind, &entry, payload));
            if let Err(errno) = outcome {
                tracing::warn!(peer = index, %errno, "the peer broke the link's protocol");
                self.end_connection(index, errno);
            }
        }
        worked
    }

    fn take_entry(
        &mut self,
        engine: &mut Engine<Heap>,
        peer: Handle,
        kind: Kind,
        entry: &Entry,
        payload: Vec<u8>,
    ) -> Result<(), Errno> {
        let silent = entry.message == [0; WIRE_WORDS];
        match kind {
            Kind::Serve | Kind::ServeList | Kind::ServeEnd | Kind::RegionDrop if silent => {
                self.take_fabric_entry(peer, kind, entry)
            }
            Kind::Plain | Kind::Source | Kind::ListSource | Kind::ListIndex => {
                let message = Message::decode(&entry.message).ok_or(Errno::EPROTO)?;
                if let Message::Done { op, result, .. } = message {
                    self.request_answered(peer, op);
                    self.read_answered(peer, op, result)?;
                }
                // Only a request's frame is ever dropped: with anything else nothing travels.
                if !matches!(message, Message::Request(_)) && (kind != Kind::Plain || !payload.is_empty()) {
                    return Err(Errno::EPROTO);
                }
                let mut words = entry.fabric;
                let reads = match message {
                    Message::Request(request) => {
                        // Who reads: the last word is ours to use.
                        words[FABRIC_WORDS - 1] = request.op;
                        matches!(request.kind, RequestKind::Read | RequestKind::ReadList)
                    }
                    _ => false,
                };
                let frame = match (kind, payload.is_empty()) {
                    (Kind::Plain, true) if !reads => 0,
                    _ => self.frames.insert(Frame { peer: peer.index(), words, payload, arrived: None }),
                };
                engine.handle(self, Event::Message { peer, frame, message });
                Ok(())
            }
            _ => Err(Errno::EPROTO),
        }
    }

    /// Tells peers that we are about to sleep; `false` when one of them has sent something.
    pub(crate) fn announce_sleep(&mut self) -> bool {
        self.tcp.stop_polling();
        let mut idle = true;
        shm::announce_sleep(self.peers.iter_mut().flatten().filter_map(PeerSlot::link));
        for index in 0..self.peers.len() as u32 {
            let link = self.peers[index as usize].as_mut().and_then(PeerSlot::link);
            if link.is_some_and(|link| link.has_incoming()) {
                self.make_busy(index);
                idle = false;
            }
        }
        idle
    }

    pub(crate) fn awake(&mut self) {
        self.links.look_at_all = true;
        for slot in self.peers.iter_mut().flatten() {
            if let Some(link) = slot.link() {
                link.awake();
            }
        }
    }
}

/// Waits, on a thread of its own, for the socket's end: that is how a peer's death is noticed, at once.
fn watch_socket(shared: Weak<Shared>, peer: Handle, socket: std::io::Result<OwnedFd>) {
    let watching = std::thread::Builder::new().name("dmaplane-watch".into());
    let unwatched = shared.clone();
    let watching = watching.spawn(move || {
        if let Ok(socket) = &socket {
            let hang_up = PollFlags::RDHUP;
            let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), hang_up)];
            while rustix::event::poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
        }
        if let Some(shared) = shared.upgrade() {
            shared.note(Note::ConnectionLost { peer });
        }
    });
    // One that nobody watches would never be found dead.
    if watching.is_err()
        && let Some(shared) = unwatched.upgrade()
    {
        shared.note_quietly(Note::ConnectionLost { peer });
    }
}
