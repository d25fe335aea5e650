//! LSE-5: what decodes encodes to the very same bytes, so a token has one form.
#![no_main]

use dmaplane_engine::Token;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(token) = Token::decode(bytes) {
        assert_eq!(token.encode().as_slice(), bytes);
    }
    // Few inputs have a right checksum: make one of the input, and damage it in one place.
    let word = |at: usize| {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(bytes.iter().skip(at * 8)) {
            *to = *from;
        }
        u64::from_le_bytes(word)
    };
    let token =
        Token { context: [word(0), word(1)], lease: word(2), length: word(3), shape: word(4), tag: [word(5), word(6)] };
    let mut encoded = token.encode();
    assert_eq!(Token::decode(&encoded), Some(token));
    let at = word(7) as usize % encoded.len();
    encoded[at] ^= (word(7) >> 56) as u8 | 1;
    assert_eq!(Token::decode(&encoded), None);
});
