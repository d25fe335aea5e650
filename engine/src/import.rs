//! Imports, the holder's side of a lease: LEASE_IMPORT, IMPORT_RELEASE (clauses LSE-6, LSE-9, LSE-10).

use crate::engine::{Engine, Flow, Starting};
use crate::host::Host;
use crate::message::Message;
use crate::operation::{OpId, State, Through};
use crate::storage::Storage;
use crate::table::NONE;
use crate::token::Token;
use dmaplane_ring::abi::{Errno, EventBits, Handle, HandleKind, MAX_TOKEN_BYTES, Rights};

/// An import.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Import {
    pub(crate) state: ImportState,
    /// The lease's owner.
    pub(crate) peer: u32,
    /// Handle in the owner's table.
    pub(crate) lease: u64,
    /// Bytes of the range, segments of the list.
    pub(crate) length: u64,
    pub(crate) rights: Rights,
    pub(crate) list: bool,
    /// Operations that use it.
    pub(crate) uses: u32,
}

/// An import's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ImportState {
    /// The owner has not answered; nobody has the handle.
    Claiming,
    Live,
    /// The owner asked us to stop; once no operation uses it we say so.
    Stopping,
    /// Over: its operations fail with this.
    Dead(Errno),
}

impl<S: Storage> Engine<S> {
    /// LEASE_IMPORT.
    pub(crate) fn lease_import<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let mut bytes = [0; MAX_TOKEN_BYTES];
        if op.sqe.length > MAX_TOKEN_BYTES as u64 {
            return Err(Errno::EMSGSIZE);
        }
        let buffer = self.buffer_range(Handle::from_bits(op.sqe.local), op.sqe.local_offset, op.sqe.length)?;
        let Some(bytes) = bytes.get_mut(..op.sqe.length as usize) else {
            return Err(Errno::EMSGSIZE);
        };
        host.read_bytes(buffer, op.sqe.local_offset, bytes)?;
        let token = Token::decode(bytes).ok_or(Errno::EBADMSG)?;
        let peer = if op.sqe.remote != 0 {
            self.live_peer(Handle::from_bits(op.sqe.remote))?
        } else {
            self.peer_of_context(token.context)?
        };
        if self.peers.get(peer).is_none_or(|peer| peer.info.context != token.context) {
            return Err(Errno::EINVAL);
        }
        let import = Import {
            state: ImportState::Claiming,
            peer,
            lease: token.lease,
            length: 0,
            rights: Rights::NONE,
            list: false,
            uses: 0,
        };
        let (import, _) = self.imports.insert(import).ok_or(Errno::ENFILE)?;
        let index = self.place(host, op, State::Claiming);
        if let Some(operation) = self.operations.get_mut(index) {
            operation.object = peer;
            operation.arrived = import;
        }
        if let Some(state) = self.peers.get_mut(peer) {
            state.posted.push_back(&mut self.operations, Through::State, index);
        }
        let claim = Message::Claim {
            op: self.op_id(index).bits(),
            lease: token.lease,
            tag: token.tag,
            import: self.imports.handle(import, HandleKind::Import).bits(),
        };
        host.send(peer, &claim);
        Ok(Flow::Pending)
    }

    /// The owner's answer to a claim.
    pub(crate) fn claim_answered<H: Host>(&mut self, host: &mut H, peer: u32, answer: &Message) {
        let Message::Claimed { op, result, rights, list, length } = *answer else {
            return;
        };
        let Some(index) = self.find_op(OpId::from_bits(op)) else {
            return self.breach(host, peer);
        };
        let Some(operation) = self.operations.get(index).copied() else {
            return;
        };
        if operation.state != State::Claiming || operation.object != peer {
            return self.breach(host, peer);
        }
        let (slot, result) = (operation.arrived, crate::transfer::errno_of_peer(result));
        if let Some(state) = self.peers.get_mut(peer) {
            state.posted.remove(&mut self.operations, Through::State, index);
        }
        if result < 0 {
            self.imports.remove(slot);
            self.finish(host, index, result, 0, 0);
            return;
        }
        if let Some(import) = self.imports.get_mut(slot) {
            (import.rights, import.list, import.length) = (rights, list, length);
            // A Stop may have overtaken nothing: messages are in order. Still, only a claim becomes live.
            if import.state == ImportState::Claiming {
                import.state = ImportState::Live;
            }
        }
        if self.is_ownerless(&operation) {
            self.forget_import(host, slot);
            return self.finish(host, index, Errno::ECANCELED.as_result(), 0, 0);
        }
        let handle = self.imports.handle(slot, HandleKind::Import);
        self.finish(host, index, 0, handle.bits(), length);
    }

    /// An import that may be used so: index and contents.
    pub(crate) fn usable_import(&self, bits: u64, need: Rights, list: bool) -> Result<(u32, Import), Errno> {
        let index = self.imports.find(Handle::from_bits(bits), HandleKind::Import)?;
        let Some(import) = self.imports.get(index) else {
            return Err(Errno::EBADF);
        };
        match import.state {
            ImportState::Live => {}
            ImportState::Claiming => return Err(Errno::EBADF),
            ImportState::Stopping => return Err(Errno::EKEYREVOKED),
            ImportState::Dead(errno) => return Err(errno),
        }
        if import.list != list {
            return Err(Errno::EINVAL);
        }
        if !import.rights.contains(need) {
            return Err(Errno::EACCES);
        }
        Ok((index, *import))
    }

    /// An operation is done with an import: the owner may be waiting for that.
    pub(crate) fn unuse_import<H: Host>(&mut self, host: &mut H, index: u32) {
        let Some(import) = self.imports.get_mut(index) else {
            return;
        };
        import.uses = import.uses.saturating_sub(1);
        if import.uses == 0 && import.state == ImportState::Stopping {
            import.state = ImportState::Dead(Errno::EKEYREVOKED);
            let (peer, lease) = (import.peer, import.lease);
            host.send(peer, &Message::Stopped { lease });
        }
    }

    /// The owner asks us to stop (clause LSE-9): what waits in our queues ends, what is posted will.
    pub(crate) fn stop_import<H: Host>(&mut self, host: &mut H, peer: u32, lease: u64, bits: u64) {
        let found = self.imports.find(Handle::from_bits(bits), HandleKind::Import).ok();
        let index = found.filter(|&index| {
            self.imports.get(index).is_some_and(|import| import.peer == peer && import.lease == lease)
        });
        let Some(index) = index else {
            // Released before the owner knew: nothing of ours is in flight.
            host.send(peer, &Message::Stopped { lease });
            return;
        };
        if let Some(import) = self.imports.get_mut(index) {
            if !matches!(import.state, ImportState::Live | ImportState::Claiming) {
                return;
            }
            import.state = ImportState::Stopping;
            import.uses += 1;
        }
        self.fail_queued_of_import(host, peer, index);
        self.raise(host, EventBits::IMPORT_REVOKED);
        self.unuse_import(host, index);
    }

    /// IMPORT_RELEASE.
    pub(crate) fn import_release<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Result<Flow, Errno> {
        let index = self.imports.find(Handle::from_bits(op.sqe.local), HandleKind::Import)?;
        let Some(import) = self.imports.get(index).copied() else {
            return Err(Errno::EBADF);
        };
        if import.uses > 0 || import.state == ImportState::Claiming {
            return Err(Errno::EBUSY);
        }
        self.forget_import(host, index);
        Ok(Flow::ok(0))
    }

    /// Ends an import that nothing uses, and tells its owner.
    fn forget_import<H: Host>(&mut self, host: &mut H, index: u32) {
        if let Some(import) = self.imports.remove(index)
            && import.state == ImportState::Live
        {
            host.send(import.peer, &Message::Released { lease: import.lease });
        }
    }

    /// The owner is gone: what it lent is dead.
    pub(crate) fn end_imports_of_peer(&mut self, peer: u32) {
        let mut from = 0;
        while let Some(index) = self.imports.next_used(from) {
            if let Some(import) = self.imports.get_mut(index)
                && import.peer == peer
                && !matches!(import.state, ImportState::Claiming | ImportState::Dead(_))
            {
                import.state = ImportState::Dead(Errno::ECONNRESET);
                import.peer = NONE;
            }
            from = index + 1;
        }
    }
}
