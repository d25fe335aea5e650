//! What we ask of peers: WRITE, WRITE_IMM, READ, WRITE_LIST, READ_LIST, SEND (clauses XFR-1 to XFR-9).
//!
//! A request is over when the peer has answered *and* the host touches our memory no more; whichever comes last ends
//! it.

use crate::engine::{Engine, Flow, Starting};
use crate::host::{Host, LocalPart, Post};
use crate::message::{Request, RequestKind};
use crate::operation::{OpId, Operation, State, Through};
use crate::peer::PeerState;
use crate::storage::Storage;
use crate::table::NONE;
use dmaplane_ring::abi::{
    CqeFlags, Errno, Handle, IndexPair, MAX_LIST_SEGMENTS, MAX_NOTIFICATION_BYTES, MAX_OPERATION_BYTES, MAX_SEND_BYTES,
    Opcode, Rights, Sqe, op_flags,
};

/// Where a list write's notification lies: offset and length, packed in `arg64` (clause LST-6).
fn notification(sqe: &Sqe) -> (u64, u64) {
    (sqe.arg64 & ((1 << 48) - 1), sqe.arg64 >> 48)
}

fn needs_credit(sqe: &Sqe) -> bool {
    match Opcode::from_byte(sqe.opcode) {
        Some(Opcode::WriteImm | Opcode::Send) => true,
        Some(Opcode::WriteList) => sqe.op_flags & op_flags::LIST_NOTIFY != 0,
        _ => false,
    }
}

/// Whether the CRC-32C of the bytes is to be told (clause XFR-10).
fn asks_checksum(sqe: &Sqe) -> bool {
    let may = matches!(
        Opcode::from_byte(sqe.opcode),
        Some(Opcode::WriteImm | Opcode::WriteList | Opcode::Read | Opcode::ReadList)
    );
    may && sqe.op_flags & op_flags::CHECKSUM != 0
}

/// How a posted operation ended.
#[derive(Clone, Copy)]
struct RequestEnd {
    result: i32,
    /// Bytes moved, as far as known.
    bytes: u64,
    /// Of what has landed here.
    checksum: u32,
    /// The peer never heard of it: its credit is still ours.
    unsent: bool,
}

impl RequestEnd {
    const fn failed(result: i32, bytes: u64) -> RequestEnd {
        RequestEnd { result, bytes, checksum: 0, unsent: false }
    }

    const fn unsent(result: i32) -> RequestEnd {
        RequestEnd { result, bytes: 0, checksum: 0, unsent: true }
    }
}

/// A result of a peer's, which may say anything: 0 or a negative errno.
pub(crate) fn errno_of_peer(result: i32) -> i32 {
    if result < 0 { Errno::from_raw(result.wrapping_neg()).as_result() } else { 0 }
}

fn is_list(sqe: &Sqe) -> bool {
    sqe.opcode == Opcode::WriteList as u8 || sqe.opcode == Opcode::ReadList as u8
}

impl<S: Storage> Engine<S> {
    /// Checks a transfer against both sides' objects and sends it, or queues it at its peer.
    pub(crate) fn transfer<H: Host>(&mut self, host: &mut H, opcode: Opcode, op: &mut Starting) -> Result<Flow, Errno> {
        let sqe = op.sqe;
        let peer = if opcode == Opcode::Send {
            if sqe.length > MAX_SEND_BYTES {
                return Err(Errno::EMSGSIZE);
            }
            self.buffer_range(Handle::from_bits(sqe.local), sqe.local_offset, sqe.length)?;
            self.live_peer(Handle::from_bits(sqe.remote))?
        } else {
            self.check_one_sided(opcode, sqe)?
        };
        let credit = needs_credit(sqe);
        let waits =
            credit && self.peers.get(peer).is_none_or(|peer| !peer.may_take_credit() || peer.credit_queue.length > 0);
        if waits && sqe.op_flags & op_flags::NO_CREDIT_WAIT != 0 {
            return Err(Errno::EAGAIN);
        }
        self.hold(sqe);
        let index = self.place(host, op, State::AwaitingCredit);
        if let Some(operation) = self.operations.get_mut(index) {
            operation.object = peer;
        }
        let Some(state) = self.peers.get_mut(peer) else {
            return Err(Errno::ENOTCONN);
        };
        if waits {
            state.credit_queue.push_back(&mut self.operations, Through::State, index);
            return Ok(Flow::Pending);
        }
        if credit {
            state.take_credit();
        }
        self.post_or_queue(host, index);
        Ok(Flow::Pending)
    }

