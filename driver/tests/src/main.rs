//! Tests of the kernel module, run as root in a virtual machine: `dmaplane-driver-tests MODULE`.
//!
//! Each test gets the module freshly loaded and has to leave nothing behind: it is unloaded after it, and says itself
//! what was not given back (the lab looks for that line).

mod buffers;
mod calls;
mod child;
mod descriptors;
mod faults;
mod hostile;
mod importer;
mod importers;
mod kernel_log;
mod killed;
mod kit;
mod leaks;
mod lists;
mod mappings;
mod nodes;
mod objects;
mod observing;
mod outsiders;
mod peers;
mod poller;
mod programs;
mod random;
mod ratios;
mod rings;
mod sharing;
mod teardown;

use anyhow::{Result, bail};
use std::process::ExitCode;

/// A test: its name and what it does.
type Test = (&'static str, fn() -> Result<()>);

/// Why a test says nothing on this kernel: what it wants is not there.
#[derive(Debug)]
struct Absent(String);

impl std::fmt::Display for Absent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Absent {}

const GROUPS: &[&[Test]] = &[
    calls::TESTS,
    rings::TESTS,
    poller::TESTS,
    buffers::TESTS,
    nodes::TESTS,
    mappings::TESTS,
    outsiders::TESTS,
    objects::TESTS,
    sharing::TESTS,
    importers::TESTS,
    peers::TESTS,
    observing::TESTS,
    teardown::TESTS,
    killed::TESTS,
    hostile::TESTS,
    programs::TESTS,
];

/// Others, by the variable that asks for them: they want something of their own.
const OTHER_GROUPS: &[(&str, &[Test])] = &[("DMAPLANE_FAULTS", faults::TESTS), ("DMAPLANE_PAPER", ratios::TESTS)];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(first) = arguments.next() else {
        eprintln!("error: name the module to test");
        return ExitCode::FAILURE;
    };
    if let Some(role) = first.strip_prefix("--child=") {
        return child::run(role);
    }
    // What a kernel has built in is not to be had, and not needed.
    let _ = kit::command("modprobe", &["libcrc32c"]);
    let only = arguments.next();
    let (mut passed, mut failed) = (0, 0);
    let mut log = match kernel_log::KernelLog::from_now() {
        Ok(log) => log,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let asked = OTHER_GROUPS.iter().find(|(variable, _)| std::env::var_os(variable).is_some());
    // Beside what every kernel runs.
    let more: &[&[Test]] = match std::env::var_os("DMAPLANE_LONG") {
        Some(_) => &[calls::RULE, importers::LONG, programs::RACES, programs::LONG],
        None if kit::slow() => &[programs::RACES],
        None => &[calls::RULE],
    };
    let tests: Vec<&Test> = match asked {
        Some((_, tests)) => tests.iter().collect(),
        None => GROUPS.iter().chain(more).copied().flatten().collect(),
    };
    for (name, test) in tests {
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let start = std::time::Instant::now();
        // A report is a failure, whatever else came of the test.
        let came = with_module(&first, *test);
        let came = log.defects().and_then(|defects| {
            anyhow::ensure!(defects.is_empty(), "the kernel has said: {}", defects.join("; "));
            came
        });
        match came {
            Ok(()) => {
                passed += 1;
                println!("ok {name} ({} ms)", start.elapsed().as_millis());
            }
            Err(error) => match error.downcast_ref::<Absent>() {
                Some(absent) => println!("SKIPPED {name}: {absent}"),
                None => {
                    failed += 1;
                    println!("FAILED {name}: {error:#}");
                    println!("  {}", kit::memory_left());
                }
            },
        }
    }
    println!("left: {}", kit::memory_left());
    // The kernels with every checker are asked for leaks when all is done.
    if kit::slow()
        && let Err(error) = leaks::lose()
    {
        failed += 1;
        println!("FAILED nothing_can_be_lost_on_purpose: {error:#}");
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What ends by itself, on a workqueue, may take a moment.
fn unload() -> Result<()> {
    kit::until("the module is unloaded", || Ok(kit::unload(c"dmaplane").is_ok()))
}

/// Runs a test with the module loaded, and unloads it.
fn with_module(module: &str, test: fn() -> Result<()>) -> Result<()> {
    // One that an earlier test has left may go after all.
    if std::path::Path::new("/sys/module/dmaplane").exists() {
        unload()?;
    }
    kit::with_short_grace_periods(|| kit::load(module))?;
    let tested = test();
    match (tested, kit::with_short_grace_periods(unload)) {
        (tested, Ok(())) => tested,
        (Ok(()), Err(_)) => bail!("the module cannot be unloaded afterwards: something is held for good"),
        (Err(error), Err(_)) => Err(error.context("and the module cannot be unloaded")),
    }
}
