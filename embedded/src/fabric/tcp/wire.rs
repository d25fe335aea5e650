//! The wire as bytes: records, fragment tables, slices (clauses TCP-4 to TCP-6). Pure: no I/O, nothing is trusted.
//!
//! A record is a header of 80 bytes, a payload, and a table of fragments. On the data socket a body may follow it:
//! slices, each a word and its bytes. The word tells the slice's length; that the body has ended; or that its sender
//! gave it up.

use dmaplane_engine::{Message, Request, RequestKind, WIRE_WORDS};
use dmaplane_ring::abi::{Errno, MAX_LIST_SEGMENTS, MAX_NOTIFICATION_BYTES, MAX_OPERATION_BYTES, MAX_SEND_BYTES};

/// Bytes of a record's header: kind and payload length, the message or what stands in its place, the table's length.
pub(crate) const HEADER_BYTES: usize = 80;
/// Bytes of a table's entry.
pub(crate) const FRAGMENT_BYTES: usize = 8;
/// Bytes of the word before a slice.
pub(crate) const SLICE_WORD_BYTES: usize = 4;
/// Bytes of a slice at most.
pub(crate) const SLICE_BYTES_MAX: u32 = 1 << 20;

const END: u32 = 1 << 31;
const ABORT: u32 = 1 << 30;

/// Which of a peer's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Messages. Never behind bulk data.
    Control,
    /// Requests that carry data, and the data.
    Data,
}

/// What the peer did that no honest peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Breach {
    #[error("a record of kind {kind:#x} on the {lane:?} lane")]
    Kind { kind: u64, lane: Lane },
    #[error("a message whose first word is {head:#x}")]
    Message { head: u64 },
    #[error("a payload of {bytes} bytes with a message whose first word is {head:#x}")]
    Payload { bytes: u64, head: u64 },
    #[error("a table of {entries} fragments with a message whose first word is {head:#x}")]
    Table { entries: u64, head: u64 },
    #[error("a body of {bytes} bytes")]
    BodyLength { bytes: u64 },
    #[error("a reserved word that is {word:#x}")]
    Reserved { word: u64 },
    #[error("a slice's word {word:#x} where {left} bytes are left")]
    Slice { word: u32, left: u64 },
    #[error("{asked} bytes for a read of {expected}")]
    ReadLength { asked: u64, expected: u64 },
}

/// One fragment of a list transfer: which segment of the target's list, and how long both sides take it to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub segment: u32,
    pub length: u32,
}

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// An engine's message, on the control lane. A SEND has its bytes with it.
    Message { message: Message, payload: Vec<u8> },
    /// WRITE: a body of `request.length` bytes follows.
    Write { request: Request },
    /// WRITE_LIST: a body of the table's lengths follows.
    WriteList { request: Request, payload: Vec<u8>, table: Vec<Fragment>, bytes: u64 },
    /// READ_LIST: no body.
    ReadList { request: Request, table: Vec<Fragment> },
    /// Answers a READ or READ_LIST with a body: the reader's operation, bytes.
    ReadData { op: u64, bytes: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Message = 1,
    Write = 2,
    WriteList = 3,
    ReadList = 4,
    ReadData = 5,
}

fn put_header(out: &mut Vec<u8>, kind: Kind, payload_bytes: usize, words: &[u64; WIRE_WORDS], fragments: usize) {
    out.extend_from_slice(&(kind as u64 | (payload_bytes as u64) << 32).to_le_bytes());
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&(fragments as u64).to_le_bytes());
}

fn put_table(out: &mut Vec<u8>, table: &[Fragment]) {
    out.reserve(table.len() * FRAGMENT_BYTES);
    for fragment in table {
        out.extend_from_slice(&fragment.segment.to_le_bytes());
        out.extend_from_slice(&fragment.length.to_le_bytes());
    }
}

/// Appends a message for the control lane.
pub(crate) fn put_message(out: &mut Vec<u8>, message: &Message, payload: &[u8]) {
    put_header(out, Kind::Message, payload.len(), &message.encode(), 0);
    out.extend_from_slice(payload);
}

