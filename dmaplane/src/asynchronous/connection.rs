//! Peers: listening, connecting, messages.

use super::AsyncPlane;
use super::operation::{Ends, Makes, Operation, Uses};
use crate::buffer::Buffer;
use crate::error::Error;
use crate::mailbox::{Arrival, Mailbox};
use crate::objects::{Dropped, Hold};
use crate::plane::connection::Listener;
use dmaplane_ring::abi::{Errno, MAX_SEND_BYTES, PeerHandle, Sqe};
use dmaplane_ring::build::{Accept, BuildError, Connect, Disconnect, Send as SendMessage};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A connected peer. It keeps its plane open; dropping it ends the connection.
#[derive(Debug)]
pub struct AsyncPeer {
    plane: AsyncPlane,
    handle: PeerHandle,
    mailbox: u64,
    hold: Hold,
}

impl AsyncPlane {
    /// Listens. Returns the address with the port that was picked where it said 0.
    pub fn listen(&self, address: &str) -> Result<(Listener, String), Error> {
        let (handle, address) = self.context().listen(address)?;
        Ok((Listener { handle, objects: self.shared().objects.clone() }, address))
    }

    /// Waits for a peer.
    ///
    /// Dropped early it is cancelled; a peer that came at that moment is disconnected.
    pub async fn accept(&self, listener: &Listener) -> Result<AsyncPeer, Error> {
        let what = "waiting for a peer";
        self.check_same(what, &listener.objects)?;
        let sqe = Accept::new(listener.handle).sqe();
        let slots = self.alloc(Mailbox::BYTES).await?;
        self.peer(what, sqe, slots, ()).await
    }

    /// Connects to a peer.
    ///
    /// Dropped early it is cancelled; a peer that was there at that moment is disconnected.
    pub async fn connect(&self, address: &str) -> Result<AsyncPeer, Error> {
        let what = "connecting";
        let slots = self.alloc(Mailbox::BYTES).await?;
        let scratch = self.scratch_of(address.as_bytes()).await?;
        let (buffer, offset) = scratch.place();
        let connect = Connect::new(buffer, offset, address.len() as u64);
        let sqe = connect.map_err(|source| Error::Value { what, source })?.sqe();
        self.peer(what, sqe, slots, scratch).await
    }

    async fn peer<S: Send + 'static>(
        &self,
        what: &'static str,
        sqe: Sqe,
        slots: Buffer,
        scratch: S,
    ) -> Result<AsyncPeer, Error> {
        let made = |bits| PeerHandle::from_bits(bits).map(Dropped::Peer);
        let (result, used) = Operation::new(self, what, sqe, Makes { made, from: (slots, scratch) }).await;
        let handle = result.map(|cqe| PeerHandle::from_bits(cqe.word0))?;
        let (Some(handle), Some(Makes { from: (slots, _), .. })) = (handle, used) else {
            return Err(Error::Operation { what, errno: Errno::EIO });
        };
        // Where its receives find no room, the connection ends.
        let hold = self.hold(Dropped::Peer(handle));
        let mailbox = Mailbox { peer: handle, slots, arrived: Default::default(), closed: None };
        let mailbox = self.shared().add_mailbox(mailbox);
        let mailbox = mailbox.ok_or(Error::Operation { what, errno: Errno::ENOBUFS })?;
        Ok(AsyncPeer { plane: self.clone(), handle, mailbox, hold })
    }

    pub(super) fn check_peer(&self, what: &'static str, peer: &AsyncPeer) -> Result<(), Error> {
        self.check(what, &peer.hold)
    }
}

impl AsyncPeer {
    /// Its handle, for SQEs of your own.
    pub fn handle(&self) -> PeerHandle {
        self.handle
    }

    /// Sends at most 4,096 bytes. Messages of one task arrive in order.
    ///
    /// Dropped early it is cancelled; if it is on its way already it may arrive.
    pub async fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        let what = "sending a message";
        let length = bytes.len() as u64;
        if length > MAX_SEND_BYTES {
            return Err(Error::Value { what, source: BuildError::TooLong { asked: length, limit: MAX_SEND_BYTES } });
        }
        let scratch = self.plane.scratch_of(bytes).await?;
        let (buffer, offset) = scratch.place();
        let send = SendMessage::new(self.handle, buffer, offset, length);
        let sqe = send.map_err(|source| Error::Value { what, source })?.sqe();
        Operation::new(&self.plane, what, sqe, Uses(scratch)).await.0.map(drop)
    }

    /// Waits for what the peer sends next.
    ///
    /// Dropped early, nothing is lost: what has arrived is for whoever receives next.
    pub fn receive(&self) -> Receive<'_> {
        Receive { peer: self, waiter: None }
    }

    /// What the peer sends, as a stream. The last item is the error with which the connection ended.
    ///
    /// Dropped at any time, nothing is lost.
    pub fn arrivals(&self) -> Arrivals<'_> {
        Arrivals { receive: self.receive(), ended: false }
    }

    /// Ends the connection. Once it has ended, nothing of the peer's touches our memory.
    ///
    /// Dropped early, it goes on.
    pub async fn disconnect(self) -> Result<(), Error> {
        let what = "disconnecting";
        let (plane, handle, hold) = (self.plane.clone(), self.handle, self.hold.share());
        // The peer goes with its end, and with it the mailbox.
        let ends = Ends { hold, target: KeepsPeer(self) };
        let (result, used) = Operation::new(&plane, what, Disconnect::new(handle).sqe(), ends).await;
        result?;
        if let Some(Ends { mut hold, .. }) = used {
            hold.ended();
        }
        Ok(())
    }
}

/// A peer whose end is under way.
struct KeepsPeer(#[expect(dead_code, reason = "dropped after its end")] AsyncPeer);

impl Drop for AsyncPeer {
    fn drop(&mut self) {
        // First the connection: the mailbox's memory is in use until it has ended.
        self.hold.end();
        self.plane.shared().remove_mailbox(self.mailbox);
    }
}

/// Waits for one arrival: [`AsyncPeer::receive`].
#[derive(Debug)]
#[must_use = "it does nothing unless awaited"]
pub struct Receive<'a> {
    peer: &'a AsyncPeer,
    /// Its number at the mailbox.
    waiter: Option<u64>,
}

impl Future for Receive<'_> {
    type Output = Result<Arrival, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let what = "waiting for the peer";
        let peer = self.peer;
        let arrival = peer.plane.shared().poll_arrival(peer.mailbox, &mut self.waiter, context.waker());
        arrival.map(|arrival| match arrival {
            Some(arrival) => arrival.map_err(|errno| Error::Operation { what, errno }),
            None => Err(Error::Closed { what }),
        })
    }
}

impl Drop for Receive<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.peer.plane.shared().wait_no_more(self.peer.mailbox, waiter);
        }
    }
}

/// What arrives from a peer: [`AsyncPeer::arrivals`].
#[derive(Debug)]
pub struct Arrivals<'a> {
    receive: Receive<'a>,
    ended: bool,
}

impl futures_core::Stream for Arrivals<'_> {
    type Item = Result<Arrival, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let arrival = Pin::new(&mut self.receive).poll(context);
        if let Poll::Ready(Err(_)) = arrival {
            self.ended = true;
        }
        arrival.map(Some)
    }
}
