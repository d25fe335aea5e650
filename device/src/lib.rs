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
    DEVICE_CLOSE, DEVICE_LISTEN, DEVICE_MAP, DEVICE_RING, DEVICE_SETUP, DeviceClose, DeviceListen, DeviceMap,
    DeviceRing, DeviceSetup,
};
use dmaplane_ring::abi::{ABI_VERSION, BufferHandle, ListenerHandle, RingLayout};
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

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
        Ring::new(fd, &arguments, layout)
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

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
