//! Control operations (clauses CTL-1 to CTL-9).

use super::builder;
use crate::abi::{BufferHandle, Handle, QueryWhat, SlotHandle, op_flags};

builder!(/** Completes with 0. */ Nop, Nop, [link, drain, skip_success]);

impl Nop {
    /// A no-op.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Nop(Self::BLANK)
    }
}

builder!(/** Cancels operations; `res` is how many. */ Cancel, Cancel, [link, drain, skip_success]);

impl Cancel {
    /// The first operation of this ring with that user_data.
    pub const fn by_user_data(user_data: u64) -> Self {
        let mut sqe = Self::BLANK;
        sqe.arg64 = user_data;
        Cancel(sqe)
    }

    /// Every operation of this ring with that user_data.
    pub const fn all_by_user_data(user_data: u64) -> Self {
        let mut sqe = Self::by_user_data(user_data).0;
        sqe.op_flags |= op_flags::CANCEL_ALL;
        Cancel(sqe)
    }

    /// Every operation of this ring on that object.
    pub const fn by_handle(handle: Handle) -> Self {
        let mut sqe = Self::BLANK;
        sqe.local = handle.bits();
        sqe.op_flags = op_flags::CANCEL_HANDLE;
        Cancel(sqe)
    }

    /// Every operation of this ring.
    pub const fn any() -> Self {
        let mut sqe = Self::BLANK;
        sqe.op_flags = op_flags::CANCEL_ANY;
        Cancel(sqe)
    }

    /// Also what is already posted, at the price of its peer's connection.
    pub const fn force(mut self) -> Self {
        self.0.op_flags |= op_flags::CANCEL_FORCE;
        self
    }
}

builder!(/** Completes with -ETIME. */ Timeout, Timeout, [link, drain]);

impl Timeout {
    /// After so many nanoseconds.
    pub const fn after_ns(nanoseconds: u64) -> Self {
        let mut sqe = Self::BLANK;
        sqe.arg64 = nanoseconds;
        Timeout(sqe)
    }

    /// At that time of the engine's clock, in nanoseconds.
    pub const fn at_ns(time_ns: u64) -> Self {
        let mut sqe = Self::after_ns(time_ns).0;
        sqe.op_flags = op_flags::TIMEOUT_ABSOLUTE;
        Timeout(sqe)
    }
}

builder!(
    /** Follows a linked SQE and cancels it when the time is up: then -ETIME; -ECANCELED when it ended in time. */
    LinkTimeout, LinkTimeout, [link]
);

impl LinkTimeout {
    /// After so many nanoseconds from the start of the SQE that it follows.
    pub const fn after_ns(nanoseconds: u64) -> Self {
        let mut sqe = Self::BLANK;
        sqe.arg64 = nanoseconds;
        LinkTimeout(sqe)
    }
}

builder!(/** Completes with the event bits when there are any; one a ring. */ Watch, Watch, []);

impl Watch {
    /// Watches.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Watch(Self::BLANK)
    }
}

builder!(/** Reads counters and event bits. */ Query, Query, [link, drain]);

impl Query {
    /// Asks.
    pub const fn new(what: QueryWhat) -> Self {
        let mut sqe = Self::BLANK;
        sqe.arg32 = what as u32;
        Query(sqe)
    }
}

builder!(/** Waits for work outside to be done. */ Wait, Wait, [link, drain, skip_success]);

impl Wait {
    /// Until the slot's descriptor (an eventfd) is readable; its count is taken.
    pub const fn on_slot(slot: SlotHandle) -> Self {
        let mut sqe = Self::BLANK;
        sqe.local = slot.handle().bits();
        Wait(sqe)
    }

    /// Until the 32-bit word at that offset of the buffer is at least `value`.
    pub const fn on_word(buffer: BufferHandle, offset_bytes: u64, value: u32) -> Self {
        let mut sqe = Self::BLANK;
        sqe.local = buffer.handle().bits();
        sqe.local_offset = offset_bytes;
        sqe.arg64 = value as u64;
        sqe.op_flags = op_flags::WAIT_WORD;
        Wait(sqe)
    }
}
