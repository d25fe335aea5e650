//! Bounds that speculation cannot pass (clause SEC-3): what Linux calls `array_index_nospec`.

/// `index` where it is below `length`, else `length`, by arithmetic that depends on both and not by a branch. So a
/// processor that guesses the outcome of the check behind this has no other index to go on with.
#[inline]
pub fn clamp(index: usize, length: usize) -> usize {
    let below = mask(index, length);
    (index & below) | (length & !below)
}

/// All ones where `index` is below `length`, else zero.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
fn mask(index: usize, length: usize) -> usize {
    let mask: usize;
    // SAFETY: two instructions on registers; the flags are clobbered, as is the default. In assembly because a compiler
    // knows the mask of an index that has passed a check, and drops it.
    unsafe {
        core::arch::asm!(
            "cmp {index}, {length}",
            "sbb {mask}, {mask}",
            index = in(reg) index,
            length = in(reg) length,
            mask = lateout(reg) mask,
            options(pure, nomem, nostack),
        );
    }
    mask
}

/// All ones where `index` is below `length`, else zero.
#[cfg(all(target_arch = "aarch64", not(miri)))]
#[inline]
fn mask(index: usize, length: usize) -> usize {
    let mask: usize;
    // SAFETY: three instructions on registers; as on x86-64.
    unsafe {
        core::arch::asm!(
            "cmp {index}, {length}",
            "sbc {mask}, xzr, xzr",
            "csdb",
            index = in(reg) index,
            length = in(reg) length,
            mask = lateout(reg) mask,
            options(pure, nomem, nostack),
        );
    }
    mask
}

/// All ones where `index` is below `length`, else zero. No kernel runs on these: they need no care.
#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[inline]
fn mask(index: usize, length: usize) -> usize {
    usize::from(index < length).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_3_an_index_beyond_the_end_becomes_the_end() {
        for length in [0, 1, 2, 1000, usize::MAX] {
            for index in [0, 1, 2, 999, 1000, 1001, u32::MAX as usize, usize::MAX - 1, usize::MAX] {
                assert_eq!(clamp(index, length), index.min(length), "{index} of {length}");
            }
        }
    }
}
