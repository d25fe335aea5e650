//! What goes out on the data lane: records in order, bodies in slices, and a body given up in mid-slice.

use super::connection::BRIEF_BYTES_MAX;
use super::guard::Guard;
use super::lines::Effort;
use super::report::{Ending, Reports};
use super::socket::Socket;
use super::span::Span;
use super::wire;
use crate::memory::Moved;
use dmaplane_ring::abi::Errno;
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes handed to the kernel at a time: how long a stop may have to wait for a system call.
const SEND_BYTES: usize = 512 << 10;

/// Bytes of whole records that may wait for a peer that does not read its data lane: beyond, its requests wait, too.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// The body of a record: memory that is sent from where it lies.
#[derive(Debug)]
pub(crate) struct OutBody {
    pub span: Span,
    pub guard: Arc<Guard>,
    pub ending: Ending,
}

/// A record, and its body where that has one.
#[derive(Debug)]
pub(crate) struct OutFrame {
    pub head: Vec<u8>,
    pub body: Option<OutBody>,
}

/// A body on its way.
#[derive(Debug)]
struct Current {
    body: OutBody,
    bytes: u64,
    /// Bytes of the slice whose word has been queued that have not been taken yet.
    in_slice: u32,
}

impl OutFrame {
    fn is_bulk(&self) -> bool {
        self.body.as_ref().is_some_and(|body| body.span.left() > BRIEF_BYTES_MAX)
    }
}

impl Current {
    fn is_bulk(&self) -> bool {
        self.body.span.left() > BRIEF_BYTES_MAX
    }
}

/// The sending half of a data lane.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    queue: VecDeque<OutFrame>,
    /// Bytes of the heads in the queue: small answers to READs are all head.
    queued_bytes: usize,
    /// Bodies in the queue that are more than a little.
    queued_bulk: usize,
    current: Option<Current>,
    /// Bytes of bodies that have been taken, since somebody has asked.
    moved: u64,
}

impl Sending {
    /// Bytes of bodies that have gone since this was last asked.
    pub(crate) fn take_moved(&mut self) -> u64 {
        std::mem::take(&mut self.moved)
    }

    pub(crate) fn push(&mut self, frame: OutFrame) {
        self.queued_bytes += frame.head.len();
        self.queued_bulk += usize::from(frame.is_bulk());
        self.queue.push_back(frame);
    }

    /// Whether more than enough waits. A peer asks 80 bytes at a time for up to 16 KiB, which are copied when it asks:
    /// one that reads none of them must not ask on. An honest peer reads its data lane whatever else it waits for, so
    /// two that do this to each other both go on.
    pub(crate) fn is_full(&self, socket: &Socket) -> bool {
        self.queued_bytes + socket.unsent() >= WAITING_BYTES_MAX
    }

    /// Whether it moves, or waits to move, more than a little.
    pub(crate) fn is_bulk(&self) -> bool {
        self.queued_bulk > 0 || self.current.as_ref().is_some_and(Current::is_bulk)
    }

    /// Whether a step may get anywhere.
    pub(crate) fn may_step(&self, socket: &Socket, effort: Effort) -> bool {
        let waits = match (&self.current, self.queue.front()) {
            (Some(current), _) => effort == Effort::Full || !current.is_bulk(),
            (None, Some(frame)) => effort == Effort::Full || !frame.is_bulk() || socket.unsent() > 0,
            (None, None) => socket.unsent() > 0,
        };
        socket.writable && waits
    }

    /// One system call's worth.
    pub(crate) fn step(&mut self, socket: &mut Socket, reports: &mut Reports, effort: Effort) -> Result<(), Errno> {
        if self.current.is_none() {
            self.queue_heads(socket, effort);
        }
        let Some(current) = &mut self.current else { return socket.flush() };
        if current.in_slice == 0 {
            current.in_slice = current.body.span.left().min(wire::SLICE_BYTES_MAX.into()) as u32;
            socket.queue(&wire::slice_word(current.in_slice));
        }
        if !current.body.guard.enter() {
            // Stopped between two calls; that has been reported.
            self.give_up(socket);
            return socket.flush();
        }
        let most = SEND_BYTES.min(current.in_slice as usize);
        let sent = socket.flush_with(&mut current.body.span, most, &wire::end_word());
        let goes_on = current.body.guard.leave();
        let whole = current.body.span.left() == 0;
        if !goes_on || (whole && current.body.guard.end()) {
            let outcome = if whole { Ok(Moved { bytes: current.bytes, checksum: 0 }) } else { Err(Errno::EKEYREVOKED) };
            reports.ended(&current.body.ending, outcome);
        }
        let sent = sent?;
        current.in_slice -= sent as u32;
        self.moved += sent as u64;
        if whole {
            // The end has been taken with it.
            self.current = None;
        } else if !goes_on {
            self.give_up(socket);
        }
        Ok(())
    }

    /// Queues what needs no memory but its own, up to a record with a body.
    fn queue_heads(&mut self, socket: &mut Socket, effort: Effort) {
        let most = if effort == Effort::Full { SEND_BYTES } else { BRIEF_BYTES_MAX as usize };
        while socket.unsent() < most
            && let Some(frame) = self.queue.pop_front_if(|frame| effort == Effort::Full || !frame.is_bulk())
        {
            self.queued_bytes -= frame.head.len();
            self.queued_bulk -= usize::from(frame.is_bulk());
            if frame.body.as_ref().is_some_and(|body| body.guard.is_stopped()) {
                // The peer has not heard of it, and need not.
                continue;
            }
            socket.queue(&frame.head);
            if let Some(body) = frame.body {
                let bytes = body.span.left();
                self.current = Some(Current { body, bytes, in_slice: 0 });
                return;
            }
        }
    }

    /// Ends the current body without touching its memory: the slice that was announced is filled with zeros.
    fn give_up(&mut self, socket: &mut Socket) {
        if let Some(current) = self.current.take() {
            socket.queue(&vec![0; current.in_slice as usize]);
            socket.queue(&wire::abort_word(Errno::EKEYREVOKED));
        }
    }
}
