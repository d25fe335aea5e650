//! The driver in virtual machines: each kernel boots, loads the module and runs the driver's tests.

use anyhow::Result;

use super::LaneContext;
use crate::driver::{dist, style};
use crate::lab::{self, kernel::KERNELS};
use crate::process::capture_all;
use crate::tally::Tally;

pub fn run(context: &LaneContext) -> Result<Tally> {
    let mut tally = style::check(&context.workspace)?;
    tally += Tally::one(builds_without_rustc(context)?);
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

/// What a machine without rustc, or DKMS, builds: the folder with the prebuilt objects, by make alone.
fn builds_without_rustc(context: &LaneContext) -> Result<bool> {
    let folder = dist::make(&context.workspace)?;
    let files = KERNELS[1].files(&context.workspace)?;
    let target = context.workspace.target.join("dist/installed");
    let _ = std::fs::remove_dir_all(&target);
    let mut make = context.workspace.command("make");
    make.arg("-C").arg(&folder).arg(format!("KDIR={}", files.build.display())).arg("install");
    make.arg(format!("DESTDIR={}", target.display()));
    let (status, printed) = capture_all(make)?;
    let module = target.join("lib/modules").join(&files.version).join("updates/dmaplane.ko");
    let fine = status.success() && module.is_file() && target.join("lib/udev/rules.d/90-dmaplane.rules").is_file();
    if !fine {
        println!("{printed}");
    }
    println!("vm: make install from {}: {}", folder.display(), if fine { "ok" } else { "FAILED" });
    Ok(fine)
}
