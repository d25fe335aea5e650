//! Installing: packages by apt-get, and the crates that the lanes build with.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::tools::Tool;
use crate::process::capture;
use crate::toolchain::host_triple;
use crate::workspace::Workspace;

/// The packages that hold the missing tools, each once.
pub fn package_names(missing: &[&Tool]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for tool in missing {
        if !names.contains(&tool.package) {
            names.push(tool.package);
        }
    }
    names
}

/// Installs the packages of the missing tools, after one update of the package lists.
pub fn packages(missing: &[&Tool]) -> Result<()> {
    let packages = package_names(missing);
    if packages.is_empty() {
        return Ok(());
    }
    apt_get(&["update"])?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&packages);
    apt_get(&arguments)
}

/// Runs apt-get; needs root.
pub fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.arg("-qq").args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    quietly(command)
}

/// Fetches the crates that the lanes build with, so that these need no network.
pub fn dependencies(workspace: &Workspace, lanes: Option<&[&str]>) -> Result<()> {
    let host = host_triple(workspace)?;
    let wants = |lane| lanes.is_none_or(|lanes| lanes.contains(&lane));
    // Loom itself is a dependency under its own flag alone.
    let all =
        [("Cargo.toml", "", true), ("Cargo.toml", "--cfg loom", wants("loom")), ("fuzz/Cargo.toml", "", wants("fuzz"))];
    for (manifest, flags, wanted) in all {
        if wanted && workspace.root.join(manifest).exists() {
            let mut command = workspace.command("cargo");
            command.args(["fetch", "--quiet", "--target", &host, "--manifest-path", manifest]);
            command.env("RUSTFLAGS", flags);
            quietly(command).with_context(|| format!("fetching the crates of {manifest}"))?;
        }
    }
    Ok(())
}

/// Runs a program whose output matters only when it fails, and then without the lines that hold
/// addresses: which mirror a machine uses is nobody's business.
pub fn quietly(command: Command) -> Result<()> {
    let Err(error) = capture(command) else {
        return Ok(());
    };
    let message = error.to_string();
    let lines: Vec<&str> = message.lines().filter(|line| !line.contains("://")).collect();
    bail!("{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_without_addresses() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'no route to http://elsewhere.example' >&2; echo 'E: gone' >&2; exit 100"]);
        let error = quietly(command).unwrap_err().to_string();
        assert!(error.contains("E: gone"), "{error}");
        assert!(!error.contains("elsewhere"), "{error}");
    }
}
