//! The fabric between processes of one host and one user (clauses SHM-1 to SHM-10).
//!
//! Each side owns an area of shared memory that only it can write: its outgoing entries, its flags, how far it has
//! read. Bytes never go through it: the receiver copies them, straight out of the sender's sealed memory. A socket
//! carries descriptors, and tells when the peer is dead.

mod entry;
mod handshake;
mod link;
mod memory;

pub(crate) use entry::{Entry, FragmentSource, Kind};
pub(crate) use handshake::{connect, listen, serve_incoming};
pub(crate) use link::{Link, NUMBERS_USED_UP, settle};
pub(crate) use memory::ENTRIES;
