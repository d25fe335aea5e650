//! Building `dmaplane.ko` for a kernel, outside of the source tree.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::engine_object;
use crate::lab::kernel::{Kernel, KernelFiles};
use crate::process::capture_all;
use crate::workspace::Workspace;

/// A module that was built.
pub struct Built {
    /// The module.
    pub module: PathBuf,
    /// What it was built against.
    pub files: KernelFiles,
}

/// Builds the module for a kernel; with a defect built in on purpose, a feature of the engine's, where one is named.
pub fn build(workspace: &Workspace, kernel: Kernel, defect: Option<&str>) -> Result<Built> {
    let files = kernel.files(workspace)?;
    let variant = files.variant()?;
    ensure!(
        engine_object::run_with(workspace, &[variant.name.to_owned()], defect)?,
        "the engine object fails its checks"
    );
    let object = engine_object::folder(workspace, defect).join(variant.file_name);
    let name = defect.map_or(kernel.name.to_owned(), |defect| format!("{}-{defect}", kernel.name));
    let folder = workspace.target.join("driver").join(name);
    copy_sources(&workspace.root.join("driver"), &folder)?;
    let mut make = workspace.command("make");
    make.arg("-C").arg(&files.build).arg(format!("M={}", folder.display()));
    make.arg(format!("ENGINE={}", object.display())).arg("modules");
    let (status, printed) = capture_all(make)?;
    let warned = printed.lines().any(|line| line.contains("warning:") || line.contains("WARNING:"));
    if !status.success() || warned {
        println!("{printed}");
    }
    ensure!(status.success(), "the module does not build for {}", kernel.name);
    ensure!(!warned, "the module builds with warnings for {}", kernel.name);
    let module = folder.join("dmaplane.ko");
    println!("{}: {} ({} object)", kernel.name, module.display(), variant.name);
    Ok(Built { module, files })
}

/// C sources, headers and Kbuild files; unchanged ones are left alone, so that make builds only what has changed.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?;
        if path.is_dir() {
            if name == "include" {
                copy_sources(&path, &to.join(name))?;
            }
            continue;
        }
        let wanted = name == "Kbuild" || path.extension().is_some_and(|it| it == "c" || it == "h");
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        if wanted && fs::read(to.join(name)).ok().as_ref() != Some(&text) {
            fs::write(to.join(name), text).with_context(|| format!("writing into {}", to.display()))?;
        }
    }
    Ok(())
}
