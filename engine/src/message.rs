//! What engines say to each other, the same on every fabric: 64 bytes a message (clauses WIRE-1 to WIRE-12).

use dmaplane_ring::abi::Rights;

/// 64-bit words of a message.
pub const WIRE_WORDS: usize = 8;

/// What a peer asks of us, or we of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RequestKind {
    /// Bytes into a leased range.
    Write = 1,
    /// Bytes out of a leased range.
    Read = 2,
    /// Segments into a leased list.
    WriteList = 3,
    /// Segments out of a leased list.
    ReadList = 4,
    /// A message for a receive.
    Send = 5,
}

/// A request. The bytes themselves, or where they lie, are the fabric's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// What.
    pub kind: RequestKind,
    /// Whether it uses a credit and delivers the immediate.
    pub notify: bool,
    /// Whoever copies the bytes in tells its client their CRC-32C.
    pub checksum: bool,
    /// Immediate data.
    pub immediate: u32,
    /// The initiator's operation: comes back in `Done`.
    pub op: u64,
    /// Handle of the lease in the target's table; 0 for SEND.
    pub lease: u64,
    /// Where in the lease, in bytes; 0 for lists.
    pub offset: u64,
    /// Bytes; for lists, index pairs.
    pub length: u64,
    /// Bytes of the notification, or of the SEND, that travel with the request.
    pub payload_bytes: u32,
}

/// A message between engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Asks for a transfer.
    Request(Request),
    /// Ends a request: the target touches nothing of it any more.
    Done {
        /// The initiator's operation.
        op: u64,
        /// 0 or a negative errno.
        result: i32,
        /// Bytes moved.
        bytes: u64,
    },
    /// Credits granted since the connection began; wraps.
    Credits {
        /// The running total.
        total: u32,
    },
    /// Asks for the lease that a token names.
    Claim {
        /// The claimant's operation.
        op: u64,
        /// Handle in the owner's table.
        lease: u64,
        /// The token's tag.
        tag: [u64; 2],
        /// The claimant's import, for `Stop`.
        import: u64,
    },
    /// Answers a claim.
    Claimed {
        /// The claimant's operation.
        op: u64,
        /// 0 or a negative errno.
        result: i32,
        /// What the lease allows.
        rights: Rights,
        /// Whether it is of a list.
        list: bool,
        /// Bytes of a range, segments of a list.
        length: u64,
    },
    /// The owner asks: start nothing more under this lease.
    Stop {
        /// Handle in the owner's table.
        lease: u64,
        /// The holder's import.
        import: u64,
    },
    /// The holder answers: nothing of mine under it is in flight.
    Stopped {
        /// Handle in the owner's table.
        lease: u64,
    },
    /// The holder needs the lease no more.
    Released {
        /// Handle in the owner's table.
        lease: u64,
    },
}

const DONE: u64 = 16;
const CREDITS: u64 = 17;
const CLAIM: u64 = 18;
const CLAIMED: u64 = 19;
const STOP: u64 = 20;
const STOPPED: u64 = 21;
const RELEASED: u64 = 22;
const NOTIFY: u64 = 1 << 8;
const CHECKSUM: u64 = 1 << 9;
const LIST: u64 = 1 << 8;

/// 0 or a negative errno.
fn result_of(bits: u32) -> Option<i32> {
    Some(bits as i32).filter(|result| (-4095..=0).contains(result))
}

impl Message {
    /// As words.
    pub fn encode(&self) -> [u64; WIRE_WORDS] {
        let result_word = |kind: u64, result: i32| kind | u64::from(result as u32) << 32;
        match *self {
            Message::Request(request) => [
                request.kind as u64
                    | if request.notify { NOTIFY } else { 0 }
                    | if request.checksum { CHECKSUM } else { 0 }
                    | u64::from(request.immediate) << 32,
                request.op,
                request.lease,
                request.offset,
                request.length,
                u64::from(request.payload_bytes),
                0,
                0,
            ],
            Message::Done { op, result, bytes } => [result_word(DONE, result), op, bytes, 0, 0, 0, 0, 0],
            Message::Credits { total } => [CREDITS, u64::from(total), 0, 0, 0, 0, 0, 0],
            Message::Claim { op, lease, tag, import } => [CLAIM, op, lease, tag[0], tag[1], import, 0, 0],
            Message::Claimed { op, result, rights, list, length } => [
                result_word(CLAIMED, result) | if list { LIST } else { 0 } | u64::from(rights.bits()) << 16,
                op,
                length,
                0,
                0,
                0,
                0,
                0,
            ],
            Message::Stop { lease, import } => [STOP, lease, import, 0, 0, 0, 0, 0],
            Message::Stopped { lease } => [STOPPED, lease, 0, 0, 0, 0, 0, 0],
            Message::Released { lease } => [RELEASED, lease, 0, 0, 0, 0, 0, 0],
        }
    }

