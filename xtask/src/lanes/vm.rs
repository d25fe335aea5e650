//! The driver in virtual machines: each kernel boots, loads the module and runs the driver's tests.

use std::time::Instant;

use anyhow::Result;

use super::LaneContext;
use crate::driver::{dist, style};
use crate::lab::{self, kernel::KERNELS};
use crate::tally::Tally;

pub fn run(context: &LaneContext) -> Result<Tally> {
    let begin = Instant::now();
    let mut tally = style::check(&context.workspace)?;
    for kernel in KERNELS {
        println!("\nvm: kernel {}", kernel.name);
        if kernel.is_optional()
            && let Err(error) = kernel.files(&context.workspace)
        {
            tally += Tally::skip(&format!("vm-{}", kernel.name), &format!("{error:#}"));
            continue;
        }
        match lab::test(&context.workspace, *kernel, "") {
            Ok(tested) => tally += tested,
            Err(error) => {
                println!("vm {}: {error:#}", kernel.name);
                tally += Tally::fail(&format!("vm-{}", kernel.name), &format!("{error:#}"));
            }
        }
    }
    println!("\nvm: the kernels took {} s, with what had to be fetched and built", begin.elapsed().as_secs());
    tally += builds_without_rustc(context)?;
    // One kernel is enough: what is broken, or fails, is ours.
    for test in [lab::test_defects, lab::test_faults] {
        match test(&context.workspace, KERNELS[1]) {
            Ok(tested) => tally += tested,
            Err(error) => {
                println!("vm: {error:#}");
                tally += Tally::fail("vm", &format!("{error:#}"));
            }
        }
    }
    Ok(tally)
}

/// What a machine without rustc builds: the folder with the prebuilt objects, by make alone and by DKMS.
fn builds_without_rustc(context: &LaneContext) -> Result<Tally> {
    let workspace = &context.workspace;
    let folder = dist::make(workspace)?;
    let files = KERNELS[1].files(workspace)?;
    let mut tally = Tally::default();
    for (what, module) in [
        ("make install", dist::install(workspace, &folder, &files)),
        ("dkms build", dist::build_by_dkms(workspace, &folder, &files)),
    ] {
        let (name, from) = (format!("vm: {what}"), folder.display());
        tally += match module {
            Ok(module) => {
                println!("{name} from {from}: {}", module.display());
                Tally::one(true)
            }
            Err(error) => Tally::fail(&name, &format!("from {from}: {error:#}")),
        };
    }
    Ok(tally)
}
