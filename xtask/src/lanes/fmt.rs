//! Formatting, of the workspace and of the fuzz targets, which are a workspace of their own.

use anyhow::Result;

use super::LaneContext;
use crate::process::succeeds;
use crate::tally::Tally;

pub fn run(context: &LaneContext) -> Result<Tally> {
    let workspace = &context.workspace;
    let mut command = workspace.cargo();
    command.args(["fmt", "--all", "--check"]);
    let mut formatted = succeeds(command)?;
    if workspace.root.join("fuzz/Cargo.toml").exists() {
        let mut command = workspace.cargo();
        command.args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]);
        formatted &= succeeds(command)?;
    }
    Ok(Tally::one(formatted))
}
