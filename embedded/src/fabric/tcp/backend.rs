//! What tcp's threads learn of their sockets by: an io_uring where one may be had, epoll elsewhere.

use crate::io_uring_support::io_uring_support;
use std::fmt;
use std::sync::OnceLock;

/// Chooses the backend by hand, for tests and comparisons: `epoll` or `io_uring`.
const VARIABLE: &str = "DMAPLANE_TCP_BACKEND";

/// How contexts of this process wait for their tcp sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TcpBackend {
    /// Readiness comes through completion queues in memory: a thread that polls makes no system call to see it.
    IoUring,
    /// Where containers' seccomp profiles, the kernel or its settings deny an io_uring.
    Epoll,
}

impl fmt::Display for TcpBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TcpBackend::IoUring => "io_uring",
            TcpBackend::Epoll => "epoll",
        })
    }
}

/// Which backend this process's tcp has: found out once, when first asked for or when the first peer connects.
///
/// ```
/// let backend = dmaplane_embedded::tcp_backend();
/// assert!(["io_uring", "epoll"].contains(&backend.to_string().as_str()));
/// ```
pub fn tcp_backend() -> TcpBackend {
    static BACKEND: OnceLock<TcpBackend> = OnceLock::new();
    *BACKEND.get_or_init(|| {
        let wanted = std::env::var(VARIABLE).unwrap_or_default();
        let probe = || io_uring_support().map_err(|error| error.to_string());
        let probe = || probe().and_then(|()| super::uring::Uring::new().map(drop).map_err(|error| error.to_string()));
        let (backend, complaint) = choose(&wanted, probe);
        if let Some(complaint) = complaint {
            tracing::warn!("{complaint}");
        }
        tracing::debug!(%backend, "tcp");
        backend
    })
}

/// What a wish and the system make of it, and what there is to complain of.
fn choose(wanted: &str, probe: impl FnOnce() -> Result<(), String>) -> (TcpBackend, Option<String>) {
    match wanted {
        "epoll" => (TcpBackend::Epoll, None),
        "" => (if probe().is_ok() { TcpBackend::IoUring } else { TcpBackend::Epoll }, None),
        "io_uring" => match probe() {
            Ok(()) => (TcpBackend::IoUring, None),
            Err(error) => {
                (TcpBackend::Epoll, Some(format!("{VARIABLE}=io_uring cannot be had ({error}): tcp uses epoll")))
            }
        },
        other => {
            let (backend, _) = choose("", probe);
            (backend, Some(format!("{VARIABLE}={other} is neither epoll nor io_uring: tcp uses {backend}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_io_uring_leaves_epoll_and_a_wish_that_fails_is_said() {
        let refused = || Err("EPERM".to_owned());
        assert_eq!(choose("", || Ok(())), (TcpBackend::IoUring, None));
        assert_eq!(choose("", refused), (TcpBackend::Epoll, None));
        assert_eq!(choose("epoll", || Ok(())), (TcpBackend::Epoll, None));
        assert_eq!(choose("io_uring", || Ok(())), (TcpBackend::IoUring, None));
        let (backend, complaint) = choose("io_uring", refused);
        assert!(backend == TcpBackend::Epoll && complaint.unwrap().contains("EPERM"));
        let (backend, complaint) = choose("kqueue", refused);
        assert!(backend == TcpBackend::Epoll && complaint.unwrap().contains("kqueue"));
    }
}
