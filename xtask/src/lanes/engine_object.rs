//! The engine as a kernel object, in every variant: one check of the tests, many of its own.

use anyhow::Result;

use super::LaneContext;
use crate::engine_object;
use crate::tally::Tally;

pub fn run(context: &LaneContext) -> Result<Tally> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Tally::skip("engine-object", "its recipe is for x86-64 kernels"));
    }
    engine_object::run(&context.workspace, &[]).map(Tally::one)
}
