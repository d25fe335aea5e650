//! That a leak is found on the kernels that look for them: the lab asks them when all tests are done, and believes it.

use crate::Test;
use crate::importer::Loaded;
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

/// For kernels with every checker.
pub const TESTS: &[Test] = &[("a_leak_is_found_by_what_looks_for_leaks", found)];

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";
/// What is younger is not reported.
const YOUNG: Duration = Duration::from_secs(6);

fn leaks() -> Result<String> {
    std::fs::write(KMEMLEAK, "scan").context("kmemleak is not there, or looks for nothing")?;
    std::thread::sleep(Duration::from_secs(1));
    std::fs::write(KMEMLEAK, "scan")?;
    Ok(std::fs::read_to_string(KMEMLEAK)?)
}

fn found() -> Result<()> {
    let loaded = Loaded::new()?;
    loaded.open()?.lose()?;
    std::thread::sleep(YOUNG);
    let told = leaks()?;
    ensure!(told.contains("[importer]"), "memory was lost and not missed: '{told}'");
    ensure!(told.matches("unreferenced object").count() == 1, "there is more: {told}");
    // It is given back with the module: what is told at the end is somebody else's.
    Ok(())
}
