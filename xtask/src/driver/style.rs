//! The kernel's own style: checkpatch over the driver's C.

use anyhow::{Context, Result};

use super::build;
use crate::lab::kernel::Kernel;
use crate::process::capture_all;
use crate::tally::Tally;
use crate::workspace::Workspace;

/// What it finds and what stays: the module is built for several kernels, so it asks for their version, and it takes
/// `KERNEL_VERSION(...)` on the right of that for a constant on the left.
const EXPLAINED: &str = "LINUX_VERSION_CODE,CONSTANT_COMPARISON";

/// Runs checkpatch, where a kernel's tree has it: the packages of headers do not.
pub fn check(workspace: &Workspace) -> Result<Tally> {
    let files = Kernel::named("debug").context("no kernel debug")?.files(workspace);
    let script = match files {
        Ok(files) => files.build.join("scripts/checkpatch.pl"),
        Err(error) => return Ok(Tally::skip("vm-checkpatch", &format!("only the tree of `debug` has it: {error:#}"))),
    };
    let driver = workspace.root.join("driver");
    let mut command = workspace.command("perl");
    command.arg(script).args(["--no-tree", "--terse", "--show-types", "--max-line-length=120"]);
    command.args(["--ignore", EXPLAINED, "-f"]);
    let of_tests = build::TEST_MODULES.map(|module| driver.join("tests").join(module));
    for folder in of_tests.into_iter().chain([driver]) {
        let mut sources: Vec<_> = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        sources.retain(|path| path.extension().is_some_and(|it| it == "c" || it == "h"));
        sources.sort();
        command.args(sources);
    }
    let (status, printed) = capture_all(command)?;
    if !status.success() {
        println!("{printed}");
    }
    Ok(Tally::one(status.success()))
}
