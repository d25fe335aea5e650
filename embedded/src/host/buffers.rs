//! Buffers, descriptors and waits.

use super::{EmbeddedHost, Note, WordWait};
use crate::memory::{Region, errno};
use crate::runner::failed;
use dmaplane_engine::{AllocRequest, Event, OpId, Outcome};
use dmaplane_ring::abi::Errno;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Nothing to read yet.
const AGAIN: rustix::io::Errno = rustix::io::Errno::AGAIN;

impl EmbeddedHost {
    /// A live buffer's memory.
    pub(crate) fn region(&self, buffer: u32) -> Result<Arc<Region>, Errno> {
        self.regions.get(buffer as usize).and_then(Clone::clone).ok_or(Errno::ESTALE)
    }

    pub(crate) fn put_region(&mut self, buffer: u32, region: Region) {
        let index = buffer as usize;
        if self.regions.len() <= index {
            self.regions.resize_with(index + 1, || None);
        }
        self.regions[index] = Some(Arc::new(region));
    }

    pub(super) fn start_alloc(&mut self, op: OpId, buffer: u32, request: &AllocRequest) -> Outcome {
        let request = *request;
        let mut recycled = self.recycled.take(&request);
        if request.node.is_none()
            && let Some(region) = recycled.take()
        {
            let length = region.length_bytes();
            self.put_region(buffer, region);
            return Outcome::done(length, 0);
        }
        self.give(move |shared| {
            // Its pages may have moved since.
            let placed = |region: &Region| match request.node {
                Some(node) if request.strict => region.verify_strictly(node).is_ok(),
                _ => true,
            };
            let made = recycled.filter(placed).map_or_else(|| Region::allocate(&request), Ok);
            match made {
                Ok(region) => {
                    let unverifiable = request.node.is_some() && !crate::memory::can_look();
                    shared.note(Note::Allocated { op, buffer, region, unverifiable });
                }
                Err(errno) => shared.post(failed(op, errno)),
            }
        });
        Outcome::Started
    }

    pub(super) fn allocated(&mut self, op: OpId, buffer: u32, region: Region, unverifiable: bool) {
        let length = region.length_bytes();
        self.put_region(buffer, region);
        self.report(Event::Finished { op, result: 0, word0: length, word1: unverifiable.into() });
    }

    /// The memory goes when its last user lets go: a mapping, a running copy, an export.
    pub(super) fn start_free(&mut self, op: Option<OpId>, buffer: u32) -> Outcome {
        let Some(region) = self.regions.get_mut(buffer as usize).and_then(Option::take) else {
            return Outcome::failed(Errno::ESTALE);
        };
        self.unshare_everywhere(&region);
        let region = match Arc::try_unwrap(region) {
            // Nobody else has it: no mapping, no copy.
            Ok(region) if region.is_recyclable() => {
                let evicted = self.recycled.put(region);
                if !evicted.is_empty() {
                    self.give(move |_| drop(evicted));
                }
                return Outcome::done(0, 0);
            }
            Ok(region) => Arc::new(region),
            Err(region) => region,
        };
        self.give(move |shared| {
            let_go_of(region);
            if let Some(op) = op {
                shared.post(Event::Finished { op, result: 0, word0: 0, word1: 0 });
            }
        });
        // Without an op its end is part of the context's own: `Context` waits for its workers.
        if op.is_some() { Outcome::Started } else { Outcome::done(0, 0) }
    }

    pub(super) fn start_placement(&mut self, op: OpId, buffer: u32, node: u32) -> Outcome {
        let region = match self.region(buffer) {
            Ok(region) => region,
            Err(errno) => return Outcome::failed(errno),
        };
        self.give(move |shared| {
            shared.post(match region.verify(node) {
                Ok(found) => Event::Finished { op, result: 0, word0: found.pages_on_node, word1: found.pages },
                Err(errno) => failed(op, errno),
            });
        });
        Outcome::Started
    }

    /// A dma-buf where the system makes them out of memfds, else the sealed memfd itself.
    pub(super) fn export_now(&mut self, buffer: u32, slot: u32) -> Outcome {
        let exported = self.region(buffer).and_then(|region| {
            let descriptor = region.exportable().ok_or(Errno::EOPNOTSUPP)?;
            match udmabuf(descriptor.as_raw_fd(), region.length_bytes()) {
                Some(dmabuf) => Ok(dmabuf),
                None => descriptor.try_clone_to_owned().map_err(|_| Errno::EIO),
            }
        });
        match exported {
            Ok(descriptor) => {
                self.descriptors.insert(slot, descriptor);
                Outcome::done(0, 0)
            }
            Err(errno) => Outcome::failed(errno),
        }
    }

    pub(crate) fn take_descriptor(&mut self, slot: u32) -> Result<OwnedFd, Errno> {
        self.descriptors.remove(&slot).ok_or(Errno::EBADF)
    }

    #[cfg(test)]
    pub(crate) fn descriptor_waits(&self) -> usize {
        self.descriptor_waits.len()
    }

    pub(crate) fn put_descriptor(&mut self, slot: u32, descriptor: OwnedFd) {
        self.descriptors.insert(slot, descriptor);
    }

