//! The kernel driver from userspace: contexts, rings and mapped buffers of `/dev/dmaplane` (clauses DEV-1 to DEV-7).
//!
//! A [`Device`] is a context, a [`Ring`] one thread's queues; what is pushed is taken when [`Ring::enter`] is called,
//! or by the context's poller.

mod call;
mod mapping;
mod ring;

pub use mapping::Mapping;
pub use ring::Ring;

use call::call;
use dmaplane_ring::abi::device::{
    DEVICE_CLOSE, DEVICE_IMPORT, DEVICE_LISTEN, DEVICE_MAP, DEVICE_PIN, DEVICE_RING, DEVICE_SETUP, DEVICE_SLOT,
    DEVICE_TAKE, DeviceClose, DeviceImport, DeviceListen, DeviceMap, DevicePin, DeviceRing, DeviceSetup, DeviceSlot,
    DeviceTake, pin_flags, setup_flags,
};
use dmaplane_ring::abi::{ABI_VERSION, BufferHandle, ListenerHandle, RingLayout, SlotHandle};
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;

/// Where the device is.
pub const PATH: &str = "/dev/dmaplane";

/// A context of the driver's. Closed, it ends by itself: nothing waits.
#[derive(Debug)]
pub struct Device {
    fd: OwnedFd,
    setup: DeviceSetup,
}

impl Device {
    /// Opens the device and makes a context of it. ENOENT: there is no driver; EACCES: who may open it is in the group
    /// `dmaplane`; EPROTONOSUPPORT: it speaks another version of the ABI.
    pub fn open(setup: DeviceSetup) -> io::Result<Device> {
        let fd = Device::open_bare(PATH)?;
        Device::set_up(fd, setup)
    }

