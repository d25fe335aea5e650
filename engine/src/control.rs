//! Control operations: CANCEL, TIMEOUT, LINK_TIMEOUT, WATCH, WAIT, QUERY (clauses CTL-1 to CTL-9).

use crate::engine::{Engine, Flow, Starting};
use crate::host::{Host, Outcome};
use crate::operation::{OpId, Operation, State, Through};
use crate::storage::Storage;
use crate::table::NONE;
use dmaplane_ring::abi::{Errno, EventBits, Handle, Opcode, QueryWhat, op_flags};

/// A descriptor slot: what is in it is the host's.
#[derive(Clone, Copy, Debug, Hash)]
pub struct DescriptorSlot {
    /// WAITs in flight on it.
    pub(crate) uses: u32,
    /// The host has made it; before that nobody has its handle, however well it is guessed.
    pub(crate) live: bool,
}

impl DescriptorSlot {
    /// One that a call has made.
    pub(crate) const LIVE: DescriptorSlot = DescriptorSlot { uses: 0, live: true };
    /// One that the host makes.
    pub(crate) const MAKING: DescriptorSlot = DescriptorSlot { uses: 0, live: false };
}

/// What a CANCEL looks for.
#[derive(Clone, Copy)]
enum Match {
    UserData(u64),
    Object(u64),
    Any,
}

impl Match {
    fn fits(self, operation: &Operation) -> bool {
        match self {
            Match::UserData(user_data) => operation.sqe.user_data == user_data,
            Match::Object(handle) => operation.sqe.local == handle || operation.sqe.remote == handle,
            Match::Any => true,
        }
    }
}

