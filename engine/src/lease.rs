//! Leases, the owner's side: LEASE_GRANT, LEASE_EXPORT, LEASE_RENEW, LEASE_REVOKE (clauses LSE-1 to LSE-12).
//!
//! The promise: when a lease has ended, nothing under it lands any more. So a lease ends in two steps. From the first
//! on no transfer starts under it; the second comes when none is in flight.

use crate::engine::{Engine, Flow, Starting};
use crate::host::Host;
use crate::message::Message;
use crate::operation::State;
use crate::storage::Storage;
use crate::table::NONE;
use crate::token::Token;
use dmaplane_ring::abi::{Errno, EventBits, Handle, HandleKind, Rights, op_flags};

/// A lease.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Lease {
    pub(crate) target: LeaseTarget,
    /// Start in the buffer, in bytes; 0 for a list.
    pub(crate) offset: u64,
    /// Bytes of the range, segments of the list.
    pub(crate) length: u64,
    pub(crate) rights: Rights,
    /// The only peer that may claim it, or none.
    pub(crate) bound: u32,
    /// The peer that has claimed it, or none.
    pub(crate) holder: u32,
    /// The holder's import.
    pub(crate) import: u64,
    pub(crate) state: LeaseState,
    /// Transfers of the holder in flight under it.
    pub(crate) in_flight: u32,
    /// The LEASE_REVOKE that waits for its end.
    pub(crate) revoke_op: u32,
}

/// What a lease is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LeaseTarget {
    Buffer(u32),
    List(u32),
}

/// A lease's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LeaseState {
    Live,
    /// Nothing starts under it; what is in flight ends or is stopped.
    Ending {
        /// What its holder is told.
        errno: Errno,
        /// The holder has been asked to stop and has not answered; the deadline runs.
        awaiting_stopped: bool,
    },
    /// Over. It stays until LEASE_REVOKE takes its handle back, so that a handle never dies under its owner.
    Ended(Errno),
}

/// How a lease is to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// What is in flight is stopped at once.
    Now,
    /// What is in flight may end until the deadline.
    By { deadline_ns: u64 },
}

impl<S: Storage> Engine<S> {
    fn lease_timer(&self, lease: u32) -> u32 {
        self.operations.capacity() + lease
    }

