//! WIRE-2: what decodes encodes to the very same words.
#![no_main]

use dmaplane_engine::{Message, WIRE_WORDS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: [u8; WIRE_WORDS * 8]| {
    let mut words = [0; WIRE_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    }
    if let Some(message) = Message::decode(&words) {
        assert_eq!(message.encode(), words);
    }
});
