//! Starts programs as Docker starts them by default, so that it can be tested, without Docker, that dmaplane works in
//! a container: no io_uring, no mbind, no move_pages, few capabilities, little locked memory.
//!
//! ```no_run
//! use dmaplane_sandbox::Sandbox;
//! use std::process::Command;
//!
//! let mut command = Command::new("dmaplane");
//! command.arg("topology");
//! Sandbox::new()?.confine(&mut command);
//! assert!(command.status()?.success());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Imitated: the seccomp profile (`profile`); the capabilities; RLIMIT_MEMLOCK of 64 KiB and RLIMIT_NOFILE of 1,024;
//! and, where this process may make a mount namespace ([`Sandbox::has_own_mounts`]), a /dev of Docker's own few files
//! with 64 MiB of /dev/shm, /proc/sys and /sys that cannot be written, the files of /proc that Docker hides, and a
//! namespace of System V and POSIX IPC.
//!
//! Not imitated: an image and its root folder; namespaces of processes, users and the network; control groups, so that
//! there is no memory limit; AppArmor and SELinux; the calls of 32-bit programs, which Docker's profile allows, while a
//! program that makes one is killed here. One thing is stricter than Docker: no new privileges can be had
//! (PR_SET_NO_NEW_PRIVS), as an unprivileged process needs to install a filter. Kubernetes' default, no seccomp profile
//! at all, is laxer; its `RuntimeDefault` is containerd's profile, which is kept like Docker's.
#![deny(missing_docs)]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod capabilities;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod filter;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod mounts;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod profile;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod sandbox;
mod skip;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use sandbox::{Sandbox, SandboxError};
pub use skip::skip;
