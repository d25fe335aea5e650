//! How a context is to run.

use dmaplane_engine::Limits;
use std::time::Duration;

/// Who runs the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunMode {
    /// A thread polls, and sleeps after `idle` without work.
    Poller {
        /// How long it spins before it sleeps.
        idle: Duration,
    },
    /// Submitting runs the engine on the caller's thread; a sleeping thread serves peers meanwhile.
    Inline,
    /// Only [`Ring::enter`](crate::Ring::enter) runs the engine for this client; a sleeping thread serves peers.
    Enter,
}

/// A context's settings.
#[derive(Clone)]
pub struct Config {
    /// Who runs the engine.
    pub mode: RunMode,
    /// Sizes of its tables.
    pub limits: Limits,
    /// Threads for slow work: zeroing and copies of more than 256 KiB.
    pub workers: usize,
    /// Bytes of freed buffers that are kept for the next ones at most, of those that were allocated to be recycled
    /// (clause BUF-3). What was kept longest goes first; 0 keeps none.
    pub recycled_bytes: u64,
    /// Pre-shared key of 32 bytes for tcp. Without one, tcp stays on loopback and is not encrypted.
    pub key: Option<[u8; 32]>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A key is not for logs.
        let key = self.key.map(|_| "32 bytes");
        let Config { mode, limits, workers, recycled_bytes, key: _ } = self;
        f.debug_struct("Config")
            .field("mode", mode)
            .field("limits", limits)
            .field("workers", workers)
            .field("recycled_bytes", recycled_bytes)
            .field("key", &key)
            .finish()
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            mode: RunMode::Poller { idle: Duration::from_micros(200) },
            limits: Limits { operations: 1 << 13, ..Limits::DEFAULT },
            workers: 2,
            recycled_bytes: 256 << 20,
            key: None,
        }
    }
}
