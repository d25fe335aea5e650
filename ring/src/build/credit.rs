//! Credits (clauses CRD-1 to CRD-7).

use super::{BuildError, builder, check};
use crate::abi::{BufferHandle, PeerHandle, op_flags};

builder!(
    /** Gives a peer credits; one CQE for each arrival, the last one without MORE. */
    CreditGrant, CreditGrant, []
);

impl CreditGrant {
    /// `count` credits whose arrivals carry an immediate and no payload.
    pub const fn new(peer: PeerHandle, count: u32) -> Self {
        let mut sqe = Self::BLANK;
        sqe.remote = peer.handle().bits();
        sqe.arg32 = count;
        CreditGrant(sqe)
    }

    /// Payloads go to slots of `slot_bytes`, one after the other from `offset_bytes` of `buffer`; `word1` of each CQE
    /// is the offset of its slot.
    pub const fn slots(mut self, buffer: BufferHandle, offset_bytes: u64, slot_bytes: u64) -> Result<Self, BuildError> {
        match check(offset_bytes, slot_bytes, u64::MAX >> 32) {
            Ok(()) => {}
            Err(error) => return Err(error),
        }
        self.0.local = buffer.handle().bits();
        self.0.local_offset = offset_bytes;
        self.0.length = slot_bytes;
        self.0.op_flags = op_flags::GRANT_SLOTS;
        Ok(self)
    }
}

builder!(
    /** Reports credits: `word0` = what we may use toward the peer, `word1` = what the peer may still use toward us. */
    CreditQuery, CreditQuery, [link, drain]
);

impl CreditQuery {
    /// Of that peer.
    pub const fn new(peer: PeerHandle) -> Self {
        let mut sqe = Self::BLANK;
        sqe.remote = peer.handle().bits();
        CreditQuery(sqe)
    }
}
