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

builder!(
    /** Sets the watermarks of the operations in flight toward a peer that have taken a credit. */
    CreditWatermarks, CreditWatermarks, [link, drain, skip_success]
);

impl CreditWatermarks {
    /// When `high` operations that took a credit are in flight, further ones wait until no more than `low` are. `low`
    /// must be less than `high`.
    pub const fn new(peer: PeerHandle, high: u32, low: u32) -> Result<Self, BuildError> {
        if low >= high {
            return Err(BuildError::Watermarks { high, low });
        }
        let mut sqe = Self::BLANK;
        sqe.remote = peer.handle().bits();
        sqe.arg64 = high as u64 | (low as u64) << 32;
        Ok(CreditWatermarks(sqe))
    }

    /// No watermarks, as at the beginning.
    pub const fn none(peer: PeerHandle) -> Self {
        let mut sqe = Self::BLANK;
        sqe.remote = peer.handle().bits();
        CreditWatermarks(sqe)
    }
}
