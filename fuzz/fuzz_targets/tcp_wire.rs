//! TCP-4 to TCP-6, TCP-8: whatever a peer sends, on whichever socket, is decoded or refused; nothing panics and nothing
//! is kept.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    dmaplane_embedded::fuzzing::tcp_wire(true, bytes);
    dmaplane_embedded::fuzzing::tcp_wire(false, bytes);
});
