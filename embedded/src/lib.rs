//! The embedded host: dmaplane in plain userspace, on any machine, without privileges.
//!
//! [`Context`] owns the engine and everything that acts for it. [`Ring`] is a thread's way in: push SQEs, reap CQEs.
//! The rooms: `memory` (regions, placement, copies: the unsafe code), `host` (what the engine asks for), `fabric` (how
//! bytes and messages reach peers), `runner` (who runs the engine when), `worker` (slow work).
#![deny(missing_docs)]

mod config;
mod context;
mod fabric;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod inlet;
mod io_uring_support;
mod memory;
mod ring;
mod runner;
mod storage;
mod worker;

pub use config::{Config, RunMode};
pub use context::{Context, ContextError};
pub use dmaplane_engine::{Limits, Usage};
pub use fabric::tcp::{TcpBackend, tcp_backend};
pub use io_uring_support::{NoIoUring, io_uring_support};
pub use memory::{Mapping, Placement, placement_support};
pub use ring::Ring;
