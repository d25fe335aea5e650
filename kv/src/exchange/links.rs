//! An exchange's peers: known by name, met by listening or dialling, and met again after their death.

use super::signal::{Signal, pack, unpack};
use super::{Event, PeerId};
use crate::transfer::TransferError;
use dmaplane::{Arrival, Connecting, Errno, Listener, Operation, Peer, Plane};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long after a failure or an end it is dialled again: doubled with each until it has said its name, up to the
/// longest.
const SHORTEST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// Arrivals that are taken from one peer before the others have their turn.
const ARRIVALS_A_TURN: usize = 64;

/// Signals, and bytes of them, that wait for one peer at most; more of them, and it takes nothing and is lost. The
/// user's messages have half of that, so that they do not lose it.
const SIGNALS_MAX: usize = 4096;
const SIGNAL_BYTES_MAX: usize = 1 << 20;

/// A connected peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: Peer,
    /// `None` until it has said who it is.
    name: Option<String>,
    /// Signals that wait for their turn. One message is on its way at a time, since no order is promised between them.
    outbox: VecDeque<Vec<u8>>,
    outbox_bytes: usize,
    /// Something could not be said to it any more.
    is_overrun: bool,
    /// The message on its way, and how many signals are in it.
    sending: Option<(Operation<()>, usize)>,
}

/// Somebody to be connected with.
#[derive(Debug)]
struct Dial {
    name: String,
    address: String,
    next: Instant,
    delay: Duration,
    connecting: Option<Connecting>,
    peer: Option<PeerId>,
}

/// All peers of one exchange.
#[derive(Debug)]
pub(super) struct Links {
    name: String,
    links: BTreeMap<PeerId, Link>,
    next_peer: u64,
    listener: Option<(Listener, Option<Connecting>)>,
    dials: Vec<Dial>,
}

/// What a peer has sent, or its end.
pub(super) enum Heard {
    /// An immediate with its notification.
    Notice(Arrival),
    /// A message.
    Signal(Signal),
    /// Nothing more will come.
    End(TransferError),
}

impl Dial {
    fn retry_later(&mut self) {
        self.next = Instant::now() + self.delay;
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
    }
}

impl Link {
    /// The engine's name of the connection.
    pub(super) fn bits(&self) -> u64 {
        self.peer.handle().handle().bits()
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        self.name.clone().unwrap_or_else(|| "a peer that has not said its name".to_owned())
    }

    /// Says something as soon as the peer has room for it. Who lets too much wait is [lost](Links::overrun).
    pub(super) fn say(&mut self, signal: &Signal) {
        let encoded = signal.encode();
        if !self.has_room(encoded.len(), 1) {
            self.is_overrun = true;
            return;
        }
        self.outbox_bytes += encoded.len();
        self.outbox.push_back(encoded);
    }

    fn has_room(&self, more_bytes: usize, part: usize) -> bool {
        let (signals, bytes) = (self.outbox.len() + 1, self.outbox_bytes + more_bytes);
        signals <= SIGNALS_MAX / part && bytes <= SIGNAL_BYTES_MAX / part
    }

    /// Sends a user's message, unless too much waits for the peer already.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), TransferError> {
        if !self.has_room(bytes.len(), 2) {
            return Err(self.overrun());
        }
        self.say(&Signal::Message { bytes: bytes.to_vec() });
        Ok(())
    }

    fn overrun(&self) -> TransferError {
        TransferError::Overrun { name: self.shown(), signals: self.outbox.len(), bytes: self.outbox_bytes }
    }

    fn flush(&mut self, plane: &mut Plane) {
        if let Some((sending, count)) = &mut self.sending {
            let Some(ended) = sending.poll(plane) else { return };
            // Where it was not taken it is sent again; where the connection has ended nothing is.
            if ended.err().and_then(|error| error.errno()) != Some(Errno::ENOBUFS) {
                self.outbox_bytes -= self.outbox.drain(..*count).map(|signal| signal.len()).sum::<usize>();
            }
            self.sending = None;
        }
        if !self.outbox.is_empty() {
            let (message, count) = pack(self.outbox.iter());
            self.sending = plane.start_send(&self.peer, &message).ok().map(|sending| (sending, count));
        }
    }
}

