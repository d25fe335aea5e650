//! Memory of the driver's, mapped.

use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

/// A mapping of a buffer or an area. Others may write the memory meanwhile: it is read and written by copies.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length_bytes: usize,
}

// SAFETY: a mapping is memory, and only touched by copies and atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps so much of a descriptor.
    pub fn new(fd: BorrowedFd<'_>, offset: u64, length_bytes: usize, writable: bool) -> io::Result<Mapping> {
        let rights = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), length_bytes, rights, MapFlags::SHARED, fd, offset) }?;
        let start = NonNull::new(start.cast()).ok_or(rustix::io::Errno::FAULT)?;
        Ok(Mapping { start, length_bytes })
    }

    /// Where it begins.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// As a slice's address.
    pub(crate) fn bytes(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.start, self.length_bytes)
    }

    /// Its length.
    pub fn length_bytes(&self) -> usize {
        self.length_bytes
    }

    /// Copies out from an offset on; `false` where that is beyond its end.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> bool {
        let fits = offset.checked_add(to.len()).is_some_and(|end| end <= self.length_bytes);
        if fits {
            // SAFETY: within the mapping, by the check; `to` is memory of the caller's own.
            unsafe { std::ptr::copy_nonoverlapping(self.start.as_ptr().add(offset), to.as_mut_ptr(), to.len()) };
        }
        fits
    }

    /// Copies in from an offset on; `false` where that is beyond its end.
    pub fn write(&self, offset: usize, from: &[u8]) -> bool {
        let fits = offset.checked_add(from.len()).is_some_and(|end| end <= self.length_bytes);
        if fits {
            // SAFETY: as above. A mapping for reading only is not given out.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.start.as_ptr().add(offset), from.len()) };
        }
        fits
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our mapping, and nobody refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length_bytes) };
    }
}
