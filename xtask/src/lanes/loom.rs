//! The loom tests, in a build of their own: `--cfg loom` replaces the atomics of every crate.

use anyhow::Result;

use super::LaneContext;
use super::test_run::TestRun;
use crate::tally::Tally;

pub fn run(context: &LaneContext) -> Result<Tally> {
    let workspace = &context.workspace;
    let preemptions = context.options.loom_preemptions;
    println!("bounds: at most {preemptions} preemptions in one execution, all executions of those");
    let mut tests = TestRun::new(workspace);
    tests
        .command
        .args(["--release", "--package", "dmaplane-loom-tests", "--target-dir"])
        .arg(workspace.target.join("loom"))
        .env("RUSTFLAGS", "--cfg loom")
        .env("LOOM_MAX_PREEMPTIONS", preemptions.to_string());
    tests.finish()
}
