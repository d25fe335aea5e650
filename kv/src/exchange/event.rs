//! What an exchange says.

use crate::BlockTable;
use crate::transfer::{Moved, TransferError};
use core::fmt;

/// A connection of an exchange. One that comes back after its end is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub(super) u64);

/// A transfer of an exchange, of whatever kind. None is given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

impl fmt::Display for Ticket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ticket {}", self.0)
    }
}

/// Something that has happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer is there.
    Connected {
        /// The connection.
        peer: PeerId,
        /// Who it is.
        name: String,
    },
    /// A peer has gone. What was under way with it fails, with this event or, where something of ours was with it,
    /// soon. Who was dialled is dialled again.
    Disconnected {
        /// The connection.
        peer: PeerId,
        /// Who it was.
        name: String,
        /// How it ended.
        error: TransferError,
    },
    /// A peer's [`send`](super::Exchange::send).
    Message {
        /// Whose.
        peer: PeerId,
        /// What.
        bytes: Vec<u8>,
    },
    /// A landing is whole, and as it was sent. Its blocks are yours.
    Landed {
        /// The landing.
        ticket: Ticket,
        /// To be given back to the pool.
        table: BlockTable,
        /// The sender's.
        user: Vec<u8>,
        /// What has come.
        moved: Moved,
    },
    /// A push is whole at its receiver.
    Pushed {
        /// The push.
        ticket: Ticket,
        /// What has gone.
        moved: Moved,
    },
    /// A pull is whole, and as its owner said. Its blocks are yours.
    Pulled {
        /// The pull.
        ticket: Ticket,
        /// To be given back to the pool.
        table: BlockTable,
        /// The owner's.
        user: Vec<u8>,
        /// What has come.
        moved: Moved,
    },
    /// All readers of an offer have everything, and its leases are over.
    Served {
        /// The offer.
        ticket: Ticket,
    },
    /// A transfer has come to nothing. Its blocks are free, and nothing touches them any more.
    Failed {
        /// The transfer.
        ticket: Ticket,
        /// Why.
        error: TransferError,
    },
    /// A transfer has ended because of [`abort`](super::Exchange::abort). Nothing touches its blocks any more.
    Aborted {
        /// The transfer.
        ticket: Ticket,
    },
}

impl Event {
    /// The transfer that has ended by this event.
    pub fn ended(&self) -> Option<Ticket> {
        match self {
            Event::Landed { ticket, .. }
            | Event::Pushed { ticket, .. }
            | Event::Pulled { ticket, .. }
            | Event::Served { ticket }
            | Event::Failed { ticket, .. }
            | Event::Aborted { ticket } => Some(*ticket),
            Event::Connected { .. } | Event::Disconnected { .. } | Event::Message { .. } => None,
        }
    }
}
