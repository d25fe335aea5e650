//! Small pieces of memory for what an operation takes from a buffer: addresses, tokens, messages, indices.

use super::AsyncPlane;
use crate::buffer::Buffer;
use crate::error::Error;
use dmaplane_ring::abi::{BufferHandle, MAX_SEND_BYTES};
use std::sync::{Arc, Mutex, PoisonError};

const PIECE_BYTES: u64 = MAX_SEND_BYTES;
const PIECES: u64 = 64;

/// Pieces of one buffer.
pub(super) struct Pool {
    buffer: Buffer,
    free: Mutex<Vec<u64>>,
}

impl Pool {
    pub(super) const BYTES: u64 = PIECES * PIECE_BYTES;

    pub(super) fn new(buffer: Buffer) -> Arc<Pool> {
        Arc::new(Pool { buffer, free: Mutex::new((0..PIECES).map(|piece| piece * PIECE_BYTES).collect()) })
    }
}

/// A piece that is ours until it is dropped.
pub(super) enum Scratch {
    /// At an offset in bytes.
    Piece { pool: Arc<Pool>, offset: u64 },
    /// None was free, or none is long enough.
    Whole(Buffer),
}

impl Scratch {
    pub(super) fn place(&self) -> (BufferHandle, u64) {
        match self {
            Scratch::Piece { pool, offset } => (pool.buffer.handle, *offset),
            Scratch::Whole(buffer) => (buffer.handle, 0),
        }
    }

    fn buffer(&self) -> &Buffer {
        match self {
            Scratch::Piece { pool, .. } => &pool.buffer,
            Scratch::Whole(buffer) => buffer,
        }
    }

    /// Copies bytes in, at an offset in the piece.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) {
        self.buffer().mapping.write(self.place().1 + at, bytes);
    }

    /// Copies bytes out of its start.
    pub(super) fn read(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.buffer().mapping.read(self.place().1, &mut bytes);
        bytes
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Scratch::Piece { pool, offset } = self {
            pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(*offset);
        }
    }
}

impl AsyncPlane {
    /// A piece of at least so many bytes.
    pub(super) async fn scratch(&self, bytes: usize) -> Result<Scratch, Error> {
        if bytes as u64 <= PIECE_BYTES {
            let pool = self.pool();
            let offset = pool.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            if let Some(offset) = offset {
                return Ok(Scratch::Piece { pool: pool.clone(), offset });
            }
        }
        Ok(Scratch::Whole(self.alloc(bytes as u64).await?))
    }

    /// A piece that holds these bytes.
    pub(super) async fn scratch_of(&self, bytes: &[u8]) -> Result<Scratch, Error> {
        let scratch = self.scratch(bytes.len()).await?;
        scratch.write(0, bytes);
        Ok(scratch)
    }
}
