//! Clippy over every target of the workspace; a warning is a failure.

use anyhow::Result;

use super::{FEATURES, LaneContext};
use crate::process::succeeds;
use crate::tally::Tally;

pub fn run(context: &LaneContext) -> Result<Tally> {
    let mut command = context.workspace.cargo();
    command.args(["clippy", "--workspace", "--all-targets", "--features", FEATURES, "--", "-D", "warnings"]);
    Ok(Tally::one(succeeds(command)?))
}
