//! Whether this process gets an io_uring. Containers' default seccomp profiles forbid it, some hosts turn it off, and
//! kernels may be built without it. It is found out by asking for one, since no file tells of a seccomp filter.

use dmaplane_ring::abi::Errno;
use std::sync::OnceLock;

/// Where the kernel says who may have one: 0 all, 1 a group, 2 nobody. Not there before 6.6.
const DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

/// Why there is no io_uring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoIoUring {
    /// The call is refused although the kernel's setting allows it.
    #[error("io_uring_setup: EPERM: a seccomp filter forbids it, as containers' default profiles do")]
    Forbidden,
    /// The kernel's setting.
    #[error("io_uring_setup: EPERM: kernel.io_uring_disabled = {level}")]
    Disabled {
        /// 1: for all but a group. 2: for everybody.
        level: u32,
    },
    /// The kernel has none.
    #[error("io_uring_setup: ENOSYS: this kernel has no io_uring, or a seccomp filter says so")]
    Absent,
    /// Anything else: no memory, no descriptors.
    #[error("io_uring_setup: {errno}")]
    Failed {
        /// What the call came to.
        errno: Errno,
    },
}

/// Asks for a small io_uring, once in the life of this process: neither a filter nor the want of one goes away.
pub fn io_uring_support() -> Result<(), NoIoUring> {
    static SUPPORT: OnceLock<Result<(), NoIoUring>> = OnceLock::new();
    SUPPORT.get_or_init(ask).clone()
}

fn ask() -> Result<(), NoIoUring> {
    let Err(error) = io_uring::IoUring::new(2) else { return Ok(()) };
    let level = std::fs::read_to_string(DISABLED).ok().and_then(|text| text.trim().parse().ok());
    Err(reason(error.raw_os_error().unwrap_or(libc::EIO), level.unwrap_or(0)))
}

/// What an errno of io_uring_setup means under that setting.
fn reason(errno: i32, level: u32) -> NoIoUring {
    match errno {
        libc::EPERM if level > 0 => NoIoUring::Disabled { level },
        libc::EPERM => NoIoUring::Forbidden,
        libc::ENOSYS => NoIoUring::Absent,
        other => NoIoUring::Failed { errno: Errno::from_raw(other) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_who_refused() {
        assert_eq!(reason(libc::EPERM, 0), NoIoUring::Forbidden);
        assert_eq!(reason(libc::EPERM, 2), NoIoUring::Disabled { level: 2 });
        assert_eq!(reason(libc::ENOSYS, 0), NoIoUring::Absent);
        let full = reason(libc::ENOMEM, 2);
        assert_eq!(full, NoIoUring::Failed { errno: Errno::ENOMEM });
        assert!(full.to_string().contains("ENOMEM"), "{full}");
    }

    /// The answer is the kernel's: a ring can be had exactly when it says so.
    #[test]
    fn what_is_said_is_what_is_got() {
        assert_eq!(io_uring_support().is_ok(), io_uring::IoUring::new(2).is_ok());
    }
}
