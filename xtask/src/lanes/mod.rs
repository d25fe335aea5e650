//! The lanes of `cargo xtask test`. A new lane is one file here and one row of [`LANES`].

mod aarch64;
mod clippy;
mod defects;
mod doc;
mod e2e;
mod engine_object;
mod fmt;
mod fuzz;
mod r#loom;
mod test_run;
mod tidy;
mod unit;
mod vm;

use anyhow::{Context, Result};

use crate::tally::Tally;
use crate::workspace::Workspace;

/// Features that are off by default and that the lanes over the whole workspace cover.
const FEATURES: &str = "dmaplane/tokio";

/// A lane: a name, what it shows, and the function that runs it.
pub struct Lane {
    /// What one types.
    pub name: &'static str,
    /// What passing it shows, in one line.
    pub purpose: &'static str,
    /// Runs it. An error counts as one failed check.
    pub run: fn(&LaneContext) -> Result<Tally>,
}

/// What a lane is given.
pub struct LaneContext {
    /// The tree to test.
    pub workspace: Workspace,
    /// How far to go.
    pub options: Options,
}

/// Bounds of the searches, from the command line. Each lane prints those that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Seconds that each fuzz target runs.
    pub fuzz_seconds: u64,
    /// Preemptions that loom explores in one execution.
    pub loom_preemptions: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { fuzz_seconds: 8, loom_preemptions: 3 }
    }
}

/// All lanes, in the order in which they run: what fails fast comes first.
pub const LANES: &[Lane] = &[
    Lane { name: "fmt", purpose: "every crate is formatted", run: fmt::run },
    Lane { name: "tidy", purpose: "the project's own rules hold", run: tidy::run },
    Lane { name: "clippy", purpose: "no lint fires in any target", run: clippy::run },
    Lane { name: "doc", purpose: "the documentation builds without a warning", run: doc::run },
    Lane { name: "unit", purpose: "unit, integration, property and doc tests", run: unit::run },
    Lane { name: "engine-object", purpose: "the engine's machine code is fit for the kernel", run: engine_object::run },
    Lane { name: "aarch64", purpose: "ring and engine compile for Arm", run: aarch64::run },
    Lane { name: "loom", purpose: "every interleaving of ring, inbox and baton within bounds", run: r#loom::run },
    Lane { name: "defects", purpose: "defects built in on purpose are caught", run: defects::run },
    Lane { name: "e2e", purpose: "the command from end to end, in release mode", run: e2e::run },
    Lane { name: "vm", purpose: "the driver on each kernel, in virtual machines", run: vm::run },
    Lane { name: "fuzz", purpose: "each fuzz target for some seconds", run: fuzz::run },
];

/// The names of all lanes.
#[must_use]
pub fn names() -> Vec<&'static str> {
    LANES.iter().map(|lane| lane.name).collect()
}

/// The lanes of these names, in the order of [`LANES`] where none is named.
pub fn select(names: &[String]) -> Result<Vec<&'static Lane>> {
    if names.is_empty() {
        return Ok(LANES.iter().collect());
    }
    let find = |name: &String| LANES.iter().find(|lane| lane.name == name).with_context(|| format!("no lane {name}"));
    names.iter().map(find).collect()
}

/// Prints each lane with its purpose.
pub fn print_list() {
    for lane in LANES {
        println!("{:<14} {}", lane.name, lane.purpose);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_each_selects_its_lane() {
        let names = names();
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{name} is there twice");
            assert_eq!(select(&[(*name).to_owned()]).unwrap()[0].name, *name);
        }
        assert_eq!(select(&[]).unwrap().len(), names.len());
        assert!(select(&["nothing".to_owned()]).is_err());
    }
}
