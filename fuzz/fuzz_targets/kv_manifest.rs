//! A manifest from anywhere: an error, or a value that encodes to the very same bytes.
#![no_main]

use dmaplane_kv::TransferManifest;
use dmaplane_kv::digest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // Few inputs have the right digest at their end: give it to them.
    let mut sealed = bytes.to_vec();
    sealed.extend(digest::of_bytes(bytes).0.to_le_bytes());
    check(&sealed);
});

fn check(bytes: &[u8]) {
    if let Ok(manifest) = TransferManifest::decode(bytes) {
        assert_eq!(manifest.encode().expect("what decodes is valid"), bytes);
    }
}
