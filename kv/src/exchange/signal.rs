//! What exchanges say to each other in messages. A message is one signal after the other, each with its length in 2
//! bytes before it; a signal is 4 bytes `DPKX`, a kind, and what belongs to it. All is little endian.

use crate::TransferManifest;
use crate::transfer::TransferError;
use crate::wire::Reader;

const MAGIC: [u8; 4] = *b"DPKX";
/// Most parts of one [`Signal::Ready`], so that it fits a message of 4,096 bytes with its user bytes.
pub(super) const READY_PARTS_MAX: usize = 256;
/// Most bytes of a user's message.
pub(super) const MESSAGE_BYTES_MAX: usize = 4000;

/// Most bytes of a message of signals.
const PACKED_BYTES_MAX: usize = 4096;

/// Which half of a transfer a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Landing,
    Push,
    Offer,
    Pull,
}

const HALVES: [Half; 4] = [Half::Landing, Half::Push, Half::Offer, Half::Pull];

/// A message. `transfer` is the number that the owner of the blocks has given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signal {
    /// Who is there: the first message of a connection.
    Hello { name: String },
    /// The user's.
    Message { bytes: Vec<u8> },
    /// The lease is claimed, by whoever has its token.
    Claim { half: Half, transfer: u32, token: Vec<u8> },
    /// Parts that may be read, each with its checksum.
    Ready { transfer: u32, parts: Vec<(u32, u32)>, last: Option<Last> },
    /// Everything has been read.
    Done { transfer: u32 },
    /// The transfer has ended without success.
    Abort { half: Half, transfer: u32 },
}

/// What goes with the last part of a pulled transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) digest: u64,
    pub(super) user: Vec<u8>,
}

/// As many encoded signals as fit a message, from the first on, and how many these are: one at least.
pub(super) fn pack<'a>(signals: impl Iterator<Item = &'a Vec<u8>>) -> (Vec<u8>, usize) {
    let (mut message, mut count) = (Vec::new(), 0);
    for signal in signals {
        if count > 0 && message.len() + 2 + signal.len() > PACKED_BYTES_MAX {
            break;
        }
        // Signals are shorter than a message.
        message.extend_from_slice(&(signal.len() as u16).to_le_bytes());
        message.extend_from_slice(signal);
        count += 1;
    }
    (message, count)
}

/// The signals of a message; an error in the place of the first that is none, and nothing after it.
pub(super) fn unpack(message: &[u8]) -> Vec<Result<Signal, TransferError>> {
    let mut reader = Reader::new(message);
    let mut signals = Vec::new();
    while let Some(length) = reader.u16() {
        let signal = match reader.take(usize::from(length)) {
            Some(bytes) => Signal::decode(bytes),
            None => Err(TransferError::Signal { what: "a signal that is cut off" }),
        };
        let is_over = signal.is_err();
        signals.push(signal);
        if is_over {
            return signals;
        }
    }
    if !reader.rest().is_empty() || message.is_empty() {
        signals.push(Err(TransferError::Signal { what: "a message that is no signal" }));
    }
    signals
}

