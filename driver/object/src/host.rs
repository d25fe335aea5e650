//! The engine's host in the kernel: CQs are written here, all else is the glue's.

use crate::glue::Glue;
use crate::rings::Outlets;
use crate::types::{GlueAlloc, GlueOutcome, GluePost, GlueSighting, GlueTarget, errno_of};
use core::sync::atomic::AtomicU32;
use dmaplane_engine::{AllocRequest, Host, LocalPart, Message, OpId, Operation, Outcome, Post, Request, Seen, Target};
use dmaplane_ring::abi::{Cqe, Errno, Handle, Run};

/// The host of one context.
pub(crate) struct KernelHost {
    pub(crate) glue: Glue,
    pub(crate) outlets: Outlets,
    pub(crate) tally: Tally,
    /// Somebody traces: as it was when this turn began.
    pub(crate) traced: bool,
}

/// What C has not been told yet.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) taken: u64,
    failed: u64,
}

impl KernelHost {
    pub(crate) fn new(glue: Glue, outlets: Outlets) -> KernelHost {
        KernelHost { glue, outlets, tally: Tally::default(), traced: false }
    }

    /// Publishes what was written.
    pub(crate) fn publish(&mut self, waiters: &[AtomicU32]) {
        let posted = self.outlets.unpublished();
        self.tell_counts(posted);
        self.outlets.publish(self.glue, waiters);
    }

    /// Publishes what was written to one ring, while there is more to do: a client that is awake goes on meanwhile.
    pub(crate) fn publish_early(&mut self, ring: u32) {
        let posted = self.outlets.unpublished_to(ring);
        self.tell_counts(posted);
        self.outlets.publish_early(ring);
    }

    /// Tells C what has come together since it was last told, of any ring, and of these CQEs: before anybody can see
    /// them.
    fn tell_counts(&mut self, posted: u64) {
        let Tally { taken, failed } = core::mem::take(&mut self.tally);
        if taken | posted | failed != 0 {
            self.glue.counted(taken, posted, failed);
        }
    }

    #[cold]
    fn trace(&self, op: OpId, operation: &Operation, seen: Seen) {
        let (state, result) = match seen {
            Seen::Ended { result } => (c"ended", result),
            Seen::Placed | Seen::Moved => (operation.state.name(), 0),
        };
        self.glue.sighted(&GlueSighting {
            op: op.bits(),
            user_data: operation.sqe.user_data,
            state: state.as_ptr(),
            ring: operation.ring,
            opcode: operation.sqe.opcode.into(),
            result,
            reserved: 0,
        });
    }
}

/// A call of the glue that fills an outcome in.
fn asked(call: impl FnOnce(&mut GlueOutcome)) -> Outcome {
    let mut outcome = GlueOutcome::UNTOUCHED;
    call(&mut outcome);
    outcome.outcome()
}

/// A call of the glue that says 0 or a negative errno.
fn checked(result: i32) -> Result<(), Errno> {
    if result >= 0 { Ok(()) } else { Err(errno_of(result)) }
}

impl Host for KernelHost {
    fn now_ns(&mut self) -> u64 {
        self.glue.now_ns()
    }

    #[inline]
    fn cq_free(&mut self, ring: u32) -> u32 {
        self.outlets.free(ring)
    }

    #[inline]
    fn cq_free_at_least(&mut self, ring: u32) -> u32 {
        self.outlets.free_at_least(ring)
    }

    // Into the loop that takes SQEs.
    #[inline(always)]
    fn complete_beyond(&mut self, ring: u32, held: u32, cqe: Cqe) -> bool {
        let pushed = self.outlets.push_beyond(ring, held, &cqe);
        if pushed && self.traced {
            self.glue.completed(ring, cqe.user_data, cqe.res, cqe.flags);
        }
        self.tally.failed += u64::from(pushed && cqe.res < 0);
        pushed
    }

    fn complete(&mut self, ring: u32, cqe: Cqe) {
        self.outlets.push(self.glue, ring, &cqe);
        self.tally.failed += u64::from(cqe.res < 0);
        if self.traced {
            self.glue.completed(ring, cqe.user_data, cqe.res, cqe.flags);
        }
    }

    #[inline]
    fn observe(&mut self, op: OpId, operation: &Operation, seen: Seen) {
        match seen {
            Seen::Placed => self.glue.began(op.index()),
            Seen::Moved => {}
            Seen::Ended { .. } => self.glue.ended(op.index(), operation.sqe.opcode.into()),
        }
        if self.traced {
            self.trace(op, operation, seen);
        }
    }

    fn alloc(&mut self, op: OpId, buffer: u32, request: &AllocRequest) -> Outcome {
        let request = GlueAlloc::from(request);
        asked(|outcome| self.glue.alloc(op.bits(), buffer, &request, outcome))
    }

