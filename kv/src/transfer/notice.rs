//! What travels with the last byte of each part of a pushed transfer: at most 256 bytes.

use super::TransferError;
use crate::Digest64;

/// A notification: part and bytes for counting, the digest, and the user's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Which part, from 0.
    pub part: u32,
    /// Whether the sender has sent it last: its user bytes, and its digest of the whole sequence, are those that count.
    pub is_last: bool,
    /// Bytes of this part.
    pub bytes: u64,
    /// What it is checked by: of the whole sequence, as [`digest::of_sequence`](crate::digest::of_sequence) makes it,
    /// or the CRC-32C of this part; 0 for none.
    pub digest: Digest64,
    /// The user's, at most 232 bytes: in the demo, the first generated token.
    pub user: Vec<u8>,
}

const HEAD_BYTES: usize = 24;
/// Most user bytes of a notice.
pub(crate) const NOTICE_USER_BYTES_MAX: usize = 232;

impl Notice {
    /// As bytes: part, 4 bytes of flags (1: the last), bytes, digest (little endian), user's.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.user.len());
        bytes.extend_from_slice(&(u64::from(self.part) | u64::from(self.is_last) << 32).to_le_bytes());
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        bytes.extend_from_slice(&self.digest.0.to_le_bytes());
        bytes.extend_from_slice(&self.user);
        bytes
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Notice, TransferError> {
        let found = bytes.len();
        let word = |at: usize| {
            let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
            word.map(u64::from_le_bytes).ok_or(TransferError::Notice { found })
        };
        let (part, is_last) = match word(0)? {
            word if word >> 33 == 0 => (word as u32, word >> 32 == 1),
            _ => return Err(TransferError::Notice { found }),
        };
        Ok(Notice { part, is_last, bytes: word(8)?, digest: Digest64(word(16)?), user: bytes[HEAD_BYTES..].to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_round_trip_and_short_ones_are_named() {
        let notice = Notice { part: 3, is_last: true, bytes: 1 << 40, digest: Digest64(9), user: vec![1, 2] };
        assert_eq!(Notice::decode(&notice.encode()).unwrap(), notice);
        assert!(matches!(Notice::decode(&[0; 23]), Err(TransferError::Notice { found: 23 })));
        assert!(Notice::decode(&[0xff; 24]).is_err(), "unknown flags");
    }
}
