//! One turn of an exchange: everything moves on as far as it can without waiting.

use super::landing::Counted;
use super::links::Heard;
use super::signal::{Half, Signal};
use super::{End, Event, Exchange, PeerId, Ticket};
use crate::TransferId;
use crate::transfer::TransferError;
use dmaplane::Arrival;
use std::time::{Duration, Instant};

/// How long [`Exchange::wait`] waits at most while something is under way: what has to be tried again (a full ring, a
/// name to be dialled) makes no sound.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Readers are told when an offer has ended, so that they do not go on in vain. That nothing stale reaches them is for
/// the lease alone to ensure; the negative control breaks this, so that nothing else can.
const TELLS_READERS: bool = !cfg!(feature = "broken-no-end-signal");

impl Exchange {
    /// Moves everything on and says what has happened; never waits for a peer.
    pub fn poll(&mut self) -> Vec<Event> {
        self.links.meet(&mut self.plane, &mut self.events);
        for peer in self.links.ids() {
            for heard in self.links.hear(&mut self.plane, peer) {
                match heard {
                    Heard::Notice(arrival) => self.count(peer, &arrival),
                    Heard::Signal(signal) => self.obey(peer, signal),
                    Heard::End(error) => self.lose(peer, error),
                }
            }
        }
        self.poll_pushes();
        self.poll_pulls();
        self.expire();
        for (peer, error) in self.links.overrun() {
            self.lose(peer, error);
        }
        self.links.flush(&mut self.plane);
        std::mem::take(&mut self.events).into()
    }

    /// Waits until something may have happened, or the time is up (`false`).
    pub fn wait(&mut self, timeout: Duration) -> bool {
        if !self.events.is_empty() {
            return true;
        }
        let is_busy = self.in_flight() > 0 || self.links.is_dialling();
        self.plane.wait(if is_busy { timeout.min(LOOK_AGAIN) } else { timeout })
    }

    fn count(&mut self, peer: PeerId, arrival: &Arrival) {
        let Some(bits) = self.links.get(peer).map(|link| link.bits()) else { return };
        let slot = TransferId::unpack(arrival.immediate.unwrap_or(0)).slot;
        let landing = self.landings.iter_mut().find(|(_, landing)| landing.transfers().any(|of| of.slot == slot));
        let Some((&ticket, landing)) = landing else { return };
        match landing.arrive(&mut self.slots, bits, arrival) {
            Counted::Waits => {}
            Counted::Complete => self.end_landing(ticket, End::Done(())),
            Counted::Broken(error) => self.end_landing(ticket, End::Failed(error)),
        }
    }

    fn obey(&mut self, peer: PeerId, signal: Signal) {
        match signal {
            Signal::Hello { name } => {
                if let Some(other) = self.links.introduce(peer, name.clone(), &mut self.events) {
                    self.lose(other, TransferError::PeerGone { name });
                }
            }
            Signal::Message { bytes } => self.events.push_back(Event::Message { peer, bytes }),
            Signal::Claim { half, transfer, token } => self.claim(peer, half, transfer, &token),
            Signal::Ready { transfer, parts, last } => {
                let pull = self.pulls.values_mut().find(|pull| pull.is_with(peer, transfer));
                if let Some(pull) = pull
                    && let Err(error) = pull.ready(peer, transfer, &parts, last)
                {
                    pull.give_up(&mut self.plane, End::Failed(error));
                }
            }
            Signal::Done { transfer } => {
                let offer = self.offers.iter_mut().find(|(_, offer)| offer.is_with(peer, transfer));
                if let Some((&ticket, offer)) = offer
                    && offer.done(peer, transfer)
                {
                    self.end_offer(ticket, End::Done(()));
                }
            }
            Signal::Abort { half, transfer } => self.aborted(peer, half, transfer),
        }
    }

    fn claim(&mut self, peer: PeerId, half: Half, transfer: u32, token: &[u8]) {
        let Some(link) = self.links.get(peer) else { return };
        let (side, id) = ((peer, link), TransferId::unpack(transfer));
        let accepted = match half {
            Half::Landing => self.landings.values_mut().any(|landing| landing.claim(side, id, token)),
            Half::Offer => {
                let claimed = self.offers.values_mut().find_map(|offer| {
                    let accepted = offer.claim(side, transfer, token);
                    accepted.then_some(offer)
                });
                claimed.map(|offer| offer.announce(&mut self.links)).is_some()
            }
            Half::Push | Half::Pull => true,
        };
        // What there is not, or not any more, is not waited for.
        let theirs = if half == Half::Landing { Half::Push } else { Half::Pull };
        if theirs == Half::Pull && !TELLS_READERS {
            return;
        }
        if let Some(link) = self.links.get_mut(peer).filter(|_| !accepted) {
            link.say(&Signal::Abort { half: theirs, transfer });
        }
    }

    /// The other side of a transfer has ended it.
    fn aborted(&mut self, peer: PeerId, half: Half, transfer: u32) {
        let error = TransferError::Aborted { errno: None };
        let id = TransferId::unpack(transfer);
        let plane = &mut self.plane;
        match half {
            Half::Push => {
                let push = self.pushes.values_mut().find(|push| push.peer == peer && push.transfer() == transfer);
                if let Some(push) = push {
                    push.give_up(plane, End::Failed(error));
                }
            }
            Half::Pull => {
                if let Some(pull) = self.pulls.values_mut().find(|pull| pull.is_with(peer, transfer)) {
                    pull.give_up(plane, End::Failed(error));
                }
            }
            Half::Landing => {
                let found = self.landings.iter().find(|(_, landing)| landing.is_with(peer, id));
                if let Some((&ticket, _)) = found {
                    self.end_landing(ticket, End::Failed(error));
                }
            }
            Half::Offer => {
                let found = self.offers.iter().find(|(_, offer)| offer.is_with(peer, transfer));
                if let Some((&ticket, _)) = found {
                    self.end_offer(ticket, End::Failed(error));
                }
            }
        }
    }

