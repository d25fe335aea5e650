//! What two sides say before anything else (clause TCP-2). Pure.
//!
//! First, in clear, a preamble: who we are, and whether we speak under a key. Then, under it if there is one, a hello.

use dmaplane_engine::PeerInfo;
use dmaplane_ring::abi::{ABI_VERSION, Errno};

const MAGIC: [u8; 4] = *b"DPTC";
/// Bytes of a preamble.
pub(crate) const PREAMBLE_BYTES: usize = 16;
/// Bytes of a hello.
pub(crate) const HELLO_BYTES: usize = 48;

/// Ties a connection's two sockets together.
pub(crate) type Nonce = [u8; 16];

/// How records travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Security {
    /// In clear: on loopback only.
    Plain = 0,
    /// Sealed, under a pre-shared key.
    Sealed = 1,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Purpose {
    Control = 1,
    Data = 2,
}

/// Our preamble.
pub(crate) fn preamble(security: Security) -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [0; PREAMBLE_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..8].copy_from_slice(&ABI_VERSION.to_le_bytes());
    bytes[8] = security as u8;
    bytes
}

/// Reads a preamble: -EPROTO for another protocol or version, -EKEYREJECTED where one side has a key and the other
/// none.
pub(crate) fn read_preamble(bytes: &[u8; PREAMBLE_BYTES], ours: Security) -> Result<(), Errno> {
    match *bytes {
        _ if *bytes == preamble(ours) => Ok(()),
        _ if *bytes == preamble(Security::Plain) || *bytes == preamble(Security::Sealed) => Err(Errno::EKEYREJECTED),
        _ => Err(Errno::EPROTO),
    }
}

/// Whether these may be the first bytes of a preamble of any version.
pub(crate) fn speaks_dmaplane(bytes: &[u8; PREAMBLE_BYTES]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// A hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub info: PeerInfo,
    pub purpose: Purpose,
    /// Zero in the connector's first.
    pub nonce: Nonce,
}

impl Hello {
    pub(crate) fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..8].copy_from_slice(&self.info.context[0].to_le_bytes());
        bytes[8..16].copy_from_slice(&self.info.context[1].to_le_bytes());
        bytes[16..20].copy_from_slice(&self.info.window.to_le_bytes());
        bytes[20] = self.purpose as u8;
        bytes[32..].copy_from_slice(&self.nonce);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Hello, Errno> {
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let window = u32::from_le_bytes(bytes[16..20].try_into().unwrap_or_default());
        let purpose = match bytes[20] {
            1 => Purpose::Control,
            2 => Purpose::Data,
            _ => return Err(Errno::EPROTO),
        };
        if window == 0 || bytes[21..32].iter().any(|&byte| byte != 0) {
            return Err(Errno::EPROTO);
        }
        let info = PeerInfo { context: [u64_at(0), u64_at(8)], window };
        Ok(Hello { info, purpose, nonce: bytes[32..].try_into().unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TCP-2: a hello's purpose, window and zero bytes; a preamble's magic, version and security.
    #[test]
    fn tcp_2_hellos_round_trip_and_strangers_are_told_from_keyless_peers() {
        let info = PeerInfo { context: [1, u64::MAX], window: 128 };
        let hello = Hello { info, purpose: Purpose::Data, nonce: [9; 16] };
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        for (at, value) in [(20, 3), (25, 1), (16, 0)] {
            let mut bytes = hello.encode();
            bytes[at] = value;
            assert_eq!(Hello::decode(&bytes), Err(Errno::EPROTO), "byte {at} is {value}");
        }
        let ours = Security::Sealed;
        assert_eq!(read_preamble(&preamble(Security::Sealed), ours), Ok(()));
        assert_eq!(read_preamble(&preamble(Security::Plain), ours), Err(Errno::EKEYREJECTED));
        assert_eq!(read_preamble(b"HTTP/1.1 400 Bad", ours), Err(Errno::EPROTO));
        let mut newer = preamble(ours);
        newer[4] = 1;
        assert_eq!(read_preamble(&newer, ours), Err(Errno::EPROTO));
        assert!(speaks_dmaplane(&newer) && !speaks_dmaplane(b"SSH-2.0-OpenSSH_"));
    }
}
