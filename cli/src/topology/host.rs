//! What the kernel offers to this process.

use super::root::Root;
use serde::Serialize;

/// The kernel's default is close to 2^64, which means none.
const NO_LIMIT: u64 = 1 << 60;

#[derive(Debug, PartialEq, Serialize)]
pub struct TransparentHugePages {
    /// always, madvise or never: of anonymous memory.
    pub anonymous: Option<String>,
    /// The same of memfds.
    pub shared: Option<String>,
}

impl TransparentHugePages {
    pub fn of(root: &Root) -> TransparentHugePages {
        // `always [madvise] never`
        let chosen = |file: &str| {
            let text = root.text(format!("sys/kernel/mm/transparent_hugepage/{file}"))?;
            Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
        };
        TransparentHugePages { anonymous: chosen("enabled"), shared: chosen("shmem_enabled") }
    }
}

#[derive(Debug, PartialEq, Serialize)]
pub struct DeviceFile {
    pub path: String,
    pub present: bool,
    /// By this process, for reading and writing.
    pub usable: bool,
}

impl DeviceFile {
    pub fn of(root: &Root, below: &str) -> DeviceFile {
        let path = root.path(below);
        let access = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
        DeviceFile {
            path: format!("/{below}"),
            present: path.exists(),
            usable: rustix::fs::access(&path, access).is_ok(),
        }
    }
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Support {
    pub available: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// Whether this process gets an io_uring: it asks for a small one.
pub fn io_uring(root: &Root) -> Support {
    match io_uring::IoUring::new(2) {
        Ok(_) => Support { available: true, reason: None },
        Err(error) => {
            let disabled = root.number("proc/sys/kernel/io_uring_disabled").filter(|&level| level > 0);
            let setting = disabled.map(|level| format!(" (kernel.io_uring_disabled = {level})")).unwrap_or_default();
            Support { available: false, reason: Some(format!("io_uring_setup: {error}{setting}")) }
        }
    }
}

/// Whether memory can be placed on a node and its place be verified.
pub fn placement() -> Support {
    match dmaplane::placement_support() {
        dmaplane::Placement::Verifiable => Support { available: true, reason: None },
        dmaplane::Placement::Unverifiable { reason } => Support { available: false, reason: Some(reason.clone()) },
    }
}

/// Limits on memory that is shared or pinned. None: unlimited, or not told.
#[derive(Debug, PartialEq, Serialize)]
pub struct Limits {
    /// Of the container's or user's control group: memfds are charged to it.
    pub cgroup_memory_bytes: Option<u64>,
    /// RLIMIT_MEMLOCK: what RDMA may pin.
    pub locked_memory_bytes: Option<u64>,
    /// RLIMIT_NOFILE: a buffer takes a descriptor.
    pub open_files: Option<u64>,
    /// RLIMIT_FSIZE: no memfd and no file may be larger.
    pub file_bytes: Option<u64>,
    /// kernel.shmmax: of System V segments, which dmaplane does not use but others do.
    pub system_v_segment_bytes: Option<u64>,
}

impl Limits {
    pub fn of(root: &Root) -> Limits {
        let limits = root.text("proc/self/limits").unwrap_or_default();
        let soft = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Limits {
            cgroup_memory_bytes: root.number("sys/fs/cgroup/memory.max"),
            locked_memory_bytes: soft("Max locked memory"),
            open_files: soft("Max open files"),
            file_bytes: soft("Max file size"),
            system_v_segment_bytes: root.number("proc/sys/kernel/shmmax").filter(|&bytes| bytes < NO_LIMIT),
        }
    }
}
