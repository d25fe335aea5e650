//! A container's /dev, /proc and /sys, in a mount namespace of the process's own.

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount};
use rustix::thread::UnshareFlags;
use std::ffi::CStr;

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
    mount_change(c"/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    devices()?;
    for folder in READ_ONLY {
        where_it_is(
            mount_bind(folder, folder).and_then(|()| mount_remount(folder, MountFlags::BIND | MountFlags::RDONLY, c"")),
        )?;
    }
    for file in MASKED_FILES {
        where_it_is(mount_bind(c"/dev/null", file))?;
    }
    for folder in MASKED_FOLDERS {
        where_it_is(mount(c"tmpfs", folder, c"tmpfs", MountFlags::RDONLY, c"size=0"))?;
    }
    Ok(())
}

fn devices() -> Result<(), Errno> {
    mount(c"tmpfs", c"/dev", c"tmpfs", MountFlags::NOSUID, c"mode=755,size=65536k")?;
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
    mount(c"shm", c"/dev/shm", c"tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=1777,size=65536k")
}

/// Not every kernel has each of these files.
fn where_it_is(mounted: Result<(), Errno>) -> Result<(), Errno> {
    match mounted {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
