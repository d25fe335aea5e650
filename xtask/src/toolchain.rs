//! What the installed Rust toolchains can do. Nothing here makes rustup fetch anything.

use std::path::Path;

use anyhow::{Context, Result};

use crate::process::{capture, probe};
use crate::workspace::Workspace;

/// Whether `cargo nextest` is installed.
#[must_use]
pub fn has_nextest(workspace: &Workspace) -> bool {
    let mut command = workspace.cargo();
    command.args(["nextest", "--version"]);
    probe(command)
}

/// Whether rustup has a nightly toolchain.
#[must_use]
pub fn has_nightly(workspace: &Workspace) -> bool {
    let mut command = workspace.command("rustup");
    command.args(["toolchain", "list"]);
    capture(command).is_ok_and(|list| list.lines().any(|line| line.starts_with("nightly")))
}

/// The triple of the machine that we run on, as rustc calls it.
pub fn host_triple(workspace: &Workspace) -> Result<String> {
    let mut command = workspace.command("rustc");
    command.arg("-vV");
    let version = capture(command)?;
    let line = version.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).context("rustc -vV names its host")
}

/// The targets whose core library is installed, sorted.
pub fn installed_targets(workspace: &Workspace) -> Result<Vec<String>> {
    let mut command = workspace.command("rustc");
    command.args(["--print", "sysroot"]);
    let sysroot = capture(command)?;
    let folder = Path::new(sysroot.trim()).join("lib/rustlib");
    let entries = folder.read_dir().with_context(|| format!("reading {}", folder.display()))?;
    let mut targets: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("lib").is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    targets.sort();
    Ok(targets)
}
