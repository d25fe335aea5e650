//! A ring of the driver's.

use crate::call::call;
use crate::mapping::Mapping;
use dmaplane_ring::abi::device::{
    DEVICE_CLOSE, DEVICE_ENTER, DEVICE_EVENTFD, DeviceClose, DeviceEnter, DeviceEventfd, DeviceRing,
};
use dmaplane_ring::abi::{Cqe, RingLayout, Sqe};
use dmaplane_ring::queue::{Client, Full, MappedRing};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// The client's area and the engine's.
type Areas = [Mapping; 2];

/// One thread's submission and completion queues. Dropping it never blocks: operations in flight are cancelled as far
/// as they can be, and end without anybody's seeing.
#[derive(Debug)]
pub struct Ring {
    client: Client<Arc<MappedRing<Areas>>>,
    fd: OwnedFd,
}

impl Ring {
    /// `polled`: the context has a poller, and this client does not run the engine itself.
    pub(crate) fn new(fd: OwnedFd, arguments: &DeviceRing, layout: RingLayout, polled: bool) -> io::Result<Ring> {
        let client = Mapping::new(fd.as_fd(), 0, arguments.client_bytes as usize, true)?;
        let engine = Mapping::new(fd.as_fd(), arguments.engine_offset, arguments.engine_bytes as usize, false)?;
        let (client_area, engine_area) = (client.bytes(), engine.bytes());
        // SAFETY: the mappings are as long as that, page-aligned, and live as long as the ring, which owns them (moving
        // them does not move the memory). In this process nothing else touches them.
        let ring = unsafe { MappedRing::attach(client_area, engine_area, layout, [client, engine]) };
        let ring = ring.map_err(|mismatch| io::Error::other(mismatch.to_string()))?;
        let mut client = Client::attach(Arc::new(ring)).map_err(|mismatch| io::Error::other(mismatch.to_string()))?;
        client.submitter.write_through(!polled);
        Ok(Ring { client, fd })
    }

    /// Writes an SQE; [`Ring::submit`] or [`Ring::enter`] makes it visible. A full queue hands it back.
    #[inline]
    pub fn push(&mut self, sqe: impl Into<Sqe>) -> Result<(), Full<Sqe>> {
        self.client.submitter.push(&sqe.into())
    }

    /// Publishes what was pushed, and runs the engine unless the poller is awake.
    pub fn submit(&mut self) -> io::Result<()> {
        if self.client.submitter.publish() {
            self.call(0, Duration::ZERO)?;
        }
        Ok(())
    }

    /// Whether the poller sleeps, so that the next [`Ring::submit`] makes a call; always, where there is none.
    pub fn poller_sleeps(&self) -> bool {
        self.client.submitter.engine_sleeps()
    }

    /// Publishes what was pushed, runs the engine, and waits until so many CQEs are there: how many are. TIMEDOUT, or
    /// INTERRUPTED by a signal.
    pub fn enter(&mut self, min_complete: u32, timeout: Duration) -> io::Result<u32> {
        self.client.submitter.publish_without_doorbell();
        self.call(min_complete, timeout)
    }

    /// Waits as [`Ring::enter`] does, with this set of blocked signals meanwhile (bit n - 1 is signal n): INTERRUPTED
    /// by one that is not in it, whose handler has run.
    pub fn enter_masked(&mut self, min_complete: u32, timeout: Duration, blocked: u64) -> io::Result<u32> {
        self.client.submitter.publish_without_doorbell();
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let signal_mask = &raw const blocked as u64;
        let mask_bytes = size_of::<u64>() as u32;
        let mut enter =
            DeviceEnter { min_complete, timeout_ns, signal_mask, signal_mask_bytes: mask_bytes, ..Default::default() };
        Ok(call(self.fd.as_fd(), DEVICE_ENTER, &mut enter)?.cast_unsigned())
    }

    /// Has an eventfd written to where a client that sleeps would be woken: see [`Ring::prepare_sleep`]. `None`: no
    /// more. EBADF, EINVAL: it is no eventfd.
    pub fn register(&self, eventfd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fd = eventfd.map_or(-1, |fd| std::os::fd::AsRawFd::as_raw_fd(&fd));
        call(self.fd.as_fd(), DEVICE_EVENTFD, &mut DeviceEventfd { fd, flags: 0 })?;
        Ok(())
    }

    /// Says that this side is about to sleep in a poll of the ring or its eventfd; `false`: CQEs are there. Either way
    /// [`Ring::awake`] afterwards.
    pub fn prepare_sleep(&mut self) -> bool {
        self.client.completer.prepare_sleep().is_some()
    }

    /// Whoever completes need not wake us any more.
    pub fn awake(&mut self) {
        self.client.completer.awake();
    }

    /// Waits as [`Ring::enter`] does, and publishes nothing: all that a process can do that has a ring's descriptor of
    /// another's, whose mappings it does not have.
    pub fn wait_only(&mut self, min_complete: u32, timeout: Duration) -> io::Result<u32> {
        self.call(min_complete, timeout)
    }

    fn call(&self, min_complete: u32, timeout: Duration) -> io::Result<u32> {
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let mut enter = DeviceEnter { min_complete, timeout_ns, ..DeviceEnter::default() };
        Ok(call(self.fd.as_fd(), DEVICE_ENTER, &mut enter)?.cast_unsigned())
    }

    /// Takes one CQE.
    pub fn reap_one(&mut self) -> Option<Cqe> {
        let cqe = self.client.completer.reap_one()?;
        self.give_room();
        Some(cqe)
    }

    /// Hands up to `most` CQEs to `each`; returns how many.
    #[inline]
    pub fn reap(&mut self, most: u32, each: impl FnMut(Cqe)) -> u32 {
        let count = self.client.completer.reap(most, each);
        if count > 0 {
            self.give_room();
        }
        count
    }

    fn give_room(&self) {
        if self.client.completer.engine_awaits_room() {
            // What it would say is of no interest: the engine looks again.
            let _ = self.call(0, Duration::ZERO);
        }
    }

    /// Free entries in the SQ.
    pub fn free(&mut self) -> u32 {
        self.client.submitter.free()
    }

    /// CQEs that are there.
    pub fn available(&mut self) -> u32 {
        self.client.completer.available()
    }

    /// Detaches the ring: its operations are cancelled as far as they can be, and nothing comes any more. What is in
    /// the CQ can be reaped.
    pub fn detach(&mut self) -> io::Result<()> {
        call(self.fd.as_fd(), DEVICE_CLOSE, &mut DeviceClose::default())?;
        Ok(())
    }

    /// Whether the context is closed: nothing more is taken.
    pub fn closed(&self) -> bool {
        self.client.submitter.closed()
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
