//! What the demo's two processes say to each other besides the cache.

use anyhow::{Context, Result, ensure};
use dmaplane::{Peer, Plane};
use dmaplane_kv::TransferManifest;
use std::time::Duration;

/// How long one side waits for the other, prefill's computing included.
pub const PATIENCE: Duration = Duration::from_secs(120);
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What the transfer's user bytes say: the first generated token and the digest of its logits.
pub struct FirstToken {
    pub token: u32,
    pub logits: u64,
}

impl FirstToken {
    pub fn encode(&self) -> Vec<u8> {
        [&self.token.to_le_bytes()[..], &self.logits.to_le_bytes()].concat()
    }

    pub fn decode(bytes: &[u8]) -> Result<FirstToken> {
        let bytes: [u8; 12] = bytes.try_into().context("the first token has 12 bytes")?;
        let (token, logits) = bytes.split_at(4);
        Ok(FirstToken { token: u32::from_le_bytes(token.try_into()?), logits: u64::from_le_bytes(logits.try_into()?) })
    }
}

pub fn send_manifest(plane: &mut Plane, peer: &Peer, manifest: &TransferManifest) -> Result<()> {
    Ok(plane.send_message(peer, &manifest.encode()?, PATIENCE)?)
}

pub fn receive_manifest(plane: &mut Plane, peer: &Peer) -> Result<TransferManifest> {
    let bytes = plane.receive_message(peer, MESSAGE_BYTES_MAX, PATIENCE)?;
    Ok(TransferManifest::decode(&bytes)?)
}

pub fn send_word(plane: &mut Plane, peer: &Peer, word: u32) -> Result<()> {
    Ok(plane.send_message(peer, &word.to_le_bytes(), PATIENCE)?)
}

pub fn receive_word(plane: &mut Plane, peer: &Peer) -> Result<u32> {
    let bytes = plane.receive_message(peer, 4, PATIENCE)?;
    ensure!(bytes.len() == 4, "the peer sent {} bytes where a number of 4 was due", bytes.len());
    Ok(u32::from_le_bytes(bytes[..].try_into()?))
}
