//! What happened elsewhere. Events are plain words, so that the inbox can carry them without a lock.

use crate::host::PeerInfo;
use crate::message::{Message, WIRE_WORDS};
use crate::operation::OpId;
use dmaplane_ring::abi::{Errno, Handle};

/// 64-bit words of an event in the inbox.
pub(crate) const EVENT_WORDS: usize = 12;

/// Something that the engine did not do itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Work that the host had started for an operation has ended.
    Finished {
        /// The operation.
        op: OpId,
        /// Non-negative, or a negative errno.
        result: i32,
        /// First result word.
        word0: u64,
        /// Second result word.
        word1: u64,
    },
    /// The host touches nothing more of ours for a posted operation.
    LocalDone {
        /// The operation.
        op: OpId,
        /// 0 or a negative errno.
        result: i32,
        /// CRC-32C of what has landed here, where the request asked for it; else 0.
        checksum: u32,
    },
    /// A peer's transfer touches nothing of ours any more.
    TransferDone {
        /// The transfer.
        transfer: OpId,
        /// 0 or a negative errno.
        result: i32,
        /// Bytes moved.
        bytes: u64,
        /// CRC-32C of what has landed here, where the request asked for it; else 0.
        checksum: u32,
    },
    /// A peer said something.
    Message {
        /// The peer.
        peer: Handle,
        /// The host's name for what travelled with it.
        frame: u32,
        /// What it said.
        message: Message,
    },
    /// A CONNECT has reached its peer; the host keeps the connection under `pending` until it is adopted.
    Connected {
        /// The operation.
        op: OpId,
        /// The host's name for the connection.
        pending: u32,
        /// What the peer said of itself.
        info: PeerInfo,
    },
    /// Somebody connected to a listener.
    Incoming {
        /// The listener.
        listener: Handle,
        /// The host's name for the connection.
        pending: u32,
        /// What the peer said of itself.
        info: PeerInfo,
    },
    /// A connection ended. No message of it comes after this; `LocalDone` and `TransferDone` may.
    PeerGone {
        /// The peer.
        peer: Handle,
        /// Why.
        errno: Errno,
    },
}

impl Event {
    /// As words for the inbox.
    pub(crate) fn encode(&self) -> [u64; EVENT_WORDS] {
        let mut words = [0; EVENT_WORDS];
        let head: [u64; 5] = match *self {
            Event::Finished { op, result, word0, word1 } => [1, op.bits(), u64::from(result as u32), word0, word1],
            Event::LocalDone { op, result, checksum } => [2, op.bits(), u64::from(result as u32), checksum.into(), 0],
            Event::TransferDone { transfer, result, bytes, checksum } => {
                [3, transfer.bits(), u64::from(result as u32), bytes, checksum.into()]
            }
            Event::Message { peer, frame, message } => {
                for (word, value) in words.iter_mut().skip(4).zip(message.encode()) {
                    *word = value;
                }
                let [_, _, _, _, first, ..] = words;
                [4, peer.bits(), u64::from(frame), 0, first]
            }
            Event::Connected { op, pending, info } => {
                words[5] = info.window.into();
                [5, op.bits(), pending.into(), info.context[0], info.context[1]]
            }
            Event::Incoming { listener, pending, info } => {
                words[5] = info.window.into();
                [6, listener.bits(), pending.into(), info.context[0], info.context[1]]
            }
            Event::PeerGone { peer, errno } => [7, peer.bits(), errno.raw() as u64, 0, 0],
        };
        for (word, value) in words.iter_mut().zip(head) {
            *word = value;
        }
        words
    }

    /// From words; `None` only for words that `encode` never makes.
    pub(crate) fn decode(words: &[u64; EVENT_WORDS]) -> Option<Event> {
        let [kind, a, b, c, d, e, ..] = *words;
        let info = PeerInfo { context: [c, d], window: e as u32 };
        Some(match kind {
            1 => Event::Finished { op: OpId::from_bits(a), result: b as u32 as i32, word0: c, word1: d },
            2 => Event::LocalDone { op: OpId::from_bits(a), result: b as u32 as i32, checksum: c as u32 },
            3 => Event::TransferDone {
                transfer: OpId::from_bits(a),
                result: b as u32 as i32,
                bytes: c,
                checksum: d as u32,
            },
            4 => {
                let [_, _, _, _, m0, m1, m2, m3, m4, m5, m6, m7] = *words;
                let message: [u64; WIRE_WORDS] = [m0, m1, m2, m3, m4, m5, m6, m7];
                Event::Message { peer: Handle::from_bits(a), frame: b as u32, message: Message::decode(&message)? }
            }
            5 => Event::Connected { op: OpId::from_bits(a), pending: b as u32, info },
            6 => Event::Incoming { listener: Handle::from_bits(a), pending: b as u32, info },
            7 => Event::PeerGone { peer: Handle::from_bits(a), errno: Errno::from_raw(b as i32) },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_survives_the_inbox_s_words() {
        let (op, peer) = (OpId::from_bits(0x0001_0000_0002), Handle::from_bits(99));
        let info = PeerInfo { context: [5, 6], window: 7 };
        let events = [
            Event::Finished { op, result: -22, word0: 1, word1: 2 },
            Event::LocalDone { op, result: -1, checksum: u32::MAX },
            Event::TransferDone { transfer: op, result: 0, bytes: 1 << 40, checksum: 7 },
            Event::Message { peer, frame: 3, message: Message::Done { op: 9, result: -116, bytes: 4 } },
            Event::Connected { op, pending: 4, info },
            Event::Incoming { listener: peer, pending: 4, info },
            Event::PeerGone { peer, errno: Errno::ECONNRESET },
        ];
        for event in events {
            assert_eq!(Event::decode(&event.encode()), Some(event));
        }
    }
}