    /// Waits on a thread of its own until the eventfd is readable.
    pub(super) fn start_wait_slot(&mut self, op: OpId, slot: u32) -> Outcome {
        let Some(Ok(descriptor)) = self.descriptors.get(&slot).map(OwnedFd::try_clone) else {
            return Outcome::failed(Errno::EBADF);
        };
        let stop = Arc::new(AtomicBool::new(false));
        self.descriptor_waits.insert(op.bits(), stop.clone());
        let weak = self.shared.clone();
        let waiting = std::thread::Builder::new().name("dmaplane-wait".into());
        let spawned = waiting.spawn(move || {
            let step = rustix::event::Timespec { tv_sec: 0, tv_nsec: Duration::from_millis(20).as_nanos() as i64 };
            loop {
                let mut fds =
                    [rustix::event::PollFd::from_borrowed_fd(descriptor.as_fd(), rustix::event::PollFlags::IN)];
                let ready = rustix::event::poll(&mut fds, Some(&step)).unwrap_or(0) > 0;
                let Some(shared) = weak.upgrade() else { return };
                if stop.load(Ordering::Acquire) {
                    return shared.note(Note::Waited { op, outcome: Err(Errno::ECANCELED) });
                }
                let mut count = [0; 8];
                match if ready { rustix::io::read(&descriptor, &mut count) } else { Err(AGAIN) } {
                    Ok(_) => return shared.note(Note::Waited { op, outcome: Ok(u64::from_ne_bytes(count)) }),
                    // Another WAIT was quicker.
                    Err(AGAIN | rustix::io::Errno::INTR) => {}
                    Err(error) => return shared.note(Note::Waited { op, outcome: Err(errno(error)) }),
                }
            }
        });
        if spawned.is_err() {
            self.descriptor_waits.remove(&op.bits());
            return Outcome::failed(Errno::ENOMEM);
        }
        Outcome::Started
    }

    /// A WAIT on a descriptor is over, one way or another.
    pub(super) fn waited(&mut self, op: OpId, outcome: Result<u64, Errno>) {
        self.descriptor_waits.remove(&op.bits());
        self.report(match outcome {
            Ok(count) => Event::Finished { op, result: 0, word0: count, word1: 0 },
            Err(errno) => failed(op, errno),
        });
    }

    pub(super) fn start_wait_word(&mut self, op: OpId, buffer: u32, offset: u64, value: u32) -> Outcome {
        match self.region(buffer) {
            // The user's own memory may begin anywhere, so that no multiple of 4 in it is one of the machine's.
            Ok(region) if region.word(offset).is_none() => Outcome::failed(Errno::EINVAL),
            Ok(region) => {
                self.words.push(WordWait { op, region, offset, value });
                Outcome::Started
            }
            Err(errno) => Outcome::failed(errno),
        }
    }

    pub(crate) fn waits_on_words(&self) -> bool {
        !self.words.is_empty()
    }

    /// Looks at the words that operations wait for.
    pub(crate) fn poll_words(&mut self) -> bool {
        if self.words.is_empty() {
            return false;
        }
        let mut reached = Vec::new();
        self.words.retain(|wait| {
            // Words wrap like sequence numbers: "at least" is within half of their range.
            let there = wait.region.word(wait.offset).is_some_and(|now| now.wrapping_sub(wait.value) < 1 << 31);
            if there {
                reached.push(wait.op);
            }
            !there
        });
        for &op in &reached {
            self.report(Event::Finished { op, result: 0, word0: 0, word1: 0 });
        }
        !reached.is_empty()
    }

    pub(super) fn cancel_waits(&mut self, op: OpId) {
        let before = self.words.len();
        self.words.retain(|wait| wait.op != op);
        if self.words.len() < before {
            self.report(failed(op, Errno::ECANCELED));
        }
        if let Some(stop) = self.descriptor_waits.get(&op.bits()) {
            stop.store(true, Ordering::Release);
        }
    }
}

/// Unmapping gigabytes takes long, and with memory of the user's goes code of the user's, which may take a call of ours
/// or panic: a worker's work. A panic there is the user's: whoever waits for the FREE hears of its end all the same.
fn let_go_of(region: Arc<Region>) {
    if std::panic::catch_unwind(AssertUnwindSafe(|| drop(region))).is_err() {
        tracing::error!("what kept a registered buffer's memory has panicked when it was dropped");
    }
}

/// The argument of UDMABUF_CREATE, as in the kernel's UAPI (linux/udmabuf.h).
#[repr(C)]
struct UdmabufCreate {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

/// Makes a dma-buf of a memfd; `None` where the system cannot.
fn udmabuf(memfd: i32, length: u64) -> Option<OwnedFd> {
    use std::os::fd::FromRawFd;
    const UDMABUF_CREATE: libc::c_ulong = 0x4018_7542;
    let device = std::fs::File::options().read(true).write(true).open("/dev/udmabuf").ok()?;
    let create = UdmabufCreate { memfd: memfd as u32, flags: 1, offset: 0, size: length };
    // SAFETY: the device's own ioctl with an argument of the right layout; it makes a new descriptor.
    let made = unsafe { libc::ioctl(device.as_raw_fd(), UDMABUF_CREATE, &create) };
    // SAFETY: a descriptor that nobody else owns.
    (made >= 0).then(|| unsafe { OwnedFd::from_raw_fd(made) })
}
