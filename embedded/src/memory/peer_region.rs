//! A peer's memory, mapped read-only (clause SHM-4).
//!
//! A peer is not trusted: it might shrink the file, or punch holes into it, under our copy. So only a memfd is taken
//! whose seals forbid both for good, to everybody: F_SEAL_SHRINK, F_SEAL_SEAL, and F_SEAL_WRITE or
//! F_SEAL_FUTURE_WRITE, under which the kernel refuses to punch holes (fallocate and MADV_REMOVE alike). Nor may it
//! have holes from the beginning: we would fill them, with memory of ours, as much as the peer likes. What is allocated
//! stays so under the same seals. Pages are faulted in before they are first copied from, where a failure is an error
//! and not a signal.

use super::errno;
use dmaplane_ring::abi::Errno;
use rustix::fs::{SealFlags, SeekFrom};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes faulted in at a time, between two looks whether to stop: well below a millisecond where they are in memory.
const CHUNK_BYTES: usize = 4 << 20;

/// A peer's region: checked at once, mapped when first used (which takes long for large ones, so a worker does it).
#[derive(Debug)]
pub(crate) struct PeerRegion {
    fd: OwnedFd,
    length: usize,
    mapped: OnceLock<Result<Mapped, Errno>>,
}

#[derive(Debug)]
struct Mapped {
    base: NonNull<u8>,
    /// Chunks whose pages are there.
    populated: Box<[AtomicBool]>,
}

// SAFETY: the mapping is read-only and only read through raw copies.
unsafe impl Send for PeerRegion {}
// SAFETY: as above.
unsafe impl Sync for PeerRegion {}

impl PeerRegion {
    /// Checks what a peer handed over: -EPERM for missing seals, -EINVAL for what is no memfd, shorter than it says, or
    /// not all there.
    pub(crate) fn check(fd: OwnedFd, length_bytes: u64) -> Result<PeerRegion, Errno> {
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|_| Errno::EINVAL)?;
        let unwritable = seals.contains(SealFlags::WRITE) || seals.contains(SealFlags::FUTURE_WRITE);
        if !seals.contains(SealFlags::SHRINK | SealFlags::SEAL) || !unwritable {
            return Err(Errno::from_raw(libc::EPERM));
        }
        let stat = rustix::fs::fstat(&fd).map_err(errno)?;
        let size = u64::try_from(stat.st_size).map_err(|_| Errno::EINVAL)?;
        // A first look, which costs nothing. What is allocated may lie behind the end, so `map` looks closer.
        let allocated = u64::try_from(stat.st_blocks).map_err(|_| Errno::EINVAL)?.saturating_mul(512);
        if length_bytes == 0 || size < length_bytes || allocated < size {
            return Err(Errno::EINVAL);
        }
        let length = usize::try_from(length_bytes).map_err(|_| Errno::EMSGSIZE)?;
        Ok(PeerRegion { fd, length, mapped: OnceLock::new() })
    }

    /// Whether using a range is quick. (One that is outside of the region is: that is an error.)
    pub(crate) fn is_ready(&self, offset: u64, length: u64) -> bool {
        match self.mapped.get() {
            // Acquire: as in `at`.
            Some(Ok(mapped)) => mapped.chunks(offset, length).all(|(_, there)| there.load(Ordering::Acquire)),
            Some(Err(_)) => true,
            None => false,
        }
    }

    /// A pointer to `length` readable bytes at `offset`; maps them if need be, unless stopped: -EKEYREVOKED.
    pub(crate) fn at(&self, offset: u64, length: u64, stop: &AtomicBool) -> Result<NonNull<u8>, Errno> {
        let end = offset.checked_add(length).ok_or(Errno::ERANGE)?;
        if end > self.length as u64 {
            return Err(Errno::ERANGE);
        }
        let mapped = self.mapped.get_or_init(|| self.map()).as_ref().map_err(|errno| *errno)?;
        for (chunk, there) in mapped.chunks(offset, length) {
            // Acquire: pairs with the release below; the pages are there. Two threads may both see to them.
            if there.load(Ordering::Acquire) {
                continue;
            }
            // Acquire: pairs with the release of whoever stops us.
            if stop.load(Ordering::Acquire) {
                return Err(Errno::EKEYREVOKED);
            }
            let start = chunk * CHUNK_BYTES;
            let here = CHUNK_BYTES.min(self.length - start);
            // SAFETY: within the mapping, whose length `chunks` keeps to; populating changes no contents.
            unsafe { rustix::mm::madvise(mapped.base.add(start).as_ptr().cast(), here, Advice::LinuxPopulateRead) }
                .map_err(errno)?;
            // Release: pairs with the acquire above.
            there.store(true, Ordering::Release);
        }
        // SAFETY: within the mapping, by the check.
        Ok(unsafe { mapped.base.add(offset as usize) })
    }

    fn map(&self) -> Result<Mapped, Errno> {
        // Where the file system cannot tell (huge pages), it says that there is no hole; the pool then bounds us.
        let hole = rustix::fs::seek(&self.fd, SeekFrom::Hole(0)).map_err(errno)?;
        if hole < self.length as u64 {
            return Err(Errno::EINVAL);
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), self.length, ProtFlags::READ, MapFlags::SHARED, &self.fd, 0)
        }
        .map_err(errno)?;
        let base = NonNull::new(base.cast()).ok_or(Errno::EFAULT)?;
        let populated = (0..self.length.div_ceil(CHUNK_BYTES)).map(|_| AtomicBool::new(false)).collect();
        Ok(Mapped { base, populated })
    }
}

