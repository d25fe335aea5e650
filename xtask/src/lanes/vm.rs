//! The driver in virtual machines: each kernel boots, loads the module and runs the driver's tests.

use anyhow::Result;

use super::LaneContext;
use crate::lab::{self, kernel::KERNELS};
use crate::tally::Tally;

pub fn run(context: &LaneContext) -> Result<Tally> {
    let mut tally = Tally::default();
    for kernel in KERNELS {
        println!("\nvm: kernel {}", kernel.name);
        if kernel.is_optional()
            && let Err(error) = kernel.files(&context.workspace)
        {
            tally += Tally::skip(&format!("vm-{}", kernel.name), &format!("{error:#}"));
            continue;
        }
        match lab::test(&context.workspace, *kernel) {
            Ok(tested) => tally += tested,
            Err(error) => {
                println!("vm {}: {error:#}", kernel.name);
                tally += Tally::FAILED;
            }
        }
    }
    // One kernel is enough: what is broken, or fails, is ours.
    for test in [lab::test_defects, lab::test_faults] {
        match test(&context.workspace, KERNELS[1]) {
            Ok(tested) => tally += tested,
            Err(error) => {
                println!("vm: {error:#}");
                tally += Tally::FAILED;
            }
        }
    }
    Ok(tally)
}
