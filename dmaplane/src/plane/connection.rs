//! Peers: listening, connecting, messages.

use super::{LOCAL_PATIENCE, MAILBOX, Plane};
use crate::error::Error;
use crate::mailbox::{Arrival, Mailbox, SLOTS};
use crate::objects::{Dropped, Hold, Objects, Unwanted};
use dmaplane_ring::abi::{BufferHandle, Errno, ListenerHandle, MAX_SEND_BYTES, PeerHandle};
use dmaplane_ring::build::{Accept, Connect, Disconnect, Send};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A connected peer. Messages are received by the plane that made it; other planes of its context may send and grant.
///
/// Dropping it ends the connection with the next call to a plane of its context.
#[derive(Debug)]
pub struct Peer {
    pub(super) handle: PeerHandle,
    mailbox: u32,
    /// Whose: this plane's.
    plane: Arc<Unwanted>,
    hold: Hold,
    objects: Arc<Objects>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // First the connection: the mailbox's memory is in use until it has ended.
        self.hold.end();
        self.plane.give_up_mailbox(self.mailbox);
    }
}

impl Peer {
    /// Its handle, for SQEs of your own.
    pub fn handle(&self) -> PeerHandle {
        self.handle
    }
}

/// A place where peers connect.
#[derive(Debug)]
pub struct Listener {
    pub(crate) handle: ListenerHandle,
    pub(crate) objects: Arc<Objects>,
}

impl Plane {
    /// Listens. Returns the address with the port that was picked where it said 0.
    pub fn listen(&mut self, address: &str) -> Result<(Listener, String), Error> {
        let (handle, address) = self.context.listen(address)?;
        Ok((Listener { handle, objects: self.objects.clone() }, address))
    }

    /// Waits for a peer.
    pub fn accept(&mut self, listener: &Listener, patience: Duration) -> Result<Peer, Error> {
        let what = "waiting for a peer";
        self.check_same(what, &listener.objects)?;
        let cqe = self.call(what, Accept::new(listener.handle).sqe(), patience)?;
        self.peer_of(cqe.word0)
    }

    /// Connects to a peer.
    pub fn connect(&mut self, address: &str, patience: Duration) -> Result<Peer, Error> {
        let what = "connecting";
        let handle = self.put_scratch(what, address.as_bytes())?;
        let connect = Connect::new(handle, 0, address.len() as u64);
        let sqe = connect.map_err(|source| Error::Value { what, source })?.sqe();
        let cqe = self.call(what, sqe, patience)?;
        self.peer_of(cqe.word0)
    }

    pub(super) fn put_scratch(&mut self, what: &'static str, bytes: &[u8]) -> Result<BufferHandle, Error> {
        let scratch = self.scratch.as_mut().ok_or(Error::Operation { what, errno: Errno::EIO })?;
        let (offset, asked, length) = (0, bytes.len() as u64, scratch.len() as u64);
        let place = scratch.as_mut_slice().get_mut(..bytes.len());
        place.ok_or(Error::Range { what, offset, asked, length })?.copy_from_slice(bytes);
        Ok(scratch.handle)
    }

    pub(super) fn peer_of(&mut self, bits: u64) -> Result<Peer, Error> {
        let what = "connecting";
        let handle = PeerHandle::from_bits(bits).ok_or(Error::Operation { what, errno: Errno::EIO })?;
        let number = self.next_mailbox;
        self.next_mailbox += 1;
        // On an error the connection ends.
        let hold = self.hold(Dropped::Peer(handle));
        let slots = self.alloc(Mailbox::BYTES)?;
        let mailbox = Mailbox { peer: handle, slots, arrived: Default::default(), closed: None };
        self.mailboxes.insert(number, mailbox);
        for slot in 0..SLOTS {
            self.post_receive(number, slot);
        }
        Ok(Peer { handle, mailbox: number, plane: self.given_up.clone(), hold, objects: self.objects.clone() })
    }

    pub(super) fn post_receive(&mut self, number: u32, slot: u64) {
        let Some(mailbox) = self.mailboxes.get(&number) else { return };
        let Some(mut sqe) = mailbox.receive(slot) else { return };
        sqe.user_data = MAILBOX | u64::from(number) << 32 | slot;
        self.push(sqe);
    }

    pub(super) fn check_listener(&self, what: &'static str, listener: &Listener) -> Result<(), Error> {
        self.check_same(what, &listener.objects)
    }

    fn check_same(&self, what: &'static str, objects: &Arc<Objects>) -> Result<(), Error> {
        if Arc::ptr_eq(objects, &self.objects) { Ok(()) } else { Err(Error::Foreign { what }) }
    }

