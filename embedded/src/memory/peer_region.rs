//! A peer's memory, mapped read-only (clause SHM-4).
//!
//! A peer is not trusted: it might shrink the file, or punch holes into it, under our copy. So only a memfd is taken
//! whose seals forbid both for good, to everybody: F_SEAL_SHRINK, F_SEAL_SEAL, and F_SEAL_WRITE or
//! F_SEAL_FUTURE_WRITE, under which the kernel refuses to punch holes (fallocate and MADV_REMOVE alike). All pages are
//! faulted in before the first copy, where a failure is an error and not a signal.

use super::errno;
use dmaplane_ring::abi::Errno;
use rustix::fs::SealFlags;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::OnceLock;

/// A peer's region: checked at once, mapped when first used (which takes long for large ones, so a worker does it).
#[derive(Debug)]
pub(crate) struct PeerRegion {
    fd: OwnedFd,
    length: usize,
    mapped: OnceLock<Result<NonNull<u8>, Errno>>,
}

// SAFETY: the mapping is read-only and only read through raw copies.
unsafe impl Send for PeerRegion {}
// SAFETY: as above.
unsafe impl Sync for PeerRegion {}

impl PeerRegion {
    /// Checks what a peer handed over: -EPERM for missing seals, -EINVAL for what is no memfd or shorter than it says.
    pub(crate) fn check(fd: OwnedFd, length_bytes: u64) -> Result<PeerRegion, Errno> {
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|_| Errno::EINVAL)?;
        let unwritable = seals.contains(SealFlags::WRITE) || seals.contains(SealFlags::FUTURE_WRITE);
        if !seals.contains(SealFlags::SHRINK | SealFlags::SEAL) || !unwritable {
            return Err(Errno::from_raw(libc::EPERM));
        }
        let size = rustix::fs::fstat(&fd).map_err(errno)?.st_size;
        if length_bytes == 0 || u64::try_from(size).is_ok_and(|size| size < length_bytes) {
            return Err(Errno::EINVAL);
        }
        let length = usize::try_from(length_bytes).map_err(|_| Errno::EMSGSIZE)?;
        Ok(PeerRegion { fd, length, mapped: OnceLock::new() })
    }

    /// Whether using it is quick.
    pub(crate) fn is_mapped(&self) -> bool {
        self.mapped.get().is_some()
    }

    /// A pointer to `length` readable bytes at `offset`; maps the region if need be.
    pub(crate) fn at(&self, offset: u64, length: u64) -> Result<NonNull<u8>, Errno> {
        let end = offset.checked_add(length).ok_or(Errno::ERANGE)?;
        if end > self.length as u64 {
            return Err(Errno::ERANGE);
        }
        let base = (*self.mapped.get_or_init(|| self.map()))?;
        // SAFETY: within the mapping, by the check.
        Ok(unsafe { base.add(offset as usize) })
    }

    fn map(&self) -> Result<NonNull<u8>, Errno> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), self.length, ProtFlags::READ, MapFlags::SHARED, &self.fd, 0)
        }
        .map_err(errno)?;
        // SAFETY: the range just mapped; populating changes no contents.
        if let Err(error) = unsafe { rustix::mm::madvise(base, self.length, Advice::LinuxPopulateRead) } {
            // SAFETY: the range just mapped, which nobody else has seen.
            let _ = unsafe { rustix::mm::munmap(base, self.length) };
            return Err(errno(error));
        }
        NonNull::new(base.cast()).ok_or(Errno::EFAULT)
    }
}

impl Drop for PeerRegion {
    fn drop(&mut self) {
        if let Some(Ok(base)) = self.mapped.get() {
            // SAFETY: our mapping; users hold the `Arc` around us.
            let _ = unsafe { rustix::mm::munmap(base.as_ptr().cast(), self.length) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::MemfdFlags;

    fn memfd(length: u64, seals: SealFlags) -> OwnedFd {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, length).unwrap();
        rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    /// SHM-4: memory that a hostile peer could truncate or punch is refused before it is touched.
    #[test]
    fn shm_4_memory_that_could_vanish_is_refused() {
        let good = SealFlags::SHRINK | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        assert!(PeerRegion::check(memfd(8192, good), 8192).is_ok());
        for missing in [SealFlags::SHRINK, SealFlags::FUTURE_WRITE, SealFlags::SEAL] {
            let error = PeerRegion::check(memfd(8192, good - missing), 8192).unwrap_err();
            assert_eq!(error.raw(), libc::EPERM, "without {missing:?}");
        }
        assert_eq!(PeerRegion::check(memfd(4096, good), 8192).unwrap_err(), Errno::EINVAL);
        let file = OwnedFd::from(tempfile::tempfile().unwrap());
        assert_eq!(PeerRegion::check(file, 1).unwrap_err(), Errno::EINVAL);
    }

    /// SHM-4: the kernel itself holds what the seals promise, so that our mapping can never fault.
    #[test]
    fn shm_4_sealed_memory_cannot_be_truncated_or_punched() {
        let fd = memfd(8192, SealFlags::SHRINK | SealFlags::FUTURE_WRITE | SealFlags::SEAL);
        let hostile = fd.try_clone().unwrap();
        let region = PeerRegion::check(fd, 8192).unwrap();
        let start = region.at(0, 8192).unwrap();
        assert!(rustix::fs::ftruncate(&hostile, 0).is_err());
        let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        assert!(rustix::fs::fallocate(&hostile, punch, 0, 4096).is_err());
        assert!(rustix::io::write(&hostile, b"x").is_err());
        // SAFETY: in range.
        assert_eq!(unsafe { start.add(8191).read_volatile() }, 0);
        assert_eq!(region.at(8000, 200).unwrap_err(), Errno::ERANGE);
        assert_eq!(region.at(u64::MAX, 2).unwrap_err(), Errno::ERANGE);
    }
}
