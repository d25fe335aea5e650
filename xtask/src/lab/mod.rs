//! The lab: virtual machines in which the driver is tested, under QEMU's own CPU emulation.
//!
//! The machine's root is the host's, read-only, under a layer that is forgotten: a command runs there as it would here.

mod checked;
pub mod initramfs;
pub mod kernel;
mod leaks;
pub mod machine;
pub mod messages;
pub mod newest;
mod programs;

use anyhow::{Context, Result};
use std::time::Duration;

use crate::driver;
use crate::driver::build::Variation;
use crate::tally::Tally;
use crate::workspace::Workspace;
use kernel::Kernel;
use machine::{Machine, Ran};
use messages::LOST_ON_PURPOSE;

/// Boots a kernel and runs a command; whether it succeeded, and the kernel had nothing to complain of.
pub fn run(workspace: &Workspace, kernel: Kernel, machine: &Machine, words: &[String]) -> Result<bool> {
    let files = kernel.files(workspace)?;
    let command: Vec<String> = words.iter().map(|word| initramfs::quoted(word)).collect();
    let ran = machine::run(workspace, &files, machine, &command.join(" "))?;
    Ok(is_fine(kernel, &ran))
}

/// Variables by which some tests are told how long they are to be, where that is not the lane's length.
const LENGTHS: &[&str] = &["DMAPLANE_KILLS", "DMAPLANE_HOSTILE_SECONDS", "DMAPLANE_ROUNDS"];

/// The kernel that runs the long programs as well.
const LONG_ON: &str = "6.12";

/// Builds the module for a kernel, boots it, and runs the driver's tests in it, those whose names contain `only`.
pub fn test(workspace: &Workspace, kernel: Kernel, only: &str) -> Result<Tally> {
    let built = driver::build::build(workspace, kernel, Variation::None)?;
    // What takes long, and says little that is this kernel's own, one of them runs.
    let long = if kernel.name == LONG_ON { "DMAPLANE_LONG=1 " } else { "" };
    let ran = run_tests(workspace, kernel, &built, long, only)?;
    told(kernel, &ran)
}

/// For each operation the n-th call that may fail does, for every n.
pub fn test_faults(workspace: &Workspace, kernel: Kernel) -> Result<Tally> {
    println!("\nvm: kernel {}, the module with faults", kernel.name);
    let built = driver::build::build(workspace, kernel, Variation::Faults)?;
    told(kernel, &run_tests(workspace, kernel, &built, "DMAPLANE_FAULTS=1 ", "")?)
}

/// Ratios of the driver and what it is measured against, in one machine.
pub fn ratios(workspace: &Workspace, kernel: Kernel) -> Result<Tally> {
    let built = driver::build::build(workspace, kernel, Variation::None)?;
    let paper = driver::build::build_for_tests(workspace, kernel, &built.files, "paper")?;
    let variable = format!("DMAPLANE_PAPER={} ", initramfs::quoted(&paper.display().to_string()));
    told(kernel, &run_tests(workspace, kernel, &built, &variable, "")?)
}

/// What the tests have said of themselves, and the kernel of them.
fn told(kernel: Kernel, ran: &Ran) -> Result<Tally> {
    let closing = ran.printed.iter().rev().find_map(|line| counts(line));
    let (passed, failed) = closing.context("the tests did not say what they did")?;
    let mut tally = Tally { passed, failed, ..Tally::default() };
    let skipped = ran.printed.iter().filter_map(|line| line.strip_prefix("SKIPPED ")?.split_once(": "));
    for (name, why) in skipped {
        tally += Tally::skip(&format!("vm-{}-{name}", kernel.name), why);
    }
    let named = |line: &str| {
        let (name, why) = line.strip_prefix("FAILED ")?.split_once(": ")?;
        Some(format!("vm-{}-{name}: {why}", kernel.name))
    };
    tally.failures.extend(ran.printed.iter().filter_map(|line| named(line)));
    // What only the kernel has noticed, or the exit status.
    if !is_fine(kernel, ran) && failed == 0 {
        let why = ran.defects.first().map_or("the tests ended otherwise than they should have", String::as_str);
        tally += Tally::fail(&format!("vm-{}", kernel.name), why);
    }
    Ok(tally)
}

