//! The submission queue entry (clause SQE-1).

/// Asks for one operation: 64 bytes, no file descriptor, no address.
///
/// `opcode`, `flags` and `user_data` stand where io_uring has them. What the other fields mean is each opcode's to
/// say; a field that an opcode does not use must be zero (clause SQE-5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Sqe {
    /// An [`Opcode`](super::Opcode).
    pub opcode: u8,
    /// [`SqeFlags`](super::SqeFlags).
    pub flags: u8,
    /// [`op_flags`](super::op_flags) of the opcode.
    pub op_flags: u16,
    /// A 32-bit argument: immediate data, a node, a count.
    pub arg32: u32,
    /// Where in the local object, in bytes.
    pub local_offset: u64,
    /// Handle of the local object.
    pub local: u64,
    /// How many bytes, or how many entries of an index array.
    pub length: u64,
    /// Comes back in the CQE.
    pub user_data: u64,
    /// Handle of the peer, the import or another second object.
    pub remote: u64,
    /// Where in the second object, in bytes.
    pub remote_offset: u64,
    /// A 64-bit argument: a time in nanoseconds, an offset.
    pub arg64: u64,
}

const _: () = {
    assert!(size_of::<Sqe>() == 64 && align_of::<Sqe>() == 8);
    assert!(core::mem::offset_of!(Sqe, opcode) == 0);
    assert!(core::mem::offset_of!(Sqe, flags) == 1);
    assert!(core::mem::offset_of!(Sqe, op_flags) == 2);
    assert!(core::mem::offset_of!(Sqe, arg32) == 4);
    assert!(core::mem::offset_of!(Sqe, local_offset) == 8);
    assert!(core::mem::offset_of!(Sqe, local) == 16);
    assert!(core::mem::offset_of!(Sqe, length) == 24);
    assert!(core::mem::offset_of!(Sqe, user_data) == 32);
    assert!(core::mem::offset_of!(Sqe, remote) == 40);
    assert!(core::mem::offset_of!(Sqe, remote_offset) == 48);
    assert!(core::mem::offset_of!(Sqe, arg64) == 56);
};

impl Sqe {
    /// 64-bit words of an SQE.
    pub const WORDS: usize = 8;

    /// As words, in memory order on a little-endian machine.
    #[inline]
    pub const fn to_words(&self) -> [u64; Self::WORDS] {
        // SAFETY: integers without padding, of the same size (see above); any bits are a word. By the fields a compiler
        // takes a header apart and puts it together again, for each SQE.
        unsafe { core::mem::transmute::<Sqe, [u64; Self::WORDS]>(*self) }
    }

    /// From words.
    #[inline]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        // SAFETY: as in `to_words`; any bits are an integer.
        unsafe { core::mem::transmute::<[u64; Self::WORDS], Sqe>(words) }
    }
}

// Words and fields agree only where the low byte comes first; both targets (x86-64, aarch64) are so.
#[cfg(not(target_endian = "little"))]
compile_error!("dmaplane's ABI is little-endian");

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn sqe_1_words_round_trip(words: [u64; 8]) {
            proptest::prop_assert_eq!(Sqe::from_words(words).to_words(), words);
        }
    }
}
