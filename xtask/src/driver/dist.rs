//! `cargo xtask driver dist`: the driver's sources with every variant of the Rust object, for machines without rustc.
//!
//! `make -C FOLDER install` builds and installs it for the running kernel; `dkms add FOLDER` leaves that to DKMS.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::build::copy_sources;
use crate::engine_object::{self, variants::VARIANTS};
use crate::lab::kernel::KernelFiles;
use crate::process::{capture, jobs};
use crate::workspace::Workspace;

/// Makes the folder anew: where it is.
pub fn make(workspace: &Workspace) -> Result<PathBuf> {
    ensure!(engine_object::run(workspace, &[])?, "the engine object fails its checks");
    let version = env!("CARGO_PKG_VERSION");
    let folder = workspace.target.join("dist").join(format!("dmaplane-{version}"));
    let _ = fs::remove_dir_all(&folder);
    let sources = workspace.root.join("driver");
    copy_sources(&sources, &folder)?;
    for name in ["Makefile", "90-dmaplane.rules"] {
        fs::copy(sources.join(name), folder.join(name)).with_context(|| format!("copying {name}"))?;
    }
    let dkms = fs::read_to_string(sources.join("dkms.conf"))?.replace("@VERSION@", version);
    fs::write(folder.join("dkms.conf"), dkms)?;
    fs::create_dir_all(folder.join("engine"))?;
    for variant in VARIANTS {
        let object = engine_object::folder(workspace, None).join(variant.file_name);
        // As the kernel's own tree names what is not built there: `make clean`, which DKMS begins with, takes every
        // file that ends with .o.
        fs::copy(&object, folder.join("engine").join(format!("{}_shipped", variant.file_name)))?;
    }
    Ok(folder)
}

/// Installs the folder for a kernel, by make alone, beneath `target/dist/installed`: the module.
pub fn install(workspace: &Workspace, folder: &Path, files: &KernelFiles) -> Result<PathBuf> {
    let installed = workspace.target.join("dist/installed");
    let _ = fs::remove_dir_all(&installed);
    for targets in [["clean"].as_slice(), &["install"]] {
        let mut make = workspace.command("make");
        make.arg(jobs()).arg("-C").arg(folder).arg(format!("KDIR={}", files.build.display())).args(targets);
        make.arg(format!("DESTDIR={}", installed.display()));
        capture(make)?;
    }
    ensure!(installed.join("lib/udev/rules.d/90-dmaplane.rules").is_file(), "the rule for the device is not there");
    built(&installed.join("lib/modules").join(&files.version).join("updates"))
}

/// Has DKMS build the folder for a kernel, in a name space where it leaves nothing: the module.
pub fn build_by_dkms(workspace: &Workspace, folder: &Path, files: &KernelFiles) -> Result<PathBuf> {
    let place = workspace.target.join("dist/dkms");
    let _ = fs::remove_dir_all(&place);
    let name = folder.file_name().and_then(|name| name.to_str()).context("the folder has a name")?;
    let version = name.strip_prefix("dmaplane-").context("its name ends with the version")?;
    let sources = place.join("sources").join(name);
    copy_whole(folder, &sources)?;
    fs::create_dir_all(place.join("tree"))?;
    // Where it has a key to sign with, made at first.
    let private = "mkdir -p /var/lib/dkms && mount -t tmpfs none /var/lib/dkms && exec dkms \"$@\"";
    for action in ["add", "build"] {
        let mut dkms = workspace.command("unshare");
        dkms.args(["--mount", "sh", "-c", private, "dkms", action, "-m", "dmaplane", "-v", version]);
        dkms.args(["-k", &files.version, "--kernelsourcedir"]).arg(&files.build);
        dkms.arg("--sourcetree").arg(place.join("sources")).arg("--dkmstree").arg(place.join("tree"));
        capture(dkms)?;
    }
    let made = place.join("tree/dmaplane").join(version).join(&files.version);
    let machine = fs::read_dir(&made).with_context(|| format!("reading {}", made.display()))?.next();
    built(&machine.context("nothing was built")??.path().join("module"))
}

/// The module of a folder, packed or not.
fn built(folder: &Path) -> Result<PathBuf> {
    let found = ["ko", "ko.xz", "ko.zst"].map(|ending| folder.join(format!("dmaplane.{ending}")));
    found.into_iter().find(|path| path.is_file()).with_context(|| format!("no module lies in {}", folder.display()))
}

fn copy_whole(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if path.is_dir() {
            copy_whole(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name)).with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}