/// Appends the head of a WRITE; its body is to follow.
pub(crate) fn put_write(out: &mut Vec<u8>, request: &Request) {
    put_header(out, Kind::Write, 0, &Message::Request(*request).encode(), 0);
}

/// Appends the head of a WRITE_LIST; its body is to follow.
pub(crate) fn put_write_list(out: &mut Vec<u8>, request: &Request, payload: &[u8], table: &[Fragment]) {
    put_header(out, Kind::WriteList, payload.len(), &Message::Request(*request).encode(), table.len());
    out.extend_from_slice(payload);
    put_table(out, table);
}

/// Appends a READ_LIST.
pub(crate) fn put_read_list(out: &mut Vec<u8>, request: &Request, table: &[Fragment]) {
    put_header(out, Kind::ReadList, 0, &Message::Request(*request).encode(), table.len());
    put_table(out, table);
}

/// Appends the head of a READ's answer; its body is to follow.
pub(crate) fn put_read_data(out: &mut Vec<u8>, op: u64, bytes: u64) {
    put_header(out, Kind::ReadData, 0, &[op, bytes, 0, 0, 0, 0, 0, 0], 0);
}

/// The word before a slice of 1 to [`SLICE_BYTES_MAX`] bytes.
pub(crate) fn slice_word(bytes: u32) -> [u8; SLICE_WORD_BYTES] {
    bytes.to_le_bytes()
}

/// The word that ends a body.
pub(crate) fn end_word() -> [u8; SLICE_WORD_BYTES] {
    END.to_le_bytes()
}

/// The word that gives a body up.
pub(crate) fn abort_word(errno: Errno) -> [u8; SLICE_WORD_BYTES] {
    (ABORT | errno.raw() as u32).to_le_bytes()
}

/// A header, checked as far as it can be without what follows it.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: Kind,
    words: [u64; WIRE_WORDS],
    payload_bytes: usize,
    fragments: usize,
}

impl Header {
    fn decode(bytes: &[u8], lane: Lane) -> Result<Header, Breach> {
        let mut all = [0u64; WIRE_WORDS + 2];
        for (word, chunk) in all.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        }
        let [head, words @ .., entries] = all;
        let (kind, payload_bytes) = (head & 0xffff_ffff, head >> 32);
        let kind = match (kind, lane) {
            (1, Lane::Control) => Kind::Message,
            (2, Lane::Data) => Kind::Write,
            (3, Lane::Data) => Kind::WriteList,
            (4, Lane::Data) => Kind::ReadList,
            (5, Lane::Data) => Kind::ReadData,
            _ => return Err(Breach::Kind { kind, lane }),
        };
        let payload_max = match kind {
            Kind::Message => MAX_SEND_BYTES,
            Kind::WriteList => MAX_NOTIFICATION_BYTES,
            Kind::Write | Kind::ReadList | Kind::ReadData => 0,
        };
        if payload_bytes > payload_max {
            return Err(Breach::Payload { bytes: payload_bytes, head: words[0] });
        }
        let table = matches!(kind, Kind::WriteList | Kind::ReadList);
        if table != (entries > 0) || entries > MAX_LIST_SEGMENTS {
            return Err(Breach::Table { entries, head: words[0] });
        }
        Ok(Header { kind, words, payload_bytes: payload_bytes as usize, fragments: entries as usize })
    }

    fn body_bytes(&self) -> usize {
        self.payload_bytes + self.fragments * FRAGMENT_BYTES
    }

    fn record(&self, after: Vec<u8>) -> Result<Record, Breach> {
        if self.kind == Kind::ReadData {
            let [op, bytes, reserved @ ..] = self.words;
            if let Some(&word) = reserved.iter().find(|&&word| word != 0) {
                return Err(Breach::Reserved { word });
            }
            check_body(bytes)?;
            return Ok(Record::ReadData { op, bytes });
        }
        let head = self.words[0];
        let message = Message::decode(&self.words).ok_or(Breach::Message { head })?;
        let mut payload = after;
        let table = decode_table(&payload[self.payload_bytes..]);
        payload.truncate(self.payload_bytes);
        let Message::Request(request) = message else {
            // Only requests have something with them.
            return match (self.kind, payload.len() as u64) {
                (Kind::Message, 0) => Ok(Record::Message { message, payload }),
                (Kind::Message, bytes) => Err(Breach::Payload { bytes, head }),
                _ => Err(Breach::Message { head }),
            };
        };
        let bytes = payload.len() as u64;
        if u64::from(request.payload_bytes) != bytes {
            return Err(Breach::Payload { bytes, head });
        }
        let entries = table.len() as u64;
        match (self.kind, request.kind) {
            (Kind::Message, RequestKind::Send | RequestKind::Read) => Ok(Record::Message { message, payload }),
            (Kind::Write, RequestKind::Write) => {
                check_body(request.length)?;
                Ok(Record::Write { request })
            }
            (Kind::WriteList | Kind::ReadList, RequestKind::WriteList | RequestKind::ReadList)
                if entries != request.length =>
            {
                Err(Breach::Table { entries, head })
            }
            (Kind::WriteList, RequestKind::WriteList) => {
                let bytes = table.iter().map(|fragment| u64::from(fragment.length)).sum();
                check_body(bytes)?;
                Ok(Record::WriteList { request, payload, table, bytes })
            }
            (Kind::ReadList, RequestKind::ReadList) => Ok(Record::ReadList { request, table }),
            _ => Err(Breach::Message { head }),
        }
    }
}