impl Links {
    pub(super) fn new(name: &str) -> Links {
        let name = name.to_owned();
        Links { name, links: BTreeMap::new(), next_peer: 1, listener: None, dials: Vec::new() }
    }

    pub(super) fn get(&self, peer: PeerId) -> Option<&Link> {
        self.links.get(&peer)
    }

    pub(super) fn get_mut(&mut self, peer: PeerId) -> Option<&mut Link> {
        self.links.get_mut(&peer)
    }

    /// The peer of that id, or an error that says that it has gone.
    pub(super) fn live(&self, peer: PeerId) -> Result<&Link, TransferError> {
        self.get(peer).ok_or_else(|| TransferError::PeerGone { name: format!("peer {}", peer.0) })
    }

    pub(super) fn named(&self, name: &str) -> Option<PeerId> {
        self.links.iter().find(|(_, link)| link.name.as_deref() == Some(name)).map(|(peer, _)| *peer)
    }

    pub(super) fn ids(&self) -> Vec<PeerId> {
        self.links.keys().copied().collect()
    }

    /// Whether somebody is to be dialled soon.
    pub(super) fn is_dialling(&self) -> bool {
        self.dials.iter().any(|dial| !self.is_met(dial))
    }

    /// Whether there is a connection with who is to be dialled, whoever has dialled.
    fn is_met(&self, dial: &Dial) -> bool {
        dial.peer.is_some() || self.named(&dial.name).is_some()
    }

    pub(super) fn listen(&mut self, plane: &mut Plane, address: &str) -> Result<String, TransferError> {
        let (listener, address) = plane.listen(address)?;
        self.listener = Some((listener, None));
        Ok(address)
    }

    /// Dials, or changes whom it dials under that name.
    pub(super) fn dial(&mut self, name: &str, address: &str) {
        let (next, delay) = (Instant::now(), SHORTEST_DELAY);
        match self.dials.iter_mut().find(|dial| dial.name == name) {
            Some(dial) => {
                (dial.address, dial.next, dial.delay, dial.connecting) = (address.to_owned(), next, delay, None);
            }
            None => {
                let (name, address) = (name.to_owned(), address.to_owned());
                self.dials.push(Dial { name, address, next, delay, connecting: None, peer: None });
            }
        }
    }

    pub(super) fn hang_up(&mut self, name: &str) {
        self.dials.retain(|dial| dial.name != name);
    }

    fn add(&mut self, peer: Peer, name: Option<String>) -> PeerId {
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        let mut link = Link { peer, name, outbox: VecDeque::new(), outbox_bytes: 0, is_overrun: false, sending: None };
        link.say(&Signal::Hello { name: self.name.clone() });
        self.links.insert(id, link);
        id
    }

    /// Takes in who comes, and dials who is missing.
    pub(super) fn meet(&mut self, plane: &mut Plane, events: &mut VecDeque<Event>) {
        while let Some((listener, accepting)) = &mut self.listener {
            let Some(waiting) = accepting else {
                *accepting = plane.start_accept(listener).ok();
                break;
            };
            let Some(ended) = waiting.poll(plane) else { break };
            *accepting = None;
            // An error turns one connection away; the next one is waited for.
            let Ok(peer) = ended else { break };
            self.add(peer, None);
        }
        for place in 0..self.dials.len() {
            let is_met = self.dials.get(place).is_some_and(|dial| self.is_met(dial));
            let Some(dial) = self.dials.get_mut(place) else { continue };
            if is_met {
                // It has dialled us, and said its name: a second connection would only have to end.
                dial.connecting = None;
                continue;
            }
            let ended = match &mut dial.connecting {
                Some(connecting) => connecting.poll(plane),
                None => {
                    if Instant::now() >= dial.next {
                        dial.connecting = plane.start_connect(&dial.address).ok();
                    }
                    None
                }
            };
            match ended {
                None => {}
                Some(Err(_)) => {
                    dial.connecting = None;
                    dial.retry_later();
                }
                Some(Ok(peer)) => {
                    dial.connecting = None;
                    let name = dial.name.clone();
                    let id = self.add(peer, Some(name.clone()));
                    if let Some(dial) = self.dials.get_mut(place) {
                        dial.peer = Some(id);
                    }
                    events.push_back(Event::Connected { peer: id, name });
                }
            }
        }
    }

