//! `cargo xtask setup`: what the tests need, installed where it is missing.
//!
//! Debian packages need root. Any other user is told what to install; the tests do not start then.

pub mod bench;
pub mod install;
pub mod tools;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use tools::{TOOLS, Tool};

/// Installs what the given lanes need and lack, or what any lane needs.
pub fn run(workspace: &Workspace, lanes: Option<&[&str]>) -> Result<()> {
    let missing = missing(TOOLS, lanes, |tool| find_program(tool.program).is_some());
    if !missing.is_empty() && !can_install_packages() {
        for line in describe(&missing) {
            println!("{line}");
        }
        bail!("setup needs the above; it installs them itself when run as root on Debian");
    }
    for line in describe(&missing) {
        println!("setup: {line}");
    }
    install::packages(&missing)?;
    install::dependencies(workspace, lanes)?;
    if lanes.is_none() {
        println!("setup: all {} tools are there", TOOLS.len());
    }
    Ok(())
}

fn missing<'a>(tools: &'a [Tool], lanes: Option<&[&str]>, is_present: impl Fn(&Tool) -> bool) -> Vec<&'a Tool> {
    let wanted = |tool: &Tool| match lanes {
        None => true,
        Some(lanes) => tool.lanes.iter().any(|lane| lanes.contains(lane)),
    };
    tools.iter().filter(|tool| wanted(tool) && !is_present(tool)).collect()
}

/// What would be installed and why: a line for each tool, then the command for the packages.
fn describe(missing: &[&Tool]) -> Vec<String> {
    let mut lines: Vec<String> = missing
        .iter()
        .map(|tool| format!("missing {} (Debian package {}): {}", tool.program, tool.package, tool.reason))
        .collect();
    let packages = install::package_names(missing);
    if !packages.is_empty() {
        lines.push(format!("apt-get install {}", packages.join(" ")));
    }
    lines
}

fn find_program(program: &str) -> Option<PathBuf> {
    // Administrators' programs are not on every user's path.
    let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())
}

fn can_install_packages() -> bool {
    // The owner of a process's folder in /proc is its effective user.
    let is_root = fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
    is_root && find_program("apt-get").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[Tool] = &[
        Tool { program: "nm", package: "binutils", lanes: &["engine-object"], reason: "lists symbols" },
        Tool { program: "objdump", package: "binutils", lanes: &["engine-object"], reason: "shows instructions" },
        Tool { program: "c++", package: "g++", lanes: &["fuzz"], reason: "compiles libFuzzer" },
    ];

    #[test]
    fn a_missing_tool_is_described_with_its_reason_and_a_package_is_named_once() {
        let missing = missing(SAMPLE, None, |_| false);
        assert_eq!(
            describe(&missing),
            [
                "missing nm (Debian package binutils): lists symbols",
                "missing objdump (Debian package binutils): shows instructions",
                "missing c++ (Debian package g++): compiles libFuzzer",
                "apt-get install binutils g++",
            ]
        );
    }

    #[test]
    fn only_the_tools_of_the_wanted_lanes_count() {
        let names = |lanes: Option<&[&str]>| -> Vec<&str> {
            missing(SAMPLE, lanes, |tool| tool.program == "nm").iter().map(|t| t.program).collect()
        };
        assert_eq!(names(None), ["objdump", "c++"]);
        assert_eq!(names(Some(&["fuzz"])), ["c++"]);
        assert!(names(Some(&["fmt"])).is_empty());
    }

    #[test]
    fn nothing_missing_means_nothing_to_say() {
        assert!(describe(&missing(SAMPLE, None, |_| true)).is_empty());
    }
}
