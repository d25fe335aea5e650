//! What has arrived of one transfer. [`transfer_slot`](crate::transfer_slot) says whose it is.

use crate::transfer_id::TransferId;

/// Most notifications that one transfer may have.
pub const PARTS_MAX: u32 = 1 << 20;

/// What a transfer consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Expected {
    /// Notifications, one per operation of the sender: 1 for one list write, or one per layer, or
    /// one per fragment if each fragment is a write of its own.
    pub parts: u32,
    /// Bytes of all parts together, as in
    /// [`FragmentPlan::bytes_total`](crate::FragmentPlan::bytes_total).
    pub bytes: u64,
}

/// How much of a transfer has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Progress {
    /// Notifications so far.
    pub parts: u32,
    /// Bytes so far.
    pub bytes: u64,
    /// What there is to come in all.
    pub expected: Expected,
}

impl Progress {
    /// Whether everything is there.
    pub const fn is_complete(&self) -> bool {
        self.parts == self.expected.parts && self.bytes == self.expected.bytes
    }
}

/// Arrivals that were refused, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refused {
    /// Of an earlier generation of the slot.
    pub stale: u64,
    /// Of a slot or a generation that was never given out.
    pub unknown: u64,
    /// From a peer that the transfer is not with.
    pub foreign: u64,
    /// Of a transfer that was committed or aborted.
    pub ended: u64,
    /// Of a part that had arrived before.
    pub duplicate: u64,
    /// Inconsistent with what was expected: beyond it, short of it, empty, or numbered wrongly.
    pub inconsistent: u64,
}

impl Refused {
    pub(crate) fn count(&mut self, error: &ArrivalError) {
        let counter = match error {
            ArrivalError::Stale { .. } => &mut self.stale,
            ArrivalError::Unknown { .. } => &mut self.unknown,
            ArrivalError::Foreign { .. } => &mut self.foreign,
            ArrivalError::Ended { .. } => &mut self.ended,
            ArrivalError::Duplicate { .. } => &mut self.duplicate,
            ArrivalError::NoSuchPart { .. }
            | ArrivalError::Mixed { .. }
            | ArrivalError::Empty { .. }
            | ArrivalError::Overrun { .. }
            | ArrivalError::Short { .. } => &mut self.inconsistent,
        };
        *counter += 1;
    }
}

/// Why an arrival was refused. It changed nothing but a counter of [`Refused`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArrivalError {
    /// An immediate of an earlier transfer. Ignore it: this is what generations are for.
    #[error("{id} is over, its slot is at generation {current}; the late arrival was ignored")]
    Stale {
        /// What the immediate names.
        id: TransferId,
        /// The slot's generation.
        current: u16,
    },
    /// An immediate that this table never gave out.
    #[error("{id} was never begun here; the peer is confused, end its connection")]
    Unknown {
        /// What the immediate names.
        id: TransferId,
    },
    /// An arrival from another peer than the transfer's.
    #[error("{id} is with peer {expected}, not with peer {found}; the arrival was ignored")]
    Foreign {
        /// What the immediate names.
        id: TransferId,
        /// The transfer's peer.
        expected: u64,
        /// The peer that the arrival came from.
        found: u64,
    },
    /// An arrival after the commit or the abort.
    #[error("{id} has ended and awaits its release; the arrival was ignored")]
    Ended {
        /// What the immediate names.
        id: TransferId,
    },
    /// A part that has arrived already.
    #[error("part {part} of {id} arrived twice; the second was ignored")]
    Duplicate {
        /// What the immediate names.
        id: TransferId,
        /// The part.
        part: u32,
    },
    /// A part that the transfer does not have.
    #[error("{id} has {parts} parts and no part {part}; abort it")]
    NoSuchPart {
        /// What the immediate names.
        id: TransferId,
        /// The part.
        part: u32,
        /// Parts expected.
        parts: u32,
    },
    /// Parts with numbers and parts without cannot be told apart, so they cannot be counted
    /// together.
    #[error("{id} mixes numbered parts with unnumbered ones; send all of them in one way")]
    Mixed {
        /// What the immediate names.
        id: TransferId,
    },
    /// An arrival without bytes. Zero-length writes are not checked against a lease, and prove
    /// nothing.
    #[error("an arrival of 0 bytes for {id} proves nothing; send at least one byte with each part")]
    Empty {
        /// What the immediate names.
        id: TransferId,
    },
    /// More parts or bytes than expected: something was sent twice, or is not of this transfer.
    #[error("{id} expects {parts} parts and {bytes} bytes, and more arrived; abort \
        it", parts = expected.parts, bytes = expected.bytes)]
    Overrun {
        /// What the immediate names.
        id: TransferId,
        /// What was expected.
        expected: Expected,
    },
    /// The last part leaves bytes missing.
    #[error("the last part of {id} leaves {missing_bytes} bytes missing; abort it")]
    Short {
        /// What the immediate names.
        id: TransferId,
        /// Bytes missing.
        missing_bytes: u64,
    },
}

