//! What the I/O thread tells the host.

use super::wire::{Breach, Fragment};
use crate::memory::Moved;
use dmaplane_engine::{Message, OpId, RequestKind};
use dmaplane_ring::abi::{Errno, Handle};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of messages that may wait for the host: beyond, the peer is not listened to.
const WAITING_BYTES_MAX: u64 = 4 << 20;
/// What a message weighs beside what comes with it.
const MESSAGE_BYTES: u64 = 256;

/// Answers to READs up to this are copied when the host takes the request, and wait for the peer.
pub(crate) const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// What came with a request, beside its payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// A small WRITE's bytes, whole.
    Whole(Vec<u8>),
    /// The body waits in the socket until [`Admit`](super::command::Command::Admit) or `Refuse` names it.
    Waiting { connection: u64, body: u64, table: Vec<Fragment>, bytes: u64 },
    /// A READ's operation, or a READ_LIST's and its segments.
    Asked { op: u64, table: Vec<Fragment> },
}

/// One thing told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// A message.
    Message { message: Message, payload: Vec<u8>, arrived: Option<Arrived> },
    /// A transfer of the peer's touches our memory no more.
    TransferEnded { transfer: OpId, outcome: Result<Moved, Errno> },
    /// An operation of ours touches our memory no more.
    LocalEnded { op: OpId, outcome: Result<Moved, Errno> },
    /// The connection is over.
    Lost { errno: Errno },
}

/// Whose end to report when memory is touched no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// An operation of ours.
    Operation(OpId),
    /// A transfer of the peer's.
    Transfer(OpId),
}

/// How much of a connection's messages waits for the host.
#[derive(Debug, Default)]
pub(crate) struct Load(AtomicU64);

impl Load {
    pub(crate) fn is_full(&self) -> bool {
        self.0.load(Ordering::Acquire) >= WAITING_BYTES_MAX
    }

    /// The host has taken a message; `true`: the I/O thread may have stopped listening, and is to be told.
    pub(crate) fn taken(&self, weight: u64) -> bool {
        self.0.fetch_sub(weight, Ordering::AcqRel) >= WAITING_BYTES_MAX
    }
}

impl Told {
    /// What it adds to the connection's [`Load`].
    pub(crate) fn weight(&self) -> u64 {
        let Told::Message { message, payload, arrived } = self else { return 0 };
        // The answer to a small READ is copied as soon as the host takes it.
        let answer = match message {
            Message::Request(request) if request.kind == RequestKind::Read && request.length <= ANSWER_BYTES_MAX => {
                request.length
            }
            _ => 0,
        };
        let table_bytes = |table: &Vec<Fragment>| size_of_val(table.as_slice());
        let arrived = match arrived {
            None => 0,
            Some(Arrived::Whole(bytes)) => bytes.len(),
            Some(Arrived::Waiting { table, .. } | Arrived::Asked { table, .. }) => table_bytes(table),
        };
        MESSAGE_BYTES + payload.len() as u64 + arrived as u64 + answer
    }
}

/// What one connection has to tell, gathered, so that the engine is woken once.
#[derive(Debug)]
pub(crate) struct Reports {
    pub peer: Handle,
    pub load: Arc<Load>,
    pub told: Vec<(Handle, Told)>,
}

impl Reports {
    pub(crate) fn tell(&mut self, told: Told) {
        self.load.0.fetch_add(told.weight(), Ordering::AcqRel);
        self.told.push((self.peer, told));
    }

    pub(crate) fn ended(&mut self, ending: &Ending, outcome: Result<Moved, Errno>) {
        self.tell(match *ending {
            Ending::Operation(op) => Told::LocalEnded { op, outcome },
            Ending::Transfer(transfer) => Told::TransferEnded { transfer, outcome },
        });
    }

    /// The peer broke the protocol.
    pub(crate) fn breach(&self, breach: Breach) -> Errno {
        tracing::warn!(peer = self.peer.index(), %breach, "tcp: the peer broke the protocol");
        Errno::EPROTO
    }
}
