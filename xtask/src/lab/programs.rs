//! Programs that the driver's tests run in a machine: the command, and tests of the libraries.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::process::capture;
use crate::workspace::Workspace;

/// Tests of libraries that can run over the driver: package and name.
const TESTS: &[(&str, &str)] = &[
    ("dmaplane", "near"),
    ("dmaplane", "late_writes"),
    ("dmaplane-kv", "late_layers"),
    ("dmaplane-kv", "many"),
    ("dmaplane-kv", "shards"),
];

/// The driver's tests, in a file that nothing has to be linked to when it is started: they start themselves again and
/// again, and under every checker that took a third of a second each time.
pub fn driver_tests(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo.args(["rustc", "--quiet", "--release", "--package", "dmaplane-driver-tests", "--"]);
    cargo.args(["-Ctarget-feature=+crt-static", "-Crelocation-model=static"]);
    capture(cargo)?;
    Ok(workspace.target.join("release/dmaplane-driver-tests"))
}

/// Builds them all, and says where each is: a line each, its name, a space and its path.
pub fn build(workspace: &Workspace) -> Result<String> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--quiet", "--release", "--package", "dmaplane-cli"]);
    capture(cargo)?;
    let mut all = format!("dmaplane {}\n", workspace.target.join("release/dmaplane").display());
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--quiet", "--release", "--no-run", "--message-format=json"]);
    // None of its tests is named: with it the libraries have the features that the command has just been built with.
    cargo.args(["--package", "dmaplane-cli"]);
    for (package, test) in TESTS {
        cargo.args(["--package", package, "--test", test]);
    }
    let said = capture(cargo)?;
    for (_, test) in TESTS {
        let path = said.lines().find_map(|line| executable(line, test));
        let Some(path) = path else { bail!("cargo does not say where the test {test} is") };
        all.push_str(&format!("{test} {path}\n"));
    }
    Ok(all)
}

/// The executable of a test, where a message of cargo's is about it.
fn executable(line: &str, test: &str) -> Option<String> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let of_test = message["target"]["name"] == test && message["target"]["kind"][0] == "test";
    of_test.then(|| message["executable"].as_str().map(str::to_owned)).flatten()
}
