//! The lab: virtual machines in which the driver is tested, under QEMU's own CPU emulation.
//!
//! The machine's root is the host's, read-only, under a layer that is forgotten: a command runs there as it would here.

pub mod initramfs;
pub mod kernel;
pub mod machine;
pub mod messages;

use anyhow::{Result, ensure};

use crate::driver;
use crate::process::succeeds;
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
pub fn test(workspace: &Workspace, kernel: Kernel) -> Result<bool> {
    let built = driver::build::build(workspace, kernel)?;
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--quiet", "--release", "--package", "dmaplane-driver-tests"]);
    ensure!(succeeds(cargo)?, "the driver's tests do not build");
    let tests = workspace.target.join("release/dmaplane-driver-tests");
    let words = [tests.display().to_string(), built.module.display().to_string()];
    let command = words.map(|word| initramfs::quoted(&word)).join(" ");
    let ran = machine::run(workspace, &built.files, &Machine::default(), &command)?;
    ensure!(ran.printed.iter().any(|line| line.contains(" passed, ")), "the tests did not say what they did");
    Ok(is_fine(kernel, &ran))
}

fn is_fine(kernel: Kernel, ran: &Ran) -> bool {
    for defect in &ran.defects {
        println!("vm {}: the kernel says: {defect}", kernel.name);
    }
    println!("vm {}: exit status {}, {} reports of the kernel's", kernel.name, ran.status, ran.defects.len());
    ran.status == 0 && ran.defects.is_empty()
}
