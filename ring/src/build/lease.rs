//! Lease operations (clauses LSE-1 to LSE-12).

use super::{BuildError, builder};
use crate::abi::{BufferHandle, ImportHandle, LeaseHandle, ListHandle, MAX_TOKEN_BYTES, PeerHandle, Rights, op_flags};

builder!(/** Gives a capability; `word0` is the lease. */ LeaseGrant, LeaseGrant, [link, drain]);

impl LeaseGrant {
    /// For a range of a buffer.
    pub const fn range(
        buffer: BufferHandle,
        offset_bytes: u64,
        length_bytes: u64,
        rights: Rights,
    ) -> Result<Self, BuildError> {
        match super::check(offset_bytes, length_bytes, u64::MAX) {
            Ok(()) => {}
            Err(error) => return Err(error),
        }
        let mut sqe = Self::BLANK;
        sqe.local = buffer.handle().bits();
        sqe.local_offset = offset_bytes;
        sqe.length = length_bytes;
        sqe.op_flags = rights.bits();
        Ok(LeaseGrant(sqe))
    }

    /// For all segments of a list.
    pub const fn list(list: ListHandle, rights: Rights) -> Self {
        let mut sqe = Self::BLANK;
        sqe.local = list.handle().bits();
        sqe.op_flags = rights.bits();
        LeaseGrant(sqe)
    }

    /// Only this peer may claim it. Otherwise the first to claim it holds it.
    pub const fn to_peer(mut self, peer: PeerHandle) -> Self {
        self.0.remote = peer.handle().bits();
        self.0.op_flags |= op_flags::GRANT_PEER;
        self
    }

    /// It ends after so many nanoseconds. Otherwise only a revoke, or the peer's death, ends it.
    pub const fn time_to_live_ns(mut self, nanoseconds: u64) -> Self {
        self.0.arg64 = nanoseconds;
        self
    }
}

builder!(/** Writes the lease's token into a buffer; `res` is its length. */ LeaseExport, LeaseExport, [link, drain]);

impl LeaseExport {
    /// To `offset_bytes` of `buffer`, where 512 bytes are free.
    pub const fn new(lease: LeaseHandle, buffer: BufferHandle, offset_bytes: u64) -> Self {
        let mut sqe = Self::BLANK;
        sqe.remote = lease.handle().bits();
        sqe.local = buffer.handle().bits();
        sqe.local_offset = offset_bytes;
        sqe.length = MAX_TOKEN_BYTES as u64;
        LeaseExport(sqe)
    }
}

builder!(
    /** Claims the lease of a token; `word0` is the import, `word1` its bytes (a range) or segments (a list). */
    LeaseImport, LeaseImport, [link, drain]
);

impl LeaseImport {
    /// The token lies in a buffer.
    pub const fn new(buffer: BufferHandle, offset_bytes: u64, length_bytes: u64) -> Result<Self, BuildError> {
        match super::check(offset_bytes, length_bytes, MAX_TOKEN_BYTES as u64) {
            Ok(()) => {}
            Err(error) => return Err(error),
        }
        let mut sqe = Self::BLANK;
        sqe.local = buffer.handle().bits();
        sqe.local_offset = offset_bytes;
        sqe.length = length_bytes;
        Ok(LeaseImport(sqe))
    }

    /// The owner, if known: the engine need not look for it.
    pub const fn from_peer(mut self, peer: PeerHandle) -> Self {
        self.0.remote = peer.handle().bits();
        self
    }
}

builder!(/** Gives a lease a new end. */ LeaseRenew, LeaseRenew, [link, drain, skip_success]);

impl LeaseRenew {
    /// So many nanoseconds from now.
    pub const fn new(lease: LeaseHandle, nanoseconds: u64) -> Self {
        let mut sqe = Self::BLANK;
        sqe.local = lease.handle().bits();
        sqe.arg64 = nanoseconds;
        LeaseRenew(sqe)
    }
}

builder!(
    /** Ends a lease. When it completes nothing under it can land and the memory may be reused. */
    LeaseRevoke, LeaseRevoke, [link, drain, skip_success]
);

impl LeaseRevoke {
    /// Transfers in flight are stopped at once.
    pub const fn now(lease: LeaseHandle) -> Self {
        let mut sqe = Self::BLANK;
        sqe.local = lease.handle().bits();
        sqe.op_flags = op_flags::REVOKE_NOW;
        LeaseRevoke(sqe)
    }

    /// The peer is asked to stop; what is in flight may end within so many nanoseconds.
    pub const fn graceful(lease: LeaseHandle, deadline_ns: u64) -> Self {
        let mut sqe = Self::BLANK;
        sqe.local = lease.handle().bits();
        sqe.arg64 = deadline_ns;
        LeaseRevoke(sqe)
    }
}

builder!(
    /** Drops an import; the owner's lease is free to be claimed no more. */
    ImportRelease, ImportRelease, [link, drain, skip_success]
);

impl ImportRelease {
    /// That import; -EBUSY while operations use it.
    pub const fn new(import: ImportHandle) -> Self {
        let mut sqe = Self::BLANK;
        sqe.local = import.handle().bits();
        ImportRelease(sqe)
    }
}
