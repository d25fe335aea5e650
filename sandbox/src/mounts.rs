//! A container's /dev, /proc and /sys, in a mount namespace of the process's own.

use libc::{MS_BIND, MS_NODEV, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT, c_ulong};
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use std::ffi::CStr;

/// The kind of file system, where one is made; binding and remounting do not look at it.
const TMPFS: &CStr = c"tmpfs";

/// Names, major and minor numbers of the devices that every container has.
const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"/dev/null", 1, 3),
    (c"/dev/zero", 1, 5),
    (c"/dev/full", 1, 7),
    (c"/dev/random", 1, 8),
    (c"/dev/urandom", 1, 9),
    (c"/dev/tty", 5, 0),
];

const LINKS: [(&CStr, &CStr); 4] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
];

/// Folders that a container can read and not write.
const READ_ONLY: [&CStr; 5] = [c"/proc/sys", c"/proc/fs", c"/proc/irq", c"/proc/bus", c"/sys"];

/// Files that a container finds empty.
const MASKED_FILES: [&CStr; 6] = [
    c"/proc/interrupts",
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/latency_stats",
    c"/proc/sched_debug",
    c"/proc/timer_list",
];

/// Folders that a container finds empty.
const MASKED_FOLDERS: [&CStr; 4] = [c"/proc/acpi", c"/proc/asound", c"/proc/scsi", c"/sys/firmware"];

/// Leaves this machine's mounts for a container's. Between fork and exec too: system calls and constants only.
pub fn enter() -> Result<(), Errno> {
    // SAFETY: neither namespace is about descriptors; the process has one thread here, which its exec will replace.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWIPC) }?;
    // Nothing of what follows is to be seen outside.
    mount(c"none", c"/", MS_REC | MS_PRIVATE, c"")?;
    devices()?;
    for folder in READ_ONLY {
        let bound = mount(folder, folder, MS_BIND, c"");
        where_it_is(bound.and_then(|()| mount(folder, folder, MS_REMOUNT | MS_BIND | MS_RDONLY, c"")))?;
    }
    for file in MASKED_FILES {
        where_it_is(mount(c"/dev/null", file, MS_BIND, c""))?;
    }
    for folder in MASKED_FOLDERS {
        where_it_is(mount(TMPFS, folder, MS_RDONLY, c"size=0"))?;
    }
    Ok(())
}

fn devices() -> Result<(), Errno> {
    mount(TMPFS, c"/dev", MS_NOSUID, c"mode=755,size=65536k")?;
    let anybody = Mode::from_raw_mode(0o666);
    for (path, major, minor) in DEVICES {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::CharacterDevice, anybody, device)?;
        // The mask of new files' modes has been applied.
        rustix::fs::chmod(path, anybody)?;
    }
    for (target, path) in LINKS {
        rustix::fs::symlink(target, path)?;
    }
    rustix::fs::mkdir(c"/dev/shm", Mode::from_raw_mode(0o1777))?;
    mount(TMPFS, c"/dev/shm", MS_NOSUID | MS_NODEV, c"mode=1777,size=65536k")
}

/// Not every kernel has each of these files.
fn where_it_is(mounted: Result<(), Errno>) -> Result<(), Errno> {
    match mounted {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn mount(source: &CStr, target: &CStr, flags: c_ulong, options: &CStr) -> Result<(), Errno> {
    // SAFETY: four strings that end, which the kernel copies.
    let result =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), TMPFS.as_ptr(), flags, options.as_ptr().cast()) };
    match result {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}
