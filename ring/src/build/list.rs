//! List operations (clauses LST-1 to LST-3).

use super::{BuildError, SEGMENTS, builder, check};
use crate::abi::{BufferHandle, ListHandle};

builder!(
    /** Checks and keeps a list of segments; `word0` is its handle, `word1` its segments. */
    ListPrepare, ListPrepare, [link, drain]
);

impl ListPrepare {
    /// `runs` [`Run`](crate::abi::Run)s lie at `offset_bytes` of `buffer`.
    pub const fn new(buffer: BufferHandle, offset_bytes: u64, runs: u64) -> Result<Self, BuildError> {
        match check(offset_bytes, runs, SEGMENTS) {
            Ok(()) => {}
            Err(error) => return Err(error),
        }
        let mut sqe = Self::BLANK;
        sqe.local = buffer.handle().bits();
        sqe.local_offset = offset_bytes;
        sqe.length = runs;
        Ok(ListPrepare(sqe))
    }
}

builder!(/** Drops a list; -EBUSY while it is leased or in use. */ ListFree, ListFree, [link, drain, skip_success]);

impl ListFree {
    /// That list.
    pub const fn new(list: ListHandle) -> Self {
        let mut sqe = Self::BLANK;
        sqe.local = list.handle().bits();
        ListFree(sqe)
    }
}
