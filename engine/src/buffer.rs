//! Buffers: ALLOC, FREE, PLACEMENT, EXPORT_DMABUF, SYNC (clauses BUF-1 to BUF-9).

use crate::engine::{Engine, Flow, Starting};
use crate::host::{AllocRequest, Host};
use crate::lease::{Ending, LeaseTarget};
use crate::operation::{Operation, State};
use crate::storage::Storage;
use crate::table::NONE;
use dmaplane_ring::abi::{Errno, Handle, HandleKind, op_flags};

/// A buffer.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Buffer {
    /// Its length in bytes, after the host's rounding.
    pub(crate) length_bytes: u64,
    pub(crate) state: BufferState,
    /// Operations and runs of lists that use it; not leases.
    pub(crate) uses: u32,
    /// Live leases on it; lists' leases count at the list.
    pub(crate) leases: u32,
    /// The FREE that waits for its leases to end.
    pub(crate) free_op: u32,
}

/// A buffer's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum BufferState {
    /// The host makes it; nobody has its handle.
    Allocating,
    Live,
    /// The host frees it; its handle is -ESTALE.
    Freeing,
}

impl Buffer {
    pub(crate) fn live(length_bytes: u64) -> Buffer {
        Buffer { length_bytes, state: BufferState::Live, uses: 0, leases: 0, free_op: NONE }
    }
}

impl<S: Storage> Engine<S> {
    /// The index of a live buffer.
    pub(crate) fn live_buffer(&self, handle: Handle) -> Result<u32, Errno> {
        let index = self.buffers.find(handle, HandleKind::Buffer)?;
        match self.buffers.get(index) {
            Some(buffer) if buffer.state == BufferState::Live && buffer.free_op == NONE => Ok(index),
            _ => Err(Errno::ESTALE),
        }
    }

    /// The index of a live buffer that has this range: -ERANGE otherwise, -EINVAL for an empty one.
    pub(crate) fn buffer_range(&self, handle: Handle, offset: u64, length: u64) -> Result<u32, Errno> {
        let index = self.live_buffer(handle)?;
        if length == 0 {
            return Err(Errno::EINVAL);
        }
        let end = offset.checked_add(length).ok_or(Errno::ERANGE)?;
        let size = self.buffers.get(index).map_or(0, |buffer| buffer.length_bytes);
        if end <= size { Ok(index) } else { Err(Errno::ERANGE) }
    }

    pub(crate) fn use_buffer(&mut self, index: u32) {
        if let Some(buffer) = self.buffers.get_mut(index) {
            buffer.uses += 1;
        }
    }

    pub(crate) fn unuse_buffer(&mut self, index: u32) {
        if let Some(buffer) = self.buffers.get_mut(index) {
            buffer.uses = buffer.uses.saturating_sub(1);
        }
    }