fn check_body(bytes: u64) -> Result<(), Breach> {
    if (1..=MAX_OPERATION_BYTES).contains(&bytes) { Ok(()) } else { Err(Breach::BodyLength { bytes }) }
}

fn decode_table(bytes: &[u8]) -> Vec<Fragment> {
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap_or_default());
    let fragment = |entry: &[u8]| Fragment { segment: word(&entry[..4]), length: word(&entry[4..]) };
    bytes.chunks_exact(FRAGMENT_BYTES).map(fragment).collect()
}

/// Puts records together out of bytes as they come. Memory grows with what has come, not with what was announced.
#[derive(Debug)]
pub(crate) struct Decoder {
    lane: Lane,
    header: Option<Header>,
    /// What has come of the header, or, once that is there, of the rest.
    gathered: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new(lane: Lane) -> Decoder {
        Decoder { lane, header: None, gathered: Vec::new() }
    }

    /// Takes what it needs of `bytes`: how many, and the record if it is whole now.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<Record>), Breach> {
        let mut taken = 0;
        let header = match self.header {
            Some(header) => header,
            None => {
                taken += self.gather(bytes, HEADER_BYTES);
                if self.gathered.len() < HEADER_BYTES {
                    return Ok((taken, None));
                }
                let header = Header::decode(&self.gathered, self.lane)?;
                self.gathered.clear();
                self.header = Some(header);
                header
            }
        };
        taken += self.gather(&bytes[taken..], header.body_bytes());
        if self.gathered.len() < header.body_bytes() {
            return Ok((taken, None));
        }
        self.header = None;
        let record = header.record(std::mem::take(&mut self.gathered))?;
        Ok((taken, Some(record)))
    }

    /// Bytes that the record at hand needs at least.
    pub(crate) fn missing(&self) -> usize {
        self.header.map_or(HEADER_BYTES, |header| header.body_bytes()).saturating_sub(self.gathered.len())
    }

    fn gather(&mut self, bytes: &[u8], until: usize) -> usize {
        let taken = bytes.len().min(until.saturating_sub(self.gathered.len()));
        self.gathered.extend_from_slice(&bytes[..taken]);
        taken
    }
}

/// What a slice's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slice {
    /// So many bytes follow.
    Bytes(u32),
    /// The body was the last of them.
    End,
    /// The sender gave it up.
    Abort(Errno),
}

/// Where in a body a receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    /// Bytes that no slice has announced yet.
    unannounced: u64,
    /// Bytes of the current slice that have not come yet.
    in_slice: u32,
}

