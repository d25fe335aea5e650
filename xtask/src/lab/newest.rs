//! The newest kernel that Debian has: from the backports of the next release, whose compiler it wants as well.
//!
//! What this machine's own release is made of is not touched: the other release's lists and packages have folders of
//! their own, and its compiler a root of its own, in which modules are built.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::kernel::{KernelFiles, newest};
use crate::process::capture;
use crate::setup::install::quietly;

const RELEASE: &str = "trixie";
/// What building a module for it takes.
const TOOLCHAIN: &str = "gcc-14,make,pahole,libelf1t64,libc6-dev";
/// The compiler that it wants.
pub const COMPILER: &str = "gcc-14";
/// How the names of its packages end behind the version.
const ENDING: &str = "+deb13-amd64";

/// Where packages of this machine's release come from: the other's come from there, too.
fn mirror() -> Result<String> {
    let mut ask = Command::new("apt-get");
    ask.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]);
    let said = capture(ask)?;
    let mut sources = said.lines().filter_map(|line| line.split_once(' '));
    let own =
        sources.find(|(address, release)| !release.contains('-') && address.trim_end_matches('/').ends_with("/debian"));
    Ok(own.context("apt knows no source of Debian's")?.0.to_owned())
}

/// A command of apt's over the other release's lists, which lie in a folder.
fn apt(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    let option = |name: &str, value: &Path| format!("{name}={}", value.display());
    for setting in [
        option("Dir::Etc::sourcelist", &folder.join("sources.list")),
        "Dir::Etc::sourceparts=-".to_owned(),
        option("Dir::State::lists", &folder.join("lists")),
        option("Dir::Cache", &folder.join("cache")),
        // As whoever we are: the folder may be closed to apt's own user.
        "APT::Sandbox::User=root".to_owned(),
    ] {
        command.args(["-o", &setting]);
    }
    command
}

/// Fetches what is missing of it.
pub fn files(folder: &Path) -> Result<KernelFiles> {
    let known = folder.join("version");
    let root = folder.join("root");
    let files = |version: String| KernelFiles {
        image: folder.join("image/usr/lib/modules").join(&version).join("vmlinuz"),
        modules: Some(folder.join("image")),
        build: root.join("usr/src").join(format!("linux-headers-{version}")),
        version,
        toolchain: Some(root.clone()),
    };
    if let Ok(version) = fs::read_to_string(&known) {
        let files = files(version);
        if files.image.is_file() && files.build.join("Makefile").is_file() {
            return Ok(files);
        }
    }
    let mirror = mirror()?;
    make_root(&root, &mirror)?;
    let version = fetch(folder, &root, &mirror)?;
    fs::write(&known, &version)?;
    Ok(files(version))
}

/// The other release's compiler, in a root of its own.
fn make_root(root: &Path, mirror: &str) -> Result<()> {
    if root.join("usr/bin").join(COMPILER).exists() {
        return Ok(());
    }
    let _ = fs::remove_dir_all(root);
    let mut make = Command::new("debootstrap");
    make.args(["--variant=minbase", &format!("--include={TOOLCHAIN}"), RELEASE]).arg(root).arg(mirror);
    quietly(make).with_context(|| format!("making a root of {RELEASE} for its compiler"))
}

/// The newest version's packages, unpacked: what modules are built against into the root, image and modules beside it.
fn fetch(folder: &Path, root: &Path, mirror: &str) -> Result<String> {
    fs::create_dir_all(folder.join("lists/partial"))?;
    fs::create_dir_all(folder.join("cache/archives/partial"))?;
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(folder.join("sources.list"), format!("deb [signed-by={keys}] {mirror} {RELEASE}-backports main\n"))?;
    let mut update = apt("apt-get", folder);
    update.args(["-qq", "update"]);
    quietly(update)?;
    let mut search = apt("apt-cache", folder);
    search.args(["search", "--names-only", "^linux-headers-.*-amd64$"]);
    let version =
        newest(&capture(search)?, "", ENDING).with_context(|| format!("{RELEASE}-backports has no kernel"))?;
    let bare = version.trim_end_matches("-amd64");
    let image = folder.join("image");
    let _ = fs::remove_dir_all(&image);
    for (package, into) in [
        (format!("linux-headers-{version}"), root),
        (format!("linux-headers-{bare}-common"), root),
        (format!("linux-kbuild-{bare}"), root),
        (format!("linux-binary-{version}"), image.as_path()),
        (format!("linux-modules-{version}"), image.as_path()),
    ] {
        unpack(folder, &package, into).with_context(|| format!("getting {package}"))?;
    }
    symlink("usr/lib", image.join("lib"))?;
    let mut depmod = Command::new("/usr/sbin/depmod");
    depmod.arg("-b").arg(&image).arg(&version);
    capture(depmod)?;
    Ok(version)
}

fn unpack(folder: &Path, package: &str, into: &Path) -> Result<()> {
    let downloads = folder.join("downloads");
    let _ = fs::remove_dir_all(&downloads);
    fs::create_dir_all(&downloads)?;
    let mut download = apt("apt-get", folder);
    download.args(["-qq", "download", package]).current_dir(&downloads);
    quietly(download)?;
    let entries: Vec<PathBuf> = fs::read_dir(&downloads)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    ensure!(entries.len() == 1, "{} files were downloaded", entries.len());
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("-x").arg(&entries[0]).arg(into);
    capture(unpack)?;
    fs::remove_dir_all(&downloads)?;
    Ok(())
}
