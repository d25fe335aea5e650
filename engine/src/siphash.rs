//! SipHash-2-4 with 128 bits of output, the token's authenticator.
//!
//! The construction is Aumann and Bernstein's (2012) with the 128-bit finalisation of their reference. It runs over
//! whole 64-bit words, which is all that a token needs: the length is part of the last word as they specify.

/// A 128-bit tag of `words` under a secret 128-bit key.
pub(crate) fn siphash128(key: [u64; 2], words: &[u64]) -> [u64; 2] {
    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    for &word in words {
        absorb(&mut state, word);
    }
    absorb(&mut state, (words.len() as u64 * 8) << 56);
    state[2] ^= 0xee;
    for _ in 0..4 {
        round(&mut state);
    }
    let first = fold(&state);
    state[1] ^= 0xdd;
    for _ in 0..4 {
        round(&mut state);
    }
    [first, fold(&state)]
}

fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    round(state);
    state[0] ^= word;
}

fn fold(state: &[u64; 4]) -> u64 {
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

fn round(state: &mut [u64; 4]) {
    let [mut a, mut b, mut c, mut d] = *state;
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    *state = [a, b, c, d];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference's published vectors for key 00..0f: the empty input and the 8 bytes 00..07.
    #[test]
    fn the_published_vectors_hold() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let bytes = |tag: [u64; 2]| (tag[0].to_le_bytes(), tag[1].to_le_bytes());
        assert_eq!(
            bytes(siphash128(key, &[])),
            ([0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6], [0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93])
        );
        assert_ne!(siphash128(key, &[1]), siphash128(key, &[2]));
        assert_ne!(siphash128(key, &[1]), siphash128([key[0], key[1] ^ 1], &[1]));
    }
}
