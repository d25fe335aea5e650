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

    // Where there is an io_uring, tcp has been over it; in a container it would be over epoll.
    // (Of the whole workspace, so that nothing is built anew for other features.)
    let mut epoll = TestRun::new(workspace);
    epoll.command.args(["--workspace", "--features", FEATURES, "--exclude", "dmaplane-loom-tests"]);
    for test in ["tcp", "tcp_hostile", "tcp_processes", "late_writes"] {
        epoll.command.args(["--test", test]);
    }
    epoll.command.env("DMAPLANE_TCP_BACKEND", "epoll");
    tally += epoll.finish()?;

    let mut examples = TestRun::documentation(workspace);
    examples.command.args(["--workspace", "--features", FEATURES, "--exclude", "dmaplane-loom-tests"]);
    tally += examples.finish()?;
    Ok(tally)
}
