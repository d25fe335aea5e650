//! Checksums made while bytes are copied, not in a second pass over memory (clause XFR-10).

use super::copy::copy;
use super::stream::Stores;
use std::ptr::NonNull;

/// Bytes that are looked at before they are copied on: they stay in the nearest cache meanwhile.
const BLOCK_BYTES: usize = 8 << 10;

/// The CRC-32C of bytes so far, where one is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checksum(Option<u32>);

impl Checksum {
    /// Of no bytes.
    pub(crate) fn new(wanted: bool) -> Checksum {
        Checksum(wanted.then_some(0))
    }

    pub(crate) fn is_wanted(self) -> bool {
        self.0.is_some()
    }

    /// 0 where none is wanted.
    pub(crate) fn value(self) -> u32 {
        self.0.unwrap_or(0)
    }

    /// Of the bytes before, and of `bytes` more, whose checksum this is.
    pub(crate) fn append(&mut self, next: Checksum, bytes: u64) {
        if let (Some(value), Some(next)) = (&mut self.0, next.0) {
            *value = crc32c::crc32c_combine(*value, next, bytes as usize);
        }
    }

    /// Private bytes, in their order.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        if let Some(value) = &mut self.0 {
            *value = crc32c::crc32c_append(*value, bytes);
        }
    }

    /// Bytes that others may be changing: what they were when they were looked at.
    ///
    /// # Safety
    /// The range is valid.
    pub(crate) unsafe fn add_shared(&mut self, bytes: NonNull<u8>, length: usize) {
        if !self.is_wanted() {
            return;
        }
        let mut block = [0u8; BLOCK_BYTES];
        let mut done = 0;
        while done < length {
            let here = BLOCK_BYTES.min(length - done);
            // SAFETY: within the caller's range; the block is ours, and as long.
            unsafe { copy(NonNull::from(&mut block).cast(), bytes.add(done), here) };
            self.add(&block[..here]);
            done += here;
        }
    }

    /// Copies, and adds exactly what was copied, also when the source changes meanwhile.
    ///
    /// # Safety
    /// As [`copy`].
    pub(crate) unsafe fn copy(&mut self, target: NonNull<u8>, source: NonNull<u8>, length: usize, stores: Stores) {
        if !self.is_wanted() {
            // SAFETY: the caller's promise.
            return unsafe { stores.copy(target, source, length) };
        }
        let mut block = [0u8; BLOCK_BYTES];
        let private = NonNull::from(&mut block).cast();
        let mut done = 0;
        while done < length {
            let here = BLOCK_BYTES.min(length - done);
            // SAFETY: within the caller's ranges; the block is ours, and as long.
            unsafe { copy(private, source.add(done), here) };
            self.add(&block[..here]);
            // SAFETY: as above.
            unsafe { stores.copy(target.add(done), private, here) };
            done += here;
        }
    }
}

/// What a transfer has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub bytes: u64,
    /// Their CRC-32C, where it was wanted; else 0.
    pub checksum: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the algorithm's definition (CRC-32/ISCSI in the catalogue of parametrised CRC algorithms).
    const OF_DIGITS: u32 = 0xe306_9283;

    #[test]
    fn xfr_10_the_algorithm_is_crc_32c() {
        let mut checksum = Checksum::new(true);
        checksum.add(b"1234");
        checksum.add(b"56789");
        assert_eq!(checksum.value(), OF_DIGITS);
        assert_eq!(Checksum::new(false).value(), 0);
    }

    #[test]
    fn xfr_10_a_copy_and_a_look_see_the_same_bytes() {
        let source: Vec<u8> = (0..3 * BLOCK_BYTES + 17).map(|byte| byte as u8).collect();
        let start = NonNull::from(source.as_slice()).cast();
        let mut seen = Checksum::new(true);
        // SAFETY: the vector is of this length.
        unsafe { seen.add_shared(start, source.len()) };
        assert_eq!(seen.value(), crc32c::crc32c(&source));
        for stores in [Stores::Cached, Stores::of_transfer(u64::MAX)] {
            let mut target = vec![0u8; source.len()];
            let mut copied = Checksum::new(true);
            // SAFETY: both vectors are valid, apart, and of this length.
            unsafe { copied.copy(NonNull::from(target.as_mut_slice()).cast(), start, source.len(), stores) };
            assert_eq!(target, source);
            assert_eq!(copied, seen);
        }
    }

    #[test]
    fn xfr_10_parts_put_together_are_the_whole() {
        let of = |bytes: &[u8]| {
            let mut checksum = Checksum::new(true);
            checksum.add(bytes);
            checksum
        };
        let mut whole = Checksum::new(true);
        for part in [&b""[..], b"12345", b"6", b"", b"789"] {
            whole.append(of(part), part.len() as u64);
        }
        assert_eq!(whole.value(), OF_DIGITS);
    }
}