/// The arrivals of one running transfer.
#[derive(Debug, Clone)]
pub(crate) struct Active {
    peer: Option<u64>,
    /// Invariant: at least as many bytes are still to come as parts are.
    progress: Progress,
    seen: Seen,
}

/// Which parts have arrived. Decided by the first arrival.
#[derive(Debug, Clone)]
enum Seen {
    Nothing,
    Unnumbered,
    /// A bit per part. Invariant: as many ones as `progress.parts`.
    Numbered(Vec<u64>),
}

impl Active {
    pub(crate) fn new(expected: Expected, peer: Option<u64>) -> Active {
        Active { peer, progress: Progress { parts: 0, bytes: 0, expected }, seen: Seen::Nothing }
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress
    }

    /// Checks everything first, then counts: an error changes nothing.
    pub(crate) fn count(
        &mut self,
        peer: u64,
        id: TransferId,
        part: Option<u32>,
        bytes: u64,
    ) -> Result<Progress, ArrivalError> {
        let expected = self.progress.expected;
        if let Some(bound) = self.peer.filter(|&bound| bound != peer) {
            return Err(ArrivalError::Foreign { id, expected: bound, found: peer });
        }
        if bytes == 0 {
            return Err(ArrivalError::Empty { id });
        }
        if let Some(part) = part {
            if part >= expected.parts {
                return Err(ArrivalError::NoSuchPart { id, part, parts: expected.parts });
            }
            match &self.seen {
                Seen::Unnumbered => return Err(ArrivalError::Mixed { id }),
                Seen::Numbered(bits) if bits[part as usize / 64] >> (part % 64) & 1 == 1 => {
                    return Err(ArrivalError::Duplicate { id, part });
                }
                _ => {}
            }
        } else if matches!(self.seen, Seen::Numbered(_)) {
            return Err(ArrivalError::Mixed { id });
        }
        let bytes_left = expected.bytes - self.progress.bytes;
        let Some(parts_after) = (expected.parts - self.progress.parts).checked_sub(1) else {
            return Err(ArrivalError::Overrun { id, expected });
        };
        // Each later part needs a byte at least.
        if bytes > bytes_left - u64::from(parts_after) {
            return Err(ArrivalError::Overrun { id, expected });
        }
        if parts_after == 0 && bytes < bytes_left {
            return Err(ArrivalError::Short { id, missing_bytes: bytes_left - bytes });
        }

        self.peer = Some(peer);
        self.progress.parts += 1;
        self.progress.bytes += bytes;
        debug_assert!(expected.bytes - self.progress.bytes >= u64::from(parts_after));
        match (&mut self.seen, part) {
            (Seen::Numbered(bits), Some(part)) => bits[part as usize / 64] |= 1 << (part % 64),
            (seen, Some(part)) => {
                let mut bits = vec![0; expected.parts.div_ceil(64) as usize];
                bits[part as usize / 64] = 1 << (part % 64);
                *seen = Seen::Numbered(bits);
            }
            (seen, None) => *seen = Seen::Unnumbered,
        }
        Ok(self.progress)
    }
}

#[cfg(test)]
mod tests;
