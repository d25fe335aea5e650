//! The tests of all libraries, and their doc tests.
//!
//! Left out are the loom tests, which need their own build, and the command, whose tests the lane `e2e`
//! runs in release mode.

use anyhow::Result;

use super::test_run::TestRun;
use super::{FEATURES, LaneContext};
use crate::tally::Tally;

pub fn run(context: &LaneContext) -> Result<Tally> {
    let workspace = &context.workspace;
    let mut tally = Tally::default();

    let mut tests = TestRun::new(workspace);
    tests.command.args(["--workspace", "--features", FEATURES, "--exclude", "dmaplane-loom-tests"]);
    tests.command.args(["--exclude", "dmaplane-cli"]);
    tally += tests.finish()?;

    let mut examples = TestRun::documentation(workspace);
    examples.command.args(["--workspace", "--features", FEATURES, "--exclude", "dmaplane-loom-tests"]);
    tally += examples.finish()?;
    Ok(tally)
}
