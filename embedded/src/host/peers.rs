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
use crate::runner::{Rung, Shared, failed};
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
/// Looks at a link that bring nothing before its peer is asked to ring instead.
const QUIET_LOOKS: u32 = 4096;
/// So few links are looked at in every turn, whatever they bring: that costs less than hearing a bell.
const FEW_LINKS: usize = 8;
/// How long a bell may ring before a thread that is awake hears it: a system call, so not in every turn.
const BELLS_HEARD_WITHIN: Duration = Duration::from_micros(20);

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
    /// It stands among the busy links. If it does not, its flag is up, and it has been looked at since.
    busy: bool,
    /// Looks since it has brought something.
    quiet_looks: u32,
}

/// Which links a turn looks at: neither its cost nor that of going to sleep may grow with the peers that say nothing.
/// What is not busy is quiet: its flag is up, so that its peer rings.
pub(super) struct BusyLinks {
    /// Peers that are looked at in every turn: who has lately sent or been sent something, and all that have something
    /// to be sent. Their flags are up while the service thread sleeps.
    busy: Vec<u32>,
    /// The service thread is awake, as it is at first.
    awake: bool,
    /// When bells were last listened for while it was.
    listened: Option<Instant>,
}

impl BusyLinks {
    pub(super) const NEW: BusyLinks = BusyLinks { busy: Vec::new(), awake: true, listened: None };
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
                    && let Err(errno) = shared.watch_bell(link.bell(), peer.index())
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
                if self.links.awake
                    && let Some(link) = slot.link()
                {
                    link.awake();
                }
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
            } else if self.goes_quiet(index) {
                self.links.busy.swap_remove(place);
                continue;
            }
            place += 1;
        }
        self.listen();
        worked
    }

    /// While the service thread is awake nobody sleeps in what hears the bells of quiet links.
    fn listen(&mut self) {
        if !self.links.awake || self.peers.len() <= self.links.busy.len() {
            return;
        }
        let now = Instant::now();
        if self.links.listened.is_some_and(|last| now.duration_since(last) < BELLS_HEARD_WITHIN) {
            return;
        }
        self.links.listened = Some(now);
        if let Some(shared) = self.shared() {
            self.hear(&shared.listen(Some(Duration::ZERO)));
        }
    }

    /// These peers have rung. One that has sent nothing all the same gets no further look for it.
    pub(crate) fn hear(&mut self, rung: &Rung) {
        for &index in rung.peers() {
            let slot = self.peers.get_mut(index as usize).and_then(Option::as_mut);
            if slot.and_then(PeerSlot::link).is_some_and(Link::has_incoming) {
                self.make_busy(index);
            }
        }
    }

    /// After a look that has brought nothing: whether the link need not be looked at in every turn any more.
    fn goes_quiet(&mut self, index: u32) -> bool {
        let (few, awake) = (self.links.busy.len() <= FEW_LINKS, self.links.awake);
        let Some(Some(slot)) = self.peers.get_mut(index as usize) else { return true };
        slot.quiet_looks = slot.quiet_looks.saturating_add(1);
        let patient = slot.quiet_looks <= QUIET_LOOKS;
        let quiet = match slot.link() {
            Some(link) if few || patient || link.has_backlog() => false,
            Some(link) => {
                link.announce_sleep();
                shm::settle();
                let quiet = !link.has_incoming();
                if !quiet && awake {
                    link.awake();
                }
                quiet
            }
            // Tcp tells by itself.
            None => true,
        };
        slot.busy = !quiet;
        quiet
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

    /// Tells peers that we are about to sleep; `false` when one of them has sent something. Quiet ones know.
    pub(crate) fn announce_sleep(&mut self) -> bool {
        self.tcp.stop_polling();
        self.links.awake = false;
        for place in 0..self.links.busy.len() {
            if let Some(link) = self.busy_link(place) {
                link.announce_sleep();
            }
        }
        shm::settle();
        !(0..self.links.busy.len()).any(|place| self.busy_link(place).is_some_and(Link::has_incoming))
    }

    pub(crate) fn awake(&mut self) {
        self.links.awake = true;
        for place in 0..self.links.busy.len() {
            if let Some(link) = self.busy_link(place) {
                link.awake();
            }
        }
    }

    fn busy_link(&mut self, place: usize) -> Option<&mut Link> {
        let index = *self.links.busy.get(place)?;
        self.peers.get_mut(index as usize)?.as_mut()?.link()
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
