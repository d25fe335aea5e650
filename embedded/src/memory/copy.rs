//! Every copy of the host. A peer may change the source meanwhile: the bytes are then the peer's fault, the copy is
//! ours.

use super::stream::Stores;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

/// Between slices of this many bytes a copy looks whether it is to stop: about 25 us of copying, which bounds how long
/// a revoke waits for it.
pub(crate) const SLICE_BYTES: usize = 256 << 10;

/// How a copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyEnd {
    /// All of it.
    Whole,
    /// Stopped after so many bytes.
    Stopped(u64),
}

/// Copies bytes.
///
/// # Safety
/// Both ranges must be valid, and not overlap.
pub(crate) unsafe fn copy(target: NonNull<u8>, source: NonNull<u8>, length: usize) {
    // The C library's, so that a racing writer in another process is outside of what the compiler reasons about.
    // SAFETY: the caller's promise.
    unsafe { libc::memcpy(target.as_ptr().cast(), source.as_ptr().cast(), length) };
}

/// Copies in slices until done or stopped.
///
/// # Safety
/// As [`copy`].
pub(crate) unsafe fn copy_slices(
    target: NonNull<u8>,
    source: NonNull<u8>,
    length: usize,
    stop: &AtomicBool,
) -> CopyEnd {
    let stores = Stores::of_transfer(length as u64);
    let mut done = 0;
    while done < length {
        // Acquire: pairs with the release store of whoever stops it. Once we report that we have stopped, the memory
        // may be reused; the report goes through the inbox, which orders our writes before it.
        if stop.load(Ordering::Acquire) {
            return CopyEnd::Stopped(done as u64);
        }
        let slice = SLICE_BYTES.min(length - done);
        // SAFETY: within the ranges that the caller has promised.
        unsafe { stores.copy(target.add(done), source.add(done), slice) };
        done += slice;
    }
    CopyEnd::Whole
}
