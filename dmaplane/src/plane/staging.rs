//! Buffers for what operations are told: index pairs, notifications, tokens, runs. They are used again, since an
//! operation of its own to allocate each and another to free it would cost more than many a transfer.

use super::Plane;
use crate::buffer::Buffer;
use crate::error::Error;
use crate::objects::Dropped;
use dmaplane_ring::abi::{Cqe, ImportHandle, PeerHandle, Sqe};
use std::collections::HashMap;
use std::time::Duration;

/// The smallest that is made.
const SMALLEST_BYTES: u64 = 4096;
/// How many wait for their next use at most, and how many bytes they have together at most.
const KEPT_MAX: usize = 256;
const KEPT_BYTES_MAX: u64 = 16 << 20;

/// What an operation in flight makes, which is to be ended where nobody wants its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Makes {
    Import,
    Peer,
}

/// One plane's.
#[derive(Debug, Default)]
pub(super) struct Staging {
    free: Vec<Buffer>,
    free_bytes: u64,
    /// By the user_data of the operation that reads it.
    used: HashMap<u64, Buffer>,
}

impl Staging {
    /// The smallest free one that is long enough.
    fn take(&mut self, length_bytes: u64) -> Option<Buffer> {
        let fits = self.free.iter().enumerate().filter(|(_, buffer)| buffer.len() as u64 >= length_bytes);
        let (place, _) = fits.min_by_key(|(_, buffer)| buffer.len())?;
        let buffer = self.free.swap_remove(place);
        self.free_bytes -= buffer.len() as u64;
        Some(buffer)
    }

    /// Keeps it, or drops it, which frees it.
    fn put(&mut self, buffer: Buffer) {
        let bytes = self.free_bytes + buffer.len() as u64;
        if self.free.len() < KEPT_MAX && bytes <= KEPT_BYTES_MAX {
            self.free_bytes = bytes;
            self.free.push(buffer);
        }
    }
}

impl Plane {
    /// Makes the first buffer, so that what a plane has in use changes with its first call no more than with later
    /// ones.
    pub(super) fn keep_one_staged(&mut self) -> Result<(), Error> {
        let buffer = self.alloc(SMALLEST_BYTES)?;
        self.staging.put(buffer);
        Ok(())
    }

    /// A buffer for what an operation is to be told. It holds whatever its last use left there.
    pub(crate) fn stage(&mut self, length_bytes: u64) -> Result<Buffer, Error> {
        // What has ended since gives its buffers back first.
        self.collect();
        match self.staging.take(length_bytes) {
            Some(buffer) => Ok(buffer),
            None => self.alloc(length_bytes.max(SMALLEST_BYTES).next_power_of_two()),
        }
    }

    /// Begins an operation that reads a staged buffer; its CQE gives the buffer back.
    pub(crate) fn begin_staged(&mut self, sqe: Sqe, staged: Buffer) -> u64 {
        let user_data = self.begin(sqe);
        self.staging.used.insert(user_data, staged);
        user_data
    }

    /// As [`Plane::call`], with a staged buffer that it reads.
    pub(crate) fn call_staged(
        &mut self,
        what: &'static str,
        sqe: Sqe,
        staged: Buffer,
        patience: Duration,
    ) -> Result<Cqe, Error> {
        let user_data = self.begin_staged(sqe, staged);
        self.end_of(what, user_data, patience)
    }

    /// An operation has ended: what it was told is of no use any more.
    pub(super) fn unstage(&mut self, user_data: u64) {
        if let Some(buffer) = self.staging.used.remove(&user_data) {
            self.staging.put(buffer);
        }
    }

    /// Somebody takes an operation's result.
    pub(crate) fn taken(&mut self, user_data: u64) {
        self.makes.remove(&user_data);
    }

    /// Nobody wants an operation's result: what it made is ended.
    pub(super) fn discard(&mut self, cqe: &Cqe) {
        let Some(makes) = self.makes.remove(&cqe.user_data) else { return };
        let made = match makes {
            Makes::Import => ImportHandle::from_bits(cqe.word0).map(Dropped::Import),
            Makes::Peer => PeerHandle::from_bits(cqe.word0).map(Dropped::Peer),
        };
        if let Some(made) = made.filter(|_| cqe.res >= 0) {
            self.objects.bury(made);
        }
    }
}
