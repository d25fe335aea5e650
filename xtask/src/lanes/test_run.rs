//! Running tests through nextest where it is installed, else through `cargo test`, and counting them.

use std::process::Command;

use anyhow::Result;

use crate::process::stream;
use crate::tally::Tally;
use crate::test_output::{Runner, SkippedTests};
use crate::toolchain::has_nextest;
use crate::workspace::Workspace;

/// A `cargo nextest run` or `cargo test` to add packages and variables to.
pub struct TestRun {
    /// The command so far.
    pub command: Command,
    runner: Runner,
    workspace: Workspace,
}

impl TestRun {
    /// Unit and integration tests, by the best runner that is installed.
    pub fn new(workspace: &Workspace) -> Self {
        let mut command = workspace.cargo();
        if has_nextest(workspace) {
            let limits = workspace.root.join("xtask/nextest.toml");
            command.args(["nextest", "run", "--tool-config-file"]);
            command.arg(format!("xtask:{}", limits.display()));
            Self { command, runner: Runner::Nextest, workspace: workspace.clone() }
        } else {
            // `--tests` means unit tests too, but no doc tests: these have a run of their own.
            command.args(["test", "--no-fail-fast", "--tests"]);
            Self { command, runner: Runner::Libtest, workspace: workspace.clone() }
        }
    }

    /// Doc tests, which nextest does not run.
    pub fn documentation(workspace: &Workspace) -> Self {
        let mut command = workspace.cargo();
        command.args(["test", "--doc", "--no-fail-fast"]);
        Self { command, runner: Runner::Libtest, workspace: workspace.clone() }
    }

    /// Runs the tests. No test at all is a failure: every caller expects some.
    pub fn finish(self) -> Result<Tally> {
        let Self { mut command, runner, workspace } = self;
        let skipped = SkippedTests::collect(&workspace, &mut command)?;
        let mut tally = Tally::default();
        let status = stream(command, |line| {
            if let Some(summary) = runner.summary(line) {
                tally += summary;
            }
        })?;
        if !status.success() && tally.failed == 0 {
            println!("error: the test run ended with {status}");
            tally += Tally::FAILED;
        } else if !tally.ran_any() {
            println!("error: no test ran where tests are expected");
            tally += Tally::FAILED;
        }
        tally.discount(skipped.reasons()?);
        Ok(tally)
    }
}
