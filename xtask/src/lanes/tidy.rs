//! The project's own lint rules over all files that git has or would take.

use anyhow::Result;

use super::LaneContext;
use crate::tally::Tally;
use crate::tidy;

pub fn run(context: &LaneContext) -> Result<Tally> {
    tidy::run(&context.workspace).map(Tally::one)
}
