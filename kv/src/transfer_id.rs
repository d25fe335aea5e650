//! The 32 bits of immediate data that name a transfer to its receiver, and nothing else.

use core::fmt;

/// A transfer slot and its generation, both of the receiver's making.
///
/// On the wire: the slot in the upper 16 bits, the generation in the lower. Generations begin at 1,
/// so an immediate of zeros never names a transfer.
///
/// ```
/// use dmaplane_kv::TransferId;
///
/// let id = TransferId { slot: 0x0102, generation: 7 };
/// assert_eq!(id.pack(), 0x0102_0007);
/// assert_eq!(TransferId::unpack(0x0102_0007), id);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransferId {
    /// Index of the slot at the receiver.
    pub slot: u16,
    /// How many transfers have used the slot, this one included.
    pub generation: u16,
}

impl TransferId {
    /// The immediate data.
    pub const fn pack(self) -> u32 {
        (self.slot as u32) << 16 | self.generation as u32
    }

    /// What the immediate data says. Every value says something; whether it names a live transfer
    /// is for [`TransferSlots`](crate::TransferSlots) to know.
    pub const fn unpack(immediate: u32) -> TransferId {
        TransferId { slot: (immediate >> 16) as u16, generation: immediate as u16 }
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "transfer {}.{}", self.slot, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_immediate_comes_back() {
        for immediate in [0, 1, 0xffff, 0x1_0000, 0xffff_ffff, 0x1234_5678] {
            assert_eq!(TransferId::unpack(immediate).pack(), immediate);
        }
        assert_eq!(TransferId { slot: 3, generation: 9 }.to_string(), "transfer 3.9");
    }
}
