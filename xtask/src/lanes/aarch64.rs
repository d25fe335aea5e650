//! Ring and engine compile for Arm, where a target for it is installed.

use anyhow::Result;

use super::LaneContext;
use crate::process::succeeds;
use crate::tally::Tally;
use crate::toolchain::installed_targets;

/// Either will do: both crates are `no_std`, and neither is linked.
const TARGETS: [&str; 2] = ["aarch64-unknown-none", "aarch64-unknown-linux-gnu"];

pub fn run(context: &LaneContext) -> Result<Tally> {
    let workspace = &context.workspace;
    let installed = installed_targets(workspace)?;
    let Some(target) = TARGETS.iter().find(|target| installed.iter().any(|i| i == *target)) else {
        let why = format!("target not installed (rustup target list --installed shows {})", installed.join(", "));
        return Ok(Tally::skip("aarch64", &why));
    };
    let mut command = workspace.cargo();
    command.args(["check", "--package", "dmaplane-ring", "--package", "dmaplane-engine"]);
    command.args(["--lib", "--no-default-features", "--target", target]);
    Ok(Tally::one(succeeds(command)?))
}
