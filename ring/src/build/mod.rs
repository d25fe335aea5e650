//! One builder an opcode. A builder has only the methods that make sense for its opcode, and takes typed handles, so
//! a wrong combination does not compile; what only a value can get wrong is a [`BuildError`] that names it.
//!
//! ```compile_fail
//! // A grant of credits has many CQEs: there is nothing to skip.
//! use dmaplane_ring::{abi::*, build::CreditGrant};
//! let peer = PeerHandle::from_bits(Handle::new(HandleKind::Peer, 0, 1).bits()).unwrap();
//! CreditGrant::new(peer, 4).skip_success();
//! ```
//! ```compile_fail
//! // A lease that we gave is not one that we may write to.
//! use dmaplane_ring::{abi::*, build::Write};
//! fn write(local: BufferHandle, lease: LeaseHandle) {
//!     let _ = Write::new(local, 0, lease, 0, 4096);
//! }
//! ```

mod buffer;
mod control;
mod credit;
mod lease;
mod list;
mod peer;
mod transfer;

pub use buffer::{Alloc, ExportDmabuf, Free, PagePlacement, Placement, Sync};
pub use control::{Cancel, LinkTimeout, Nop, Query, Timeout, Wait, Watch};
pub use credit::{CreditGrant, CreditQuery, CreditWatermarks};
pub use lease::{ImportRelease, LeaseExport, LeaseGrant, LeaseImport, LeaseRenew, LeaseRevoke};
pub use list::{ListFree, ListPrepare};
pub use peer::{Accept, Connect, Disconnect, Recv, Send};
pub use transfer::{Read, ReadList, Write, WriteImm, WriteList};

use crate::abi::{MAX_LIST_SEGMENTS, MAX_OPERATION_BYTES};

/// A value that no SQE of its opcode may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// Nothing to do.
    ZeroLength,
    /// Longer than the limit, in bytes or entries.
    TooLong {
        /// What was asked for.
        asked: u64,
        /// The limit.
        limit: u64,
    },
    /// An end beyond 2^64.
    OffsetOverflow {
        /// Where it starts.
        offset: u64,
        /// How long it is.
        length: u64,
    },
    /// A low watermark that is not below the high one.
    Watermarks {
        /// The high one.
        high: u32,
        /// The low one.
        low: u32,
    },
}

impl core::fmt::Display for BuildError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            BuildError::Watermarks { high, low } => {
                write!(f, "the low watermark is {low} and the high one {high}: the low one must be less")
            }
            BuildError::ZeroLength => f.write_str("the length is 0: leave the operation out"),
            BuildError::TooLong { asked, limit } => {
                write!(f, "length {asked} is over the limit of {limit}: split it")
            }
            BuildError::OffsetOverflow { offset, length } => {
                write!(f, "offset {offset} plus length {length} does not fit 64 bits")
            }
        }
    }
}

impl core::error::Error for BuildError {}

/// Checks a range: not empty, within `limit`, its end a u64.
pub(crate) const fn check(offset: u64, length: u64, limit: u64) -> Result<(), BuildError> {
    if length == 0 {
        return Err(BuildError::ZeroLength);
    }
    if length > limit {
        return Err(BuildError::TooLong { asked: length, limit });
    }
    if offset.checked_add(length).is_none() {
        return Err(BuildError::OffsetOverflow { offset, length });
    }
    Ok(())
}

pub(crate) const OPERATION: u64 = MAX_OPERATION_BYTES;
pub(crate) const SEGMENTS: u64 = MAX_LIST_SEGMENTS;

/// Makes the builder type and the methods that its opcode shares with others.
macro_rules! builder {
    ($(#[$doc:meta])* $name:ident, $opcode:ident, [$($method:ident),*]) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[must_use = "push the SQE that this builds"]
        pub struct $name(crate::abi::Sqe);

        impl $name {
            const BLANK: crate::abi::Sqe = {
                let mut sqe = crate::abi::Sqe::from_words([0; 8]);
                sqe.opcode = crate::abi::Opcode::$opcode as u8;
                sqe
            };

            /// What comes back in the CQE.
            pub const fn user_data(mut self, user_data: u64) -> Self {
                self.0.user_data = user_data;
                self
            }

            /// The finished SQE.
            pub const fn sqe(self) -> crate::abi::Sqe {
                self.0
            }

            $(crate::build::builder!(@$method);)*
        }

        impl From<$name> for crate::abi::Sqe {
            fn from(builder: $name) -> Self {
                builder.0
            }
        }
    };
    (@link) => {
        /// The next SQE starts when this one has succeeded, and is cancelled otherwise.
        pub const fn link(mut self) -> Self {
            self.0.flags |= crate::abi::SqeFlags::LINK.bits();
            self
        }

        /// The next SQE starts when this one has ended, however it did.
        pub const fn hardlink(mut self) -> Self {
            self.0.flags |= crate::abi::SqeFlags::HARDLINK.bits();
            self
        }
    };
    (@drain) => {
        /// Starts when everything before it on this ring has ended; what comes after it waits for it.
        pub const fn drain(mut self) -> Self {
            self.0.flags |= crate::abi::SqeFlags::DRAIN.bits();
            self
        }
    };
    (@skip_success) => {
        /// No CQE when it succeeds.
        pub const fn skip_success(mut self) -> Self {
            self.0.flags |= crate::abi::SqeFlags::CQE_SKIP_SUCCESS.bits();
            self
        }
    };
}
pub(crate) use builder;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{BufferHandle, Handle, HandleKind, ImportHandle, Opcode, SqeFlags};

    #[test]
    fn a_range_that_cannot_be_is_named() {
        let buffer = BufferHandle::from_bits(Handle::new(HandleKind::Buffer, 0, 1).bits()).unwrap();
        let import = ImportHandle::from_bits(Handle::new(HandleKind::Import, 0, 1).bits()).unwrap();
        assert_eq!(Write::new(buffer, 0, import, 0, 0), Err(BuildError::ZeroLength));
        assert_eq!(
            Write::new(buffer, 0, import, 0, 1 << 31),
            Err(BuildError::TooLong { asked: 1 << 31, limit: MAX_OPERATION_BYTES })
        );
        assert!(matches!(Write::new(buffer, u64::MAX, import, 0, 2), Err(BuildError::OffsetOverflow { .. })));
        let sqe = Write::new(buffer, 1, import, 2, 3).unwrap().user_data(9).link().sqe();
        assert_eq!((sqe.opcode, sqe.flags), (Opcode::Write as u8, SqeFlags::LINK.bits()));
        assert_eq!((sqe.local_offset, sqe.remote_offset, sqe.length, sqe.user_data), (1, 2, 3, 9));
    }
}
