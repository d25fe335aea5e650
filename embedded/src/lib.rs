//! The embedded host: dmaplane in plain userspace, on any machine, without privileges.
//!
//! [`Context`] owns the engine and everything that acts for it. [`Ring`] is a thread's way in: push SQEs, reap CQEs.
//! The rooms: `memory` (regions, placement, copies: the unsafe code), `host` (what the engine asks for), `fabric` (how
//! bytes and messages reach peers), `runner` (who runs the engine when), `worker` (slow work).
#![deny(missing_docs)]

mod config;
mod context;
mod fabric;
mod host;
mod memory;
mod ring;
mod runner;
mod storage;
mod worker;

/// Ways into the parsers, for fuzzing. Not part of the API.
#[doc(hidden)]
pub mod fuzzing {
    /// Decodes one lane's bytes of the tcp wire as a connection does; `None`: they break the protocol.
    pub fn tcp_wire(control: bool, bytes: &[u8]) -> Option<usize> {
        crate::fabric::tcp::wire::decode_all(control, bytes).ok()
    }
}

pub use config::{Config, RunMode};
pub use context::{Context, ContextError};
pub use dmaplane_engine::{Limits, Usage};
pub use memory::{Mapping, Placement, placement_support};
pub use ring::Ring;
