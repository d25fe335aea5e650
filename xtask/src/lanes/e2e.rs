//! The command from end to end: all tests of the command's crate, in release mode.

use anyhow::Result;

use super::LaneContext;
use super::test_run::TestRun;
use crate::tally::Tally;

pub fn run(context: &LaneContext) -> Result<Tally> {
    let mut tests = TestRun::new(&context.workspace);
    tests.command.args(["--release", "--package", "dmaplane-cli"]);
    tests.finish()
}
