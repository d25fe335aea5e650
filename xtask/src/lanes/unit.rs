//! The tests of all libraries, and their doc tests.
//!
//! Left out are the loom tests, which need their own build, and the command, whose tests the lane `e2e`
//! runs in release mode.

use anyhow::Result;

use super::test_run::TestRun;
use super::{FEATURES, LaneContext};
use crate::tally::Tally;

/// The same for every run: another choice of packages would unify features otherwise, and build all anew.
const PACKAGES: &[&str] =
    &["--workspace", "--features", FEATURES, "--exclude", "dmaplane-loom-tests", "--exclude", "dmaplane-cli"];

pub fn run(context: &LaneContext) -> Result<Tally> {
    let workspace = &context.workspace;
    let mut tally = Tally::default();

    let mut tests = TestRun::new(workspace);
    tests.command.args(PACKAGES);
    tally += tests.finish()?;

    // Where there is an io_uring, tcp has been over it; in a container it would be over epoll.
    let mut epoll = TestRun::new(workspace);
    epoll.command.args(PACKAGES);
    for test in ["tcp", "tcp_hostile", "tcp_processes", "late_writes"] {
        epoll.command.args(["--test", test]);
    }
    epoll.command.env("DMAPLANE_TCP_BACKEND", "epoll");
    tally += epoll.finish()?;

    let mut examples = TestRun::documentation(workspace);
    examples.command.args(PACKAGES);
    tally += examples.finish()?;
    Ok(tally)
}