/// A defect of the engine's that is built into a module, the tests that are run with it, and what they must say.
struct Defect {
    feature: &'static str,
    tests: &'static str,
    words: &'static [&'static str],
}

const DEFECTS: &[Defect] = &[Defect {
    feature: "broken-no-lease-check",
    tests: "lse_1",
    words: &["something landed after the revoke", "old bytes", "an old layer in reused blocks"],
}];

/// Modules that are broken on purpose: the driver's tests must notice each.
pub fn test_defects(workspace: &Workspace, kernel: Kernel) -> Result<Tally> {
    let mut tally = Tally::default();
    for Defect { feature, tests, words } in DEFECTS {
        println!("\nvm: kernel {}, the module with {feature}", kernel.name);
        let built = driver::build::build(workspace, kernel, Variation::Defect(feature))?;
        let ran = run_tests(workspace, kernel, &built, "DMAPLANE_LONG=1 DMAPLANE_BROKEN=1 DMAPLANE_ROUNDS=60 ", tests)?;
        for words in *words {
            let noticed = ran.printed.iter().any(|line| line.contains(words));
            println!("{feature}: '{words}' was {}", if noticed { "noticed, as it has to be" } else { "NOT noticed" });
            let name = format!("vm-{}-{feature}", kernel.name);
            tally += if noticed { Tally::one(true) } else { Tally::fail(&name, &format!("'{words}' was not noticed")) };
        }
    }
    Ok(tally)
}

/// Runs the driver's tests, those whose names contain some words, in a machine, with more variables set.
fn run_tests(
    workspace: &Workspace,
    kernel: Kernel,
    built: &driver::build::Built,
    variables: &str,
    only: &str,
) -> Result<Ran> {
    let programs = programs::build(workspace)?;
    let tests = programs::driver_tests(workspace)?;
    let words = [tests.display().to_string(), built.module.display().to_string(), only.to_owned()];
    let command = words.map(|word| initramfs::quoted(&word)).join(" ");
    let importer = driver::build::build_for_tests(workspace, kernel, &built.files, "importer")?;
    let importer = initramfs::quoted(&importer.display().to_string());
    let slow = if kernel.is_slow() { "DMAPLANE_SLOW_KERNEL=1 " } else { "" };
    let asked: String = LENGTHS
        .iter()
        .filter_map(|name| Some(format!("{name}={} ", initramfs::quoted(&std::env::var(name).ok()?))))
        .collect();
    // For so small a model waking a second thread takes longer here than doing its part.
    let variables = format!("{slow}{variables}{asked}RAYON_NUM_THREADS=1 DMAPLANE_IMPORTER={importer}");
    let command = format!("{variables} DMAPLANE_PROGRAMS={} {command}", initramfs::quoted(&programs));
    // Little memory, which the search for leaks goes through word by word; the checkers want a part of it. With less,
    // the 512 MiB of a test left too little for messages, which are allocated where nothing may wait.
    let machine = Machine {
        memory_mib: if kernel.is_slow() { 1536 } else { 1024 },
        nodes: 2,
        near_devices: kernel.name == LONG_ON,
        time: Duration::from_secs(3600),
        ..Machine::default()
    };
    let mut ran = machine::run(workspace, &built.files, &machine, &command)?;
    if kernel.is_slow() && !ran.printed.iter().any(|line| line == LOST_ON_PURPOSE) {
        ran.defects.push("BUG: nothing was lost on purpose, so that whether leaks are found is not known".to_owned());
    }
    Ok(ran)
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
