//! `cargo xtask bench`: every figure beside its peer's, written down as `bench/REPORT.md` with its picture.
//!
//! What measures is the program `dmaplane-bench`; here is what comes before it (the peers, the build) and after it (the
//! report of one or more runs).

mod plan;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::process::succeeds;
use crate::setup;
use crate::workspace::Workspace;
pub use plan::Options;
use plan::Plan;

/// Installs, builds, measures and reports. `Ok(false)`: something could not be measured; the report says what.
pub fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    let peers_are_there = peers(workspace);
    let mut build = workspace.command("cargo");
    build.args(["build", "--release", "--package", "dmaplane-bench"]);
    if !succeeds(build)? {
        return Ok(false);
    }
    let plan = Plan::new(workspace, options);
    fs::create_dir_all(&plan.folder).with_context(|| format!("making {}", plan.folder.display()))?;
    let mut all_measured = peers_are_there;
    for run in &plan.runs {
        forget(run)?;
        let mut command = workspace.command(&plan.program);
        command.args(plan.measure(run));
        all_measured &= succeeds(command)?;
        // Without its file there is nothing to report, and the program has said why.
        if !run.exists() {
            return Ok(false);
        }
    }
    let mut command = workspace.command(&plan.program);
    command.args(plan.report());
    let reported = succeeds(command)?;
    if reported {
        println!("bench: see {}", plan.report.display());
    }
    if !all_measured {
        println!("bench: not all could be measured: the report begins with what is missing");
    }
    Ok(reported && all_measured)
}

/// Sets the peers up. Where that fails ours is measured all the same; each figure of a peer is then a failure.
fn peers(workspace: &Workspace) -> bool {
    match setup::bench::run(workspace) {
        Ok(()) => true,
        Err(error) => {
            println!("bench: peers are missing, so the run will fail: {error:#}");
            false
        }
    }
}

/// A file of an earlier run must not pass for one of this.
fn forget(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", file.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_run_is_forgotten_and_none_is_no_error() {
        let file = std::env::temp_dir().join(format!("xtask-bench-{}", std::process::id()));
        fs::write(&file, "old").unwrap();
        forget(&file).unwrap();
        assert!(!file.exists());
        forget(&file).unwrap();
    }
}