impl Body {
    pub(crate) fn new(bytes: u64) -> Body {
        Body { unannounced: bytes, in_slice: 0 }
    }

    /// Bytes of the current slice that are to come; at 0 a slice's word is next.
    pub(crate) fn in_slice(&self) -> u32 {
        self.in_slice
    }

    /// Whether no slice but the end can follow the current one.
    pub(crate) fn is_last_slice(&self) -> bool {
        self.unannounced == 0
    }

    /// Takes a slice's word.
    pub(crate) fn word(&mut self, word: [u8; SLICE_WORD_BYTES]) -> Result<Slice, Breach> {
        debug_assert_eq!(self.in_slice, 0);
        let word = u32::from_le_bytes(word);
        let left = self.unannounced;
        match word {
            END if left == 0 => Ok(Slice::End),
            1..=SLICE_BYTES_MAX if u64::from(word) <= left => {
                self.unannounced -= u64::from(word);
                self.in_slice = word;
                Ok(Slice::Bytes(word))
            }
            _ if word & !0xfff == ABORT && word & 0xfff != 0 => {
                Ok(Slice::Abort(Errno::from_raw((word & 0xfff) as i32)))
            }
            _ => Err(Breach::Slice { word, left }),
        }
    }

    /// `bytes` of the slice have come.
    pub(crate) fn came(&mut self, bytes: u32) {
        debug_assert!(bytes <= self.in_slice);
        self.in_slice = self.in_slice.saturating_sub(bytes);
    }
}

