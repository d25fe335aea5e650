//! Memory of the driver's, mapped.

use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

/// A mapping of a buffer or an area. Others may write the memory meanwhile: it is read and written by copies that the
/// compiler does not reason about.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length_bytes: usize,
    writable: bool,
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
        Ok(Mapping { start, length_bytes, writable })
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
            let (words, rest) = to.as_chunks_mut::<8>();
            let behind = offset + words.len() * 8;
            for (place, word) in words.iter_mut().enumerate() {
                // SAFETY: within the mapping, by the check; the array wants no alignment.
                *word = unsafe { self.start.as_ptr().add(offset + place * 8).cast::<[u8; 8]>().read_volatile() };
            }
            for (place, byte) in rest.iter_mut().enumerate() {
                // SAFETY: within the mapping, by the check.
                *byte = unsafe { self.start.as_ptr().add(behind + place).read_volatile() };
            }
        }
        fits
    }

    /// Copies in from an offset on; `false` where that is beyond its end, or it is mapped for reading only.
    pub fn write(&self, offset: usize, from: &[u8]) -> bool {
        let fits = offset.checked_add(from.len()).is_some_and(|end| end <= self.length_bytes);
        if !fits || !self.writable {
            return false;
        }
        let (words, rest) = from.as_chunks::<8>();
        let behind = offset + words.len() * 8;
        for (place, word) in words.iter().enumerate() {
            // SAFETY: within the mapping, by the check, which may be written to; the array wants no alignment.
            unsafe { self.start.as_ptr().add(offset + place * 8).cast::<[u8; 8]>().write_volatile(*word) };
        }
        for (place, byte) in rest.iter().enumerate() {
            // SAFETY: as above.
            unsafe { self.start.as_ptr().add(behind + place).write_volatile(*byte) };
        }
        true
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our mapping, and nobody refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length_bytes) };
    }
}
