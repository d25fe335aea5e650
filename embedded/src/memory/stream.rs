//! Copies that go past the caches.
//!
//! An ordinary store first fetches the line that it writes, and leaves it in the cache in place of another. A copy of
//! more than the cache holds gains nothing by either: it reads the target for nothing, and throws out what others
//! use. Streaming stores write whole lines straight to memory, which saves a third of the traffic.
//!
//! Written in assembly for the reason for which [`super::copy::copy`] calls the C library: a peer may be writing the
//! source meanwhile, and a read that the compiler knows nothing of is no data race of this program's.

use super::copy::copy;
use std::ptr::NonNull;
use std::sync::OnceLock;

/// Where a copy leaves its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stores {
    /// In the cache, for whoever looks at them next.
    Cached,
    /// In memory: they are too many for the cache.
    Streamed,
}

/// Where the system does not tell how large the last cache is.
const CACHE_BYTES: u64 = 32 << 20;
/// Pieces shorter than this are copied through the cache in any case: their ends, which are no whole lines, weigh more.
const STREAMED_BYTES_MIN: usize = 1 << 10;

impl Stores {
    /// For a transfer of so many bytes in all. The source takes as much of the cache as the target.
    pub(crate) fn of_transfer(bytes: u64) -> Stores {
        static HALF: OnceLock<u64> = OnceLock::new();
        let half = *HALF.get_or_init(|| last_cache_bytes().unwrap_or(CACHE_BYTES) / 2);
        if bytes >= half && can_stream() { Stores::Streamed } else { Stores::Cached }
    }

    /// Copies bytes.
    ///
    /// # Safety
    /// As [`copy`].
    pub(super) unsafe fn copy(self, target: NonNull<u8>, source: NonNull<u8>, length: usize) {
        match self {
            // SAFETY: the caller's promise; only a processor that can stream has this value.
            Stores::Streamed if length >= STREAMED_BYTES_MIN => unsafe { stream(target, source, length) },
            // SAFETY: the caller's promise.
            _ => unsafe { copy(target, source, length) },
        }
    }
}

