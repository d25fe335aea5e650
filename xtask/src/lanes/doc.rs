//! The documentation: missing docs and broken links are failures.

use anyhow::Result;

use super::{FEATURES, LaneContext};
use crate::process::succeeds;
use crate::tally::Tally;

pub fn run(context: &LaneContext) -> Result<Tally> {
    let mut command = context.workspace.cargo();
    command.args(["doc", "--workspace", "--features", FEATURES, "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    Ok(Tally::one(succeeds(command)?))
}
