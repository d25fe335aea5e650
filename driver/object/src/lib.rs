//! The Rust side of `dmaplane.ko`: what the driver's C glue calls.
//!
//! Built twice: by cargo, so that lints and documentation hold for it, and by `cargo xtask
//! engine-object`, which links it with ring and engine into the object that the kernel module contains.

#![no_std]

/// The version of the ABI that this object speaks. The C glue compares it with its own header when the
/// module is loaded, so that a stale prebuilt object is refused.
// SAFETY: no other symbol has this name: all of the driver's begin with `dmaplane_`, each defined once.
#[unsafe(no_mangle)]
pub extern "C" fn dmaplane_engine_abi_version() -> u32 {
    0
}