/// The largest cache of the first processor, which all processors of one kind have.
fn last_cache_bytes() -> Option<u64> {
    let size = |index: u32| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        let text = std::fs::read_to_string(path).ok()?;
        let kibibytes: u64 = text.trim().strip_suffix('K')?.parse().ok()?;
        Some(kibibytes << 10)
    };
    (0..8).map_while(size).max()
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::{NonNull, copy};

    /// Bytes in one round of the loop.
    const ROUND_BYTES: usize = 128;
    const LINE_BYTES: usize = 64;
    /// So far ahead of the loop the source is fetched: what arrives while these are copied.
    const AHEAD_BYTES: usize = 1024;

    pub(in super::super) fn can_stream() -> bool {
        std::arch::is_x86_feature_detected!("avx")
    }

    /// Fetches what a copy will begin with.
    pub(crate) fn prefetch(source: NonNull<u8>) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        for line in 0..8 {
            let line = source.as_ptr().wrapping_add(line * LINE_BYTES);
            // SAFETY: a hint, which does nothing at an address that is not mapped.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
        }
    }

    /// Copies bytes past the caches. Whoever is told afterwards that they are there finds them there: streaming stores
    /// wait for nobody, so that it ends with a fence.
    ///
    /// # Safety
    /// As [`copy`], on a processor that [`can_stream`].
    pub(super) unsafe fn stream(target: NonNull<u8>, source: NonNull<u8>, length: usize) {
        let head = (target.as_ptr() as usize).wrapping_neg() % LINE_BYTES;
        let head = head.min(length);
        let body = (length - head) / ROUND_BYTES * ROUND_BYTES;
        let ahead = body.saturating_sub(AHEAD_BYTES);
        // SAFETY: the four parts are within the caller's ranges, one behind the other. The target of the middle ones is
        // aligned to a line, and their lengths are multiples of a round.
        unsafe {
            copy(target, source, head);
            rounds::<true>(target.add(head), source.add(head), ahead);
            rounds::<false>(target.add(head + ahead), source.add(head + ahead), body - ahead);
            copy(target.add(head + body), source.add(head + body), length - head - body);
            // SAFETY: needs nothing.
            std::arch::x86_64::_mm_sfence();
        }
    }

    /// Streams whole rounds; `AHEAD` also fetches what comes later.
    ///
    /// # Safety
    /// As [`copy`]; the target is aligned to a line, the length a multiple of [`ROUND_BYTES`], and the processor has
    /// AVX.
    unsafe fn rounds<const AHEAD: bool>(target: NonNull<u8>, source: NonNull<u8>, length: usize) {
        if length == 0 {
            return;
        }
        // SAFETY: reads `length` bytes of the source and writes as many of the target, which the caller has promised;
        // a prefetch beyond them is a hint that cannot fault. The loop ends, since the length is a multiple of what a
        // round subtracts and not 0. All vector registers, whose upper halves `vzeroupper` clears, are declared lost.
        unsafe {
            std::arch::asm!(
                "2:",
                ".if {fetch}",
                "prefetcht0 [rsi + {ahead}]",
                "prefetcht0 [rsi + {ahead} + 64]",
                ".endif",
                "vmovdqu ymm0, [rsi]",
                "vmovdqu ymm1, [rsi + 32]",
                "vmovdqu ymm2, [rsi + 64]",
                "vmovdqu ymm3, [rsi + 96]",
                "vmovntdq [rdi], ymm0",
                "vmovntdq [rdi + 32], ymm1",
                "vmovntdq [rdi + 64], ymm2",
                "vmovntdq [rdi + 96], ymm3",
                "add rsi, {round}",
                "add rdi, {round}",
                "sub rcx, {round}",
                "jnz 2b",
                "vzeroupper",
                fetch = const AHEAD as u8,
                ahead = const AHEAD_BYTES,
                round = const ROUND_BYTES,
                inout("rdi") target.as_ptr() => _,
                inout("rsi") source.as_ptr() => _,
                inout("rcx") length => _,
                clobber_abi("sysv64"),
                options(nostack),
            );
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::prefetch;
#[cfg(target_arch = "x86_64")]
use x86_64::{can_stream, stream};

#[cfg(not(target_arch = "x86_64"))]
mod plain {
    use super::{NonNull, copy};

    pub(super) fn can_stream() -> bool {
        false
    }

    pub(crate) fn prefetch(_source: NonNull<u8>) {}

    /// # Safety
    /// As [`copy`].
    pub(super) unsafe fn stream(target: NonNull<u8>, source: NonNull<u8>, length: usize) {
        // SAFETY: the caller's promise.
        unsafe { copy(target, source, length) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use plain::prefetch;
#[cfg(not(target_arch = "x86_64"))]
use plain::{can_stream, stream};

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the lengths and the alignments: all bytes of the range, and none beside it.
    #[test]
    fn a_streamed_copy_misses_a_byte_or_writes_one_too_many() {
        let stores = if can_stream() { Stores::Streamed } else { Stores::Cached };
        let source: Vec<u8> = (0..8192u32).map(|byte| ((byte * 31) >> 3) as u8 | 1).collect();
        for length in (0..80).chain([127, 128, 129, 1023, 1024, 1025, 1151, 1152, 2048, 3000, 4096, 6000]) {
            for (to, from) in [(0, 0), (1, 0), (0, 1), (31, 64), (32, 7), (63, 63), (64, 3)] {
                let mut target = vec![0u8; 8192];
                let (into, start) = (NonNull::from(&mut target[64 + to]), NonNull::from(&source[from]));
                // SAFETY: both are within vectors of 8,192 bytes, which are apart.
                unsafe { stores.copy(into, start, length) };
                let (before, rest) = target.split_at(64 + to);
                let (copied, after) = rest.split_at(length);
                assert_eq!(copied, &source[from..from + length], "{length} bytes to {to} from {from}");
                assert!(before.iter().chain(after).all(|&byte| byte == 0), "{length} bytes to {to} from {from}");
            }
        }
    }

    #[test]
    fn small_transfers_stay_in_the_cache() {
        assert_eq!(Stores::of_transfer(256 << 10), Stores::Cached);
        let large = if can_stream() { Stores::Streamed } else { Stores::Cached };
        assert_eq!(Stores::of_transfer(1 << 40), large);
    }
}