    /// The checks of WRITE, READ and their lists; returns the peer.
    fn check_one_sided(&self, opcode: Opcode, sqe: &Sqe) -> Result<u32, Errno> {
        let need = if matches!(opcode, Opcode::Read | Opcode::ReadList) { Rights::READ } else { Rights::WRITE };
        if is_list(sqe) {
            self.live_list(Handle::from_bits(sqe.local))?;
            if sqe.length > MAX_LIST_SEGMENTS {
                return Err(Errno::EMSGSIZE);
            }
            if !sqe.local_offset.is_multiple_of(8) {
                return Err(Errno::EINVAL);
            }
            let index_buffer = Handle::from_bits(sqe.remote_offset);
            let pairs_bytes = sqe.length * size_of::<IndexPair>() as u64;
            self.buffer_range(index_buffer, sqe.local_offset, pairs_bytes)?;
            if sqe.op_flags & op_flags::LIST_NOTIFY != 0 {
                let (offset, length) = notification(sqe);
                if length > MAX_NOTIFICATION_BYTES {
                    return Err(Errno::EMSGSIZE);
                }
                if length > 0 {
                    self.buffer_range(index_buffer, offset, length)?;
                }
            } else if sqe.arg64 != 0 || sqe.arg32 != 0 || (sqe.op_flags != 0 && opcode == Opcode::WriteList) {
                return Err(Errno::EINVAL);
            }
            let (_, import) = self.usable_import(sqe.remote, need, true)?;
            return self.peer_of_import(import.peer);
        }
        if sqe.length > MAX_OPERATION_BYTES {
            return Err(Errno::EMSGSIZE);
        }
        self.buffer_range(Handle::from_bits(sqe.local), sqe.local_offset, sqe.length)?;
        let (_, import) = self.usable_import(sqe.remote, need, false)?;
        let end = sqe.remote_offset.checked_add(sqe.length).ok_or(Errno::ERANGE)?;
        if end > import.length {
            return Err(Errno::ERANGE);
        }
        self.peer_of_import(import.peer)
    }

