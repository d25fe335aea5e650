//! `cargo xtask driver dist`: the driver's sources with every variant of the Rust object, for machines without rustc.
//!
//! `make -C FOLDER install` builds and installs it for the running kernel; `dkms add FOLDER` leaves that to DKMS.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::build::copy_sources;
use crate::engine_object::{self, variants::VARIANTS};
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
        fs::copy(&object, folder.join("engine").join(variant.file_name))?;
    }
    Ok(folder)
}
