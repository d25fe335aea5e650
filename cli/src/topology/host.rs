//! What the kernel offers to this process.

use crate::root::Root;
use serde::Serialize;
use std::path::{Path, PathBuf};

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
pub fn io_uring() -> Support {
    let reason = dmaplane::io_uring_support().err().map(|why| why.to_string());
    Support { available: reason.is_none(), reason }
}

/// Whether memory can be placed on a node and its place be verified.
pub fn placement() -> Support {
    match dmaplane::placement_support() {
        dmaplane::Placement::Verifiable => Support { available: true, reason: None },
        dmaplane::Placement::Unverifiable { reason } => Support { available: false, reason: Some(reason) },
    }
}

/// What the kernel lets this process do: containers take some of it away.
#[derive(Debug, PartialEq, Serialize)]
pub struct Confinement {
    /// off, strict or filter. None: the kernel does not say.
    pub seccomp: Option<&'static str>,
    /// Installed one upon the other.
    pub seccomp_filters: Option<u32>,
    pub no_new_privileges: bool,
    /// As in /proc/self/status, hexadecimal.
    pub capabilities: Option<String>,
}

impl Confinement {
    pub fn of(root: &Root) -> Confinement {
        let status = root.text("proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(value.trim().to_owned())
        };
        let modes = ["off", "strict", "filter"];
        Confinement {
            seccomp: field("Seccomp").and_then(|mode| modes.get(mode.parse::<usize>().ok()?).copied()),
            seccomp_filters: field("Seccomp_filters").and_then(|count| count.parse().ok()),
            no_new_privileges: field("NoNewPrivs").as_deref() == Some("1"),
            capabilities: field("CapEff"),
        }
    }
}

/// Limits on memory that is shared or pinned. None: unlimited, or not told.
#[derive(Debug, PartialEq, Serialize)]
pub struct Limits {
    /// Of the container's or user's control group, or one above it: memfds are charged to it.
    pub cgroup_memory_bytes: Option<u64>,
    /// Processors' worth of time that the same may use: pollers are counted.
    pub cgroup_cpus: Option<f64>,
    /// Size of /dev/shm, which dmaplane does not use (it has memfds) but others do.
    pub shm_file_bytes: Option<u64>,
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
            cgroup_memory_bytes: groups(root).filter_map(|group| root.number(group.join("memory.max"))).min(),
            cgroup_cpus: groups(root).filter_map(|group| cpus(&root.text(group.join("cpu.max"))?)).reduce(f64::min),
            shm_file_bytes: rustix::fs::statfs(root.path("dev/shm"))
                .ok()
                .and_then(|system| system.f_blocks.checked_mul(u64::try_from(system.f_bsize).ok()?)),
            locked_memory_bytes: soft("Max locked memory"),
            open_files: soft("Max open files"),
            file_bytes: soft("Max file size"),
            system_v_segment_bytes: root.number("proc/sys/kernel/shmmax").filter(|&bytes| bytes < NO_LIMIT),
        }
    }
}

/// The folders of this process's control group (version 2) and those above it. A container has but the first.
fn groups(root: &Root) -> impl Iterator<Item = PathBuf> {
    let top = Path::new("sys/fs/cgroup");
    let ours = root.text("proc/self/cgroup").unwrap_or_default();
    let ours = ours.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let folders: Vec<PathBuf> = top.join(ours).ancestors().map(Path::to_path_buf).collect();
    folders.into_iter().filter(move |folder| folder.starts_with(top))
}

/// `50000 100000` of cpu.max is half a processor; `max 100000` is no limit.
fn cpus(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}
