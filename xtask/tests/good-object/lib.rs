//! A crate that passes every check of the kernel object, although it holds what must be dropped from it.

#![no_std]

use core::fmt;

unsafe extern "C" {
    // SAFETY: the glue's function takes any number.
    safe fn dmaplane_glue_log(number: u32);
}

/// Its `Display` needs code of the core library, but nothing in the object reaches it.
pub struct Unreached(pub u32);

impl fmt::Display for Unreached {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "unreached {}", self.0)
    }
}

/// Calls a function of its own, one of the glue, memcpy, and chooses among many branches.
#[unsafe(no_mangle)]
pub extern "C" fn good_entry(to: &mut [u8; 4096], from: &[u8; 4096], choice: u32) -> u32 {
    *to = *from;
    dmaplane_glue_log(choice);
    helper(choice)
}

#[inline(never)]
fn helper(choice: u32) -> u32 {
    match choice {
        0 => 17,
        1 => 4,
        2 => 9,
        3 => 70,
        4 => 3,
        5 => 1001,
        _ => choice.wrapping_mul(3),
    }
}
