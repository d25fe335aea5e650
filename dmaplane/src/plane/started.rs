//! Operations that are started and polled, for a thread that has more than one thing to wait for.
//!
//! None of these calls waits for a peer. What an operation is told is copied when it starts; what it uses otherwise is
//! named by handle, and the engine lets nobody free, drop or release that before its terminal CQE.

use super::Plane;
use super::connection::{Listener, Peer};
use super::staging::Makes;
use crate::buffer::{Buffer, Import, List};
use crate::error::Error;
use crate::transfer::{Notification, Operation, value};
use dmaplane_ring::abi::{IndexPair, Sqe};
use dmaplane_ring::build::{Accept, Connect, LeaseImport, Send};
use std::os::fd::BorrowedFd;

const CLAIMING: &str = "claiming a lease";
const CONNECTING: &str = "connecting";

/// A claim of a lease in flight. Dropping it gives the lease back, if it is still got.
#[derive(Debug)]
pub struct Claim(Operation<()>);

/// A connection in the making. Dropping it ends the connection, if one still comes of it.
#[derive(Debug)]
pub struct Connecting(Operation<()>);

impl Claim {
    /// The import, once the owner has answered.
    pub fn poll(&mut self, plane: &mut Plane) -> Option<Result<Import, Error>> {
        let ended = self.0.poll(plane)?;
        Some(ended.and_then(|cqe| plane.import_of(CLAIMING, &cqe)))
    }
}

impl Connecting {
    /// The peer, once there is one.
    pub fn poll(&mut self, plane: &mut Plane) -> Option<Result<Peer, Error>> {
        let ended = self.0.poll(plane)?;
        Some(ended.and_then(|cqe| plane.peer_of(cqe.word0)))
    }
}

impl Plane {
    /// A descriptor that becomes readable when something may have come, after [`Plane::arm`] has said `true`: for a
    /// thread that waits for more than one plane. Do not read it: [`Plane::disarm`] does.
    pub fn eventfd(&mut self) -> Result<BorrowedFd<'_>, Error> {
        self.ring.eventfd()
    }

    /// Asks for the descriptor to be rung. `false`: something may have come already, do not wait. Call
    /// [`Plane::disarm`] afterwards either way.
    pub fn arm(&mut self) -> bool {
        !std::mem::take(&mut self.has_news) && self.ring.arm()
    }

    /// Ends an [`Plane::arm`].
    pub fn disarm(&mut self) {
        self.ring.disarm();
    }

    fn start_staged(&mut self, what: &'static str, sqe: Sqe, staged: Buffer) -> Operation<()> {
        let user_data = self.begin_staged(sqe, staged);
        Operation::begun(self, what, user_data, ())
    }

    fn start_making(&mut self, what: &'static str, sqe: Sqe, staged: Option<Buffer>, makes: Makes) -> Operation<()> {
        let user_data = match staged {
            Some(staged) => self.begin_staged(sqe, staged),
            None => self.begin(sqe),
        };
        self.makes.insert(user_data, makes);
        Operation::begun(self, what, user_data, ())
    }

    fn stage_bytes(&mut self, bytes: &[u8]) -> Result<Buffer, Error> {
        let mut staged = self.stage(bytes.len() as u64)?;
        staged.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
        Ok(staged)
    }

    /// Starts to claim a lease by its token.
    pub fn start_import(&mut self, peer: &Peer, token: &[u8]) -> Result<Claim, Error> {
        let from = self.peer_handle(CLAIMING, peer)?;
        let staged = self.stage_bytes(token)?;
        let import = value(CLAIMING, LeaseImport::new(staged.handle, 0, token.len() as u64))?.from_peer(from);
        Ok(Claim(self.start_making(CLAIMING, import.sqe(), Some(staged), Makes::Import)))
    }

    /// Starts to connect to a peer.
    pub fn start_connect(&mut self, address: &str) -> Result<Connecting, Error> {
        let staged = self.stage_bytes(address.as_bytes())?;
        let connect = value(CONNECTING, Connect::new(staged.handle, 0, address.len() as u64))?;
        Ok(Connecting(self.start_making(CONNECTING, connect.sqe(), Some(staged), Makes::Peer)))
    }

    /// Starts to wait for a peer.
    pub fn start_accept(&mut self, listener: &Listener) -> Result<Connecting, Error> {
        let what = "waiting for a peer";
        self.check_listener(what, listener)?;
        let accept = Accept::new(listener.handle);
        Ok(Connecting(self.start_making(what, accept.sqe(), None, Makes::Peer)))
    }

    /// Starts to send at most 4,096 bytes. It ends when they lie in one of the peer's receives. Dropped, it goes on.
    pub fn start_send(&mut self, peer: &Peer, bytes: &[u8]) -> Result<Operation<()>, Error> {
        let what = "sending a message";
        let to = self.peer_handle(what, peer)?;
        let staged = self.stage_bytes(bytes)?;
        let send = value(what, Send::new(to, staged.handle, 0, bytes.len() as u64))?;
        Ok(self.start_staged(what, send.sqe(), staged))
    }

    /// Starts a write of a list's segments into a leased list's, as [`Plane::write_list`] does.
    ///
    /// # Safety
    /// Until the operation's terminal CQE nobody writes to the segments that it names: no mutable slice of them is
    /// made.
    pub unsafe fn start_write_list(
        &mut self,
        list: &List,
        to: &Import,
        pairs: &[IndexPair],
        notification: Notification<'_>,
    ) -> Result<Operation<()>, Error> {
        let (sqe, index) = self.write_list_of(list, to, pairs, notification)?;
        Ok(self.start_staged("writing a list", sqe, index))
    }

    /// Starts a read of a leased list's segments into a list's. Its CQE's `word0` is the bytes moved, and with
    /// `checksum` `word1` their CRC-32C in the order of the pairs.
    ///
    /// # Safety
    /// Until the operation's terminal CQE no slice of the segments that it names is made.
    pub unsafe fn start_read_list(
        &mut self,
        list: &List,
        from: &Import,
        pairs: &[IndexPair],
        checksum: bool,
    ) -> Result<Operation<()>, Error> {
        let (sqe, index) = self.read_list_of(list, from, pairs, checksum)?;
        Ok(self.start_staged("reading a list", sqe, index))
    }
}
