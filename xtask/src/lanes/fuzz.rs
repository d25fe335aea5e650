//! Every fuzz target for some seconds. A crash leaves its input under fuzz/artifacts.
//!
//! Instrumentation needs unstable compiler flags: a nightly toolchain where there is one, else the
//! stable one with `RUSTC_BOOTSTRAP=1`.

use std::process::Command;

use anyhow::{Result, ensure};

use super::LaneContext;
use crate::process::{capture, stream, succeeds};
use crate::tally::Tally;
use crate::toolchain::has_nightly;
use crate::workspace::Workspace;

/// Folders of fuzz/ that may hold inputs of a target, in a folder by its name. The first is written to.
const CORPUS_FOLDERS: [&str; 3] = ["corpus", "seeds", "regressions"];

/// An input that takes longer than this is reported as a hang.
const INPUT_SECONDS_MAX: u32 = 10;

pub fn run(context: &LaneContext) -> Result<Tally> {
    let workspace = &context.workspace;
    let seconds = context.options.fuzz_seconds;
    let manifest = workspace.root.join("fuzz/Cargo.toml");
    ensure!(manifest.exists(), "there is no fuzz/Cargo.toml: fuzz targets are expected");
    let nightly = has_nightly(workspace);

    let mut list = cargo_fuzz(workspace, nightly);
    list.arg("list");
    let list = capture(list)?;
    let targets: Vec<&str> = list.split_whitespace().collect();
    ensure!(!targets.is_empty(), "fuzz/Cargo.toml lists no target");
    println!("bounds: {} targets, {seconds} s each, {INPUT_SECONDS_MAX} s an input", targets.len());

    let mut build = cargo_fuzz(workspace, nightly);
    build.arg("build");
    ensure!(succeeds(build)?, "the fuzz targets do not build");

    let mut tally = Tally::default();
    for target in targets {
        let mut executions = String::from("?");
        let status = stream(run_target(workspace, nightly, target, seconds)?, |line| {
            if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
                executions = count.trim().to_owned();
            }
        })?;
        let verdict = if status.success() { "ok" } else { "FAILED" };
        println!("fuzz {target}: {verdict}, {executions} executions in {seconds} s");
        tally += Tally::one(status.success());
    }
    Ok(tally)
}

fn run_target(workspace: &Workspace, nightly: bool, target: &str, seconds: u64) -> Result<Command> {
    let fuzz = workspace.root.join("fuzz");
    std::fs::create_dir_all(fuzz.join(CORPUS_FOLDERS[0]).join(target))?;
    let mut command = cargo_fuzz(workspace, nightly);
    command.args(["run", target]);
    let folders = CORPUS_FOLDERS.iter().map(|folder| format!("fuzz/{folder}/{target}"));
    command.args(folders.filter(|folder| workspace.root.join(folder).is_dir()));
    command.args(["--", &format!("-max_total_time={seconds}")]);
    command.arg(format!("-timeout={INPUT_SECONDS_MAX}"));
    command.args(["-print_final_stats=1", "-verbosity=0"]);
    Ok(command)
}

fn cargo_fuzz(workspace: &Workspace, nightly: bool) -> Command {
    let mut command = workspace.cargo();
    if nightly {
        command.arg("+nightly");
    } else {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command.arg("fuzz");
    command
}
