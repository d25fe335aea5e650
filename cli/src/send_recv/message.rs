//! What the two sides say to each other beside the file's bytes: JSON, put together from a peer's SENDs.

use super::digest::Checksums;
use serde::{Deserialize, Serialize};

/// Named by the first message; another one is another program.
pub const PROTOCOL: &str = "dmaplane-file/1";
/// Room for the checksums of more tensors than a header can name.
const MESSAGE_BYTES_MAX: usize = 40 << 20;
/// Of a peer's reason, so much is shown.
const REASON_CHARACTERS_MAX: usize = 300;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Message {
    /// Sender: a file of so many bytes.
    Offer { protocol: String, bytes: u64 },
    /// Receiver: there is room; it comes in pieces of at most so many bytes.
    Ready { piece_bytes: u64 },
    /// Sender: the pieces, cut at the tensors, have these lengths.
    Cut { lengths: Vec<u64> },
    /// Receiver: the place for a piece, leased. The token in hexadecimal.
    Grant { piece: u32, token: String },
    /// Sender: that was all.
    Checksums(Checksums),
    /// Receiver: the disk takes its time.
    Busy,
    /// Receiver: it is verified, on disk, and has its name.
    Done { file: u64 },
    /// Either: it ends here.
    Abort { reason: String },
}

impl Message {
    pub fn encode(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    pub fn decode(bytes: &[u8]) -> serde_json::Result<Message> {
        serde_json::from_slice(bytes)
    }
}

/// A peer's words, fit to be shown: one line, not too long.
pub fn shown(reason: &str) -> String {
    let printable = reason.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(REASON_CHARACTERS_MAX).collect()
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
        if pair.len() == 2 { u8::from_str_radix(pair, 16).ok() } else { None }
    });
    pairs.collect()
}

/// A peer broke the protocol: its message is too long, or no message.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

/// Puts messages together: 8 bytes of length before each, as `Plane::send_message` cuts them.
#[derive(Debug, Default)]
pub struct Assembly {
    bytes: Vec<u8>,
}

impl Assembly {
    /// Takes a SEND's bytes; the message, when these end it.
    pub fn feed(&mut self, part: &[u8]) -> Result<Option<Message>, Broken> {
        if part.is_empty() {
            return Err(Broken);
        }
        self.bytes.extend_from_slice(part);
        let (length, message) = self.bytes.split_first_chunk::<8>().ok_or(Broken)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|&length| length <= MESSAGE_BYTES_MAX);
        let length = length.ok_or(Broken)?;
        if message.len() > length {
            return Err(Broken);
        }
        if message.len() < length {
            return Ok(None);
        }
        let message = Message::decode(message).map_err(|_| Broken)?;
        self.bytes.clear();
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()
    }

    #[test]
    fn messages_come_out_as_they_went_in_however_cut() {
        let messages = [
            Message::Offer { protocol: PROTOCOL.into(), bytes: u64::MAX },
            Message::Cut { lengths: (0..3000).collect() },
            Message::Grant { piece: 7, token: to_hex(&[0, 255]) },
            Message::Checksums(Checksums { file: u64::MAX - 1, tensors: (0..5000).collect() }),
            Message::Busy,
        ];
        let mut assembly = Assembly::default();
        for message in messages {
            let frame = framed(&message.encode().unwrap());
            let mut parts = frame.chunks(4096).peekable();
            while let Some(part) = parts.next() {
                let fed = assembly.feed(part).unwrap();
                assert_eq!(fed.is_some(), parts.peek().is_none());
                if let Some(fed) = fed {
                    assert_eq!(fed, message);
                }
            }
        }
    }

    #[test]
    fn other_bytes_are_no_messages() {
        for bytes in [
            vec![],
            vec![1],
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            framed(b"{}"),
            framed(b"{\"kind\":\"teapot\"}"),
            framed(&[255; 4]),
            [framed(b"{\"kind\":\"busy\"}"), vec![0]].concat(),
        ] {
            assert_eq!(Assembly::default().feed(&bytes), Err(Broken), "{bytes:?}");
        }
    }

    #[test]
    fn tokens_survive_and_reasons_are_tamed() {
        assert_eq!(from_hex(&to_hex(b"\x00\x7f\xff")), Some(b"\x00\x7f\xff".to_vec()));
        for bad in ["0", "0g", "+1", "ä"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
        assert_eq!(shown("a\n\x1b[31mb"), "a  [31mb");
        assert_eq!(shown(&"x".repeat(5000)).len(), REASON_CHARACTERS_MAX);
    }
}