impl<S: Storage> Engine<S> {
    /// CANCEL: `res` is how many operations will end by it; -ENOENT when none matches, -EALREADY when none of those
    /// that match can be stopped.
    pub(crate) fn cancel<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let flags = op.sqe.op_flags;
        let by = flags & (op_flags::CANCEL_HANDLE | op_flags::CANCEL_ANY);
        let what = match by {
            0 if op.sqe.local == 0 => Match::UserData(op.sqe.arg64),
            op_flags::CANCEL_HANDLE if op.sqe.arg64 == 0 && op.sqe.local != 0 => Match::Object(op.sqe.local),
            op_flags::CANCEL_ANY if op.sqe.arg64 == 0 && op.sqe.local == 0 => Match::Any,
            _ => return Err(Errno::EINVAL),
        };
        let all = by != 0 || flags & op_flags::CANCEL_ALL != 0;
        let (ended, stuck) =
            self.cancel_matching(host, op.ring, op.index, what, all, flags & op_flags::CANCEL_FORCE != 0);
        match (ended, stuck) {
            (0, 0) => Err(Errno::ENOENT),
            (0, _) => Err(Errno::EALREADY),
            _ => Ok(Flow::ok(ended as i32)),
        }
    }

    /// Ends all operations of a ring as far as that can be done now.
    pub(crate) fn cancel_ring<H: Host>(&mut self, host: &mut H, ring: u32) {
        self.cancel_matching(host, ring, NONE, Match::Any, true, false);
    }

    fn cancel_matching<H: Host>(
        &mut self,
        host: &mut H,
        ring: u32,
        own: u32,
        what: Match,
        all: bool,
        force: bool,
    ) -> (u32, u32) {
        let (mut ended, mut stuck) = (0, 0);
        let mut credits_back = false;
        let mut index = self.rings.get(ring as usize).map_or(NONE, |ring| ring.operations.head);
        while let Some(operation) = self.operations.get(index).copied() {
            let next = operation.ring_links.next;
            if index == own || operation.cancelled || !what.fits(&operation) {
                index = next;
                continue;
            }
            credits_back |= operation.state == State::AwaitingWindow;
            let generation = self.operations.generation(next);
            let behind_next = self.operations.get(next).map_or(NONE, |operation| operation.ring_links.next);
            match self.cancel_operation(host, index, force) {
                Ok(()) => ended += 1,
                Err(_) => stuck += 1,
            }
            if !all && ended > 0 {
                break;
            }
            // Ending one ends at most its LINK_TIMEOUT with it, which stands right behind it.
            let ended_too = next != NONE && self.operations.generation(next) != generation;
            index = if ended_too { behind_next } else { next };
        }
        if credits_back {
            self.pump_all(host);
        }
        (ended, stuck)
    }

    /// Ends one operation, now or as soon as its event comes; -EALREADY when it is already on a wire.
    fn cancel_operation<H: Host>(&mut self, host: &mut H, index: u32, force: bool) -> Result<(), Errno> {
        let Some(operation) = self.operations.get_mut(index) else {
            return Err(Errno::ENOENT);
        };
        let canceled = Errno::ECANCELED.as_result();
        let object = operation.object;
        match operation.state {
            State::Linked | State::Ready | State::CheckingList { .. } => operation.cancelled = true,
            State::Timer => {
                let guarded = operation.guard;
                if let Some(guarded) = self.operations.get_mut(guarded) {
                    guarded.guard = NONE;
                }
                self.finish(host, index, canceled, 0, 0);
            }
            State::Watching => self.finish(host, index, canceled, 0, 0),
            State::Started => {
                let opcode = Opcode::from_byte(operation.sqe.opcode);
                if !matches!(opcode, Some(Opcode::Wait | Opcode::Connect | Opcode::ListPrepare | Opcode::Alloc)) {
                    return Err(Errno::EALREADY);
                }
                operation.cancelled = true;
                let op = self.op_id(index);
                host.cancel_work(op);
            }
            State::AwaitingCredit | State::AwaitingWindow => self.leave_peer_queue(host, index, canceled),
            State::Accepting => {
                if let Some(listener) = self.listeners.get_mut(object) {
                    listener.accepts.remove(&mut self.operations, Through::State, index);
                }
                self.finish(host, index, canceled, 0, 0);
            }
            State::Posted { .. } | State::Claiming | State::Receiving if force => {
                if let Some(operation) = self.operations.get_mut(index) {
                    operation.cancelled = true;
                }
                self.end_peer(host, object);
            }
            State::Posted { .. }
            | State::Claiming
            | State::Receiving
            | State::DroppingList { .. }
            | State::Revoking
            | State::Disconnecting => {
                return Err(Errno::EALREADY);
            }
        }
        Ok(())
    }

    /// TIMEOUT.
    pub(crate) fn timeout<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let absolute = op.sqe.op_flags & op_flags::TIMEOUT_ABSOLUTE != 0;
        let deadline_ns = if absolute { op.sqe.arg64 } else { host.now_ns().saturating_add(op.sqe.arg64) };
        let index = self.place(host, op, State::Timer);
        self.timers.set(index, deadline_ns);
        Ok(Flow::Pending)
    }

    /// Starts the clock of an operation's LINK_TIMEOUT.
    pub(crate) fn arm_guard<H: Host>(&mut self, host: &mut H, guarded: u32) {
        let guard = self.operations.get(guarded).map_or(NONE, |operation| operation.guard);
        let Some(timeout) = self.operations.get_mut(guard) else {
            return;
        };
        if timeout.sqe.opcode != Opcode::LinkTimeout as u8 || timeout.state != State::Linked {
            return;
        }
        if timeout.cancelled {
            if let Some(guarded) = self.operations.get_mut(guarded) {
                guarded.guard = NONE;
            }
            return self.finish(host, guard, Errno::ECANCELED.as_result(), 0, 0);
        }
        let deadline_ns = host.now_ns().saturating_add(timeout.sqe.arg64);
        self.move_to(host, guard, State::Timer);
        self.timers.set(guard, deadline_ns);
    }

    /// An operation's timer has run out.
    pub(crate) fn operation_expired<H: Host>(&mut self, host: &mut H, index: u32) {
        let Some(operation) = self.operations.get(index).copied() else {
            return;
        };
        if operation.sqe.opcode == Opcode::LinkTimeout as u8 {
            let guarded = operation.guard;
            if let Some(guarded) = self.operations.get_mut(guarded) {
                guarded.guard = NONE;
            }
            // If it is on a wire already it goes on; its LINK_TIMEOUT says that the time was up either way.
            let peer = self
                .operations
                .get(guarded)
                .filter(|operation| operation.state == State::AwaitingWindow)
                .map(|operation| operation.object);
            let _ = self.cancel_operation(host, guarded, false);
            if let Some(peer) = peer {
                self.pump(host, peer);
            }
        }
        self.finish(host, index, Errno::ETIME.as_result(), 0, 0);
    }

    /// WATCH: at once when there is something, else when there will be; -EBUSY for a second one on the ring.
    pub(crate) fn watch<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let Some(ring) = self.rings.get(op.ring as usize) else {
            return Err(Errno::EINVAL);
        };
        if ring.watch != NONE {
            return Err(Errno::EBUSY);
        }
        if !self.events.is_empty() {
            return Ok(Flow::ok(self.events.bits() as i32));
        }
        let index = self.place(host, op, State::Watching);
        if let Some(ring) = self.rings.get_mut(op.ring as usize) {
            ring.watch = index;
        }
        Ok(Flow::Pending)
    }

    /// QUERY.
    pub(crate) fn query(&mut self, op: &mut Starting) -> Result<Flow, Errno> {
        const EVENTS: u32 = QueryWhat::Events as u32;
        const REFUSED: u32 = QueryWhat::Refused as u32;
        const IN_FLIGHT: u32 = QueryWhat::InFlight as u32;
        match op.sqe.arg32 {
            EVENTS => {
                let bits = core::mem::replace(&mut self.events, EventBits::NONE);
                Ok(Flow::ok(bits.bits() as i32))
            }
            REFUSED => {
                Ok(Flow::Done { result: 0, word0: self.statistics.refused, word1: self.statistics.refused_lease })
            }
            IN_FLIGHT => {
                Ok(Flow::Done { result: 0, word0: self.operations.used().into(), word1: self.inbound.used().into() })
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// WAIT.
    pub(crate) fn wait<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let handle = Handle::from_bits(op.sqe.local);
        let offset = op.sqe.local_offset;
        if op.sqe.op_flags & op_flags::WAIT_WORD == 0 {
            if offset != 0 || op.sqe.arg64 != 0 {
                return Err(Errno::EINVAL);
            }
            let slot = self.slot_index(handle)?;
            if let Some(slot) = self.slots.get_mut(slot) {
                slot.uses += 1;
            }
            return Ok(self.start(host, op, slot, |host, id| host.wait_slot(id, slot)));
        }
        let value = u32::try_from(op.sqe.arg64).map_err(|_| Errno::EINVAL)?;
        if !offset.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        let buffer = self.buffer_range(handle, offset, 4)?;
        self.use_buffer(buffer);
        Ok(self.start(host, op, buffer, |host, id| host.wait_word(id, buffer, offset, value)))
    }

    /// Whether nobody will hear of what an operation has made: its ring was detached meanwhile (clause TD-7).
    pub(crate) fn is_ownerless(&self, operation: &Operation) -> bool {
        self.rings.get(operation.ring as usize).is_none_or(|ring| !ring.attached())
    }

    /// Hands an operation's work to the host.
    pub(crate) fn start<H: Host>(
        &mut self,
        host: &mut H,
        op: &mut Starting,
        object: u32,
        call: impl FnOnce(&mut H, OpId) -> Outcome,
    ) -> Flow {
        let index = self.place(host, op, State::Started);
        if let Some(operation) = self.operations.get_mut(index) {
            operation.object = object;
        }
        match call(host, self.op_id(index)) {
            Outcome::Started => Flow::Pending,
            Outcome::Done { result, word0, word1 } => self.conclude(host, index, result, word0, word1),
        }
    }

    /// The host's event: the work is done.
    pub(crate) fn work_finished<H: Host>(&mut self, host: &mut H, op: OpId, result: i32, word0: u64, word1: u64) {
        let Some(index) = self.find_op(op) else {
            return;
        };
        if self.operations.get(index).is_none_or(|operation| operation.state != State::Started) {
            return;
        }
        if let Flow::Done { result, word0, word1 } = self.conclude(host, index, result, word0, word1) {
            self.finish(host, index, result, word0, word1);
        }
    }

    /// What each operation does with the host's result.
    fn conclude<H: Host>(&mut self, host: &mut H, index: u32, result: i32, word0: u64, word1: u64) -> Flow {
        let Some(operation) = self.operations.get(index).copied() else {
            return Flow::Pending;
        };
        let object = operation.object;
        match Opcode::from_byte(operation.sqe.opcode) {
            Some(Opcode::Alloc) => {
                let flow = self.alloc_concluded(host, &operation, result, word0, word1);
                self.note_unverifiable(index, &flow, result >= 0 && word1 != 0);
                flow
            }
            Some(Opcode::Free) => self.free_concluded(object, result),
            Some(Opcode::ExportDmabuf) => self.export_concluded(host, &operation, result),
            Some(Opcode::ListPrepare) => self.list_loaded(host, index, result),
            Some(Opcode::Wait) if operation.sqe.op_flags & op_flags::WAIT_WORD == 0 => {
                if let Some(slot) = self.slots.get_mut(object) {
                    slot.uses = slot.uses.saturating_sub(1);
                }
                Flow::Done { result, word0, word1 }
            }
            Some(Opcode::Placement) => {
                self.unuse_buffer(object);
                // A buffer has at least one page: a host that has looked at none cannot look (clause HOST-8).
                let flow = Flow::Done { result, word0, word1 };
                self.note_unverifiable(index, &flow, word1 == 0);
                flow
            }
            // SYNC, WAIT on a word, a CONNECT that failed: they hold a buffer and nothing else.
            _ => {
                self.unuse_buffer(object);
                Flow::Done { result, word0, word1 }
            }
        }
    }

    /// A success whose CQE will say UNVERIFIABLE.
    fn note_unverifiable(&mut self, index: u32, flow: &Flow, untold: bool) {
        if let (true, Flow::Done { result: 0.., .. }, Some(operation)) = (untold, flow, self.operations.get_mut(index))
        {
            operation.unverifiable = true;
        }
    }
}
