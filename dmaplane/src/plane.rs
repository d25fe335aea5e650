//! A plane: one ring, and a way to wait for each of its operations.

use crate::buffer::{Buffer, Import, LeaseTarget, Leased, List};
use crate::error::Error;
use crate::mailbox::{Arrival, Mailbox, SLOTS};
use dmaplane_embedded::{Config, Context, Ring, Usage};
use dmaplane_ring::abi::{
    BufferHandle, Cqe, Errno, ImportHandle, LeaseHandle, ListHandle, ListenerHandle, MAX_SEND_BYTES, PeerHandle,
    Rights, Run, Sqe,
};
use dmaplane_ring::build::{
    Accept, Alloc, Cancel, Connect, Disconnect, Free, ImportRelease, LeaseExport, LeaseGrant, LeaseImport, LeaseRevoke,
    ListFree, ListPrepare, PagePlacement, Placement, Send,
};
use std::collections::HashMap;
use std::time::{Duration, Instant};

const SQ_ENTRIES: u32 = 256;
const CQ_ENTRIES: u32 = 1024;
/// How long an operation that only needs this host may take before something is badly wrong.
const LOCAL_PATIENCE: Duration = Duration::from_secs(120);
/// High bit of a user_data: a receive's. Then 31 bits of mailbox and 32 of slot.
const MAILBOX: u64 = 1 << 63;

/// A connected peer.
#[derive(Debug)]
pub struct Peer {
    handle: PeerHandle,
    mailbox: u32,
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
    handle: ListenerHandle,
}

/// One thread's ring over a context, with the bookkeeping that turns CQEs into results.
#[derive(Debug)]
pub struct Plane {
    ring: Ring,
    context: Context,
    next_user_data: u64,
    /// CQEs that came while another was waited for.
    finished: HashMap<u64, Cqe>,
    mailboxes: HashMap<u32, Mailbox>,
    next_mailbox: u32,
    /// For addresses and tokens on their way in and out.
    scratch: Option<Buffer>,
}

impl Plane {
    /// Opens a context of its own.
    pub fn open(config: Config) -> Result<Plane, Error> {
        Plane::attach(&Context::open(config)?)
    }

    /// Another ring of a context, for another thread. Rings of a context share its objects.
    pub fn attach(context: &Context) -> Result<Plane, Error> {
        let ring = context.ring(SQ_ENTRIES, CQ_ENTRIES)?;
        let mut plane = Plane {
            ring,
            context: context.clone(),
            next_user_data: 1,
            finished: HashMap::new(),
            mailboxes: HashMap::new(),
            next_mailbox: 0,
            scratch: None,
        };
        plane.scratch = Some(plane.alloc(4096)?);
        Ok(plane)
    }

    /// The context.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What the context has in use.
    pub fn usage(&self) -> Usage {
        self.context.usage()
    }

    /// Pushes an SQE and publishes it; its user_data, which [`Plane::finish`] takes.
    pub(crate) fn begin(&mut self, mut sqe: Sqe) -> u64 {
        let user_data = self.next_user_data;
        self.next_user_data += 1;
        sqe.user_data = user_data;
        self.push(sqe);
        user_data
    }

    fn push(&mut self, sqe: Sqe) {
        let mut sqe = sqe;
        while let Err(full) = self.ring.push(sqe) {
            // The engine is behind: let it work, and make room for its CQEs.
            sqe = full.0;
            self.ring.submit();
            self.ring.enter();
            self.collect();
            std::thread::yield_now();
        }
        self.ring.submit();
    }

    /// Takes all CQEs that are there; whether there were any.
    fn collect(&mut self) -> bool {
        let mut count = 0;
        while let Some(cqe) = self.ring.reap_one() {
            count += 1;
            if cqe.user_data & MAILBOX == 0 {
                self.finished.insert(cqe.user_data, cqe);
                continue;
            }
            let (mailbox, slot) = ((cqe.user_data & !MAILBOX) >> 32, cqe.user_data & 0xffff_ffff);
            if let Some(mailbox) = self.mailboxes.get_mut(&(mailbox as u32)) {
                mailbox.take(slot, &cqe);
                if mailbox.closed.is_none() {
                    self.post_receive(((cqe.user_data & !MAILBOX) >> 32) as u32, slot);
                }
            }
        }
        count > 0
    }

