//! Lease tokens: what LEASE_EXPORT writes and LEASE_IMPORT reads (clauses LSE-5, LSE-6).
//!
//! A token travels through routers that we do not trust. Its tag, under a key that never leaves the owner's context,
//! makes it unforgeable: only the owner can check it, and it does so when the token is claimed.

use crate::siphash::siphash128;

/// First word of a token: "DPLT", version 0.
const MAGIC: u64 = u32::from_le_bytes(*b"DPLT") as u64;
const WORDS: usize = 10;

/// A token's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The owner's context.
    pub context: [u64; 2],
    /// Handle of the lease in the owner's table.
    pub lease: u64,
    /// Bytes of a range, segments of a list: a hint; the owner's answer to the claim is what counts.
    pub length: u64,
    /// The lease's rights, and whether it is of a list (bit 16).
    pub shape: u64,
    /// The claim's secret.
    pub tag: [u64; 2],
}

impl Token {
    /// Bytes of a token of this version.
    pub const BYTES: usize = WORDS * 8;

    /// The tag that only the holder of `key` can make.
    pub(crate) fn tag_for(key: [u64; 2], context: [u64; 2], lease: u64) -> [u64; 2] {
        siphash128(key, &[MAGIC, context[0], context[1], lease])
    }

    /// As bytes.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut words = [
            MAGIC,
            self.context[0],
            self.context[1],
            self.lease,
            self.length,
            self.shape,
            self.tag[0],
            self.tag[1],
            0,
            0,
        ];
        // Damage on the way is told from a wrong key by this sum, which anybody can check.
        words[9] = checksum(&words);
        let mut bytes = [0; Self::BYTES];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            for (byte, value) in chunk.iter_mut().zip(word.to_le_bytes()) {
                *byte = value;
            }
        }
        bytes
    }

    /// From bytes; `None` when they are no undamaged token of this version.
    pub fn decode(bytes: &[u8]) -> Option<Token> {
        if bytes.len() != Self::BYTES {
            return None;
        }
        let mut words = [0u64; WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        }
        if words[0] != MAGIC || words[8] != 0 || words[9] != checksum(&words) {
            return None;
        }
        Some(Token {
            context: [words[1], words[2]],
            lease: words[3],
            length: words[4],
            shape: words[5],
            tag: [words[6], words[7]],
        })
    }
}

fn checksum(words: &[u64; WORDS]) -> u64 {
    let [a, b, c, d, e, f, g, h, i, _] = *words;
    siphash128([0, 0], &[a, b, c, d, e, f, g, h, i])[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lse_5_a_token_round_trips_and_every_flipped_bit_is_noticed() {
        let token = Token { context: [1, 2], lease: 3, length: 4, shape: 5, tag: [6, 7] };
        let bytes = token.encode();
        assert_eq!(Token::decode(&bytes), Some(token));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Token::decode(&damaged), None, "bit {bit}");
        }
        assert_eq!(Token::decode(&bytes[..79]), None);
    }
}