    /// What has come from one peer, at most so much that others have their turn.
    pub(super) fn hear(&mut self, plane: &mut Plane, peer: PeerId) -> Vec<Heard> {
        let mut heard = Vec::new();
        let Some(link) = self.links.get(&peer) else { return heard };
        while heard.len() < ARRIVALS_A_TURN {
            match plane.try_receive(&link.peer) {
                Ok(None) => break,
                Ok(Some(arrival)) if arrival.immediate.is_some() => heard.push(Heard::Notice(arrival)),
                Ok(Some(arrival)) => {
                    let signals = unpack(&arrival.payload).into_iter();
                    heard.extend(signals.map(|signal| signal.map_or_else(Heard::End, Heard::Signal)));
                }
                Err(_) => heard.push(Heard::End(TransferError::PeerGone { name: link.shown() })),
            }
            if matches!(heard.last(), Some(Heard::End(_))) {
                break;
            }
        }
        heard
    }

    /// A peer says its name. Of two connections of one name, the one that is to end.
    ///
    /// It is the earlier one, which is of an earlier life of the peer. But where each has dialled the other, both keep
    /// the connection that the one whose name comes first has dialled: were each to end the earlier, none would stay.
    pub(super) fn introduce(&mut self, peer: PeerId, name: String, events: &mut VecDeque<Event>) -> Option<PeerId> {
        // Only who speaks is met: one that takes connections and ends them is dialled ever more rarely.
        if let Some(dial) = self.dials.iter_mut().find(|dial| dial.peer == Some(peer)) {
            dial.delay = SHORTEST_DELAY;
        }
        let earlier = self.named(&name).filter(|&earlier| earlier != peer);
        let is_dialled = |peer| self.dials.iter().any(|dial| dial.peer == Some(peer));
        if earlier.is_some_and(is_dialled) && !is_dialled(peer) && self.name < name {
            return Some(peer);
        }
        if let Some(link) = self.links.get_mut(&peer).filter(|link| link.name.is_none()) {
            link.name = Some(name.clone());
            events.push_back(Event::Connected { peer, name });
            return earlier;
        }
        None
    }

    /// The peers that take too little of what they are told, each with the error that says so.
    pub(super) fn overrun(&self) -> Vec<(PeerId, TransferError)> {
        self.links.iter().filter(|(_, link)| link.is_overrun).map(|(peer, link)| (*peer, link.overrun())).collect()
    }

    pub(super) fn flush(&mut self, plane: &mut Plane) {
        self.links.values_mut().for_each(|link| link.flush(plane));
    }

    /// Ends a connection: when it returns, nothing of the peer's touches our memory, and nothing of ours is with it.
    /// Who was dialled is dialled again.
    pub(super) fn end(&mut self, plane: &mut Plane, peer: PeerId) -> Option<String> {
        let link = self.links.remove(&peer)?;
        let name = link.shown();
        // It may have ended by itself; what is left of it is given back either way.
        let _ = plane.disconnect(link.peer);
        if let Some(dial) = self.dials.iter_mut().find(|dial| dial.peer == Some(peer)) {
            dial.peer = None;
            dial.retry_later();
        }
        Some(name)
    }
}
