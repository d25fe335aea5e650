//! `cargo xtask engine-object`: ring, engine and the driver's Rust glue as one kernel object, checked.
//!
//! Only the metadata of the core library is used, never its machine code, which has a red zone and SIMD
//! registers. So an undefined symbol of core is a defect, and because every panic ends in one, the check
//! of the undefined symbols also shows that nothing in the object can panic.

pub mod build;
pub mod checks;
pub mod disassembly;
pub mod symbols;
pub mod variants;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use build::{KernelCrate, Output};
use checks::{Check, Object};
use variants::{VARIANTS, Variant};

/// What the driver links, in the order of their dependencies.
const CRATES: &[KernelCrate] = &[
    KernelCrate { name: "dmaplane_ring", source: "ring/src/lib.rs", uses: &[] },
    KernelCrate { name: "dmaplane_engine", source: "engine/src/lib.rs", uses: &["dmaplane_ring"] },
    KernelCrate {
        name: "dmaplane_engine_object",
        source: "driver/object/src/lib.rs",
        uses: &["dmaplane_ring", "dmaplane_engine"],
    },
];

/// Builds the variants of these names (all where none is named), checks each and prints what came of
/// it. Says whether every check passed.
pub fn run(workspace: &Workspace, names: &[String]) -> Result<bool> {
    run_with(workspace, names, None)
}

/// Where an object lies, with a defect built in on purpose or without.
#[must_use]
pub fn folder(workspace: &Workspace, defect: Option<&str>) -> PathBuf {
    let folder = workspace.target.join("engine-object");
    defect.map_or(folder.clone(), |defect| folder.join(defect))
}

/// The same with a defect built in on purpose: a feature of the engine's.
pub fn run_with(workspace: &Workspace, names: &[String], defect: Option<&str>) -> Result<bool> {
    let folder = folder(workspace, defect);
    let wanted = |variant: &&Variant| names.is_empty() || names.iter().any(|it| it == variant.name);
    let mut passed = true;
    for variant in VARIANTS.iter().filter(wanted) {
        let output = Output { folder: folder.join(variant.name), object: folder.join(variant.file_name) };
        build::build(workspace, CRATES, variant, defect, &output)?;
        let object =
            Object::read(workspace, &output.object).with_context(|| format!("reading {}", output.object.display()))?;
        let mut checks = object.check(variant);
        checks.push(engine_is_there(&object));
        print_report(workspace, variant, &output.object, &object, &checks);
        passed &= checks.iter().all(|check| check.violations.is_empty());
    }
    Ok(passed)
}

/// An object without the engine would pass every other check.
fn engine_is_there(object: &Object) -> Check {
    let violations = if object.functions_by_crate().contains_key("dmaplane_engine") {
        Vec::new()
    } else {
        vec!["driver/object reaches no function of the engine: the checks say nothing of it".into()]
    };
    Check { name: "engine code", violations }
}

fn print_report(workspace: &Workspace, variant: &Variant, path: &Path, object: &Object, checks: &[Check]) {
    let path = path.strip_prefix(&workspace.root).unwrap_or(path);
    println!("{}: {}", variant.name, path.display());
    for Check { name, violations } in checks {
        let verdict = if violations.is_empty() { "ok" } else { "FAILED" };
        println!("  {verdict:<6} {name}");
        for violation in violations {
            println!("         {violation}");
        }
    }
    println!("  {:<6} red zone (by flag: -C no-redzone=yes)", "ok");

    let sizes =
        [".text", ".rodata", ".data", ".bss"].map(|section| format!("{section} {}", object.section_bytes(section)));
    println!("  bytes: {}", sizes.join(", "));
    let functions = object.functions_by_crate();
    let functions: Vec<String> = functions.iter().map(|(name, count)| format!("{name} {count}")).collect();
    println!("  functions: {}", functions.join(", "));
    let undefined: Vec<&str> = object.undefined_names().collect();
    println!("  leaves to others: {}", undefined.join(", "));
}
