//! Peers and messages (clauses PEER-1 to PEER-8).

use super::{BuildError, builder, check};
use crate::abi::{BufferHandle, ListenerHandle, MAX_SEND_BYTES, PeerHandle, op_flags};

builder!(/** Connects; `word0` is the peer. */ Connect, Connect, [link, drain]);

impl Connect {
    /// The address, as text (`shm:PATH`, `tcp:HOST:PORT`), lies in a buffer.
    pub const fn new(buffer: BufferHandle, offset_bytes: u64, length_bytes: u64) -> Result<Self, BuildError> {
        match check(offset_bytes, length_bytes, 255) {
            Ok(()) => {}
            Err(error) => return Err(error),
        }
        let mut sqe = Self::BLANK;
        sqe.local = buffer.handle().bits();
        sqe.local_offset = offset_bytes;
        sqe.length = length_bytes;
        Ok(Connect(sqe))
    }
}

builder!(/** Takes one incoming peer; `word0` is the peer. */ Accept, Accept, [link, drain]);

impl Accept {
    /// Of that listener.
    pub const fn new(listener: ListenerHandle) -> Self {
        let mut sqe = Self::BLANK;
        sqe.local = listener.handle().bits();
        Accept(sqe)
    }
}

builder!(
    /** Ends a connection; when it completes nothing of the peer's touches our memory. */
    Disconnect, Disconnect, [link, drain, skip_success]
);

impl Disconnect {
    /// That peer's.
    pub const fn new(peer: PeerHandle) -> Self {
        let mut sqe = Self::BLANK;
        sqe.remote = peer.handle().bits();
        Disconnect(sqe)
    }
}

builder!(/** Sends a message; takes a credit. */ Send, Send, [link, drain, skip_success]);

impl Send {
    /// At most 4,096 bytes of a buffer.
    pub const fn new(
        peer: PeerHandle,
        buffer: BufferHandle,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Self, BuildError> {
        match check(offset_bytes, length_bytes, MAX_SEND_BYTES) {
            Ok(()) => {}
            Err(error) => return Err(error),
        }
        let mut sqe = Self::BLANK;
        sqe.remote = peer.handle().bits();
        sqe.local = buffer.handle().bits();
        sqe.local_offset = offset_bytes;
        sqe.length = length_bytes;
        Ok(Send(sqe))
    }

    /// -EAGAIN rather than wait for credit.
    pub const fn no_credit_wait(mut self) -> Self {
        self.0.op_flags |= op_flags::NO_CREDIT_WAIT;
        self
    }
}

builder!(
    /** Posts one receive, which gives the peer one credit; `res` is the payload's bytes. */
    Recv, Recv, [link, drain]
);

impl Recv {
    /// Into a range of a buffer.
    pub const fn new(
        peer: PeerHandle,
        buffer: BufferHandle,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Self, BuildError> {
        match check(offset_bytes, length_bytes, u64::MAX) {
            Ok(()) => {}
            Err(error) => return Err(error),
        }
        let mut sqe = Self::BLANK;
        sqe.remote = peer.handle().bits();
        sqe.local = buffer.handle().bits();
        sqe.local_offset = offset_bytes;
        sqe.length = length_bytes;
        sqe.op_flags = op_flags::GRANT_SLOTS;
        Ok(Recv(sqe))
    }
}