impl Mapped {
    /// The chunks that a range touches.
    fn chunks(&self, offset: u64, length: u64) -> impl Iterator<Item = (usize, &AtomicBool)> {
        let chunk = CHUNK_BYTES as u64;
        let (first, end) = (offset / chunk, offset.saturating_add(length).div_ceil(chunk));
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let count = usize::try_from(end).unwrap_or(usize::MAX).saturating_sub(first);
        self.populated.iter().enumerate().skip(first).take(count)
    }
}

impl Drop for PeerRegion {
    fn drop(&mut self) {
        if let Some(Ok(mapped)) = self.mapped.get() {
            // SAFETY: our mapping; users hold the `Arc` around us.
            let _ = unsafe { rustix::mm::munmap(mapped.base.as_ptr().cast(), self.length) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::MemfdFlags;

    static GO_ON: AtomicBool = AtomicBool::new(false);

    fn memfd(length: u64, seals: SealFlags) -> OwnedFd {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&fd, &vec![0; length as usize]).unwrap();
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
        let start = region.at(0, 8192, &GO_ON).unwrap();
        assert!(rustix::fs::ftruncate(&hostile, 0).is_err());
        let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        assert!(rustix::fs::fallocate(&hostile, punch, 0, 4096).is_err());
        assert!(rustix::io::write(&hostile, b"x").is_err());
        // SAFETY: in range.
        assert_eq!(unsafe { start.add(8191).read_volatile() }, 0);
        assert_eq!(region.at(8000, 200, &GO_ON).unwrap_err(), Errno::ERANGE);
        assert_eq!(region.at(u64::MAX, 2, &GO_ON).unwrap_err(), Errno::ERANGE);
    }

    const GOOD: SealFlags = SealFlags::SHRINK.union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);

    /// SHM-4, SEC-5: holes of a peer's would be filled with our memory.
    #[test]
    fn shm_4_a_peers_holes_are_filled_with_our_memory() {
        let sparse = |behind: bool| {
            let fd = rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
            rustix::fs::ftruncate(&fd, 1 << 30).unwrap();
            if behind {
                // As many pages as are said, but not where they are said to be.
                rustix::fs::ftruncate(&fd, 8192).unwrap();
                let keep = rustix::fs::FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&fd, keep, 8192, 8192).unwrap();
            }
            rustix::fs::fcntl_add_seals(&fd, GOOD).unwrap();
            fd
        };
        assert_eq!(PeerRegion::check(sparse(false), 1 << 30).unwrap_err(), Errno::EINVAL);
        let region = PeerRegion::check(sparse(true), 8192).unwrap();
        assert_eq!(region.at(0, 1, &GO_ON).unwrap_err(), Errno::EINVAL);
    }

    /// SHM-4, HOST-19: faulting a large region in does not hold a revoke up, and is not done for what is not used.
    #[test]
    fn host_19_faulting_a_region_in_cannot_be_stopped() {
        let length = 3 * CHUNK_BYTES as u64 + 4096;
        let region = PeerRegion::check(memfd(length, GOOD), length).unwrap();
        assert!(!region.is_ready(0, 1));
        let stop = AtomicBool::new(true);
        assert_eq!(region.at(0, length, &stop).unwrap_err(), Errno::EKEYREVOKED);
        region.at(CHUNK_BYTES as u64, 1, &GO_ON).unwrap();
        assert!(region.is_ready(CHUNK_BYTES as u64, CHUNK_BYTES as u64));
        assert!(!region.is_ready(CHUNK_BYTES as u64, CHUNK_BYTES as u64 + 1) && !region.is_ready(0, 1));
        // What is there is there, whoever stops.
        region.at(CHUNK_BYTES as u64 + 1, 1, &stop).unwrap();
        region.at(length - 1, 1, &GO_ON).unwrap();
    }
}