    /// From words; `None` is a breach of the protocol (clause WIRE-2): an unknown kind, or a set bit that has no name.
    pub fn decode(words: &[u64; WIRE_WORDS]) -> Option<Message> {
        let [head, a, b, c, d, e, f, g] = *words;
        let kind = head & 0xff;
        let high = (head >> 32) as u32;
        let message = match kind {
            1..=5 => {
                let kind = match kind {
                    1 => RequestKind::Write,
                    2 => RequestKind::Read,
                    3 => RequestKind::WriteList,
                    4 => RequestKind::ReadList,
                    _ => RequestKind::Send,
                };
                let send = kind == RequestKind::Send;
                let list = matches!(kind, RequestKind::WriteList | RequestKind::ReadList);
                if (send && b != 0) || ((send || list) && c != 0) {
                    return None;
                }
                Message::Request(Request {
                    kind,
                    notify: head & NOTIFY != 0,
                    checksum: head & CHECKSUM != 0,
                    immediate: high,
                    op: a,
                    lease: b,
                    offset: c,
                    length: d,
                    payload_bytes: u32::try_from(e).ok()?,
                })
            }
            DONE => Message::Done { op: a, result: result_of(high)?, bytes: b },
            CREDITS => Message::Credits { total: u32::try_from(a).ok()? },
            CLAIM => Message::Claim { op: a, lease: b, tag: [c, d], import: e },
            CLAIMED => {
                let rights = Rights::from_bits((head >> 16) as u16);
                if !Rights::KNOWN.contains(rights) {
                    return None;
                }
                Message::Claimed { op: a, result: result_of(high)?, rights, list: head & LIST != 0, length: b }
            }
            STOP => Message::Stop { lease: a, import: b },
            STOPPED => Message::Stopped { lease: a },
            RELEASED => Message::Released { lease: a },
            _ => return None,
        };
        // What encodes back to the same words has no stray bits, whatever the kind.
        if message.encode() == [head, a, b, c, d, e, f, g] { Some(message) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn wire_2_what_decodes_encodes_to_itself(words: [u64; 8], kind in 0u64..32) {
            let mut words = words;
            words[0] = words[0] & !0xff | kind;
            for keep in 0..8 {
                for word in words.iter_mut().skip(keep) {
                    *word = 0;
                }
                if keep == 0 { words[0] = kind; }
                if let Some(message) = Message::decode(&words) {
                    proptest::prop_assert_eq!(message.encode(), words);
                }
            }
        }
    }

    #[test]
    fn wire_2_every_kind_round_trips() {
        let request = Request {
            kind: RequestKind::WriteList,
            notify: true,
            checksum: true,
            immediate: 0xdead_beef,
            op: 1,
            lease: 2,
            offset: 0,
            length: 4,
            payload_bytes: 5,
        };
        let messages = [
            Message::Request(request),
            Message::Done { op: 1, result: -5, bytes: 9 },
            Message::Credits { total: u32::MAX },
            Message::Claim { op: 1, lease: 2, tag: [3, 4], import: 5 },
            Message::Claimed { op: 1, result: 0, rights: Rights::READ.with(Rights::WRITE), list: true, length: 7 },
            Message::Stop { lease: 1, import: 2 },
            Message::Stopped { lease: 1 },
            Message::Released { lease: 1 },
        ];
        for message in messages {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        assert_eq!(Message::decode(&[0; 8]), None);
        let done = |result| Message::decode(&Message::Done { op: 1, result, bytes: 0 }.encode());
        assert!(done(-4095).is_some() && done(0).is_some());
        assert_eq!([1, -4096, i32::MIN].map(done), [None; 3], "no result");
        let claimed = |result, rights| {
            let rights = Rights::from_bits(rights);
            Message::decode(&Message::Claimed { op: 1, result, rights, list: false, length: 7 }.encode())
        };
        assert!(claimed(0, 3).is_some());
        assert_eq!([claimed(0, 4), claimed(0, 0x8003), claimed(1, 3)], [None; 3], "a right without a name, no result");
        let bare = |kind, lease, offset| Message::Request(Request { kind, lease, offset, ..request });
        for message in [
            bare(RequestKind::Send, 2, 0),
            bare(RequestKind::Send, 0, 3),
            bare(RequestKind::WriteList, 2, 3),
            bare(RequestKind::ReadList, 2, 3),
        ] {
            assert_eq!(Message::decode(&message.encode()), None, "a field that it has not");
        }
        assert_eq!(Message::decode(&[STOP, 1, 1, 1, 0, 0, 0, 0]), None, "a stray word");
    }
}