    fn free(&mut self, op: Option<OpId>, buffer: u32) -> Outcome {
        // An OpId is never 0: generations begin at 1.
        asked(|outcome| self.glue.free(op.map_or(0, OpId::bits), buffer, outcome))
    }

    fn placement(&mut self, op: OpId, buffer: u32, node: u32) -> Outcome {
        asked(|outcome| self.glue.placement(op.bits(), buffer, node, outcome))
    }

    fn export(&mut self, op: OpId, buffer: u32, slot: u32) -> Outcome {
        asked(|outcome| self.glue.export(op.bits(), buffer, slot, outcome))
    }

    fn close_slot(&mut self, slot: u32) {
        self.glue.close_slot(slot);
    }

    fn sync(&mut self, op: OpId, buffer: u32, end: bool) -> Outcome {
        asked(|outcome| self.glue.sync(op.bits(), buffer, end.into(), outcome))
    }

    fn wait_slot(&mut self, op: OpId, slot: u32) -> Outcome {
        asked(|outcome| self.glue.wait_slot(op.bits(), slot, outcome))
    }

    fn wait_word(&mut self, op: OpId, buffer: u32, offset: u64, value: u32) -> Outcome {
        asked(|outcome| self.glue.wait_word(op.bits(), buffer, offset, value, outcome))
    }

    fn cancel_work(&mut self, op: OpId) {
        self.glue.cancel_work(op.bits());
    }

    fn read_bytes(&mut self, buffer: u32, offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        checked(self.glue.read_bytes(buffer, offset, bytes.into()))
    }

    fn write_bytes(&mut self, buffer: u32, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        checked(self.glue.write_bytes(buffer, offset, bytes.into()))
    }

    fn list_load(&mut self, op: OpId, list: u32, buffer: u32, offset: u64, runs: u64) -> Outcome {
        asked(|outcome| self.glue.list_load(op.bits(), list, buffer, offset, runs, outcome))
    }

    fn list_run(&mut self, list: u32, run: u32) -> Option<Run> {
        let mut found = Run::default();
        (self.glue.list_run(list, run, &mut found) >= 0).then_some(found)
    }

    fn list_seal(&mut self, list: u32) {
        self.glue.list_seal(list);
    }

    fn list_drop(&mut self, list: u32) {
        self.glue.list_drop(list);
    }

    fn connect(&mut self, op: OpId, buffer: u32, offset: u64, length: u64) -> Outcome {
        asked(|outcome| self.glue.connect(op.bits(), buffer, offset, length, outcome))
    }

    fn adopt(&mut self, pending: u32, peer: Handle) {
        self.glue.adopt(pending, peer.index(), peer.bits());
    }

    fn reject(&mut self, pending: u32) {
        self.glue.reject(pending);
    }

    fn disconnect(&mut self, peer: u32) {
        self.glue.disconnect(peer);
    }

    fn drop_peer(&mut self, peer: u32) {
        self.glue.drop_peer(peer);
    }

    fn close_listener(&mut self, listener: u32) {
        self.glue.close_listener(listener);
    }

    fn send(&mut self, peer: u32, message: &Message) {
        self.glue.send(peer, &message.encode());
    }

    fn post(&mut self, peer: u32, op: OpId, request: &Request, post: &Post) -> Result<LocalPart, Errno> {
        let request = Message::Request(*request).encode();
        match self.glue.post(peer, op.bits(), &request, &GluePost::from(post)) {
            0 => Ok(LocalPart::Done),
            result if result > 0 => Ok(LocalPart::Started),
            result => Err(errno_of(result)),
        }
    }

    fn abandon(&mut self, op: OpId) {
        self.glue.abandon(op.bits());
    }

    fn copy_in(&mut self, transfer: OpId, peer: u32, frame: u32, target: &Target, checksum: bool) -> Outcome {
        let target = GlueTarget::from(target);
        asked(|outcome| self.glue.copy_in(transfer.bits(), peer, frame, &target, checksum, outcome))
    }

    fn serve(&mut self, transfer: OpId, peer: u32, frame: u32, source: &Target) -> Outcome {
        let source = GlueTarget::from(source);
        asked(|outcome| self.glue.serve(transfer.bits(), peer, frame, &source, outcome))
    }

    fn stop(&mut self, transfer: OpId) {
        self.glue.stop(transfer.bits());
    }

    fn deliver(&mut self, peer: u32, frame: u32, buffer: u32, offset: u64, length: u32) -> Result<(), Errno> {
        checked(self.glue.deliver(peer, frame, buffer, offset, length))
    }

    fn drop_frame(&mut self, peer: u32, frame: u32) {
        self.glue.drop_frame(peer, frame);
    }
}
