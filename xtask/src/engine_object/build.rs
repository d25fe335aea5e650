//! Compiling crates with plain rustc and linking their code, and nothing else, into one object.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::disassembly;
use super::symbols;
use super::variants::{COMMON_FLAGS, Variant};
use crate::process::capture;
use crate::workspace::Workspace;

/// The workspace's edition; a test compares it with Cargo.toml.
const EDITION: &str = "2024";

/// A crate that goes into the object. It has no build script, and no feature but the defects of negative controls.
pub struct KernelCrate {
    /// Its name in Rust.
    pub name: &'static str,
    /// Its lib.rs, from the root of the tree.
    pub source: &'static str,
    /// The earlier crates that it uses.
    pub uses: &'static [&'static str],
}

/// Where the output goes.
pub struct Output {
    /// Objects and metadata of the single crates.
    pub folder: PathBuf,
    /// The linked object.
    pub object: PathBuf,
}

/// Compiles the crates in order and links them. What the last crate exports under a plain name (the
/// functions that C calls) is kept, with all that it reaches; anything else is dropped. `defect`: a feature of the
/// engine's that breaks a rule on purpose.
pub fn build(
    workspace: &Workspace,
    crates: &[KernelCrate],
    variant: &Variant,
    defect: Option<&str>,
    output: &Output,
) -> Result<()> {
    fs::create_dir_all(&output.folder).with_context(|| format!("making {}", output.folder.display()))?;
    for kernel_crate in crates {
        compile(workspace, kernel_crate, variant, defect, &output.folder)
            .with_context(|| format!("compiling {} ({})", kernel_crate.name, variant.name))?;
    }
    let object_of = |name: &str| output.folder.join(format!("{name}.o"));
    let objects: Vec<PathBuf> = crates.iter().map(|each| object_of(each.name)).collect();
    let last = objects.last().context("an object is made of at least one crate")?;
    let entries = entry_points(workspace, last)?;
    ensure!(!entries.is_empty(), "{} exports no function to C", last.display());
    link(workspace, &objects, &entries, &output.object)?;
    drop_unreferenced_symbols(workspace, &output.object)
}

fn compile(
    workspace: &Workspace,
    kernel_crate: &KernelCrate,
    variant: &Variant,
    defect: Option<&str>,
    folder: &Path,
) -> Result<()> {
    let mut command = workspace.command("rustc");
    // The flags are unstable ones; the kernel's own Rust build uses the same switch.
    command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_PKG_VERSION", env!("CARGO_PKG_VERSION"));
    command.args(["--edition", EDITION, "--crate-name", kernel_crate.name]);
    command.args(COMMON_FLAGS).args(variant.flags());
    command.args(defect.map(|feature| format!("--cfg=feature=\"{feature}\"")));
    for name in kernel_crate.uses {
        let metadata = folder.join(format!("lib{name}.rmeta"));
        command.arg("--extern").arg(format!("{name}={}", metadata.display()));
    }
    command.arg("-L").arg(folder).arg("--out-dir").arg(folder).arg(kernel_crate.source);
    capture(command).map(|_| ())
}

/// The functions of an object that C can call: global and not mangled.
pub fn entry_points(workspace: &Workspace, object: &Path) -> Result<Vec<String>> {
    let symbols = symbols::read(workspace, object)?;
    let entries = symbols.iter().filter(|symbol| symbol.is_entry_point());
    Ok(entries.map(|symbol| symbol.name.clone()).collect())
}

fn link(workspace: &Workspace, objects: &[PathBuf], entries: &[String], to: &Path) -> Result<()> {
    let mut command = workspace.command("ld");
    command.args(["-r", "--gc-sections", "--discard-locals", "-T"]);
    command.arg(workspace.root.join("driver/object/sections.lds"));
    for entry in entries {
        command.arg(format!("--undefined={entry}"));
    }
    command.arg("-o").arg(to).args(objects);
    capture(command).map(|_| ())
}

/// The linker keeps the undefined symbols of functions that it dropped; modpost would take them for
/// missing functions.
fn drop_unreferenced_symbols(workspace: &Workspace, object: &Path) -> Result<()> {
    let relocations = disassembly::read_relocations(workspace, object)?;
    let referenced: BTreeSet<&str> = relocations.iter().map(|relocation| relocation.symbol.as_str()).collect();
    let symbols = symbols::read(workspace, object)?;
    let unreferenced: Vec<&str> = symbols
        .iter()
        .filter(|symbol| symbol.is_undefined() && !referenced.contains(symbol.name.as_str()))
        .map(|symbol| symbol.name.as_str())
        .collect();
    if unreferenced.is_empty() {
        return Ok(());
    }
    let mut command = workspace.command("objcopy");
    command.args(unreferenced.iter().map(|name| format!("--strip-symbol={name}"))).arg(object);
    capture(command).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edition_is_the_workspaces() {
        let manifest = Workspace::discover().unwrap().root.join("Cargo.toml");
        let text = fs::read_to_string(manifest).unwrap();
        assert!(text.contains(&format!("edition = \"{EDITION}\"")));
    }
}