    /// ALLOC.
    pub(crate) fn alloc<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let flags = op.sqe.op_flags;
        let node = (flags & op_flags::ALLOC_NODE != 0).then_some(op.sqe.arg32);
        let strict = flags & op_flags::ALLOC_STRICT != 0;
        if op.sqe.length == 0 || (node.is_none() && (strict || op.sqe.arg32 != 0)) {
            return Err(Errno::EINVAL);
        }
        if op.sqe.length > self.limits.buffer_bytes {
            return Err(Errno::EMSGSIZE);
        }
        let buffer = Buffer { state: BufferState::Allocating, ..Buffer::live(0) };
        let (index, _) = self.buffers.insert(buffer).ok_or(Errno::ENFILE)?;
        let huge = flags & op_flags::ALLOC_HUGE != 0;
        let recycle = flags & op_flags::ALLOC_RECYCLE != 0;
        let request = AllocRequest { length_bytes: op.sqe.length, node, strict, huge, recycle };
        Ok(self.start(host, op, index, |host, id| host.alloc(id, index, &request)))
    }

    pub(crate) fn alloc_concluded<H: Host>(
        &mut self,
        host: &mut H,
        operation: &Operation,
        result: i32,
        word0: u64,
        word1: u64,
    ) -> Flow {
        let index = operation.object;
        if result < 0 {
            self.buffers.remove(index);
            // What the host says of it: with STRICT, how many pages there were of how many (clause HOST-6).
            return Flow::Done { result, word0, word1 };
        }
        let length_bytes = word0;
        if self.is_ownerless(operation) {
            self.buffers.remove(index);
            let _ = host.free(None, index);
            return Errno::ECANCELED.into();
        }
        if let Some(buffer) = self.buffers.get_mut(index) {
            buffer.state = BufferState::Live;
            buffer.length_bytes = length_bytes;
        }
        let handle = self.buffers.handle(index, HandleKind::Buffer);
        Flow::Done { result: 0, word0: handle.bits(), word1: length_bytes }
    }

    /// FREE.
    pub(crate) fn free<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let index = self.live_buffer(Handle::from_bits(op.sqe.local))?;
        let Some(buffer) = self.buffers.get(index).copied() else {
            return Err(Errno::EBADF);
        };
        let revoke = op.sqe.op_flags & op_flags::FREE_REVOKE != 0;
        if buffer.uses > 0 || (buffer.leases > 0 && !revoke) {
            return Err(Errno::EBUSY);
        }
        if buffer.leases == 0 {
            return Ok(self.free_now(host, op, index));
        }
        let waiting = self.place(host, op, State::Revoking);
        if let Some(operation) = self.operations.get_mut(waiting) {
            operation.object = index;
        }
        if let Some(buffer) = self.buffers.get_mut(index) {
            buffer.free_op = waiting;
        }
        let mut from = 0;
        while let Some(lease) = self.leases.next_used(from) {
            if self.leases.get(lease).is_some_and(|lease| lease.target == LeaseTarget::Buffer(index)) {
                self.end_lease(host, lease, Ending::Now, Errno::EKEYREVOKED);
            }
            from = lease + 1;
        }
        Ok(Flow::Pending)
    }

    fn free_now<H: Host>(&mut self, host: &mut H, op: &mut Starting, index: u32) -> Flow {
        if let Some(buffer) = self.buffers.get_mut(index) {
            buffer.state = BufferState::Freeing;
        }
        self.start(host, op, index, |host, id| host.free(Some(id), index))
    }

    /// A lease on the buffer has ended: a FREE that waits for that goes on.
    pub(crate) fn buffer_released<H: Host>(&mut self, host: &mut H, index: u32) {
        let Some(buffer) = self.buffers.get_mut(index) else {
            return;
        };
        buffer.leases = buffer.leases.saturating_sub(1);
        let waiting = buffer.free_op;
        if buffer.leases > 0 || waiting == NONE {
            return;
        }
        let Some(operation) = self.operations.get(waiting).copied() else {
            return;
        };
        let mut op = Starting {
            ring: operation.ring,
            class: operation.class,
            reserve: operation.reserved,
            sqe: &operation.sqe,
            index: waiting,
        };
        if let Flow::Done { result, word0, word1 } = self.free_now(host, &mut op, index) {
            self.finish(host, waiting, result, word0, word1);
        }
    }

    pub(crate) fn free_concluded(&mut self, index: u32, result: i32) -> Flow {
        self.buffers.remove(index);
        Flow::ok(result)
    }

    /// PLACEMENT.
    pub(crate) fn placement<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let index = self.live_buffer(Handle::from_bits(op.sqe.local))?;
        self.use_buffer(index);
        let node = op.sqe.arg32;
        Ok(self.start(host, op, index, |host, id| host.placement(id, index, node)))
    }

    /// SYNC.
    pub(crate) fn sync<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let index = self.live_buffer(Handle::from_bits(op.sqe.local))?;
        self.use_buffer(index);
        let end = op.sqe.op_flags & op_flags::SYNC_END != 0;
        Ok(self.start(host, op, index, |host, id| host.sync(id, index, end)))
    }

    /// EXPORT_DMABUF: the slot is made first, so that the host's result always has a place.
    pub(crate) fn export_dmabuf<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let index = self.live_buffer(Handle::from_bits(op.sqe.local))?;
        let (slot, _) = self.slots.insert(crate::control::DescriptorSlot::MAKING).ok_or(Errno::ENFILE)?;
        self.use_buffer(index);
        Ok(self.start(host, op, slot, |host, id| host.export(id, index, slot)))
    }

    pub(crate) fn export_concluded<H: Host>(&mut self, host: &mut H, operation: &Operation, result: i32) -> Flow {
        let slot = operation.object;
        self.unuse_buffer(Handle::from_bits(operation.sqe.local).index());
        if result < 0 {
            self.slots.remove(slot);
            return Flow::ok(result);
        }
        if self.is_ownerless(operation) {
            self.slots.remove(slot);
            host.close_slot(slot);
            return Errno::ECANCELED.into();
        }
        if let Some(state) = self.slots.get_mut(slot) {
            state.live = true;
        }
        Flow::Done { result: 0, word0: self.slots.handle(slot, HandleKind::Slot).bits(), word1: 0 }
    }
}