impl Signal {
    /// Shows the owner of a landing or an offer the token that its manifest has.
    pub(super) fn claim(half: Half, theirs: &TransferManifest) -> Signal {
        Signal::Claim { half, transfer: theirs.transfer.pack(), token: theirs.lease_token.0.clone() }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let half_code = |half: &Half| HALVES.iter().position(|of| of == half).unwrap_or_default() as u8;
        match self {
            Signal::Hello { name } => {
                bytes.push(0);
                bytes.extend_from_slice(name.as_bytes());
            }
            Signal::Message { bytes: message } => {
                bytes.push(1);
                bytes.extend_from_slice(message);
            }
            Signal::Claim { half, transfer, token } => {
                bytes.extend_from_slice(&[2, half_code(half)]);
                bytes.extend_from_slice(&transfer.to_le_bytes());
                bytes.extend_from_slice(token);
            }
            Signal::Ready { transfer, parts, last } => {
                bytes.extend_from_slice(&[3, u8::from(last.is_some())]);
                bytes.extend_from_slice(&transfer.to_le_bytes());
                bytes.extend_from_slice(&(parts.len() as u32).to_le_bytes());
                for (part, check) in parts {
                    bytes.extend_from_slice(&part.to_le_bytes());
                    bytes.extend_from_slice(&check.to_le_bytes());
                }
                if let Some(last) = last {
                    bytes.extend_from_slice(&last.digest.to_le_bytes());
                    bytes.extend_from_slice(&last.user);
                }
            }
            Signal::Done { transfer } => {
                bytes.push(4);
                bytes.extend_from_slice(&transfer.to_le_bytes());
            }
            Signal::Abort { half, transfer } => {
                bytes.extend_from_slice(&[5, half_code(half)]);
                bytes.extend_from_slice(&transfer.to_le_bytes());
            }
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Signal, TransferError> {
        let mut reader = Reader::new(bytes);
        if reader.array() != Some(MAGIC) {
            return Err(TransferError::Signal { what: "a message that does not begin with DPKX" });
        }
        fields(&mut reader).ok_or(TransferError::Signal { what: "a message of another form" })
    }
}

fn fields(reader: &mut Reader<'_>) -> Option<Signal> {
    let half = |code: u8| HALVES.get(usize::from(code)).copied();
    let signal = match reader.u8()? {
        0 => Signal::Hello { name: String::from_utf8(reader.rest().to_vec()).ok()? },
        1 => Signal::Message { bytes: reader.rest().to_vec() },
        2 => {
            let (half, transfer) = (half(reader.u8()?)?, reader.u32()?);
            Signal::Claim { half, transfer, token: reader.rest().to_vec() }
        }
        3 => {
            let (has_last, transfer, count) = (reader.u8()?, reader.u32()?, reader.u32()?);
            if count as usize > READY_PARTS_MAX || has_last > 1 {
                return None;
            }
            let mut parts = Vec::with_capacity(count as usize);
            for _ in 0..count {
                parts.push((reader.u32()?, reader.u32()?));
            }
            let last = match has_last {
                0 => None,
                _ => Some(Last { digest: reader.u64()?, user: reader.rest().to_vec() }),
            };
            Signal::Ready { transfer, parts, last }
        }
        4 => Signal::Done { transfer: reader.u32()? },
        5 => Signal::Abort { half: half(reader.u8()?)?, transfer: reader.u32()? },
        _ => return None,
    };
    reader.rest().is_empty().then_some(signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_come_back_and_nothing_else_is_taken_for_one() {
        let last = Some(Last { digest: 7, user: b"first".to_vec() });
        let signals = [
            Signal::Hello { name: "P0.1".to_owned() },
            Signal::Message { bytes: vec![0, 1, 2] },
            Signal::Claim { half: Half::Offer, transfer: 9, token: vec![1; 80] },
            Signal::Ready { transfer: 1, parts: vec![(0, 5), (1, u32::MAX)], last },
            Signal::Ready { transfer: 1, parts: vec![], last: None },
            Signal::Done { transfer: u32::MAX },
            Signal::Abort { half: Half::Pull, transfer: 3 },
        ];
        for signal in signals {
            let bytes = signal.encode();
            assert_eq!(Signal::decode(&bytes).unwrap(), signal);
            assert!(Signal::decode(&bytes[1..]).is_err());
            if !matches!(signal, Signal::Hello { .. } | Signal::Message { .. } | Signal::Claim { .. }) {
                assert!(Signal::decode(&bytes[..bytes.len() - 1]).map_or(true, |other| other != signal));
            }
        }
        let [one, other] =
            [Signal::Done { transfer: 1 }, Signal::Message { bytes: vec![7; 4000] }].map(|of| of.encode());
        let (message, count) = pack([&one, &one, &other].into_iter());
        assert_eq!((count, unpack(&message).len(), message.len() <= 4096), (3, 3, true));
        let (message, count) = pack([&other, &other].into_iter());
        assert_eq!((count, unpack(&message).len()), (1, 1));
        assert!(unpack(&message[..message.len() - 1])[0].is_err());
        assert!(unpack(&[&message[..], &[0]].concat())[1].is_err() && unpack(b"")[0].is_err());
        let many = [&MAGIC[..], &[3, 0], &[0; 4], &u32::MAX.to_le_bytes()].concat();
        assert!(Signal::decode(&many).is_err());
        assert!(Signal::decode(b"DPKX\x05\x04\0\0\0\0").is_err(), "no such half");
        assert!(Signal::decode(b"DPKX\x04\0\0\0\0\0").is_err(), "a byte too many");
        assert!(Signal::decode(b"DPKX").is_err());
        let longest = Signal::Ready {
            transfer: 1,
            parts: vec![(0, 0); READY_PARTS_MAX],
            last: Some(Last { digest: 0, user: vec![0; 232] }),
        };
        assert!(longest.encode().len() + 2 <= 4096);
    }
}
