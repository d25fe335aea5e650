//! A ring, whoever runs its engine.

use super::device::failed;
use crate::error::Error;
use dmaplane_ring::abi::{Cqe, Sqe};
use dmaplane_ring::queue::Full;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// One thread's queues.
#[derive(Debug)]
pub(crate) enum Ring {
    Embedded(dmaplane_embedded::Ring),
    Device(DeviceRing),
}

/// A ring of the driver's, with what the library wants of one.
#[derive(Debug)]
pub(crate) struct DeviceRing {
    ring: dmaplane_device::Ring,
    /// Written to where this side would be woken.
    eventfd: Option<OwnedFd>,
}

impl DeviceRing {
    pub(super) fn new(ring: dmaplane_device::Ring) -> DeviceRing {
        DeviceRing { ring, eventfd: None }
    }

    /// Waits in the kernel until a CQE is there: `false` when the time is up or the ring closed.
    fn wait(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if self.ring.available() > 0 {
                return true;
            }
            if self.ring.closed() {
                return false;
            }
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            match self.ring.enter(1, left) {
                // A context that closes while we wait ends the wait with nothing.
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return self.ring.available() > 0,
            }
        }
    }

    fn eventfd(&mut self) -> Result<BorrowedFd<'_>, Error> {
        let made = match self.eventfd.take() {
            Some(made) => made,
            None => {
                let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(std::io::Error::from)?;
                self.ring.register(Some(made.as_fd())).map_err(failed("registering an eventfd"))?;
                // What came before it was there has rung nothing.
                if self.ring.available() > 0 || self.ring.closed() {
                    let _ = rustix::io::write(&made, &1u64.to_ne_bytes());
                }
                made
            }
        };
        let eventfd: &OwnedFd = self.eventfd.insert(made);
        Ok(eventfd.as_fd())
    }
}

impl Ring {
    /// Writes an SQE; [`Ring::submit`] makes it visible. A full queue hands it back.
    pub(crate) fn push(&mut self, sqe: impl Into<Sqe>) -> Result<(), Full<Sqe>> {
        match self {
            Ring::Embedded(ring) => ring.push(sqe),
            Ring::Device(device) => device.ring.push(sqe),
        }
    }

    /// Free entries in the SQ.
    #[cfg(feature = "tokio")]
    pub(crate) fn free(&mut self) -> u32 {
        match self {
            Ring::Embedded(ring) => ring.free(),
            Ring::Device(device) => device.ring.free(),
        }
    }

    /// Publishes what was pushed, and sees to it that somebody takes it.
    pub(crate) fn submit(&mut self) {
        match self {
            Ring::Embedded(ring) => ring.submit(),
            // It fails on a context that closes, which cancels what is in flight.
            Ring::Device(device) => drop(device.ring.submit()),
        }
    }

    /// Runs the engine.
    pub(crate) fn enter(&mut self) {
        match self {
            Ring::Embedded(ring) => ring.enter(),
            Ring::Device(device) => drop(device.ring.enter(0, Duration::ZERO)),
        }
    }

    /// Takes one CQE.
    pub(crate) fn reap_one(&mut self) -> Option<Cqe> {
        match self {
            Ring::Embedded(ring) => ring.reap_one(),
            Ring::Device(device) => device.ring.reap_one(),
        }
    }

    /// Hands up to `most` CQEs to `each`; returns how many.
    #[cfg(feature = "tokio")]
    pub(crate) fn reap(&mut self, most: u32, each: impl FnMut(Cqe)) -> u32 {
        match self {
            Ring::Embedded(ring) => ring.reap(most, each),
            Ring::Device(device) => device.ring.reap(most, each),
        }
    }

    /// Waits until there are CQEs; `false` when the time is up or the ring closed.
    pub(crate) fn wait(&mut self, timeout: Duration) -> bool {
        match self {
            Ring::Embedded(ring) => ring.wait(timeout),
            Ring::Device(device) => device.wait(timeout),
        }
    }

    /// Waits for one CQE, and takes it.
    #[cfg(feature = "tokio")]
    pub(crate) fn wait_one(&mut self, timeout: Duration) -> Option<Cqe> {
        if let Some(cqe) = self.reap_one() {
            return Some(cqe);
        }
        if self.wait(timeout) { self.reap_one() } else { None }
    }

    /// A descriptor that becomes readable where this side is to be woken.
    pub(crate) fn eventfd(&mut self) -> Result<BorrowedFd<'_>, Error> {
        match self {
            Ring::Embedded(ring) => Ok(ring.eventfd()?),
            Ring::Device(device) => device.eventfd(),
        }
    }

    /// Says that this side is about to wait for the eventfd: `false` where there is something to be looked at already.
    pub(crate) fn arm(&mut self) -> bool {
        match self {
            Ring::Embedded(ring) => ring.arm(),
            Ring::Device(device) => device.ring.prepare_sleep() && !device.ring.closed(),
        }
    }

    /// Says that this side is awake, and takes what the eventfd holds.
    pub(crate) fn disarm(&mut self) {
        match self {
            Ring::Embedded(ring) => ring.disarm(),
            Ring::Device(device) => {
                device.ring.awake();
                if let Some(eventfd) = &device.eventfd {
                    // It does not block; nothing in it is as good.
                    let _ = rustix::io::read(eventfd, &mut [0; 8]);
                }
            }
        }
    }

    /// Whether the context is closed: nothing more is taken.
    #[cfg(feature = "tokio")]
    pub(crate) fn closed(&self) -> bool {
        match self {
            Ring::Embedded(ring) => ring.closed(),
            Ring::Device(device) => device.ring.closed(),
        }
    }

    /// Detaches the ring, and hands over what nobody has reaped.
    #[cfg(feature = "tokio")]
    pub(crate) fn detach(self, mut each: impl FnMut(Cqe)) {
        match self {
            Ring::Embedded(ring) => ring.detach(each),
            Ring::Device(mut device) => {
                // A ring whose context is closed has nothing left to come.
                let _ = device.ring.detach();
                while let Some(cqe) = device.ring.reap_one() {
                    each(cqe);
                }
            }
        }
    }
}
