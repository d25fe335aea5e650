//! The lab: virtual machines in which the driver is tested, under QEMU's own CPU emulation.
//!
//! The machine's root is the host's, read-only, under a layer that is forgotten: a command runs there as it would here.

pub mod initramfs;
pub mod kernel;
pub mod machine;
pub mod messages;

use anyhow::{Context, Result, ensure};

use crate::driver;
use crate::process::succeeds;
use crate::tally::Tally;
use crate::workspace::Workspace;
use kernel::Kernel;
use machine::{Machine, Ran};

/// Boots a kernel and runs a command; whether it succeeded, and the kernel had nothing to complain of.
pub fn run(workspace: &Workspace, kernel: Kernel, words: &[String]) -> Result<bool> {
    let files = kernel.files(workspace)?;
    let command: Vec<String> = words.iter().map(|word| initramfs::quoted(word)).collect();
    let ran = machine::run(workspace, &files, &Machine::default(), &command.join(" "))?;
    Ok(is_fine(kernel, &ran))
}

/// Builds the module for a kernel, boots it, and runs the driver's tests in it.
pub fn test(workspace: &Workspace, kernel: Kernel) -> Result<Tally> {
    let built = driver::build::build(workspace, kernel)?;
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--quiet", "--release", "--package", "dmaplane-driver-tests"]);
    ensure!(succeeds(cargo)?, "the driver's tests do not build");
    let tests = workspace.target.join("release/dmaplane-driver-tests");
    let words = [tests.display().to_string(), built.module.display().to_string()];
    let command = words.map(|word| initramfs::quoted(&word)).join(" ");
    // Little memory, which the search for leaks goes through word by word.
    let machine = Machine { memory_mib: 1024, ..Machine::default() };
    let ran = machine::run(workspace, &built.files, &machine, &command)?;
    let closing = ran.printed.iter().rev().find_map(|line| counts(line));
    let (passed, failed) = closing.context("the tests did not say what they did")?;
    let mut tally = Tally { passed, failed, ..Tally::default() };
    // What only the kernel has noticed, or the exit status.
    if !is_fine(kernel, &ran) && failed == 0 {
        tally += Tally::FAILED;
    }
    Ok(tally)
}

/// `29 passed, 0 failed`
fn counts(line: &str) -> Option<(u64, u64)> {
    let (passed, rest) = line.trim().split_once(" passed, ")?;
    Some((passed.parse().ok()?, rest.strip_suffix(" failed")?.parse().ok()?))
}

fn is_fine(kernel: Kernel, ran: &Ran) -> bool {
    for defect in &ran.defects {
        println!("vm {}: the kernel says: {defect}", kernel.name);
    }
    println!("vm {}: exit status {}, {} reports of the kernel's", kernel.name, ran.status, ran.defects.len());
    ran.status == 0 && ran.defects.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closing_line_is_counted_and_no_other() {
        assert_eq!(counts("29 passed, 1 failed"), Some((29, 1)));
        assert_eq!(counts("ok no_line_passed, 3 failed"), None);
    }
}
