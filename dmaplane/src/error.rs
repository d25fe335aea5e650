//! What can go wrong, one variant per broken rule.

use dmaplane_embedded::ContextError;
use dmaplane_ring::abi::Errno;
use dmaplane_ring::build::BuildError;
use std::time::Duration;

/// Why something failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The context could not be set up, or a call to it failed.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The system refused something.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// A call to the kernel driver failed.
    #[error("{what}: {}", explain_call(source))]
    Device {
        /// What was asked for.
        what: String,
        /// What the driver said.
        source: std::io::Error,
    },
    /// A value that no SQE may hold.
    #[error("{what}: {source}")]
    Value {
        /// What was asked for.
        what: &'static str,
        /// What is wrong with it.
        source: BuildError,
    },
    /// The operation ended with an errno.
    #[error("{what}: {}", explain(*errno))]
    Operation {
        /// What was asked for.
        what: &'static str,
        /// Its CQE's errno.
        errno: Errno,
    },
    /// Strict placement where the system lets nobody place pages or see where they lie, as containers do by default.
    #[error(
        "{what}: strict placement cannot be had or verified here ({reason}): ask for `PagePlacement::Preferred`, or \
         let the container call mbind and get_mempolicy, as with the capability SYS_NICE"
    )]
    PlacementForbidden {
        /// What was asked for.
        what: &'static str,
        /// What the system refuses.
        reason: String,
    },
    /// There is no device of this name: [`node_of_device`](crate::node_of_device).
    #[error(
        "no device is called {name:?}: name a PCI address, a network interface, an RDMA device or a device's node, as \
         `dmaplane topology` lists them"
    )]
    NoDevice {
        /// The name.
        name: String,
    },
    /// An object of another context, or of another plane, whose handles mean other things here.
    #[error("{what}: an object of another context; use it with the plane that made it")]
    Foreign {
        /// What was asked for.
        what: &'static str,
    },
    /// The plane takes nothing more: the runtime that drove it was shut down.
    #[error("{what}: the plane is closed, with the runtime that it was opened in; open another one")]
    Closed {
        /// What was asked for.
        what: &'static str,
    },
    /// Nothing came in time.
    #[error("{what}: nothing came within {waited:?}")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        waited: Duration,
    },
    /// A range that the buffer does not have.
    #[error(
        "{what}: bytes {offset}..{end} are outside of a buffer of {length} bytes",
        end = offset.saturating_add(*asked)
    )]
    Range {
        /// What was asked for.
        what: &'static str,
        /// Where it starts, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        asked: u64,
        /// The buffer's length, in bytes.
        length: u64,
    },
}

impl Error {
    /// The errno of an operation that ended with one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Operation { errno, .. } => Some(*errno),
            Error::PlacementForbidden { .. } => Some(Errno::EOPNOTSUPP),
            Error::Context(error) => error.errno(),
            Error::System(error) | Error::Device { source: error, .. } => error.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }

    /// Whether the peer's connection is what ended.
    pub fn is_disconnect(&self) -> bool {
        matches!(self.errno(), Some(Errno::ECONNRESET | Errno::ENOTCONN))
    }
}

/// What the driver said, in words, for people.
fn explain_call(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "the module dmaplane is not loaded".to_owned(),
        std::io::ErrorKind::PermissionDenied => {
            format!("who may open it is in the group dmaplane; a poller wants CAP_SYS_NICE ({error})")
        }
        _ => match error.raw_os_error() {
            Some(errno) => explain(Errno::from_raw(errno)),
            None => error.to_string(),
        },
    }
}

/// The errno in words, for people.
fn explain(errno: Errno) -> String {
    let words = match errno {
        Errno::EKEYREVOKED => "the lease was revoked",
        Errno::EKEYEXPIRED => "the lease's time to live is over",
        Errno::EKEYREJECTED => "the key or token was not accepted",
        Errno::ECONNRESET => "the peer's connection ended",
        Errno::ENOTCONN => "the peer is not connected",
        Errno::ECONNREFUSED => "nobody listens at that address",
        Errno::EADDRINUSE => "somebody listens at that address already",
        Errno::ESTALE => "the handle is of an earlier generation",
        Errno::EBUSY => "it is leased or in use",
        Errno::ENOBUFS => "too many operations wait on this ring: reap, or use a longer CQ",
        Errno::EAGAIN => "no credit, and the operation was not to wait",
        Errno::ENOMEM => "no memory for it",
        Errno::ENFILE => "a table of the context is full: raise its limits",
        Errno::EPROTO => "the peer speaks another protocol, or broke this one",
        Errno::ETIMEDOUT => "the deadline passed",
        Errno::EACCES => "not allowed",
        Errno::ERANGE => "outside of the object",
        Errno::EBADMSG => "damaged on its way",
        other => return format!("{other}"),
    };
    format!("{words} ({errno})")
}
