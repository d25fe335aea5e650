//! Buffers that are allocated, placed, shared, leased and safe to reuse.
//!
//! A [`Plane`] is one thread's way to a context: it allocates [`Buffer`]s, meets [`Peer`]s, grants leases and moves
//! bytes. Ownership follows the hardware: a `Buffer` gives slices; granting a lease consumes it into [`Leased`], which
//! gives none, since a peer may write there; the revoke gives the `Buffer` back, and from then on nothing lands in it.
//!
//! ```
//! use dmaplane::{Config, Plane, Rights};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), dmaplane::Error> {
//! let directory = tempfile::tempdir()?;
//! let address = format!("shm:{}", directory.path().join("decode").display());
//! let wait = Duration::from_secs(5);
//!
//! // The receiver leases 4 KiB to whoever shows the token.
//! let mut decode = Plane::open(Config::default())?;
//! let (listener, _) = decode.listen(&address)?;
//! let mut prefill = Plane::open(Config::default())?;
//! let to_decode = prefill.connect(&address, wait)?;
//! let from_prefill = decode.accept(&listener, wait)?;
//! let leased = decode.alloc(4096)?;
//! let leased = decode.grant(leased, Rights::WRITE)?;
//! let token = decode.token(&leased)?;
//!
//! // The sender claims the lease and writes, with 32 bits that arrive after the last byte.
//! let import = prefill.import(&to_decode, &token)?;
//! let mut source = prefill.alloc(4096)?;
//! source.as_mut_slice()[..5].copy_from_slice(b"hello");
//! prefill.write_imm(&source, 0, &import, 0, 5, 42)?;
//!
//! // The receiver hears of it, ends the lease, and owns the memory again.
//! assert_eq!(decode.receive(&from_prefill, wait)?.immediate, Some(42));
//! let buffer = decode.revoke(leased)?;
//! assert_eq!(&buffer.as_slice()[..5], b"hello");
//! assert!(prefill.write_imm(&source, 0, &import, 0, 5, 43).is_err(), "the lease is over");
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `tokio` the same operations are futures: `asynchronous`.
#![deny(missing_docs)]

#[cfg(feature = "tokio")]
pub mod asynchronous;
mod buffer;
mod error;
mod host;
mod mailbox;
mod near;
mod objects;
mod plane;
mod transfer;

pub use buffer::{Buffer, Import, LeaseTarget, Leased, List};
pub use dmaplane_embedded::{
    Config, Context, Limits, NoIoUring, Placement, RunMode, TcpBackend, Usage, io_uring_support, placement_support,
    tcp_backend,
};
pub use dmaplane_ring::abi::{Cqe, Errno, IndexPair, MAX_LIST_SEGMENTS, MAX_OPERATION_BYTES, Rights, Run};
pub use dmaplane_ring::build::PagePlacement;
pub use error::Error;
pub use mailbox::Arrival;
pub use near::node_of_device;
pub use plane::Plane;
pub use plane::connection::{Listener, Peer};
pub use plane::placement::PagesOnNode;
pub use plane::started::{Claim, Connecting};
pub use transfer::{Notification, Operation};
