//! Handles: 32 bits of slot and 32 of generation (clause HND-1).
//!
//! The slot's top four bits say which kind of object it is, so that a lease given where a buffer belongs is -EBADF and
//! not somebody else's buffer.

/// What a handle names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum HandleKind {
    /// Memory of this context.
    Buffer = 1,
    /// Segments over buffers, checked once.
    List = 2,
    /// A capability that this context gave.
    Lease = 3,
    /// A capability that this context received.
    Import = 4,
    /// A connected peer.
    Peer = 5,
    /// A place where peers connect.
    Listener = 6,
    /// A descriptor that a call put in (an eventfd) or that a call takes out (an export).
    Slot = 7,
}

/// Any handle. Zero is never a valid one, since generations start at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Handle(u64);

const INDEX_BITS: u32 = 28;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

impl Handle {
    /// No object.
    pub const NULL: Handle = Handle(0);

    /// Makes a handle; `index` keeps its low 28 bits.
    #[inline]
    pub const fn new(kind: HandleKind, index: u32, generation: u32) -> Self {
        let slot = ((kind as u32) << INDEX_BITS) | (index & INDEX_MASK);
        Handle((generation as u64) << 32 | slot as u64)
    }

    /// The handle with these bits, valid or not: the engine checks.
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        Handle(bits)
    }

    /// The bits as an SQE or CQE carries them.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The object's index in its table.
    #[inline]
    pub const fn index(self) -> u32 {
        self.0 as u32 & INDEX_MASK
    }

    /// The generation of the slot at the time that the handle was made.
    #[inline]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether the kind bits say `kind`.
    #[inline]
    pub const fn is(self, kind: HandleKind) -> bool {
        (self.0 as u32) >> INDEX_BITS == kind as u32
    }
}

macro_rules! typed_handle {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(transparent)]
        pub struct $name(Handle);

        impl $name {
            /// Takes the bits of a CQE word; `None` when they name another kind of object.
            pub const fn from_bits(bits: u64) -> Option<Self> {
                let handle = Handle::from_bits(bits);
                if handle.is(HandleKind::$kind) { Some(Self(handle)) } else { None }
            }

            /// The untyped handle.
            pub const fn handle(self) -> Handle {
                self.0
            }
        }

        impl From<$name> for Handle {
            fn from(typed: $name) -> Handle {
                typed.0
            }
        }
    };
}

typed_handle!(/** Names a buffer. */ BufferHandle, Buffer);
typed_handle!(/** Names a list. */ ListHandle, List);
typed_handle!(/** Names a lease that this context gave. */ LeaseHandle, Lease);
typed_handle!(/** Names a lease that this context received. */ ImportHandle, Import);
typed_handle!(/** Names a peer. */ PeerHandle, Peer);
typed_handle!(/** Names a listener. */ ListenerHandle, Listener);
typed_handle!(/** Names a descriptor slot. */ SlotHandle, Slot);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hnd_1_kind_index_and_generation_round_trip() {
        let handle = Handle::new(HandleKind::Lease, 0x0abc_def0, 0xffff_fffe);
        assert!(handle.is(HandleKind::Lease) && !handle.is(HandleKind::Buffer));
        assert_eq!((handle.index(), handle.generation()), (0x0abc_def0, 0xffff_fffe));
        assert_eq!(Handle::from_bits(handle.bits()), handle);
        assert!(BufferHandle::from_bits(handle.bits()).is_none());
        assert!(LeaseHandle::from_bits(handle.bits()).is_some());
    }
}
