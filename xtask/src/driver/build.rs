//! Building `dmaplane.ko` for a kernel, outside of the source tree.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::engine_object;
use crate::lab::kernel::{Kernel, KernelFiles};
use crate::lab::newest;
use crate::process::{capture_all, jobs};
use crate::workspace::Workspace;

/// What is different about a module that is built for a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variation {
    /// Nothing: it is the one that users load.
    None,
    /// A feature of the engine's that breaks a rule on purpose.
    Defect(&'static str),
    /// The n-th call that may fail does (`driver/fault.h`).
    Faults,
}

impl Variation {
    fn defect(self) -> Option<&'static str> {
        match self {
            Variation::Defect(feature) => Some(feature),
            _ => None,
        }
    }

    /// The folder for a kernel of this name.
    fn folder(self, kernel: &str) -> String {
        match self {
            Variation::None => kernel.to_owned(),
            Variation::Defect(feature) => format!("{kernel}-{feature}"),
            Variation::Faults => format!("{kernel}-faults"),
        }
    }
}

/// A module that was built.
pub struct Built {
    /// The module.
    pub module: PathBuf,
    /// What it was built against.
    pub files: KernelFiles,
}

/// Builds the module for a kernel.
pub fn build(workspace: &Workspace, kernel: Kernel, variation: Variation) -> Result<Built> {
    let defect = variation.defect();
    let files = kernel.files(workspace)?;
    let variant = files.variant()?;
    ensure!(
        engine_object::run_with(workspace, &[variant.name.to_owned()], defect)?,
        "the engine object fails its checks"
    );
    let object = engine_object::folder(workspace, defect).join(variant.file_name);
    let name = variation.folder(kernel.name);
    let variables: &[&str] = if variation == Variation::Faults { &["DMP_FAULTS=y"] } else { &[] };
    let sources = workspace.root.join("driver");
    let folder = make(workspace, kernel, &files, &sources, &name, Some(&object), variables)?;
    let module = folder.join("dmaplane.ko");
    println!("{}: {} ({} object)", kernel.name, module.display(), variant.name);
    Ok(Built { module, files })
}

/// Modules for tests, each a folder and a file of one name: what the driver is measured against, and a device that
/// imports its memory.
pub const TEST_MODULES: [&str; 2] = ["paper", "importer"];

/// Builds one of [`TEST_MODULES`].
pub fn build_for_tests(workspace: &Workspace, kernel: Kernel, files: &KernelFiles, module: &str) -> Result<PathBuf> {
    let sources = workspace.root.join("driver/tests").join(module);
    let folder = make(workspace, kernel, files, &sources, &format!("{}-{module}", kernel.name), None, &[])?;
    Ok(folder.join(format!("{module}.ko")))
}

/// Copies a module's sources and makes it: the folder that it lies in.
fn make(
    workspace: &Workspace,
    kernel: Kernel,
    files: &KernelFiles,
    sources: &Path,
    name: &str,
    object: Option<&Path>,
    variables: &[&str],
) -> Result<PathBuf> {
    let folder = match &files.toolchain {
        Some(root) => root.join("build").join(name),
        None => workspace.target.join("driver").join(name),
    };
    copy_sources(sources, &folder)?;
    // Paths as they are where the compiler runs.
    let within = |path: &Path| match &files.toolchain {
        Some(root) => format!("/{}", path.strip_prefix(root).unwrap_or(path).display()),
        None => path.display().to_string(),
    };
    let mut make = match &files.toolchain {
        Some(root) => {
            // Objtool reads its own limits: /proc is there for as long as this lasts, in a name space of its own.
            let mut make = workspace.command("unshare");
            make.args(["--mount", "sh", "-c", "mount -t proc proc \"$0/proc\" && exec chroot \"$0\" \"$@\""]);
            make.arg(root).args(["make", &format!("CC={}", newest::COMPILER)]);
            make
        }
        None => workspace.command("make"),
    };
    make.args(["-C", &within(&files.build), &format!("M={}", within(&folder))]);
    if let Some(object) = object {
        let copied = folder.join(object.file_name().context("an object has a name")?);
        fs::copy(object, &copied).with_context(|| format!("copying {}", object.display()))?;
        make.arg(format!("ENGINE={}", within(&copied)));
    }
    make.args(variables).args([&jobs(), "modules"]);
    let (status, printed) = capture_all(make)?;
    let warned = printed.lines().any(|line| line.contains("warning:") || line.contains("WARNING:"));
    if !status.success() || warned {
        println!("{printed}");
    }
    ensure!(status.success(), "the module does not build for {}", kernel.name);
    ensure!(!warned, "the module builds with warnings for {}", kernel.name);
    Ok(folder)
}

/// C sources, headers and Kbuild files; unchanged ones are left alone, so that make builds only what has changed.
pub(super) fn copy_sources(from: &Path, to: &Path) -> Result<()> {
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