    /// LEASE_GRANT.
    pub(crate) fn lease_grant<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let handle = Handle::from_bits(op.sqe.local);
        let rights = Rights::from_bits(op.sqe.op_flags & Rights::KNOWN.bits());
        if rights.is_empty() {
            return Err(Errno::EINVAL);
        }
        let bound = match op.sqe.op_flags & op_flags::GRANT_PEER {
            0 if op.sqe.remote != 0 => return Err(Errno::EINVAL),
            0 => NONE,
            _ => self.live_peer(Handle::from_bits(op.sqe.remote))?,
        };
        let (target, offset, length) = if handle.is(HandleKind::List) {
            if op.sqe.local_offset != 0 || op.sqe.length != 0 {
                return Err(Errno::EINVAL);
            }
            let list = self.live_list(handle)?;
            (LeaseTarget::List(list), 0, self.lists.get(list).map_or(0, |list| list.segments))
        } else {
            let buffer = self.buffer_range(handle, op.sqe.local_offset, op.sqe.length)?;
            (LeaseTarget::Buffer(buffer), op.sqe.local_offset, op.sqe.length)
        };
        let lease = Lease {
            target,
            offset,
            length,
            rights,
            bound,
            holder: NONE,
            import: 0,
            state: LeaseState::Live,
            in_flight: 0,
            revoke_op: NONE,
        };
        let (index, _) = self.leases.insert(lease).ok_or(Errno::ENFILE)?;
        match target {
            LeaseTarget::Buffer(buffer) => {
                if let Some(buffer) = self.buffers.get_mut(buffer) {
                    buffer.leases += 1;
                }
            }
            LeaseTarget::List(list) => {
                if let Some(list) = self.lists.get_mut(list) {
                    list.leases += 1;
                }
            }
        }
        if op.sqe.arg64 != 0 {
            self.timers.set(self.lease_timer(index), host.now_ns().saturating_add(op.sqe.arg64));
        }
        let handle = self.leases.handle(index, HandleKind::Lease);
        Ok(Flow::Done { result: 0, word0: handle.bits(), word1: length })
    }

    /// The index of a lease that has not ended.
    fn live_lease(&self, handle: Handle) -> Result<u32, Errno> {
        let index = self.leases.find(handle, HandleKind::Lease)?;
        match self.leases.get(index).map(|lease| lease.state) {
            Some(LeaseState::Live) => Ok(index),
            Some(LeaseState::Ending { errno, .. } | LeaseState::Ended(errno)) => Err(errno),
            None => Err(Errno::EBADF),
        }
    }

    /// LEASE_EXPORT.
    pub(crate) fn lease_export<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let handle = Handle::from_bits(op.sqe.remote);
        let index = self.live_lease(handle)?;
        let Some(lease) = self.leases.get(index).copied() else {
            return Err(Errno::EBADF);
        };
        let buffer = self.buffer_range(Handle::from_bits(op.sqe.local), op.sqe.local_offset, op.sqe.length)?;
        if op.sqe.length < Token::BYTES as u64 {
            return Err(Errno::EMSGSIZE);
        }
        let list = matches!(lease.target, LeaseTarget::List(_));
        let token = Token {
            context: self.identity.context,
            lease: handle.bits(),
            length: lease.length,
            shape: u64::from(lease.rights.bits()) | u64::from(list) << 16,
            tag: Token::tag_for(self.identity.token_key, self.identity.context, handle.bits()),
        };
        host.write_bytes(buffer, op.sqe.local_offset, &token.encode())?;
        Ok(Flow::ok(Token::BYTES as i32))
    }

    /// LEASE_RENEW.
    pub(crate) fn lease_renew<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        if op.sqe.arg64 == 0 {
            return Err(Errno::EINVAL);
        }
        let index = self.live_lease(Handle::from_bits(op.sqe.local))?;
        self.timers.set(self.lease_timer(index), host.now_ns().saturating_add(op.sqe.arg64));
        Ok(Flow::ok(0))
    }

    /// LEASE_REVOKE. Of a lease that has ended by itself it takes the handle back; `word0` is then that errno.
    pub(crate) fn lease_revoke<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let index = self.leases.find(Handle::from_bits(op.sqe.local), HandleKind::Lease)?;
        let Some(lease) = self.leases.get(index).copied() else {
            return Err(Errno::EBADF);
        };
        let now = op.sqe.op_flags & op_flags::REVOKE_NOW != 0;
        if now && op.sqe.arg64 != 0 {
            return Err(Errno::EINVAL);
        }
        if lease.revoke_op != NONE {
            return Err(Errno::EALREADY);
        }
        if let LeaseState::Ended(errno) = lease.state {
            self.leases.remove(index);
            return Ok(Flow::Done { result: 0, word0: errno.raw() as u64, word1: 0 });
        }
        if cfg!(feature = "broken-no-lease-check") {
            // The negative control: says that the lease has ended, and lets it live on.
            return Ok(Flow::ok(0));
        }
        let waiting = self.place(host, op, State::Revoking);
        if let Some(lease) = self.leases.get_mut(index) {
            lease.revoke_op = waiting;
        }
        let ending =
            if now { Ending::Now } else { Ending::By { deadline_ns: host.now_ns().saturating_add(op.sqe.arg64) } };
        self.end_lease(host, index, ending, Errno::EKEYREVOKED);
        Ok(Flow::Pending)
    }

    /// The first step of a lease's end.
    pub(crate) fn end_lease<H: Host>(&mut self, host: &mut H, index: u32, ending: Ending, errno: Errno) {
        let timer = self.lease_timer(index);
        let Some(lease) = self.leases.get_mut(index) else {
            return;
        };
        let holder = lease.holder;
        match lease.state {
            LeaseState::Ended(_) => return,
            LeaseState::Live => {
                let awaiting_stopped = holder != NONE && ending != Ending::Now;
                lease.state = LeaseState::Ending { errno, awaiting_stopped };
                if holder != NONE {
                    let import = lease.import;
                    let lease = self.leases.handle(index, HandleKind::Lease).bits();
                    host.send(holder, &Message::Stop { lease, import });
                }
            }
            LeaseState::Ending { errno, .. } if ending == Ending::Now => {
                lease.state = LeaseState::Ending { errno, awaiting_stopped: false };
            }
            LeaseState::Ending { .. } => {}
        }
        match ending {
            Ending::Now => {
                self.timers.clear(timer);
                self.stop_inbound_of_lease(host, holder, index);
            }
            Ending::By { deadline_ns } => self.timers.set(timer, deadline_ns),
        }
        self.try_end_lease(host, index);
    }

    /// The second step, once nothing is in flight and nobody is waited for.
    pub(crate) fn try_end_lease<H: Host>(&mut self, host: &mut H, index: u32) {
        let timer = self.lease_timer(index);
        let Some(lease) = self.leases.get_mut(index) else {
            return;
        };
        let LeaseState::Ending { errno, awaiting_stopped: false } = lease.state else {
            return;
        };
        if lease.in_flight > 0 {
            return;
        }
        lease.state = LeaseState::Ended(errno);
        let (target, revoke_op) = (lease.target, lease.revoke_op);
        self.timers.clear(timer);
        if revoke_op != NONE {
            self.leases.remove(index);
        }
        match target {
            LeaseTarget::Buffer(buffer) => self.buffer_released(host, buffer),
            LeaseTarget::List(list) => {
                if let Some(list) = self.lists.get_mut(list) {
                    list.leases = list.leases.saturating_sub(1);
                }
            }
        }
        if revoke_op != NONE {
            self.finish(host, revoke_op, 0, 0, 0);
        }
    }

    /// The time to live is over, or a revoke's deadline has come.
    pub(crate) fn lease_expired<H: Host>(&mut self, host: &mut H, index: u32) {
        let Some(lease) = self.leases.get(index).copied() else {
            return;
        };
        if lease.state == LeaseState::Live {
            self.end_lease(host, index, Ending::Now, Errno::EKEYEXPIRED);
            self.raise(host, EventBits::LEASE_EXPIRED);
        } else {
            self.end_lease(host, index, Ending::Now, Errno::EKEYREVOKED);
        }
    }

    /// A peer claims a lease (clause LSE-7): the first to show the token holds it.
    pub(crate) fn claimed_by_peer(
        &mut self,
        peer: u32,
        lease: u64,
        tag: [u64; 2],
        import: u64,
    ) -> Result<Lease, Errno> {
        let handle = Handle::from_bits(lease);
        let expected = Token::tag_for(self.identity.token_key, self.identity.context, lease);
        // One comparison of all bits, so that its time tells nothing of where they differ.
        if (expected[0] ^ tag[0]) | (expected[1] ^ tag[1]) != 0 {
            return Err(Errno::EKEYREJECTED);
        }
        let index = self.live_lease(handle)?;
        let Some(lease) = self.leases.get_mut(index) else {
            return Err(Errno::EBADF);
        };
        if (lease.bound != NONE && lease.bound != peer) || lease.holder != NONE {
            return Err(Errno::EKEYREJECTED);
        }
        lease.holder = peer;
        lease.import = import;
        Ok(*lease)
    }

    /// The holder says that nothing of its is in flight under the lease.
    pub(crate) fn stopped_by_peer<H: Host>(&mut self, host: &mut H, peer: u32, lease: u64) {
        let Ok(index) = self.leases.find(Handle::from_bits(lease), HandleKind::Lease) else {
            return;
        };
        let Some(lease) = self.leases.get_mut(index) else {
            return;
        };
        if lease.holder != peer {
            return;
        }
        if let LeaseState::Ending { errno, .. } = lease.state {
            lease.state = LeaseState::Ending { errno, awaiting_stopped: false };
            self.try_end_lease(host, index);
        }
    }

    /// The holder needs the lease no more: nobody else can claim it either.
    pub(crate) fn released_by_peer<H: Host>(&mut self, host: &mut H, peer: u32, lease: u64) {
        let Ok(index) = self.leases.find(Handle::from_bits(lease), HandleKind::Lease) else {
            return;
        };
        if self.leases.get(index).is_some_and(|lease| lease.holder == peer) {
            self.stopped_by_peer(host, peer, lease);
        }
    }

    /// What a peer's access under a lease may touch, or why it is refused (clause LSE-8).
    pub(crate) fn admit(&self, peer: u32, handle: u64, need: Rights, list: bool) -> Result<(u32, Lease), Errno> {
        let index = self.leases.find(Handle::from_bits(handle), HandleKind::Lease)?;
        let Some(lease) = self.leases.get(index) else {
            return Err(Errno::EBADF);
        };
        match lease.state {
            LeaseState::Live => {}
            LeaseState::Ending { errno, .. } | LeaseState::Ended(errno) => return Err(errno),
        }
        if lease.holder != peer || !lease.rights.contains(need) {
            return Err(Errno::EACCES);
        }
        if list != matches!(lease.target, LeaseTarget::List(_)) {
            return Err(Errno::EINVAL);
        }
        Ok((index, *lease))
    }

    /// The holder's connection is over: what it held ends.
    pub(crate) fn end_leases_of_peer<H: Host>(&mut self, host: &mut H, peer: u32) {
        let mut from = 0;
        while let Some(index) = self.leases.next_used(from) {
            if self.leases.get(index).is_some_and(|lease| lease.holder == peer || lease.bound == peer) {
                self.end_lease(host, index, Ending::Now, Errno::ECONNRESET);
            }
            from = index + 1;
        }
    }
}
