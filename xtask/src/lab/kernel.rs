//! The kernels that the driver is built for and booted with, and where their files are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::engine_object::variants::{VARIANTS, Variant};
use crate::process::capture;
use crate::setup::install::{apt_get, quietly};
use crate::workspace::Workspace;

/// A kernel by the name that one types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// What one types.
    pub name: &'static str,
    /// Where it comes from.
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Debian's packages, whose image is named so, up to the version.
    Packages { beginning: &'static str, ending: &'static str },
    /// The newest of the next release's backports.
    Backports,
    /// A kernel with every checker: made beforehand, beside the tree, or of Debian's source.
    Checked { beforehand: &'static str },
}

/// All of them.
pub const KERNELS: &[Kernel] = &[
    Kernel { name: "6.1", source: Source::Packages { beginning: "6.1.0-", ending: "-amd64" } },
    Kernel { name: "6.12", source: Source::Packages { beginning: "6.12.", ending: "+deb12-amd64" } },
    Kernel { name: "newest", source: Source::Backports },
    Kernel { name: "debug", source: Source::Checked { beforehand: "kernels/debug-6.12" } },
];

/// What the names are.
#[must_use]
pub fn names() -> Vec<&'static str> {
    KERNELS.iter().map(|kernel| kernel.name).collect()
}

/// A kernel's files.
#[derive(Clone, Debug)]
pub struct KernelFiles {
    /// What QEMU boots.
    pub image: PathBuf,
    /// Where `lib/modules/VERSION` lies, for one that is not all built in.
    pub modules: Option<PathBuf>,
    /// As `uname -r` says it, where there are modules.
    pub version: String,
    /// What a module is built against.
    pub build: PathBuf,
    /// The root of another system whose compiler this kernel wants; `build` lies in it.
    pub toolchain: Option<PathBuf>,
}

impl Kernel {
    /// The kernel of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Kernel> {
        KERNELS.iter().find(|kernel| kernel.name == name).copied()
    }

    /// Whether it is one that a machine may not have: it may be gone by now.
    #[must_use]
    pub fn is_optional(&self) -> bool {
        matches!(self.source, Source::Backports)
    }

    /// Whether it has every checker, so that all takes several times as long.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        matches!(self.source, Source::Checked { .. })
    }

    /// Fetches what is missing of its files.
    pub fn files(&self, workspace: &Workspace) -> Result<KernelFiles> {
        let folder = workspace.target.join("lab/kernels").join(self.name);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        match self.source {
            Source::Packages { beginning, ending } => packaged(&folder, beginning, ending),
            Source::Backports => super::newest::files(&folder),
            Source::Checked { beforehand } => match prebuilt(workspace, beforehand, &folder)? {
                Some(files) => Ok(files),
                None => super::checked::files(&folder),
            },
        }
        .with_context(|| format!("getting kernel {}", self.name))
    }
}

/// The newest version that Debian has between a beginning and an ending, and that is no special flavour.
pub(super) fn newest(names: &str, beginning: &str, ending: &str) -> Option<String> {
    let version = |line: &str| {
        let name = line.split_whitespace().next()?.strip_prefix("linux-headers-")?;
        let middle = name.strip_prefix(beginning)?.strip_suffix(ending)?;
        let numbers: Option<Vec<u32>> = middle.split('.').map(|number| number.parse().ok()).collect();
        Some((numbers?, name.to_owned()))
    };
    names.lines().filter_map(version).max().map(|(_, name)| name)
}

fn packaged(folder: &Path, beginning: &str, ending: &str) -> Result<KernelFiles> {
    let known = folder.join("version");
    let files = |version: String| KernelFiles {
        image: folder.join("image/boot").join(format!("vmlinuz-{version}")),
        modules: Some(folder.join("image")),
        build: PathBuf::from("/usr/src").join(format!("linux-headers-{version}")),
        version,
        toolchain: None,
    };
    if let Ok(version) = fs::read_to_string(&known) {
        let files = files(version);
        if files.image.is_file() && files.build.join("Makefile").is_file() {
            return Ok(files);
        }
    }
    apt_get(&["update"])?;
    let mut search = Command::new("apt-cache");
    search.args(["search", "--names-only", "^linux-headers-.*-amd64$"]);
    let version = newest(&capture(search)?, beginning, ending)
        .with_context(|| format!("no package linux-headers-{beginning}*{ending} is to be had"))?;
    apt_get(&["install", "--yes", "--no-install-recommends", &format!("linux-headers-{version}")])?;
    let image = folder.join("image");
    let _ = fs::remove_dir_all(&image);
    unpacked(&format!("linux-image-{version}-unsigned"), folder, &image)?;
    // The package's own scripts would do it; it is not installed.
    let mut depmod = Command::new("/usr/sbin/depmod");
    depmod.arg("-b").arg(&image).arg(&version);
    capture(depmod)?;
    fs::write(&known, &version)?;
    Ok(files(version))
}

