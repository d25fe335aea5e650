//! What arrives from a peer: messages, immediates, notifications. A few receives are posted; a
//! slot is posted again when what it brought is read.

use crate::buffer::Buffer;
use dmaplane_ring::abi::{Cqe, CqeFlags, Errno, MAX_SEND_BYTES, PeerHandle, Sqe};
use dmaplane_ring::build::Recv;
use std::collections::VecDeque;

/// Receives posted for a peer: its credits.
pub(crate) const SLOTS: u64 = 16;

/// Something that a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The 32 bits of a WRITE_IMM or a list write; none for a SEND.
    pub immediate: Option<u32>,
    /// A SEND's bytes, or a list write's notification.
    pub payload: Vec<u8>,
    /// CRC-32C of the bytes that the transfer wrote, in its order, made while they were copied in; where the sender
    /// asked for it.
    pub checksum: Option<u32>,
}

/// One peer's posted receives and what came through them.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub peer: PeerHandle,
    pub slots: Buffer,
    /// What came and was not read yet, each with the slot that it holds: no more than there are.
    pub arrived: VecDeque<(u64, Arrival)>,
    /// Its last receive ended with an error: nothing more will come.
    pub closed: Option<Errno>,
}

impl Mailbox {
    /// Bytes that the receives of one peer need.
    pub(crate) const BYTES: u64 = SLOTS * MAX_SEND_BYTES;

    /// The SQE that posts a slot.
    pub(crate) fn receive(&self, slot: u64) -> Option<Sqe> {
        let recv = Recv::new(self.peer, self.slots.handle, slot * MAX_SEND_BYTES, MAX_SEND_BYTES);
        recv.ok().map(Recv::sqe)
    }

    /// Takes an arrival out of its slot. `false`: there was no room on the ring for this receive (clause RES-6), which
    /// says nothing of the peer; the slot is to be posted again later.
    #[must_use]
    pub(crate) fn take(&mut self, slot: u64, cqe: &Cqe) -> bool {
        let payload_bytes = match cqe.result() {
            Ok(bytes) => u64::from(bytes),
            Err(Errno::ENOBUFS) => return false,
            Err(errno) => {
                self.closed = Some(errno);
                return true;
            }
        };
        let flags = CqeFlags::from_bits(cqe.flags);
        let immediate = flags.contains(CqeFlags::IMMEDIATE).then_some(cqe.word0 as u32);
        // The high half of word0 has it too, unless it has a checksum.
        let length = if flags.contains(CqeFlags::PAYLOAD) { payload_bytes.min(MAX_SEND_BYTES) } else { 0 };
        let checksum = flags.contains(CqeFlags::CHECKSUM).then_some((cqe.word0 >> 32) as u32);
        let mut payload = vec![0; length as usize];
        self.slots.mapping.read(slot * MAX_SEND_BYTES, &mut payload);
        self.arrived.push_back((slot, Arrival { immediate, payload, checksum }));
        true
    }
}