    fn peer_of_import(&self, peer: u32) -> Result<u32, Errno> {
        match self.peers.get(peer) {
            Some(state) if state.state == PeerState::Live => Ok(peer),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// Takes a use of everything that the SQE names; [`Engine::let_go`] gives them back.
    fn hold(&mut self, sqe: &Sqe) {
        let local = Handle::from_bits(sqe.local).index();
        if is_list(sqe) {
            if let Some(list) = self.lists.get_mut(local) {
                list.uses += 1;
            }
            self.use_buffer(Handle::from_bits(sqe.remote_offset).index());
        } else {
            self.use_buffer(local);
        }
        if sqe.opcode != Opcode::Send as u8
            && let Some(import) = self.imports.get_mut(Handle::from_bits(sqe.remote).index())
        {
            import.uses += 1;
        }
    }

    fn let_go<H: Host>(&mut self, host: &mut H, sqe: &Sqe) {
        let local = Handle::from_bits(sqe.local).index();
        if is_list(sqe) {
            if let Some(list) = self.lists.get_mut(local) {
                list.uses = list.uses.saturating_sub(1);
            }
            self.unuse_buffer(Handle::from_bits(sqe.remote_offset).index());
        } else {
            self.unuse_buffer(local);
        }
        if sqe.opcode != Opcode::Send as u8 {
            self.unuse_import(host, Handle::from_bits(sqe.remote).index());
        }
    }

    /// Sends a request that has its credit, or queues it until its peer's window has room.
    pub(crate) fn post_or_queue<H: Host>(&mut self, host: &mut H, index: u32) {
        let Some(object) = self.operations.get(index).map(|operation| operation.object) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(object) else {
            return;
        };
        if peer.requests >= peer.info.window || peer.window_queue.length > 0 {
            peer.window_queue.push_back(&mut self.operations, Through::State, index);
            self.move_to(host, index, State::AwaitingWindow);
        } else {
            self.post(host, index);
        }
    }

    fn post<H: Host>(&mut self, host: &mut H, index: u32) {
        let Some(operation) = self.operations.get(index).copied() else {
            return;
        };
        let (request, post) = self.describe(index, &operation);
        self.move_to(host, index, State::Posted { local_pending: true, answer: None, checksum: 0 });
        if let Some(peer) = self.peers.get_mut(operation.object) {
            peer.posted.push_back(&mut self.operations, Through::State, index);
            peer.requests += 1;
        }
        match host.post(operation.object, self.op_id(index), &request, &post) {
            Ok(LocalPart::Started) => {}
            Ok(LocalPart::Done) => {
                self.move_to(host, index, State::Posted { local_pending: false, answer: None, checksum: 0 });
            }
            // Whoever called us looks for what the credit that is free again may start.
            Err(errno) => self.retire_posted(host, index, RequestEnd::unsent(errno.as_result())),
        }
    }

    /// What the peer and the host are told of an operation.
    fn describe(&self, index: u32, operation: &Operation) -> (Request, Post) {
        let sqe = &operation.sqe;
        let kind = match Opcode::from_byte(sqe.opcode) {
            Some(Opcode::Read) => RequestKind::Read,
            Some(Opcode::WriteList) => RequestKind::WriteList,
            Some(Opcode::ReadList) => RequestKind::ReadList,
            Some(Opcode::Send) => RequestKind::Send,
            _ => RequestKind::Write,
        };
        let lease = match kind {
            RequestKind::Send => 0,
            _ => self.imports.get(Handle::from_bits(sqe.remote).index()).map_or(0, |import| import.lease),
        };
        let (notification_offset, notification_bytes) = match kind {
            RequestKind::WriteList if needs_credit(sqe) => notification(sqe),
            _ => (0, 0),
        };
        let payload_bytes = if kind == RequestKind::Send { sqe.length as u32 } else { notification_bytes as u32 };
        let request = Request {
            kind,
            notify: needs_credit(sqe),
            checksum: asks_checksum(sqe),
            immediate: sqe.arg32,
            op: self.op_id(index).bits(),
            lease,
            offset: if is_list(sqe) { 0 } else { sqe.remote_offset },
            length: sqe.length,
            payload_bytes,
        };
        let local = Handle::from_bits(sqe.local).index();
        let post = if is_list(sqe) {
            Post::List {
                list: local,
                index_buffer: Handle::from_bits(sqe.remote_offset).index(),
                index_offset: sqe.local_offset,
                count: sqe.length,
                notification_offset,
                notification_bytes: notification_bytes as u32,
            }
        } else {
            Post::Range { buffer: local, offset: sqe.local_offset, length: sqe.length }
        };
        (request, post)
    }

    /// The peer has answered a request.
    pub(crate) fn answered<H: Host>(&mut self, host: &mut H, peer: u32, op: OpId, result: i32, bytes: u64) {
        // An answer may come for what ended with a local error: it is of no interest then.
        let Some(index) = self.find_op(op) else {
            return;
        };
        let Some(operation) = self.operations.get(index) else {
            return;
        };
        let State::Posted { local_pending, answer: None, checksum } = operation.state else {
            return self.breach(host, peer);
        };
        if operation.object != peer {
            return self.breach(host, peer);
        }
        let result = errno_of_peer(result);
        if !local_pending {
            return self.end_posted(host, index, RequestEnd { result, bytes, checksum, unsent: false });
        }
        self.move_to(host, index, State::Posted { local_pending: true, answer: Some((result, bytes)), checksum });
        if result < 0 {
            host.abandon(op);
        }
    }

    /// The host touches our memory no more for a posted operation. An error means that no answer will come.
    pub(crate) fn local_done<H: Host>(&mut self, host: &mut H, op: OpId, result: i32, checksum: u32) {
        let Some(index) = self.find_op(op) else {
            return;
        };
        let Some(operation) = self.operations.get(index) else {
            return;
        };
        let State::Posted { local_pending: true, answer, .. } = operation.state else {
            return;
        };
        match answer {
            // Our part has failed although the peer's went well: a READ whose bytes could not be put where they belong.
            Some((0.., bytes)) if result < 0 => self.end_posted(host, index, RequestEnd::failed(result, bytes)),
            Some((result, bytes)) => {
                self.end_posted(host, index, RequestEnd { result, bytes, checksum, unsent: false });
            }
            None if result < 0 => self.end_posted(host, index, RequestEnd::unsent(result)),
            None => self.move_to(host, index, State::Posted { local_pending: false, answer: None, checksum }),
        }
    }

    /// Ends a posted operation.
    fn end_posted<H: Host>(&mut self, host: &mut H, index: u32, end: RequestEnd) {
        let Some(operation) = self.operations.get(index).copied() else {
            return;
        };
        self.retire_posted(host, index, end);
        self.pump(host, operation.object);
        self.try_drop_peer(host, operation.object);
    }

    /// The part of [`Engine::end_posted`] that starts nothing else, so that failures in a row do not nest.
    fn retire_posted<H: Host>(&mut self, host: &mut H, index: u32, end: RequestEnd) {
        let Some(operation) = self.operations.get(index).copied() else {
            return;
        };
        let peer = operation.object;
        if let Some(state) = self.peers.get_mut(peer) {
            state.posted.remove(&mut self.operations, Through::State, index);
            state.requests = state.requests.saturating_sub(1);
            if needs_credit(&operation.sqe) {
                state.end_credited(end.unsent);
            }
        }
        self.let_go(host, &operation.sqe);
        // A range's count is known; a list's is the peer's word, which can but be a number.
        let bytes = if is_list(&operation.sqe) { end.bytes } else { operation.sqe.length.min(end.bytes) };
        let result = if end.result < 0 { end.result } else { i32::try_from(bytes).unwrap_or(i32::MAX) };
        // Of a write the receiver is told.
        if result >= 0 && asks_checksum(&operation.sqe) && !needs_credit(&operation.sqe) {
            self.finish_with(host, index, result, CqeFlags::CHECKSUM, bytes, end.checksum.into());
        } else {
            self.finish(host, index, result, bytes, 0);
        }
    }

    /// Sends what waits for room in a peer's window, then what waits for credit, as far as there is some.
    pub(crate) fn pump<H: Host>(&mut self, host: &mut H, peer: u32) {
        while let Some(state) = self.peers.get_mut(peer) {
            if state.state != PeerState::Live {
                return;
            }
            if state.requests < state.info.window
                && let Some(next) = state.window_queue.pop_front(&mut self.operations, Through::State)
            {
                self.post(host, next);
            } else if state.may_take_credit()
                && let Some(next) = state.credit_queue.pop_front(&mut self.operations, Through::State)
            {
                state.take_credit();
                self.post_or_queue(host, next);
            } else {
                return;
            }
        }
    }

    /// As [`Engine::pump`], for all peers: after a cancel, which may have given credits of any of them back.
    pub(crate) fn pump_all<H: Host>(&mut self, host: &mut H) {
        let mut from = 0;
        while let Some(peer) = self.peers.next_used(from) {
            self.pump(host, peer);
            from = peer + 1;
        }
    }

    /// Takes an operation out of its peer's queues and ends it. The caller pumps: a credit may be free again.
    pub(crate) fn leave_peer_queue<H: Host>(&mut self, host: &mut H, index: u32, result: i32) {
        let Some(operation) = self.operations.get(index).copied() else {
            return;
        };
        if let Some(state) = self.peers.get_mut(operation.object) {
            match operation.state {
                State::AwaitingCredit => state.credit_queue.remove(&mut self.operations, Through::State, index),
                State::AwaitingWindow => {
                    state.window_queue.remove(&mut self.operations, Through::State, index);
                    if needs_credit(&operation.sqe) {
                        state.end_credited(true);
                    }
                }
                _ => return,
            }
        }
        self.let_go(host, &operation.sqe);
        self.finish(host, index, result, 0, 0);
    }

    /// Ends what waits in a peer's queues under an import that is being revoked.
    pub(crate) fn fail_queued_of_import<H: Host>(&mut self, host: &mut H, peer: u32, import: u32) {
        let Some(state) = self.peers.get(peer).copied() else {
            return;
        };
        for head in [state.credit_queue.head, state.window_queue.head] {
            let mut index = head;
            while let Some(operation) = self.operations.get(index).copied() {
                let next = operation.links.next;
                let named = Handle::from_bits(operation.sqe.remote).index();
                if operation.sqe.opcode != Opcode::Send as u8 && named == import {
                    self.leave_peer_queue(host, index, Errno::EKEYREVOKED.as_result());
                }
                index = next;
            }
        }
        self.pump(host, peer);
    }

    /// Ends everything that waits for a peer that is gone.
    pub(crate) fn fail_operations_of_peer<H: Host>(&mut self, host: &mut H, peer: u32, errno: Errno) {
        while let Some(state) = self.peers.get(peer) {
            let head = if state.credit_queue.head != NONE { state.credit_queue.head } else { state.window_queue.head };
            if head == NONE {
                break;
            }
            self.leave_peer_queue(host, head, errno.as_result());
        }
        self.fail_receives(host, peer, errno);
        let mut index = self.peers.get(peer).map_or(NONE, |state| state.posted.head);
        while let Some(operation) = self.operations.get(index).copied() {
            let next = operation.links.next;
            match operation.state {
                State::Posted { local_pending: true, answer, checksum } => {
                    let answer = Some(answer.unwrap_or((errno.as_result(), 0)));
                    self.move_to(host, index, State::Posted { local_pending: true, answer, checksum });
                    let op = self.op_id(index);
                    host.abandon(op);
                }
                State::Claiming => {
                    let import = operation.arrived;
                    self.imports.remove(import);
                    if let Some(state) = self.peers.get_mut(peer) {
                        state.posted.remove(&mut self.operations, Through::State, index);
                    }
                    self.finish(host, index, errno.as_result(), 0, 0);
                }
                _ => self.end_posted(host, index, RequestEnd::failed(errno.as_result(), 0)),
            }
            index = next;
        }
    }
}