/// Decodes a lane's bytes as a connection does, without one: for fuzzing. Returns the records.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn decode_all(control: bool, bytes: &[u8]) -> Result<usize, Breach> {
    let mut decoder = Decoder::new(if control { Lane::Control } else { Lane::Data });
    let mut rest = bytes;
    let mut records = 0;
    while !rest.is_empty() {
        let (taken, record) = decoder.take(rest)?;
        rest = &rest[taken..];
        let Some(record) = record else { break };
        records += 1;
        let body = match record {
            Record::Write { request } => request.length,
            Record::WriteList { bytes, .. } | Record::ReadData { bytes, .. } => bytes,
            Record::Message { .. } | Record::ReadList { .. } => continue,
        };
        let mut body = Body::new(body);
        while let Some((word, after)) = rest.split_first_chunk() {
            rest = after;
            if !matches!(body.word(*word)?, Slice::Bytes(_)) {
                break;
            }
            let came = rest.len().min(body.in_slice() as usize);
            body.came(came as u32);
            rest = &rest[came..];
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(kind: RequestKind, length: u64, payload_bytes: u32) -> Request {
        Request {
            kind,
            checksum: false,
            notify: kind == RequestKind::Send,
            immediate: 7,
            op: 8,
            lease: if kind == RequestKind::Send { 0 } else { 9 },
            offset: 0,
            length,
            payload_bytes,
        }
    }

    fn all(lane: Lane, bytes: &[u8], step: usize) -> Vec<Record> {
        let mut decoder = Decoder::new(lane);
        let mut records = Vec::new();
        for chunk in bytes.chunks(step) {
            let mut chunk = chunk;
            while !chunk.is_empty() {
                let (taken, record) = decoder.take(chunk).unwrap();
                records.extend(record);
                chunk = &chunk[taken..];
            }
        }
        records
    }

    /// TCP-5, on the lanes of TCP-4.
    #[test]
    fn tcp_5_every_record_round_trips_in_pieces_of_any_size() {
        let table = [Fragment { segment: 3, length: 4096 }, Fragment { segment: u32::MAX, length: 1 }];
        let (list, read) = (request(RequestKind::WriteList, 2, 3), request(RequestKind::ReadList, 2, 0));
        let write = request(RequestKind::Write, 1 << 20, 0);
        let mut bytes = Vec::new();
        put_write(&mut bytes, &write);
        put_write_list(&mut bytes, &list, b"abc", &table);
        put_read_list(&mut bytes, &read, &table);
        put_read_data(&mut bytes, 77, 5);
        let expected = [
            Record::Write { request: write },
            Record::WriteList { request: list, payload: b"abc".to_vec(), table: table.to_vec(), bytes: 4097 },
            Record::ReadList { request: read, table: table.to_vec() },
            Record::ReadData { op: 77, bytes: 5 },
        ];
        for step in [1, 7, 80, 4096] {
            assert_eq!(all(Lane::Data, &bytes, step), expected, "in pieces of {step}");
        }
        let send = Message::Request(request(RequestKind::Send, 3, 3));
        let mut bytes = Vec::new();
        put_message(&mut bytes, &send, b"xyz");
        put_message(&mut bytes, &Message::Credits { total: 4 }, &[]);
        let expected = [
            Record::Message { message: send, payload: b"xyz".to_vec() },
            Record::Message { message: Message::Credits { total: 4 }, payload: Vec::new() },
        ];
        assert_eq!(all(Lane::Control, &bytes, 13), expected);
    }

    /// TCP-8: a, b, e, g, h.
    #[test]
    fn tcp_8_what_no_honest_peer_sends_is_named() {
        let fails = |lane, bytes: &[u8]| Decoder::new(lane).take(bytes).unwrap_err();
        let mut write = Vec::new();
        put_write(&mut write, &request(RequestKind::Write, 0, 0));
        assert_eq!(fails(Lane::Data, &write), Breach::BodyLength { bytes: 0 });
        assert_eq!(fails(Lane::Control, &write), Breach::Kind { kind: 2, lane: Lane::Control });
        let mut wrong = Vec::new();
        put_write(&mut wrong, &request(RequestKind::Read, 5, 0));
        assert!(matches!(fails(Lane::Data, &wrong), Breach::Message { .. }));
        let mut list = Vec::new();
        put_write_list(&mut list, &request(RequestKind::WriteList, 2, 0), &[], &[Fragment { segment: 0, length: 1 }]);
        assert!(matches!(fails(Lane::Data, &list), Breach::Table { entries: 1, .. }));
        let mut long = vec![0u8; HEADER_BYTES];
        long[0] = 1;
        long[4..8].copy_from_slice(&4097u32.to_le_bytes());
        assert!(matches!(fails(Lane::Control, &long), Breach::Payload { bytes: 4097, .. }));
        let http = b"GET / HTTP/1.1\r\n".repeat(5);
        let kind = u64::from(u32::from_le_bytes(*b"GET "));
        assert_eq!(fails(Lane::Control, &http), Breach::Kind { kind, lane: Lane::Control });
    }

    /// TCP-6; TCP-8: j.
    #[test]
    fn tcp_6_slices_end_exactly_where_the_body_does() {
        let mut body = Body::new(10);
        assert_eq!(body.word(slice_word(6)), Ok(Slice::Bytes(6)));
        body.came(6);
        assert_eq!(body.clone().word(end_word()), Err(Breach::Slice { word: END, left: 4 }));
        assert_eq!(body.clone().word(slice_word(5)), Err(Breach::Slice { word: 5, left: 4 }));
        assert_eq!(body.clone().word([0; 4]), Err(Breach::Slice { word: 0, left: 4 }));
        assert_eq!(body.clone().word(abort_word(Errno::EKEYREVOKED)), Ok(Slice::Abort(Errno::EKEYREVOKED)));
        assert_eq!(body.word(slice_word(4)), Ok(Slice::Bytes(4)));
        body.came(4);
        assert!(body.is_last_slice());
        assert_eq!(body.word(end_word()), Ok(Slice::End));
    }

    proptest! {
        /// TCP-8: found or not, it is no panic.
        #[test]
        fn tcp_8_garbage_never_panics(bytes: Vec<u8>, control: bool, kind in 0u8..7, message in 0u8..8) {
            let _ = decode_all(control, &bytes);
            let mut likely = bytes;
            likely.resize(likely.len().max(HEADER_BYTES + 64), 0);
            likely[..16].fill(0);
            likely[0] = kind;
            likely[8] = message;
            let _ = decode_all(control, &likely);
        }
    }
}
