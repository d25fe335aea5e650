//! The first file system of a virtual machine: busybox, the few modules that the host's files need, and two scripts.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::kernel::KernelFiles;
use crate::process::capture;

/// What the machine prints when its own first program runs: before it, a boot that fails is the emulator's.
pub const STARTED: &str = "dmaplane-lab: started";
/// Before the exit status of the command.
pub const EXIT: &str = "dmaplane-lab: exit ";
/// Around the kernel's messages, and the leaks that it found.
pub const MESSAGES: &str = "dmaplane-lab: messages";
/// The end of them.
pub const END: &str = "dmaplane-lab: end";

/// Modules without which a stock kernel cannot reach the host's files.
const MODULES: &[&str] = &["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// Writes an archive in the format `newc` that cpio and the kernel know.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn put(&mut self, name: &str, mode: u32, contents: &[u8]) {
        self.entries += 1;
        let numbers = [self.entries, mode, 0, 0, 1, 0, contents.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend(b"070701");
        for number in numbers {
            self.bytes.extend(format!("{number:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn folder(&mut self, name: &str) {
        self.put(name, 0o040_755, b"");
    }

    fn program(&mut self, name: &str, contents: &[u8]) {
        self.put(name, 0o100_755, contents);
    }

    fn end(mut self) -> Vec<u8> {
        self.put("TRAILER!!!", 0, b"");
        self.bytes
    }
}

/// The first program: takes the host's files as root, read-only under a layer that forgets, and runs the script there.
fn init(modules: &[String]) -> String {
    let inserts: String = modules.iter().map(|name| format!("$B insmod /modules/{name} || echo no {name}\n")).collect();
    format!(
        "#!/bin/busybox sh\n\
         B=/bin/busybox\n\
         $B mount -t proc proc /proc\n$B mount -t sysfs sysfs /sys\n$B mount -t devtmpfs dev /dev\n\
         echo '{STARTED}'\n\
         {inserts}\
         $B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose host /host\n\
         $B mount -t tmpfs layer /layer\n$B mkdir /layer/upper /layer/work\n\
         $B mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /tree\n\
         $B mkdir -p /tree/lab /tree/proc /tree/sys /tree/dev /tree/tmp\n\
         for it in proc sys dev; do $B mount --move /$it /tree/$it; done\n\
         $B mount -t tmpfs tmp /tree/tmp\n$B mkdir -p /tree/dev/shm\n$B mount -t tmpfs shm /tree/dev/shm\n\
         $B cp /run.sh /tree/lab/run.sh\n$B cp /bin/busybox /tree/lab/busybox\n\
         exec $B switch_root /tree /bin/sh /lab/run.sh\n"
    )
}

/// The script: runs the command in the folder, then tells its status, the kernel's messages and leaks, and ends.
///
/// What is younger than five seconds is no leak yet, and what has changed since the scan before is none: the second
/// scan begins six seconds after the first.
fn script(folder: &Path, modules: Option<&Path>, command: &str) -> String {
    let bind = modules.map_or_else(String::new, |modules| {
        let from = modules.join("lib/modules");
        format!("mount --bind {} /lib/modules\n", quoted(&from.display().to_string()))
    });
    format!(
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp DMAPLANE_LAB=1\n\
         {bind}\
         mount -t debugfs debug /sys/kernel/debug 2>/dev/null\n\
         [ -e /sys/kernel/debug/kmemleak ] && echo scan=off > /sys/kernel/debug/kmemleak\n\
         ip link set lo up 2>/dev/null\n\
         cd {}\n\
         /bin/sh -c {}\n\
         status=$?\n\
         cd /\n\
         echo '{MESSAGES}'\n\
         leaks=/sys/kernel/debug/kmemleak\n\
         if [ -e $leaks ] || zcat /proc/config.gz 2>/dev/null | grep -q '^CONFIG_DEBUG_KMEMLEAK=y'; then\n\
         sleep 6 &\n\
         echo scan > $leaks && wait && echo scan > $leaks && cat $leaks || echo 'BUG: leaks were not looked for'\n\
         fi\n\
         errors=$(cat /sys/kernel/debug/dma-api/error_count 2>/dev/null)\n\
         [ \"${{errors:-0}}\" = 0 ] || echo \"DMA-API: $errors uses were wrong\"\n\
         dmesg --color=never\n\
         echo '{END}'\n\
         echo '{EXIT}'$status\n\
         /lab/busybox poweroff -f\n",
        quoted(&folder.display().to_string()),
        quoted(command)
    )
}

/// A word for the shell.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Makes the archive for one run of a command.
pub fn make(files: &KernelFiles, folder: &Path, command: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for name in ["bin", "proc", "sys", "dev", "host", "layer", "tree", "modules"] {
        archive.folder(name);
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).is_file());
    let busybox = fs::read(busybox.context("busybox is not there (package busybox-static)")?)?;
    archive.program("bin/busybox", &busybox);
    let mut modules = Vec::new();
    if let Some(root) = &files.modules {
        for (name, contents) in modules_with_dependencies(root, &files.version)? {
            archive.program(&format!("modules/{name}"), &contents);
            modules.push(name);
        }
    }
    archive.program("init", init(&modules).as_bytes());
    archive.program("run.sh", script(folder, files.modules.as_deref(), command).as_bytes());
    Ok(archive.end())
}

/// What has to be inserted, in order: each module after what it depends on.
fn modules_with_dependencies(root: &Path, version: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let mut modules: Vec<(String, Vec<u8>)> = Vec::new();
    let known = root.join("lib/modules").join(version).join("modules.dep");
    let known = fs::read_to_string(&known).with_context(|| format!("reading {}", known.display()))?;
    for wanted in MODULES {
        // Built in, then: not every kernel's packages say what is.
        if !known.lines().any(|line| line.split(':').next().is_some_and(|path| path.contains(&format!("/{wanted}.ko"))))
        {
            continue;
        }
        let mut modprobe = Command::new("/usr/sbin/modprobe");
        modprobe.arg("-d").arg(root).args(["-S", version, "--show-depends", wanted]);
        for line in capture(modprobe)?.lines() {
            let Some(path) = line.trim().strip_prefix("insmod ") else { continue };
            let path = Path::new(path.trim());
            let file = path.file_name().and_then(|name| name.to_str()).context("a module has a name")?;
            let name = file.trim_end_matches(".xz").to_owned();
            if modules.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let contents = match path.extension().and_then(|extension| extension.to_str()) {
                Some("ko") => fs::read(path)?,
                Some("xz") => {
                    let output = Command::new("xz").arg("-dc").arg(path).output().context("starting xz")?;
                    ensure!(output.status.success(), "xz cannot unpack {}", path.display());
                    output.stdout
                }
                other => bail!("{} is packed as {other:?}, which is not known here", path.display()),
            };
            modules.push((name, contents));
        }
    }
    Ok(modules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_kernel_reads() {
        let mut archive = Archive::default();
        archive.program("init", b"12345");
        let bytes = archive.end();
        assert!(bytes.starts_with(b"07070100000001000081ED"), "magic, number, mode");
        // Header 110, name 5, padded to 116; five bytes, padded to 124.
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(&bytes[116..121], b"12345");
        assert_eq!(&bytes[124..130], b"070701");
        assert!(bytes.len().is_multiple_of(4));
    }

    #[test]
    fn a_command_reaches_the_shell_as_it_is() {
        assert_eq!(quoted("it's $HOME"), "'it'\\''s $HOME'");
        let script = script(Path::new("/tree"), None, "echo 'a b'");
        assert!(script.contains("/bin/sh -c 'echo '\\''a b'\\'''"));
    }
}
