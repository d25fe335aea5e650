//! One-sided transfers (clauses XFR-1 to XFR-9, LST-4 to LST-6).

use super::{BuildError, OPERATION, SEGMENTS, builder, check};
use crate::abi::{BufferHandle, ImportHandle, ListHandle, MAX_NOTIFICATION_BYTES, Sqe, op_flags};

/// Fills in the fields that all range transfers share.
const fn range(
    mut sqe: Sqe,
    local: BufferHandle,
    local_offset: u64,
    import: ImportHandle,
    remote_offset: u64,
    length_bytes: u64,
) -> Result<Sqe, BuildError> {
    match (check(local_offset, length_bytes, OPERATION), check(remote_offset, length_bytes, OPERATION)) {
        (Ok(()), Ok(())) => {}
        (Err(error), _) | (_, Err(error)) => return Err(error),
    }
    sqe.local = local.handle().bits();
    sqe.local_offset = local_offset;
    sqe.remote = import.handle().bits();
    sqe.remote_offset = remote_offset;
    sqe.length = length_bytes;
    Ok(sqe)
}

macro_rules! range_transfer {
    ($name:ident) => {
        impl $name {
            /// Between `local_offset` of a buffer and `remote_offset` of the leased range, in bytes.
            pub const fn new(
                local: BufferHandle,
                local_offset: u64,
                import: ImportHandle,
                remote_offset: u64,
                length_bytes: u64,
            ) -> Result<Self, BuildError> {
                match range(Self::BLANK, local, local_offset, import, remote_offset, length_bytes) {
                    Ok(sqe) => Ok($name(sqe)),
                    Err(error) => Err(error),
                }
            }
        }
    };
}

builder!(/** Writes into a lease; `res` is the bytes. */ Write, Write, [link, drain, skip_success]);
range_transfer!(Write);

builder!(/** Reads from a lease; `res` is the bytes. */ Read, Read, [link, drain, skip_success]);
range_transfer!(Read);

impl Read {
    /// The CQE's `word1` is to be the CRC-32C of the bytes, made while they are copied.
    pub const fn checksum(mut self) -> Self {
        self.0.op_flags |= op_flags::CHECKSUM;
        self
    }
}

builder!(
    /** Writes into a lease, then delivers an immediate; takes a credit. */
    WriteImm, WriteImm, [link, drain, skip_success]
);
range_transfer!(WriteImm);

impl WriteImm {
    /// The 32 bits that arrive with the last byte.
    pub const fn immediate(mut self, immediate: u32) -> Self {
        self.0.arg32 = immediate;
        self
    }

    /// -EAGAIN rather than wait for credit.
    pub const fn no_credit_wait(mut self) -> Self {
        self.0.op_flags |= op_flags::NO_CREDIT_WAIT;
        self
    }

    /// The receiver is to be told the CRC-32C of the bytes, made while they are copied.
    pub const fn checksum(mut self) -> Self {
        self.0.op_flags |= op_flags::CHECKSUM;
        self
    }
}

/// Where the [`IndexPair`](crate::abi::IndexPair)s of a list transfer lie.
const fn pairs(
    mut sqe: Sqe,
    list: ListHandle,
    import: ImportHandle,
    index: BufferHandle,
    index_offset: u64,
    count: u64,
) -> Result<Sqe, BuildError> {
    match check(index_offset, count, SEGMENTS) {
        Ok(()) => {}
        Err(error) => return Err(error),
    }
    sqe.local = list.handle().bits();
    sqe.remote = import.handle().bits();
    sqe.remote_offset = index.handle().bits();
    sqe.local_offset = index_offset;
    sqe.length = count;
    Ok(sqe)
}

macro_rules! list_transfer {
    ($name:ident) => {
        impl $name {
            /// `count` index pairs lie at `index_offset` bytes of the buffer `index`.
            pub const fn new(
                list: ListHandle,
                import: ImportHandle,
                index: BufferHandle,
                index_offset: u64,
                count: u64,
            ) -> Result<Self, BuildError> {
                match pairs(Self::BLANK, list, import, index, index_offset, count) {
                    Ok(sqe) => Ok($name(sqe)),
                    Err(error) => Err(error),
                }
            }
        }
    };
}

builder!(/** Writes segments into a leased list's segments. */ WriteList, WriteList, [link, drain, skip_success]);
list_transfer!(WriteList);

builder!(/** Reads a leased list's segments into segments. */ ReadList, ReadList, [link, drain, skip_success]);
list_transfer!(ReadList);

impl ReadList {
    /// The CQE's `word1` is to be the CRC-32C of the bytes in the order of the index pairs, made while they are copied.
    pub const fn checksum(mut self) -> Self {
        self.0.op_flags |= op_flags::CHECKSUM;
        self
    }
}

impl WriteList {
    /// Takes a credit and delivers, after the last byte, 32 bits and `length_bytes` (at most 256) that lie at
    /// `offset_bytes` of the index buffer.
    pub const fn notify(mut self, immediate: u32, offset_bytes: u64, length_bytes: u64) -> Result<Self, BuildError> {
        if length_bytes > MAX_NOTIFICATION_BYTES {
            return Err(BuildError::TooLong { asked: length_bytes, limit: MAX_NOTIFICATION_BYTES });
        }
        if offset_bytes >= 1 << 48 {
            return Err(BuildError::TooLong { asked: offset_bytes, limit: (1 << 48) - 1 });
        }
        self.0.op_flags |= op_flags::LIST_NOTIFY;
        self.0.arg32 = immediate;
        self.0.arg64 = offset_bytes | length_bytes << 48;
        Ok(self)
    }

    /// As [`WriteList::notify`]; the receiver is also told the CRC-32C of the bytes in the order of the index pairs,
    /// made while they are copied.
    pub const fn notify_with_checksum(
        self,
        immediate: u32,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Self, BuildError> {
        match self.notify(immediate, offset_bytes, length_bytes) {
            Ok(mut list) => {
                list.0.op_flags |= op_flags::CHECKSUM;
                Ok(list)
            }
            Err(error) => Err(error),
        }
    }

    /// -EAGAIN rather than wait for credit.
    pub const fn no_credit_wait(mut self) -> Self {
        self.0.op_flags |= op_flags::NO_CREDIT_WAIT;
        self
    }
}
