//! Hints that a cache line will be read: entries lie in the other side's cache, and fetching one takes longer than
//! handling it. A hint changes nothing but time. Lines that will be written need none: see `QueueKind::Staged`. The
//! driver's object is compiled without SSE, as all of a kernel, and has no hints.

/// A line that will be read.
#[inline(always)]
pub fn to_read<T>(place: &T) {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse", not(miri)))]
    // SAFETY: a hint for an address that a reference holds; it reads nothing.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>((&raw const *place).cast());
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "sse", not(miri))))]
    let _ = place;
}
