//! Buffer operations (clauses BUF-1 to BUF-9).

use super::{BuildError, builder};
use crate::abi::{BufferHandle, op_flags};

/// Where ALLOC puts the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PagePlacement {
    /// Anywhere.
    Any,
    /// On this node, if it has room.
    Preferred(u32),
    /// On this node, or fail with -ENOMEM (-EOPNOTSUPP where placement cannot be verified).
    Strict(u32),
}

builder!(/** Makes a zeroed buffer; `word0` is its handle, `word1` its length. */ Alloc, Alloc, [link, drain]);

impl Alloc {
    /// A buffer of `length_bytes` anywhere.
    pub const fn new(length_bytes: u64) -> Result<Self, BuildError> {
        if length_bytes == 0 {
            return Err(BuildError::ZeroLength);
        }
        let mut sqe = Self::BLANK;
        sqe.length = length_bytes;
        Ok(Alloc(sqe))
    }

    /// Where its pages lie.
    pub const fn placement(mut self, placement: PagePlacement) -> Self {
        self.0.op_flags &= !(op_flags::ALLOC_NODE | op_flags::ALLOC_STRICT);
        self.0.arg32 = 0;
        match placement {
            PagePlacement::Any => {}
            PagePlacement::Preferred(node) => {
                self.0.op_flags |= op_flags::ALLOC_NODE;
                self.0.arg32 = node;
            }
            PagePlacement::Strict(node) => {
                self.0.op_flags |= op_flags::ALLOC_NODE | op_flags::ALLOC_STRICT;
                self.0.arg32 = node;
            }
        }
        self
    }

    /// Its memory may be that of another buffer of this context that was made like this and freed, with what was left
    /// in it; and it is kept for the next one when it is freed.
    pub const fn recycled(mut self) -> Self {
        self.0.op_flags |= op_flags::ALLOC_RECYCLE;
        self
    }

    /// 2 MiB pages, or -ENOMEM.
    pub const fn huge_pages(mut self) -> Self {
        self.0.op_flags |= op_flags::ALLOC_HUGE;
        self
    }
}

builder!(/** Frees a buffer; -EBUSY while it is leased or in use. */ Free, Free, [link, drain, skip_success]);

impl Free {
    /// That buffer.
    pub const fn new(buffer: BufferHandle) -> Self {
        let mut sqe = Self::BLANK;
        sqe.local = buffer.handle().bits();
        Free(sqe)
    }

    /// Revokes the leases on it first, without grace.
    pub const fn revoke_leases(mut self) -> Self {
        self.0.op_flags |= op_flags::FREE_REVOKE;
        self
    }
}

builder!(
    /** Reports on which node the pages lie, found page by page: `word0` = pages on node `arg32`, `word1` = pages. */
    Placement, Placement, [link, drain]
);

impl Placement {
    /// How many of the buffer's pages lie on `node`.
    pub const fn new(buffer: BufferHandle, node: u32) -> Self {
        let mut sqe = Self::BLANK;
        sqe.local = buffer.handle().bits();
        sqe.arg32 = node;
        Placement(sqe)
    }
}

builder!(
    /** Makes a dma-buf (else a sealed memfd) of a buffer; `word0` is the slot that a call takes it from. */
    ExportDmabuf, ExportDmabuf, [link, drain]
);

impl ExportDmabuf {
    /// The whole buffer.
    pub const fn new(buffer: BufferHandle) -> Self {
        let mut sqe = Self::BLANK;
        sqe.local = buffer.handle().bits();
        ExportDmabuf(sqe)
    }
}

builder!(/** Brackets CPU access to another device's buffer. */ Sync, Sync, [link, drain, skip_success]);

impl Sync {
    /// Before the CPU looks.
    pub const fn begin(buffer: BufferHandle) -> Self {
        let mut sqe = Self::BLANK;
        sqe.local = buffer.handle().bits();
        Sync(sqe)
    }

    /// After the CPU has looked.
    pub const fn end(buffer: BufferHandle) -> Self {
        let mut sqe = Self::begin(buffer).0;
        sqe.op_flags = op_flags::SYNC_END;
        Sync(sqe)
    }
}
