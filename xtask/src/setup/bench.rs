//! `cargo xtask setup --bench`: the peers that the figures are measured beside.
//!
//! Their Python packages go into a virtual environment in the target folder, at the versions that
//! `bench/peers/requirements.txt` pins. The tests need none of this and never install it.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::tools::Tool;
use super::{can_install_packages, describe, find_program, install};
use crate::process::probe;
use crate::workspace::Workspace;

/// The environment's folder below the target folder, where the bench looks for it.
const ENVIRONMENT: &str = "bench-peers";

/// The packages of the peers.
const REQUIREMENTS: &str = "bench/peers/requirements.txt";

/// Loads what the peers load, so that a missing library shows now.
const LOADS: &str = "import nixl, mooncake.engine";

/// What the peers need from Debian: programs, and libraries by the names that are looked up at run time.
const TOOLS: &[Tool] = &[
    tool("iperf3", "iperf3", "is a peer of the tcp figures"),
    tool("python3", "python3-venv", "runs NIXL and Mooncake in an environment of their own"),
    tool("libibverbs.so.1", "libibverbs1", "is loaded by Mooncake, with or without such hardware"),
    tool("libcurl.so.4", "libcurl4", "is loaded by Mooncake"),
    tool("libnuma.so.1", "libnuma1", "is loaded by Mooncake"),
];

const fn tool(program: &'static str, package: &'static str, reason: &'static str) -> Tool {
    Tool { program, package, lanes: &[], reason }
}

/// Installs what is missing. Without root, Debian's packages are named and nothing else is done.
pub fn run(workspace: &Workspace) -> Result<()> {
    let libraries = library_cache();
    let missing: Vec<&Tool> = TOOLS.iter().filter(|tool| !is_present(workspace, tool, &libraries)).collect();
    for line in describe(&missing) {
        println!("setup: {line}");
    }
    if !missing.is_empty() && !can_install_packages() {
        bail!("setup --bench needs the above; it installs them itself when run as root on Debian");
    }
    install::packages(&missing)?;
    environment(workspace)?;
    println!("setup: the peers are there; `cargo xtask bench` measures beside them");
    Ok(())
}

fn environment(workspace: &Workspace) -> Result<()> {
    let folder = workspace.target.join(ENVIRONMENT);
    let python = folder.join("bin").join("python");
    if !python.exists() {
        println!("setup: making the environment {}", folder.display());
        let mut command = workspace.command("python3");
        command.args(["-m", "venv"]).arg(&folder);
        install::quietly(command).context("making a Python environment (3.10 or later)")?;
    }
    let python = python.to_string_lossy().into_owned();
    println!("setup: installing {REQUIREMENTS}");
    let mut command = workspace.command(&python);
    // Without dependencies: see the file.
    command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--requirement", REQUIREMENTS]);
    install::quietly(command).with_context(|| format!("installing {REQUIREMENTS}"))?;
    let mut command = workspace.command(&python);
    command.args(["-c", LOADS]);
    install::quietly(command).context("the peers are installed but do not load")
}

fn is_present(workspace: &Workspace, tool: &Tool, libraries: &str) -> bool {
    match tool.program {
        // Debian has the interpreter and what makes environments in two packages.
        "python3" => probe(python_with_environments(workspace)),
        library if library.contains(".so.") => lists_library(libraries, library),
        program => find_program(program).is_some(),
    }
}

fn python_with_environments(workspace: &Workspace) -> Command {
    let mut command = workspace.command("python3");
    command.args(["-c", "import venv, ensurepip"]);
    command
}

/// What the loader would find: lines of a library's name, `=>` and its path.
fn library_cache() -> String {
    let program = find_program("ldconfig");
    let output = program.and_then(|program| Command::new(program).arg("-p").output().ok());
    output.map_or_else(String::new, |output| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn lists_library(cache: &str, library: &str) -> bool {
    cache.lines().any(|line| line.split_whitespace().next() == Some(library))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_by_its_whole_name() {
        let cache = "2 libs found\n\tlibnuma.so.1 (libc6,x86-64) => /lib/libnuma.so.1\n";
        assert!(lists_library(cache, "libnuma.so.1"));
        assert!(!lists_library(cache, "libnuma.so"));
        assert!(!lists_library(cache, "libcurl.so.4"));
    }

    #[test]
    fn every_requirement_is_pinned() {
        let text = include_str!("../../../bench/peers/requirements.txt");
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let names: Vec<&str> = lines.map(|line| line.split_once("==").expect(line).0).collect();
        assert!(names.contains(&"nixl") && names.iter().any(|name| name.starts_with("mooncake")), "{names:?}");
    }
}