    /// Opens the device, and makes nothing of it yet.
    pub fn open_bare(path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        Ok(rustix::fs::open(path.as_ref(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Makes a context of an open descriptor. EBUSY: it is one already.
    pub fn set_up(fd: OwnedFd, setup: DeviceSetup) -> io::Result<Device> {
        let mut setup = DeviceSetup { abi_version: ABI_VERSION, ..setup };
        call(fd.as_fd(), DEVICE_SETUP, &mut setup)?;
        Ok(Device { fd, setup })
    }

    /// What the context was made with: limits and features as the driver has filled them in.
    pub fn setup(&self) -> &DeviceSetup {
        &self.setup
    }

    /// Attaches a ring. EINVAL: no ring has these sizes; ENFILE: the context has as many rings or operations as it may.
    pub fn ring(&self, sq_entries: u32, cq_entries: u32) -> io::Result<Ring> {
        let layout = RingLayout::new(sq_entries, cq_entries).ok_or(rustix::io::Errno::INVAL)?;
        let mut arguments = DeviceRing { sq_entries, cq_entries, ..DeviceRing::default() };
        let fd = call(self.fd.as_fd(), DEVICE_RING, &mut arguments)?;
        // SAFETY: the call has just made this descriptor, for us alone.
        let fd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
        Ring::new(fd, &arguments, layout, self.setup.flags & setup_flags::POLLER != 0)
    }

    /// Maps a buffer whole, for reading and writing. The mapping keeps the memory, whatever becomes of the buffer.
    pub fn map(&self, buffer: BufferHandle) -> io::Result<Mapping> {
        let DeviceMap { offset, length_bytes, .. } = self.offer(buffer)?;
        Mapping::new(self.fd.as_fd(), offset, length_bytes as usize, true)
    }

    /// Listens at `local:NAME`, for contexts of this user and network namespace, as long as this one lives. EINVAL: no
    /// such address; EADDRINUSE: somebody listens there; ENFILE: the context has as many listeners as it may.
    pub fn listen(&self, address: &str) -> io::Result<ListenerHandle> {
        let mut arguments = DeviceListen {
            address: address.as_ptr() as u64,
            address_bytes: u32::try_from(address.len()).unwrap_or(u32::MAX),
            ..DeviceListen::default()
        };
        call(self.fd.as_fd(), DEVICE_LISTEN, &mut arguments)?;
        ListenerHandle::from_bits(arguments.listener).ok_or_else(|| io::Error::other("the driver gave no listener"))
    }

    /// Makes a dma-buf a buffer: its handle and length. EINVAL: the descriptor is of something else; EOPNOTSUPP: its
    /// exporter does not let the kernel map it; EMSGSIZE: it is longer than a buffer may be; EDQUOT: the context has
    /// imported as much as it may.
    pub fn import(&self, dma_buf: BorrowedFd<'_>) -> io::Result<(BufferHandle, u64)> {
        let mut arguments = DeviceImport { fd: dma_buf.as_raw_fd(), ..DeviceImport::default() };
        call(self.fd.as_fd(), DEVICE_IMPORT, &mut arguments)?;
        Ok((buffer(arguments.buffer)?, arguments.length_bytes))
    }

    /// Makes memory of this process a buffer. It is pinned, and counted against RLIMIT_MEMLOCK, until the buffer is
    /// freed and nobody touches it. EINVAL: it does not begin at a multiple of 8; EFAULT: it is not there, or cannot be
    /// written to; ENOMEM: more than may be locked.
    ///
    /// # Safety
    /// Until the buffer is freed, nothing in this process takes it for memory that nobody else writes to.
    pub unsafe fn pin(&self, start: NonNull<u8>, length_bytes: usize, read_only: bool) -> io::Result<BufferHandle> {
        let mut arguments = DevicePin {
            address: start.as_ptr() as u64,
            length_bytes: length_bytes as u64,
            flags: if read_only { pin_flags::READ_ONLY } else { 0 },
            ..DevicePin::default()
        };
        call(self.fd.as_fd(), DEVICE_PIN, &mut arguments)?;
        buffer(arguments.buffer)
    }

    /// Puts an eventfd or a sync_file into a slot, for WAIT. EINVAL: it is neither, or an eventfd that blocks.
    pub fn put(&self, descriptor: BorrowedFd<'_>) -> io::Result<SlotHandle> {
        let mut arguments = DeviceSlot { fd: descriptor.as_raw_fd(), ..DeviceSlot::default() };
        call(self.fd.as_fd(), DEVICE_SLOT, &mut arguments)?;
        SlotHandle::from_bits(arguments.slot).ok_or_else(|| io::Error::other("the driver gave no slot"))
    }

    /// Takes a descriptor out of a slot, an export's say. EBUSY: it is waited for; EMFILE: this process has as many
    /// descriptors as it may, and the slot is as it was.
    pub fn take(&self, slot: SlotHandle) -> io::Result<OwnedFd> {
        let mut arguments = DeviceTake { slot: slot.handle().bits(), ..DeviceTake::default() };
        let fd = call(self.fd.as_fd(), DEVICE_TAKE, &mut arguments)?;
        // SAFETY: the call has just made this descriptor, for us alone.
        Ok(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) })
    }

    /// Begins the context's end, while mappings of it stay valid. Dropping the device does so too, once no mapping of
    /// it is left, since a mapping keeps a file open.
    pub fn close(&self) -> io::Result<()> {
        call(self.fd.as_fd(), DEVICE_CLOSE, &mut DeviceClose::default())?;
        Ok(())
    }

    /// What the context has in use, and counters, each by its name, from the descriptor's fdinfo.
    pub fn information(&self) -> io::Result<HashMap<String, u64>> {
        let path = format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd());
        let text = std::fs::read_to_string(path)?;
        let lines = text.lines().filter_map(|line| line.strip_prefix("dmaplane-")?.split_once(':'));
        Ok(lines.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect())
    }

    /// Where a buffer can be mapped from, and how long it is.
    pub fn offer(&self, buffer: BufferHandle) -> io::Result<DeviceMap> {
        let mut arguments = DeviceMap { buffer: buffer.handle().bits(), ..DeviceMap::default() };
        call(self.fd.as_fd(), DEVICE_MAP, &mut arguments)?;
        Ok(arguments)
    }
}

fn buffer(bits: u64) -> io::Result<BufferHandle> {
    BufferHandle::from_bits(bits).ok_or_else(|| io::Error::other("the driver gave no buffer"))
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
