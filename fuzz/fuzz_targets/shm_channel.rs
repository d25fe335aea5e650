//! SHM-6, SHM-7, SHM-10: a hostile peer on the shared-memory channel costs its own connection and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| dmaplane_embedded::fuzzing::shm_channel(bytes));