    /// A peer has gone, or is to go: everything with it ends.
    pub(super) fn lose(&mut self, peer: PeerId, error: TransferError) {
        let Some(name) = self.links.get(peer).map(|link| link.shown()) else { return };
        let gone = || TransferError::PeerGone { name: name.clone() };
        let with = |of: (PeerId, u32)| of.0 == peer;
        let landings: Vec<Ticket> =
            self.landings.iter().filter(|(_, of)| of.peers().any(with)).map(|of| *of.0).collect();
        let offers: Vec<Ticket> = self.offers.iter().filter(|(_, of)| of.peers().any(with)).map(|of| *of.0).collect();
        landings.into_iter().for_each(|ticket| self.end_landing(ticket, End::Failed(gone())));
        offers.into_iter().for_each(|ticket| self.end_offer(ticket, End::Failed(gone())));
        for push in self.pushes.values_mut().filter(|push| push.peer == peer) {
            push.give_up(&mut self.plane, End::Failed(gone()));
        }
        for pull in self.pulls.values_mut().filter(|pull| pull.has_peer(peer)) {
            pull.give_up(&mut self.plane, End::Failed(gone()));
        }
        self.links.end(&mut self.plane, peer);
        // Nothing of ours is with it any more.
        self.poll_pushes();
        self.poll_pulls();
        self.events.push_back(Event::Disconnected { peer, name, error });
    }

    /// Ends a landing; its blocks are free, or handed out.
    pub(super) fn end_landing(&mut self, ticket: Ticket, end: End<()>) {
        let Some(landing) = self.landings.remove(&ticket) else { return };
        if !matches!(end, End::Done(())) {
            for (peer, transfer) in landing.peers() {
                if let Some(link) = self.links.get_mut(peer) {
                    link.say(&Signal::Abort { half: Half::Push, transfer });
                }
            }
        }
        let Exchange { plane, pool, slots, .. } = self;
        let event = match end {
            End::Done(()) => match landing.commit(plane, pool, slots) {
                Ok((table, user, moved)) => Event::Landed { ticket, table, user, moved },
                Err(error) => Event::Failed { ticket, error },
            },
            End::Failed(error) => {
                let ended = landing.abort(plane, pool, slots);
                Event::Failed { ticket, error: ended.err().unwrap_or(error) }
            }
            End::Aborted => match landing.abort(plane, pool, slots) {
                Ok(()) => Event::Aborted { ticket },
                Err(error) => Event::Failed { ticket, error },
            },
        };
        self.events.push_back(event);
    }

    /// Ends an offer; nobody reads its blocks any more.
    pub(super) fn end_offer(&mut self, ticket: Ticket, end: End<()>) {
        let Some(offer) = self.offers.remove(&ticket) else { return };
        if TELLS_READERS && !matches!(end, End::Done(())) {
            offer.say_ended(&mut self.links);
        }
        let ended = offer.end(&mut self.plane, &mut self.pool);
        self.events.push_back(match (end, ended) {
            (End::Failed(error), _) | (_, Err(error)) => Event::Failed { ticket, error },
            (End::Done(()), Ok(())) => Event::Served { ticket },
            (End::Aborted, Ok(())) => Event::Aborted { ticket },
        });
    }

    fn poll_pushes(&mut self) {
        let Exchange { plane, pool, links, pushes, events, .. } = self;
        for (ticket, mut push) in std::mem::take(pushes) {
            let link = links.get_mut(push.peer);
            match push.poll(plane, pool, link) {
                None => {
                    pushes.insert(ticket, push);
                }
                Some(end) => {
                    events.push_back(match (end, push.close(pool)) {
                        (End::Failed(error), _) | (_, Err(error)) => Event::Failed { ticket, error },
                        (End::Done(moved), Ok(())) => Event::Pushed { ticket, moved },
                        (End::Aborted, Ok(())) => Event::Aborted { ticket },
                    });
                }
            }
        }
    }

    fn poll_pulls(&mut self) {
        let Exchange { plane, pool, links, pulls, events, .. } = self;
        for (ticket, mut pull) in std::mem::take(pulls) {
            match pull.poll(plane, pool, links) {
                None => {
                    pulls.insert(ticket, pull);
                }
                Some(end) => events.push_back(match pull.close(pool, links, end) {
                    End::Done((table, user, moved)) => Event::Pulled { ticket, table, user, moved },
                    End::Failed(error) => Event::Failed { ticket, error },
                    End::Aborted => Event::Aborted { ticket },
                }),
            }
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let is_over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        let landings: Vec<Ticket> =
            self.landings.iter().filter(|(_, of)| is_over(of.deadline)).map(|(ticket, _)| *ticket).collect();
        let offers: Vec<Ticket> =
            self.offers.iter().filter(|(_, of)| is_over(of.deadline)).map(|(ticket, _)| *ticket).collect();
        landings.into_iter().for_each(|ticket| self.end_landing(ticket, End::Failed(TransferError::Expired)));
        offers.into_iter().for_each(|ticket| self.end_offer(ticket, End::Failed(TransferError::Expired)));
    }
}
