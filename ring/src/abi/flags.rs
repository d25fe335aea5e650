//! Flag bits. Where io_uring has the flag, the bit is io_uring's (clauses SQE-3, CQE-3).

macro_rules! flags {
    ($(#[$doc:meta])* $name:ident: $word:ty { $($(#[$bit_doc:meta])* $bit:ident = $value:expr),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[repr(transparent)]
        pub struct $name($word);

        impl $name {
            /// No bit.
            pub const NONE: $name = $name(0);
            $($(#[$bit_doc])* pub const $bit: $name = $name($value);)*
            /// Every bit that this version knows.
            pub const KNOWN: $name = $name(0 $(| $value)*);

            /// The bits as they are, known or not.
            #[inline]
            pub const fn from_bits(bits: $word) -> Self {
                $name(bits)
            }

            /// The bits.
            #[inline]
            pub const fn bits(self) -> $word {
                self.0
            }

            /// Whether every bit of `other` is set.
            #[inline]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Both.
            #[inline]
            pub const fn with(self, other: Self) -> Self {
                $name(self.0 | other.0)
            }

            /// Without the bits of `other`.
            #[inline]
            pub const fn without(self, other: Self) -> Self {
                $name(self.0 & !other.0)
            }

            /// Whether no bit is set.
            #[inline]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }
        }
    };
}

flags!(
    /// An SQE's flags.
    SqeFlags: u8 {
        /// Starts when everything before it on this ring has ended, passive operations aside.
        DRAIN = 1 << 1,
        /// The next SQE starts when this one has succeeded.
        LINK = 1 << 2,
        /// The next SQE starts when this one has ended.
        HARDLINK = 1 << 3,
        /// No CQE when it succeeds.
        CQE_SKIP_SUCCESS = 1 << 6,
    }
);

flags!(
    /// A CQE's flags.
    CqeFlags: u32 {
        /// More CQEs of this SQE follow.
        MORE = 1 << 1,
        /// `word0` holds immediate data in its low half.
        IMMEDIATE = 1 << 16,
        /// Bytes were placed in the receive's buffer; `res` is their count.
        PAYLOAD = 1 << 17,
        /// ALLOC with a node, PLACEMENT: the host could not find out where the pages lie.
        UNVERIFIABLE = 1 << 18,
        /// The transfer's CRC-32C is in the CQE: of an arrival in the high half of `word0`, of a READ in `word1`.
        CHECKSUM = 1 << 19,
    }
);

flags!(
    /// Flags of a ring's areas, one word an area.
    RingFlags: u32 {
        /// Engine area: the engine sleeps, ring the doorbell after publishing. Client area: the client sleeps on its
        /// CQ.
        NEED_WAKEUP = 1 << 0,
        /// Engine area: the context is closing; nothing more is taken.
        CLOSED = 1 << 1,
        /// Engine area: the engine sleeps on a full CQ; ring the doorbell after reaping.
        CQ_BLOCKED = 1 << 2,
    }
);

flags!(
    /// What a lease allows.
    Rights: u16 {
        /// The holder may READ.
        READ = 1 << 0,
        /// The holder may WRITE.
        WRITE = 1 << 1,
    }
);

flags!(
    /// What WATCH reports (clause CTL-5).
    EventBits: u32 {
        /// A peer's connection ended.
        PEER_GONE = 1 << 0,
        /// A lease's time to live ended.
        LEASE_EXPIRED = 1 << 1,
        /// An import was revoked by its owner.
        IMPORT_REVOKED = 1 << 2,
        /// A peer's write or read was refused: no live lease, no right, or out of range.
        ACCESS_REFUSED = 1 << 3,
    }
);

/// What a QUERY asks for, in `arg32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum QueryWhat {
    /// `res` = the [`EventBits`] since the last QUERY, which are cleared.
    Events = 0,
    /// `word0` = accesses refused since the context was made; `word1` = the handle of the last lease concerned.
    Refused = 1,
    /// `word0` = operations in flight in the context; `word1` = transfers that peers have in flight here.
    InFlight = 2,
}

/// Bits of an SQE's `op_flags`; each opcode knows its own.
pub mod op_flags {
    /// CANCEL: every operation whose user_data matches, not just the first.
    pub const CANCEL_ALL: u16 = 1 << 0;
    /// CANCEL: match by object handle in `local`, not by user_data.
    pub const CANCEL_HANDLE: u16 = 1 << 1;
    /// CANCEL: match every operation of this ring.
    pub const CANCEL_ANY: u16 = 1 << 2;
    /// CANCEL: end the connection of an operation that is already posted.
    pub const CANCEL_FORCE: u16 = 1 << 3;
    /// TIMEOUT: `arg64` is absolute, on the engine's clock.
    pub const TIMEOUT_ABSOLUTE: u16 = 1 << 0;
    /// WAIT: `local` is a buffer and `local_offset` a 32-bit word in it; waits until it is at least `arg64`.
    pub const WAIT_WORD: u16 = 1 << 0;
    /// ALLOC: on the node in `arg32`.
    pub const ALLOC_NODE: u16 = 1 << 0;
    /// ALLOC: fail rather than place a page elsewhere.
    pub const ALLOC_STRICT: u16 = 1 << 1;
    /// ALLOC: 2 MiB pages or fail.
    pub const ALLOC_HUGE: u16 = 1 << 2;
    /// ALLOC: not zeroed where this context has freed such a buffer before; FREE keeps its memory for the next one.
    pub const ALLOC_RECYCLE: u16 = 1 << 3;
    /// FREE: revoke the leases on it first.
    pub const FREE_REVOKE: u16 = 1 << 0;
    /// LEASE_GRANT: `remote` is a peer, the only one that may claim it.
    pub const GRANT_PEER: u16 = 1 << 4;
    /// LEASE_REVOKE: do not let transfers in flight end; stop them now.
    pub const REVOKE_NOW: u16 = 1 << 0;
    /// WRITE_IMM, WRITE_LIST, SEND: -EAGAIN rather than wait for credit.
    pub const NO_CREDIT_WAIT: u16 = 1 << 0;
    /// WRITE_LIST: takes a credit and delivers `arg32` and the notification that `arg64` names (clause LST-6).
    pub const LIST_NOTIFY: u16 = 1 << 1;
    /// WRITE_IMM, WRITE_LIST with a notification, READ, READ_LIST: who copies the bytes in tells their CRC-32C.
    pub const CHECKSUM: u16 = 1 << 2;
    /// CREDIT_GRANT: arrivals' payloads go to slots in a buffer.
    pub const GRANT_SLOTS: u16 = 1 << 0;
    /// SYNC: ends the access that an earlier SYNC began.
    pub const SYNC_END: u16 = 1 << 0;
}