    /// The handle of a peer of this context.
    pub(super) fn peer_handle(&self, what: &'static str, peer: &Peer) -> Result<PeerHandle, Error> {
        self.check_same(what, &peer.objects).map(|()| peer.handle)
    }

    /// Ends a connection. When it returns, nothing of the peer's touches our memory.
    pub fn disconnect(&mut self, mut peer: Peer) -> Result<(), Error> {
        let what = "disconnecting";
        let handle = self.peer_handle(what, &peer)?;
        if !Arc::ptr_eq(&peer.plane, &self.given_up) {
            return Err(Error::Foreign { what });
        }
        self.call(what, Disconnect::new(handle).sqe(), LOCAL_PATIENCE)?;
        peer.hold.ended();
        self.collect();
        if let Some(mailbox) = self.mailboxes.remove(&peer.mailbox) {
            self.free(mailbox.slots)?;
        }
        Ok(())
    }

    /// Sends at most 4,096 bytes.
    pub fn send(&mut self, peer: &Peer, bytes: &[u8], patience: Duration) -> Result<(), Error> {
        let what = "sending a message";
        let to = self.peer_handle(what, peer)?;
        let handle = self.put_scratch(what, bytes)?;
        let send = Send::new(to, handle, 0, bytes.len() as u64);
        let sqe = send.map_err(|source| Error::Value { what, source })?.sqe();
        self.call(what, sqe, patience).map(drop)
    }

    /// Waits for what the peer sends next.
    pub fn receive(&mut self, peer: &Peer, patience: Duration) -> Result<Arrival, Error> {
        let what = "waiting for the peer";
        if !Arc::ptr_eq(&peer.plane, &self.given_up) {
            return Err(Error::Foreign { what });
        }
        let deadline = Instant::now().checked_add(patience);
        loop {
            if let Some(arrival) = self.try_receive(peer)? {
                return Ok(arrival);
            }
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(Error::TimedOut { what, waited: patience });
            }
            self.ring.wait(left.min(Duration::from_secs(3600)).min(self.until_repost()));
        }
    }

    /// What the peer has sent, if something has come; never waits. An error when nothing more will come.
    pub fn try_receive(&mut self, peer: &Peer) -> Result<Option<Arrival>, Error> {
        let what = "waiting for the peer";
        if !Arc::ptr_eq(&peer.plane, &self.given_up) {
            return Err(Error::Foreign { what });
        }
        self.collect();
        self.repost();
        let mailbox = self.mailboxes.get_mut(&peer.mailbox);
        let mailbox = mailbox.ok_or(Error::Operation { what, errno: Errno::ENOTCONN })?;
        if let Some((slot, arrival)) = mailbox.arrived.pop_front() {
            // Only now may the peer send another: what has arrived and is not read yet is bounded by its slots.
            if mailbox.closed.is_none() {
                self.post_receive(peer.mailbox, slot);
            }
            return Ok(Some(arrival));
        }
        match mailbox.closed {
            Some(errno) => Err(Error::Operation { what, errno }),
            None => Ok(None),
        }
    }

    /// Sends a message of any length, in as many SENDs as it takes; [`Plane::receive_message`] puts it together.
    pub fn send_message(&mut self, peer: &Peer, message: &[u8], patience: Duration) -> Result<(), Error> {
        let mut framed = (message.len() as u64).to_le_bytes().to_vec();
        framed.extend_from_slice(message);
        framed.chunks(MAX_SEND_BYTES as usize).try_for_each(|part| self.send(peer, part, patience))
    }

    /// Waits for a message of at most `most_bytes` that [`Plane::send_message`] sent.
    pub fn receive_message(&mut self, peer: &Peer, most_bytes: usize, patience: Duration) -> Result<Vec<u8>, Error> {
        let broken = Error::Operation { what: "waiting for a message", errno: Errno::EPROTO };
        let first = self.receive(peer, patience)?;
        let Some((length, start)) = first.payload.split_first_chunk::<8>().filter(|_| first.immediate.is_none()) else {
            return Err(broken);
        };
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > most_bytes {
            return Err(Error::Operation { what: "waiting for a message", errno: Errno::EMSGSIZE });
        }
        let mut message = start.to_vec();
        while message.len() < length {
            let more = self.receive(peer, patience)?;
            if more.immediate.is_some() || more.payload.is_empty() {
                return Err(broken);
            }
            message.extend_from_slice(&more.payload);
        }
        if message.len() > length { Err(broken) } else { Ok(message) }
    }
}
