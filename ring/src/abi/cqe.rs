//! The completion queue entry (clause CQE-1).

use super::{CqeFlags, Errno};

/// Tells the result of one operation: 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Cqe {
    /// The SQE's.
    pub user_data: u64,
    /// Bytes done, or another small count, or a negative errno.
    pub res: i32,
    /// [`CqeFlags`].
    pub flags: u32,
    /// A handle; immediate data and payload length; bytes done before an error.
    pub word0: u64,
    /// A second word, as the opcode says.
    pub word1: u64,
}

const _: () = {
    assert!(size_of::<Cqe>() == 32 && align_of::<Cqe>() == 8);
    assert!(core::mem::offset_of!(Cqe, user_data) == 0);
    assert!(core::mem::offset_of!(Cqe, res) == 8);
    assert!(core::mem::offset_of!(Cqe, flags) == 12);
    assert!(core::mem::offset_of!(Cqe, word0) == 16);
    assert!(core::mem::offset_of!(Cqe, word1) == 24);
};

impl Cqe {
    /// 64-bit words of a CQE.
    pub const WORDS: usize = 4;

    /// A CQE without words.
    #[inline]
    pub const fn new(user_data: u64, res: i32) -> Self {
        Cqe { user_data, res, flags: 0, word0: 0, word1: 0 }
    }

    /// `Ok` with the non-negative count, or the errno.
    pub const fn result(&self) -> Result<u32, Errno> {
        if self.res >= 0 { Ok(self.res as u32) } else { Err(Errno::from_raw(-self.res)) }
    }

    /// Whether this is the SQE's last CQE.
    pub const fn is_terminal(&self) -> bool {
        self.flags & CqeFlags::MORE.bits() == 0
    }

    /// As words, in memory order.
    #[inline]
    pub const fn to_words(&self) -> [u64; Self::WORDS] {
        [self.user_data, self.res as u32 as u64 | (self.flags as u64) << 32, self.word0, self.word1]
    }

    /// From words.
    #[inline]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        Cqe {
            user_data: words[0],
            res: words[1] as u32 as i32,
            flags: (words[1] >> 32) as u32,
            word0: words[2],
            word1: words[3],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn cqe_1_words_round_trip(words: [u64; 4]) {
            proptest::prop_assert_eq!(Cqe::from_words(words).to_words(), words);
        }
    }
}
