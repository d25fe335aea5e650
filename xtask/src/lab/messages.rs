//! What a kernel says when something is wrong.

/// What the driver's tests print when they have lost memory on purpose.
pub const LOST_ON_PURPOSE: &str = "one allocation was lost on purpose";

/// Parts of lines that report a defect.
const REPORTS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "BUG ",
    "Oops",
    "KASAN",
    "UBSAN",
    "general protection fault",
    "unable to handle",
    "Kernel panic",
    "possible recursive locking",
    "possible circular locking",
    "possible irq lock inversion",
    "inconsistent lock state",
    "suspicious RCU usage",
    "rcu: INFO",
    "rcu_sched self-detected stall",
    "INFO: task",
    "blocked for more than",
    "DMA-API:",
    "unreferenced object",
    "sleeping function called from invalid context",
    "scheduling while atomic",
    "Bad page state",
    "refcount_t:",
    "list_add corruption",
    "list_del corruption",
    "Call Trace:",
    "segfault at",
    // The module's own accounts when it is unloaded: a line for each that is not zero.
    "left over: ",
];

/// Lines of those kinds that say nothing bad.
const HARMLESS: &[&str] = &[
    // What a kernel with the checkers says of itself at boot.
    "DMA-API: preallocated",
    "DMA-API: debugging enabled",
    // "BUG " is in it.
    "DEBUG ",
    "KASAN init",
    "kasan: KernelAddressSanitizer initialized",
];

/// The lines that report a defect.
#[must_use]
pub fn defects(text: &str) -> Vec<&str> {
    let is_report = |line: &&str| {
        REPORTS.iter().any(|report| line.contains(report)) && !HARMLESS.iter().any(|known| line.contains(known))
    };
    text.lines().filter(is_report).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_found_and_what_is_harmless_is_not() {
        let text = "[ 1.0] DMA-API: debugging enabled by kernel config\n\
                    [ 2.0] BUG: KASAN: slab-use-after-free in dmp_ring_release\n\
                    [ 4.0] dmaplane: left over: 3 pages\n\
                    unreferenced object 0xffff888003c3d000 (size 1024):\n[ 5.0] usb: all well";
        let found = defects(text);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(
            defects("** This means that this is a DEBUG kernel **\nBUG kmalloc-64 (Tainted): Poison overwritten").len(),
            1
        );
        assert!(found[0].contains("KASAN") && found[1].contains("3 pages") && found[2].contains("unreferenced"));
    }
}
