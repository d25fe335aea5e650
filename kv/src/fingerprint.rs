//! A small hash with a fixed definition, for descriptions (not for data: see
//! [`digest`](crate::digest)).
//!
//! FNV-1a, 64 bits, after Fowler, Noll and Vo: for each byte, exclusive-or it into the state, then
//! multiply the state by 2^40 + 2^8 + 0xb3, modulo 2^64. A description's fingerprint must be the
//! same in every version of this crate and on every machine, which the standard library's hashers
//! do not promise.

use core::fmt;

const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = (1 << 40) + (1 << 8) + 0xb3;

/// A stable 64-bit fingerprint of a description. Shown as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// FNV-1a over a canonical encoding, fed field by field.
#[derive(Debug, Clone)]
pub(crate) struct Fnv1a(u64);

impl Fnv1a {
    pub(crate) const fn new() -> Fnv1a {
        Fnv1a(OFFSET_BASIS)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Fnv1a {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        self
    }

    /// Feeds the four bytes of `value`, lowest first.
    pub(crate) fn word(self, value: u32) -> Fnv1a {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn finish(self) -> Fingerprint {
        Fingerprint(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_published_test_vectors() {
        // From the test suite that the authors publish with FNV.
        assert_eq!(Fnv1a::new().finish().0, 0xcbf2_9ce4_8422_2325);
        assert_eq!(Fnv1a::new().bytes(b"a").finish().0, 0xaf63_dc4c_8601_ec8c);
        assert_eq!(Fnv1a::new().bytes(b"foobar").finish().0, 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_word_is_its_four_bytes_lowest_first() {
        let word = Fnv1a::new().word(0x0403_0201).finish();
        assert_eq!(word, Fnv1a::new().bytes(&[1, 2, 3, 4]).finish());
        assert_eq!(Fingerprint(0xab).to_string(), "00000000000000ab");
    }
}