/// Downloads a package into `folder` and unpacks it there, without installing it.
pub(super) fn unpacked(package: &str, folder: &Path, into: &Path) -> Result<()> {
    let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let packages = || -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
        Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_package).collect())
    };
    // Of a download that was cut off.
    for old in packages()? {
        fs::remove_file(old)?;
    }
    let mut download = Command::new("apt-get");
    // As whoever we are: the folder may be closed to apt's own user.
    download.args(["-qq", "-o", "APT::Sandbox::User=root", "download", package]).current_dir(folder);
    quietly(download)?;
    let file = packages()?.pop().with_context(|| format!("{package} was not downloaded"))?;
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("-x").arg(&file).arg(into);
    capture(unpack)?;
    fs::remove_file(&file)?;
    Ok(())
}

/// The kernel that was made beforehand, where there is one.
fn prebuilt(workspace: &Workspace, from: &str, folder: &Path) -> Result<Option<KernelFiles>> {
    let beside = workspace.root.parent().context("the tree lies in a folder")?.join("shared").join(from);
    let image = beside.join("bzImage");
    if !image.is_file() {
        return Ok(None);
    }
    let build = folder.join("devel");
    if !build.join("Makefile").is_file() {
        let mut unpack = Command::new("tar");
        unpack.arg("-xJf").arg(beside.join("devel.tar.xz")).arg("-C").arg(folder);
        capture(unpack)?;
        ensure!(build.join("Makefile").is_file(), "devel.tar.xz holds no tree to build against");
    }
    Ok(Some(KernelFiles { image, modules: None, version: String::new(), build, toolchain: None }))
}

impl KernelFiles {
    /// The variant of the Rust object that this kernel wants, by its configuration.
    pub fn variant(&self) -> Result<&'static Variant> {
        let path = self.build.join("include/config/auto.conf");
        let config = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        variant_for(&config).context("no variant of the engine object is what this kernel's configuration wants")
    }
}

fn variant_for(config: &str) -> Option<&'static Variant> {
    let is_set = |name: &str| config.lines().any(|line| line.strip_suffix("=y") == Some(name));
    let rethunk = is_set("CONFIG_MITIGATION_RETHUNK") || is_set("CONFIG_RETHUNK");
    let padding = is_set("CONFIG_CALL_PADDING");
    // A kernel that tracks branches would refuse indirect calls of an object without marks; there are none, but its own
    // checks want the marks. One that does not track them takes either.
    let tracking = is_set("CONFIG_X86_KERNEL_IBT");
    let fits = |variant: &&Variant| {
        variant.return_thunk == rethunk && variant.padding == padding && (variant.branch_tracking || !tracking)
    };
    // One without marks where it will do.
    VARIANTS.iter().filter(fits).min_by_key(|variant| variant.branch_tracking)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_found_by_its_numbers_and_no_flavour_is_taken() {
        let names = "linux-headers-6.12.9+deb12-amd64 - x\nlinux-headers-6.12.117+deb12-amd64 - x\n\
                     linux-headers-6.12.200+deb12-rt-amd64 - x\nlinux-headers-6.1.0-57-amd64 - x\n\
                     linux-headers-6.1.0-99-cloud-amd64 - x";
        assert_eq!(newest(names, "6.12.", "+deb12-amd64").as_deref(), Some("6.12.117+deb12-amd64"));
        assert_eq!(newest(names, "6.1.0-", "-amd64").as_deref(), Some("6.1.0-57-amd64"));
        assert_eq!(newest(names, "7.", "-amd64"), None);
        let backports = "linux-headers-7.2.12+deb13-amd64 - x\nlinux-headers-7.10.1+deb13-amd64 - x\n\
                         linux-headers-7.99.0+deb13-rt-amd64 - x\nlinux-headers-amd64 - x";
        assert_eq!(newest(backports, "", "+deb13-amd64").as_deref(), Some("7.10.1+deb13-amd64"));
    }

    #[test]
    fn a_kernels_configuration_chooses_the_object() {
        let name = |config: &str| variant_for(config).map(|variant| variant.name);
        let rethunk = "CONFIG_X86_KERNEL_IBT=y\nCONFIG_MITIGATION_RETHUNK=y\n";
        assert_eq!(name("# CONFIG_RETHUNK is not set\n"), Some("plain"));
        assert_eq!(name(rethunk), Some("ibt-rethunk"));
        assert_eq!(name(&format!("{rethunk}CONFIG_CALL_PADDING=y\n")), Some("ibt-rethunk-padded"));
        assert_eq!(name("CONFIG_X86_KERNEL_IBT=y\n"), Some("ibt"));
        assert_eq!(name("CONFIG_CALL_PADDING=y\n"), None, "there is none: it says so");
    }
}
