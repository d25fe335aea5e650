//! The kernel with every checker, made of Debian's source for machines that nobody has made it for beforehand.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::kernel::{KernelFiles, unpacked};
use crate::process::{capture, jobs};
use crate::setup::install::{apt_get, quietly};

/// What differs from Kconfig's defaults.
const CONFIG: &str = include_str!("debug.config");
const SOURCE: &str = "linux-source-6.12";
/// What building a kernel takes beside a compiler.
const TOOLS: &[&str] = &["bc", "bison", "flex", "gcc", "libelf-dev", "make", "xz-utils"];

/// Makes it in `folder`, unless it is there as the configuration wants it.
pub fn files(folder: &Path) -> Result<KernelFiles> {
    let (tree, made) = (folder.join("source"), folder.join("made"));
    let files = KernelFiles {
        image: tree.join("arch/x86/boot/bzImage"),
        modules: None,
        version: String::new(),
        build: tree.clone(),
        toolchain: None,
    };
    if fs::read_to_string(&made).is_ok_and(|config| config == CONFIG) && files.image.is_file() {
        return Ok(files);
    }
    println!("kernel debug: made of {SOURCE}, once; that takes a while");
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(TOOLS);
    apt_get(&["update"])?;
    apt_get(&install)?;
    fetch(folder, &tree)?;
    configure(&tree)?;
    // The modules are none; they bring the list of symbols that ours is built against.
    quietly(make(&tree, &[&jobs(), "bzImage", "modules"])).context("building the kernel")?;
    fs::write(&made, CONFIG)?;
    Ok(files)
}

/// Unpacks the source anew: what a build that was cut off has left is not gone on with.
fn fetch(folder: &Path, tree: &Path) -> Result<()> {
    let package = folder.join("package");
    for old in [tree, &package] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("removing {}", old.display()))?;
        }
    }
    unpacked(SOURCE, folder, &package)?;
    let mut unpack = Command::new("tar");
    unpack.arg("-xJf").arg(package.join(format!("usr/src/{SOURCE}.tar.xz"))).arg("-C").arg(folder);
    capture(unpack)?;
    fs::rename(folder.join(SOURCE), tree).with_context(|| format!("{SOURCE} holds no tree of its name"))?;
    fs::remove_dir_all(&package)?;
    Ok(())
}

fn make(tree: &Path, targets: &[&str]) -> Command {
    let mut make = Command::new("make");
    make.arg("--silent").arg("-C").arg(tree).args(targets);
    make
}

fn configure(tree: &Path) -> Result<()> {
    let name = "dmaplane_debug_defconfig";
    fs::write(tree.join("arch/x86/configs").join(name), CONFIG)?;
    quietly(make(tree, &[name])).context("configuring the kernel")?;
    let path = tree.join(".config");
    let config = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let dropped = dropped(CONFIG, &config);
    ensure!(dropped.is_empty(), "this kernel's Kconfig does not take {}", dropped.join(", "));
    Ok(())
}

/// What was asked for and is not in a configuration: an option that is gone, or whose own needs are not met.
fn dropped<'a>(wanted: &'a str, config: &str) -> Vec<&'a str> {
    let is_there = |line: &str| config.lines().any(|other| other == line);
    // One that is off may be missing altogether.
    wanted.lines().filter(|line| line.starts_with("CONFIG_") && !is_there(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_a_kernel_does_not_take_is_told() {
        let config = "CONFIG_KASAN=y\n# CONFIG_BLOCK is not set\nCONFIG_NR_CPUS=8\n";
        assert!(dropped("# A word.\nCONFIG_KASAN=y\nCONFIG_NR_CPUS=8\n# CONFIG_GONE is not set\n", config).is_empty());
        assert_eq!(
            dropped("CONFIG_KASAN=y\nCONFIG_BLOCK=y\nCONFIG_KASA=y\n", config),
            ["CONFIG_BLOCK=y", "CONFIG_KASA=y"]
        );
    }

    #[test]
    fn the_kernel_has_every_checker_that_the_driver_is_tested_with() {
        for checker in ["KASAN", "PROVE_LOCKING", "UBSAN", "DMA_API_DEBUG", "DEBUG_KMEMLEAK", "DEBUG_ATOMIC_SLEEP"] {
            assert!(CONFIG.lines().any(|line| line == format!("CONFIG_{checker}=y")), "{checker}");
        }
    }
}
