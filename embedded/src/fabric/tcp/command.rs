//! What the host asks of the I/O side.

use super::connection::Sockets;
use super::receive::Landing;
use super::report::Load;
use super::send::OutFrame;
use dmaplane_ring::abi::Handle;
use std::sync::Arc;

/// What the host asks for. All but `Open` are for connections that may have ended meanwhile, and are of no effect then.
#[derive(Debug)]
pub(crate) enum Command {
    /// Takes a connection over.
    Open { connection: u64, peer: Handle, load: Arc<Load>, sockets: Box<Sockets> },
    /// Sends records on the control lane.
    Say { connection: u64, bytes: Vec<u8> },
    /// Sends a record on the data lane.
    Frame { connection: u64, frame: OutFrame },
    /// A READ is about to be asked for.
    Expect { connection: u64, op: u64, landing: Landing },
    /// A body that waits may land.
    Admit { connection: u64, body: u64, landing: Landing },
    /// Nobody wants a body that waits.
    Refuse { connection: u64, body: u64 },
    /// The host has taken messages, or stopped a transfer: look again.
    Look { connection: u64 },
    /// Ends a connection.
    Close { connection: u64 },
}

impl Command {
    pub(crate) fn connection(&self) -> u64 {
        match *self {
            Command::Open { connection, .. }
            | Command::Say { connection, .. }
            | Command::Frame { connection, .. }
            | Command::Expect { connection, .. }
            | Command::Admit { connection, .. }
            | Command::Refuse { connection, .. }
            | Command::Look { connection }
            | Command::Close { connection } => connection,
        }
    }

    /// Whether only the I/O thread may do it: it brings or ends a connection, which others then know nothing of.
    pub(crate) fn is_for_the_thread(&self) -> bool {
        matches!(self, Command::Open { .. } | Command::Close { .. })
    }
}
