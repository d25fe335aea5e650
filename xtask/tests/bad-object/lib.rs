//! Everything that the checks of the kernel object must find: a function for each, named after it.

#![no_std]

use core::arch::{asm, naked_asm};

/// Undefined symbols and panic paths: a slice index that may be out of bounds.
#[unsafe(no_mangle)]
pub extern "C" fn bad_slice_index(values: &[u32; 4], index: usize) -> u32 {
    let values: &[u32] = values;
    values[index]
}

/// Undefined symbols: soft-float arithmetic calls a function of the compiler's runtime.
#[unsafe(no_mangle)]
pub extern "C" fn bad_float(left: f32, right: f32) -> f32 {
    left + right
}

/// Vector registers, as code compiled with other flags would use them.
#[unsafe(no_mangle)]
pub extern "C" fn bad_vector_register() {
    // SAFETY: this code is looked at, never run.
    unsafe { asm!("pxor %xmm0, %xmm0", options(att_syntax)) }
}

/// Indirect branches: the call of a function pointer.
#[unsafe(no_mangle)]
pub extern "C" fn bad_function_pointer(function: extern "C" fn(u32) -> u32) -> u32 {
    function(1) + 1
}

/// Relocations: an address from the global offset table, which a kernel module does not have.
#[unsafe(no_mangle)]
pub extern "C" fn bad_relocation() -> usize {
    let address: usize;
    // SAFETY: this code is looked at, never run.
    unsafe {
        asm!(
            "movq dmaplane_glue_table@GOTPCREL(%rip), {address}",
            address = out(reg) address,
            options(att_syntax),
        );
    }
    address
}

/// Bare returns, branch target marks and padding: code that the compiler did not write.
// SAFETY: a function without arguments that returns at once keeps every promise of its ABI.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub extern "C" fn bad_naked() {
    naked_asm!("ret")
}
