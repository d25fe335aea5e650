//! The variants of the kernel object, and the compiler flags of each.
//!
//! A kernel's `.config` says which it wants: call-depth padding on 6.12 and later with mitigations built
//! in, return thunks where `MITIGATION_RETHUNK` is set (without it nothing defines the thunk), branch
//! tracking where `X86_KERNEL_IBT` is set. Indirect-branch thunks (retpolines) are in no variant, because
//! there is no indirect branch.

/// One way to build the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// What one types.
    pub name: &'static str,
    /// The object's file name.
    pub file_name: &'static str,
    /// `-Zcf-protection=branch`: functions that may be called indirectly begin with endbr64.
    pub branch_tracking: bool,
    /// `-Zfunction-return=thunk-extern`: functions return through the kernel's thunk.
    pub return_thunk: bool,
    /// `-Zpatchable-function-entry=16,16`: 16 bytes before each function, for call-depth tracking.
    pub padding: bool,
}

/// All of them.
pub const VARIANTS: &[Variant] = &[
    Variant {
        name: "plain",
        file_name: "dmaplane_engine.o",
        branch_tracking: false,
        return_thunk: false,
        padding: false,
    },
    Variant {
        name: "ibt",
        file_name: "dmaplane_engine.ibt.o",
        branch_tracking: true,
        return_thunk: false,
        padding: false,
    },
    Variant {
        name: "ibt-rethunk",
        file_name: "dmaplane_engine.ibt-rethunk.o",
        branch_tracking: true,
        return_thunk: true,
        padding: false,
    },
    Variant {
        name: "ibt-rethunk-padded",
        file_name: "dmaplane_engine.ibt-rethunk-padded.o",
        branch_tracking: true,
        return_thunk: true,
        padding: true,
    },
];

/// The names of all variants.
#[must_use]
pub fn names() -> Vec<&'static str> {
    VARIANTS.iter().map(|variant| variant.name).collect()
}

/// Flags of every variant: code for kernel addresses, without red zone, SIMD, unwinding, panics' landing
/// pads, jump tables (they are indirect jumps) and calls through a table of addresses.
pub const COMMON_FLAGS: &[&str] = &[
    "--crate-type=rlib",
    "--emit=obj,metadata",
    // Lints are clippy's business, not this build's.
    "--cap-lints=allow",
    "-Copt-level=3",
    "-Ccodegen-units=1",
    "-Cpanic=abort",
    "-Coverflow-checks=off",
    "-Cdebug-assertions=off",
    "-Crelocation-model=static",
    "-Ccode-model=kernel",
    "-Cno-redzone=yes",
    "-Cforce-frame-pointers=yes",
    "-Cforce-unwind-tables=no",
    "-Cjump-tables=no",
    "-Csymbol-mangling-version=v0",
    "-Ctarget-feature=-mmx,-sse,-sse2,-sse3,-ssse3,-sse4.1,-sse4.2,-avx,-avx2,+soft-float",
    // Without a PLT, memcpy would be called through the GOT, which a module does not have.
    "-Zplt=yes",
    // Functions that nothing reaches are dropped one by one.
    "-Zfunction-sections=yes",
];

impl Variant {
    /// The flags that this variant adds to the common ones.
    #[must_use]
    pub fn flags(&self) -> Vec<&'static str> {
        let choices = [
            (self.branch_tracking, "-Zcf-protection=branch"),
            (self.return_thunk, "-Zfunction-return=thunk-extern"),
            (self.padding, "-Zpatchable-function-entry=16,16"),
        ];
        choices.into_iter().filter_map(|(wanted, flag)| wanted.then_some(flag)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_differ_in_name_file_and_flags() {
        for (index, one) in VARIANTS.iter().enumerate() {
            for other in &VARIANTS[..index] {
                assert_ne!(one.name, other.name);
                assert_ne!(one.file_name, other.file_name);
                assert_ne!(one.flags(), other.flags());
            }
        }
    }
}