    fn post_receive(&mut self, number: u32, slot: u64) {
        let Some(mailbox) = self.mailboxes.get_mut(&number) else { return };
        mailbox.posted += 1;
        let Some(mut sqe) = mailbox.receive(slot) else { return };
        sqe.user_data = MAILBOX | u64::from(number) << 32 | slot;
        self.push(sqe);
    }

    /// The CQE of an operation, if it has ended.
    pub(crate) fn poll(&mut self, user_data: u64) -> Option<Cqe> {
        self.collect();
        self.finished.remove(&user_data)
    }

    /// Waits for an operation's CQE. `None`: the time is up, and the operation is still in flight.
    pub(crate) fn finish(&mut self, user_data: u64, patience: Duration) -> Option<Cqe> {
        let deadline = Instant::now().checked_add(patience);
        loop {
            if let Some(cqe) = self.poll(user_data) {
                return Some(cqe);
            }
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return None;
            }
            self.ring.wait(left.min(Duration::from_secs(3600)));
        }
    }

    /// Does one operation and waits for its end. Past its patience it is cancelled by force, so that its memory is ours
    /// again either way.
    pub(crate) fn call(&mut self, what: &'static str, sqe: Sqe, patience: Duration) -> Result<Cqe, Error> {
        let user_data = self.begin(sqe);
        let cqe = match self.finish(user_data, patience) {
            Some(cqe) => cqe,
            None => {
                self.begin(Cancel::by_user_data(user_data).force().sqe());
                let cqe = self.finish(user_data, LOCAL_PATIENCE);
                match cqe {
                    Some(cqe) if cqe.res >= 0 => cqe,
                    _ => return Err(Error::TimedOut { what, waited: patience }),
                }
            }
        };
        match cqe.result() {
            Ok(_) => Ok(cqe),
            Err(errno) => Err(Error::Operation { what, errno }),
        }
    }

    fn local(&mut self, what: &'static str, sqe: Sqe) -> Result<Cqe, Error> {
        self.call(what, sqe, LOCAL_PATIENCE)
    }

    /// Allocates zeroed memory anywhere; its length is rounded up to pages.
    pub fn alloc(&mut self, length_bytes: u64) -> Result<Buffer, Error> {
        self.alloc_placed(length_bytes, PagePlacement::Any)
    }

    /// Allocates zeroed memory on a node.
    pub fn alloc_placed(&mut self, length_bytes: u64, placement: PagePlacement) -> Result<Buffer, Error> {
        let what = "allocating a buffer";
        let sqe = Alloc::new(length_bytes).map_err(|source| Error::Value { what, source })?.placement(placement).sqe();
        let cqe = self.local(what, sqe)?;
        self.buffer_of(what, cqe.word0)
    }

    fn buffer_of(&self, what: &'static str, bits: u64) -> Result<Buffer, Error> {
        let handle = BufferHandle::from_bits(bits).ok_or(Error::Operation { what, errno: Errno::EIO })?;
        Ok(Buffer { handle, mapping: self.context.map(handle)? })
    }

    /// Frees a buffer now. (One that is dropped is freed with the context.)
    pub fn free(&mut self, buffer: Buffer) -> Result<(), Error> {
        self.local("freeing a buffer", Free::new(buffer.handle).sqe()).map(drop)
    }

    /// Of the buffer's pages, how many lie on `node`, and how many there are: looked up page by page.
    pub fn placement(&mut self, buffer: &Buffer, node: u32) -> Result<(u64, u64), Error> {
        let cqe = self.local("looking where a buffer lies", Placement::new(buffer.handle, node).sqe())?;
        Ok((cqe.word0, cqe.word1))
    }

    /// Makes a list of segments over buffers, which it takes. Each run names its buffer by its position in `buffers`.
    pub fn prepare_list(&mut self, buffers: Vec<Buffer>, runs: &[(usize, Run)]) -> Result<List, Error> {
        let (handle, segments) = self.list_of(&buffers, runs)?;
        Ok(List { handle, segments, buffers })
    }

    /// Makes a list of some of another list's memory, which the other keeps. For one request's blocks of a pool: lease
    /// this one, not the pool.
    ///
    /// Reading the pool's slices where a peer writes under such a lease is a race that the type system does not see:
    /// touch only blocks that no transfer in flight names.
    pub fn sublist(&mut self, of: &List, runs: &[(usize, Run)]) -> Result<List, Error> {
        let (handle, segments) = self.list_of(&of.buffers, runs)?;
        Ok(List { handle, segments, buffers: Vec::new() })
    }

    fn list_of(&mut self, buffers: &[Buffer], runs: &[(usize, Run)]) -> Result<(ListHandle, u64), Error> {
        let what = "preparing a list";
        let mut table = self.alloc((runs.len() as u64 * Run::BYTES).max(1))?;
        for (place, (buffer, run)) in table.as_mut_slice().chunks_exact_mut(Run::BYTES as usize).zip(runs) {
            let buffer = buffers.get(*buffer).ok_or(Error::Operation { what, errno: Errno::EBADF })?;
            let run = Run { buffer: buffer.handle.handle().bits(), ..*run };
            for (bytes, word) in place.chunks_exact_mut(8).zip(run.to_words()) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
        let prepare = ListPrepare::new(table.handle, 0, runs.len() as u64);
        let prepared = self.local(what, prepare.map_err(|source| Error::Value { what, source })?.sqe());
        self.free(table)?;
        let cqe = prepared?;
        let handle = ListHandle::from_bits(cqe.word0).ok_or(Error::Operation { what, errno: Errno::EIO })?;
        Ok((handle, cqe.word1))
    }

    /// Drops a list; its buffers come back.
    pub fn free_list(&mut self, list: List) -> Result<Vec<Buffer>, Error> {
        self.local("freeing a list", ListFree::new(list.handle).sqe())?;
        Ok(list.buffers)
    }

    /// Listens. Returns the address with the port that was picked where it said 0.
    pub fn listen(&mut self, address: &str) -> Result<(Listener, String), Error> {
        let (handle, address) = self.context.listen(address)?;
        Ok((Listener { handle }, address))
    }

    /// Waits for a peer.
    pub fn accept(&mut self, listener: &Listener, patience: Duration) -> Result<Peer, Error> {
        let cqe = self.call("waiting for a peer", Accept::new(listener.handle).sqe(), patience)?;
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

    fn put_scratch(&mut self, what: &'static str, bytes: &[u8]) -> Result<BufferHandle, Error> {
        let scratch = self.scratch.as_mut().ok_or(Error::Operation { what, errno: Errno::EIO })?;
        let (offset, asked, length) = (0, bytes.len() as u64, scratch.len() as u64);
        let place = scratch.as_mut_slice().get_mut(..bytes.len());
        place.ok_or(Error::Range { what, offset, asked, length })?.copy_from_slice(bytes);
        Ok(scratch.handle)
    }

    fn peer_of(&mut self, bits: u64) -> Result<Peer, Error> {
        let what = "connecting";
        let handle = PeerHandle::from_bits(bits).ok_or(Error::Operation { what, errno: Errno::EIO })?;
        let number = self.next_mailbox;
        self.next_mailbox += 1;
        let slots = self.alloc(Mailbox::BYTES)?;
        let mailbox = Mailbox { peer: handle, slots, arrived: Default::default(), posted: 0, closed: None };
        self.mailboxes.insert(number, mailbox);
        for slot in 0..SLOTS {
            self.post_receive(number, slot);
        }
        Ok(Peer { handle, mailbox: number })
    }

    /// Ends a connection. When it returns, nothing of the peer's touches our memory.
    pub fn disconnect(&mut self, peer: Peer) -> Result<(), Error> {
        self.local("disconnecting", Disconnect::new(peer.handle).sqe())?;
        self.collect();
        if let Some(mailbox) = self.mailboxes.remove(&peer.mailbox) {
            self.free(mailbox.slots)?;
        }
        Ok(())
    }

    /// Sends at most 4,096 bytes.
    pub fn send(&mut self, peer: &Peer, bytes: &[u8], patience: Duration) -> Result<(), Error> {
        let what = "sending a message";
        let handle = self.put_scratch(what, bytes)?;
        let send = Send::new(peer.handle, handle, 0, bytes.len() as u64);
        let sqe = send.map_err(|source| Error::Value { what, source })?.sqe();
        self.call(what, sqe, patience).map(drop)
    }

    /// Waits for what the peer sends next.
    pub fn receive(&mut self, peer: &Peer, patience: Duration) -> Result<Arrival, Error> {
        let what = "waiting for the peer";
        let deadline = Instant::now() + patience;
        loop {
            self.collect();
            let mailbox = self.mailboxes.get_mut(&peer.mailbox);
            let mailbox = mailbox.ok_or(Error::Operation { what, errno: Errno::ENOTCONN })?;
            if let Some(arrival) = mailbox.arrived.pop_front() {
                return Ok(arrival);
            }
            if let Some(errno) = mailbox.closed {
                return Err(Error::Operation { what, errno });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::TimedOut { what, waited: patience });
            }
            self.ring.wait(left);
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

    /// Leases a whole buffer to the first peer that shows its token.
    pub fn grant(&mut self, buffer: Buffer, rights: Rights) -> Result<Leased<Buffer>, Error> {
        let what = "granting a lease";
        let grant = LeaseGrant::range(buffer.handle, 0, buffer.len() as u64, rights);
        let handle = self.grant_sqe(what, grant.map_err(|source| Error::Value { what, source })?)?;
        Ok(Leased { handle, target: buffer })
    }

    /// Leases a whole buffer to one peer.
    pub fn grant_to(&mut self, buffer: Buffer, rights: Rights, to: &Peer) -> Result<Leased<Buffer>, Error> {
        let what = "granting a lease";
        let grant = LeaseGrant::range(buffer.handle, 0, buffer.len() as u64, rights);
        let grant = grant.map_err(|source| Error::Value { what, source })?.to_peer(to.handle);
        let handle = self.grant_sqe(what, grant)?;
        Ok(Leased { handle, target: buffer })
    }

    /// Leases a list's segments to one peer.
    pub fn grant_list(&mut self, list: List, rights: Rights, to: &Peer) -> Result<Leased<List>, Error> {
        let handle = self.grant_sqe("granting a lease", LeaseGrant::list(list.handle, rights).to_peer(to.handle))?;
        Ok(Leased { handle, target: list })
    }

    fn grant_sqe(&mut self, what: &'static str, grant: LeaseGrant) -> Result<LeaseHandle, Error> {
        let cqe = self.local(what, grant.sqe())?;
        LeaseHandle::from_bits(cqe.word0).ok_or(Error::Operation { what, errno: Errno::EIO })
    }

    /// The token with which a peer claims a lease: bytes for it to show, through whatever router.
    pub fn token<T: LeaseTarget>(&mut self, leased: &Leased<T>) -> Result<Vec<u8>, Error> {
        let what = "exporting a lease";
        let scratch = self.put_scratch(what, &[])?;
        let cqe = self.local(what, LeaseExport::new(leased.handle, scratch, 0).sqe())?;
        let scratch = self.scratch.as_ref().ok_or(Error::Operation { what, errno: Errno::EIO })?;
        Ok(scratch.as_slice()[..cqe.res as usize].to_vec())
    }

    /// Ends a lease now: transfers in flight under it are stopped. When it returns, nothing lands any more.
    pub fn revoke<T: LeaseTarget>(&mut self, leased: Leased<T>) -> Result<T, Error> {
        self.local("revoking a lease", LeaseRevoke::now(leased.handle).sqe())?;
        Ok(leased.target)
    }

    /// Ends a lease, letting what is in flight end within `grace`.
    pub fn revoke_gracefully<T: LeaseTarget>(&mut self, leased: Leased<T>, grace: Duration) -> Result<T, Error> {
        let nanoseconds = u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX);
        self.local("revoking a lease", LeaseRevoke::graceful(leased.handle, nanoseconds).sqe())?;
        Ok(leased.target)
    }

    /// Claims a lease by its token.
    pub fn import(&mut self, peer: &Peer, token: &[u8]) -> Result<Import, Error> {
        let what = "claiming a lease";
        let handle = self.put_scratch(what, token)?;
        let import = LeaseImport::new(handle, 0, token.len() as u64);
        let import = import.map_err(|source| Error::Value { what, source })?.from_peer(peer.handle);
        let cqe = self.call(what, import.sqe(), Duration::from_secs(10))?;
        let handle = ImportHandle::from_bits(cqe.word0).ok_or(Error::Operation { what, errno: Errno::EIO })?;
        Ok(Import { handle, length: cqe.word1 })
    }

    /// Gives a claimed lease back.
    pub fn release(&mut self, import: Import) -> Result<(), Error> {
        self.local("releasing a lease", ImportRelease::new(import.handle).sqe()).map(drop)
    }
}
