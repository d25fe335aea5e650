//! The engine's state and the roads through it.

use crate::buffer::Buffer;
use crate::control::DescriptorSlot;
use crate::event::Event;
use crate::host::Host;
use crate::import::Import;
use crate::inbound::Inbound;
use crate::lease::Lease;
use crate::limits::Limits;
use crate::list::List;
use crate::observe::Seen;
use crate::operation::{Class, OpId, Operation, Queue, State, Through};
use crate::peer::{Listener, Peer};
use crate::ring::RingState;
use crate::storage::{Storage, TableMemory, Tables};
use crate::table::{NONE, Slot, Table};
use crate::teardown::Phase;
use crate::timer::Timers;
use dmaplane_ring::abi::{Cqe, CqeFlags, Errno, EventBits, Handle, HandleKind, Sqe, SqeFlags};

pub(crate) type TableOf<S, T> = Table<T, <S as Storage>::Table<Slot<T>>>;

/// What makes a context itself. Both from the host's best source of randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Told to every peer.
    pub context: [u64; 2],
    /// Told to nobody: authenticates this context's tokens.
    pub token_key: [u64; 2],
}

/// Counters that QUERY and tests read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Statistics {
    /// Accesses of peers that were refused.
    pub refused: u64,
    /// The last lease concerned.
    pub refused_lease: u64,
    /// Peers whose connection was ended for a breach of the protocol.
    pub breaches: u64,
}

/// How much memory of the context's objects is in use; all zero after teardown (clause TD-6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Usage {
    /// Operations in flight.
    pub operations: u32,
    /// Buffers.
    pub buffers: u32,
    /// Lists.
    pub lists: u32,
    /// Leases.
    pub leases: u32,
    /// Imports.
    pub imports: u32,
    /// Peers.
    pub peers: u32,
    /// Transfers of peers in flight.
    pub inbound: u32,
    /// Descriptor slots.
    pub slots: u32,
    /// Listeners.
    pub listeners: u32,
}

/// One context's engine.
pub struct Engine<S: Storage> {
    pub(crate) limits: Limits,
    pub(crate) identity: Identity,
    pub(crate) phase: Phase,
    pub(crate) rings: S::Table<RingState>,
    pub(crate) operations: TableOf<S, Operation>,
    pub(crate) buffers: TableOf<S, Buffer>,
    pub(crate) lists: TableOf<S, List>,
    pub(crate) leases: TableOf<S, Lease>,
    pub(crate) imports: TableOf<S, Import>,
    pub(crate) peers: TableOf<S, Peer>,
    pub(crate) listeners: TableOf<S, Listener>,
    pub(crate) slots: TableOf<S, DescriptorSlot>,
    pub(crate) inbound: TableOf<S, Inbound>,
    pub(crate) timers: Timers<S::Table<crate::timer::TimerSlot>>,
    /// Operations whose turn has come: chains run through it, so that nothing here recurses.
    pub(crate) ready: Queue,
    /// Operations whose lists are being checked or ended, a slice a turn.
    pub(crate) list_work: Queue,
    /// What WATCH reports.
    pub(crate) events: EventBits,
    pub(crate) statistics: Statistics,
    /// Sum of the attached rings' CQ entries; at most `limits.operations`, so that an operation always has a slot.
    pub(crate) cq_entries: u32,
}

/// What an operation came to at once.
pub(crate) enum Flow {
    /// It is over.
    Done { result: i32, word0: u64, word1: u64 },
    /// It is in flight.
    Pending,
}

impl Flow {
    pub(crate) const fn ok(result: i32) -> Flow {
        Flow::Done { result, word0: 0, word1: 0 }
    }
}

impl From<Errno> for Flow {
    fn from(errno: Errno) -> Flow {
        Flow::ok(errno.as_result())
    }
}

/// An operation that is being started: it gets a place in the table only when it needs one.
pub(crate) struct Starting<'a> {
    pub ring: u32,
    pub class: Class,
    pub reserve: u32,
    pub sqe: &'a Sqe,
    /// Its index, once it has a place.
    pub index: u32,
}

impl<S: Storage> Engine<S> {
    /// A context with these limits. `None`: there was no memory for its tables.
    pub fn new(limits: Limits, identity: Identity, memory: &mut impl TableMemory<S>) -> Option<Self> {
        let tables = Tables::new(&limits, memory)?;
        Some(Engine {
            limits,
            identity,
            phase: Phase::Open,
            rings: tables.rings,
            operations: Table::recycling(tables.operations),
            buffers: Table::new(tables.buffers),
            lists: Table::new(tables.lists),
            leases: Table::new(tables.leases),
            imports: Table::new(tables.imports),
            peers: Table::new(tables.peers),
            listeners: Table::new(tables.listeners),
            slots: Table::new(tables.slots),
            inbound: Table::recycling(tables.inbound),
            timers: Timers::new(tables.timers),
            ready: Queue::EMPTY,
            list_work: Queue::EMPTY,
            events: EventBits::NONE,
            statistics: Statistics::default(),
            cq_entries: 0,
        })
    }

    /// The limits it was made with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What it tells its peers of itself.
    pub fn info(&self) -> crate::host::PeerInfo {
        crate::host::PeerInfo { context: self.identity.context, window: self.limits.inbound_per_peer }
    }

    /// Counters.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// What is in use.
    pub fn usage(&self) -> Usage {
        Usage {
            operations: self.operations.used(),
            buffers: self.buffers.used(),
            lists: self.lists.used(),
            leases: self.leases.used(),
            imports: self.imports.used(),
            peers: self.peers.used(),
            inbound: self.inbound.used(),
            slots: self.slots.used(),
            listeners: self.listeners.used(),
        }
    }

    /// Attaches a ring: its index. -ENFILE beyond the limits, -EINVAL for fewer than 16 CQ entries.
    pub fn attach_ring(&mut self, cq_entries: u32) -> Result<u32, Errno> {
        if cq_entries < 16 {
            return Err(Errno::EINVAL);
        }
        self.check_open()?;
        if self.cq_entries.saturating_add(cq_entries) > self.limits.operations {
            return Err(Errno::ENFILE);
        }
        let mut rings = self.rings.iter_mut().enumerate();
        let Some((index, ring)) = rings.find(|(_, ring)| !ring.attached() && ring.operations.length == 0) else {
            return Err(Errno::ENFILE);
        };
        *ring = RingState::attach(cq_entries);
        self.cq_entries += cq_entries;
        Ok(index as u32)
    }

    /// A context that is closing takes in nothing that its teardown would have to know of.
    fn check_open(&self) -> Result<(), Errno> {
        if self.phase == Phase::Open { Ok(()) } else { Err(Errno::ECANCELED) }
    }

    /// Puts a listener in; the host listens on its own and reports `Incoming`.
    pub fn add_listener(&mut self) -> Result<Handle, Errno> {
        self.check_open()?;
        let (index, _) = self.listeners.insert(Listener::NEW).ok_or(Errno::ENFILE)?;
        Ok(self.listeners.handle(index, HandleKind::Listener))
    }

    /// Puts in a buffer that a call made (pinned user memory, an imported dma-buf). The host's is `index` of the
    /// handle.
    pub fn add_buffer(&mut self, length_bytes: u64) -> Result<Handle, Errno> {
        self.check_open()?;
        let (index, _) = self.buffers.insert(Buffer::live(length_bytes)).ok_or(Errno::ENFILE)?;
        Ok(self.buffers.handle(index, HandleKind::Buffer))
    }

    /// Puts in a descriptor slot that a call made (an eventfd).
    pub fn add_slot(&mut self) -> Result<Handle, Errno> {
        self.check_open()?;
        let (index, _) = self.slots.insert(DescriptorSlot::LIVE).ok_or(Errno::ENFILE)?;
        Ok(self.slots.handle(index, HandleKind::Slot))
    }

    /// The host's index of a live buffer, for a call that maps it.
    pub fn buffer_index(&self, buffer: Handle) -> Result<u32, Errno> {
        self.live_buffer(buffer)
    }

    /// The host's index of a descriptor slot, for a call that takes what is in it.
    pub fn slot_index(&self, slot: Handle) -> Result<u32, Errno> {
        let index = self.slots.find(slot, HandleKind::Slot)?;
        match self.slots.get(index) {
            Some(slot) if slot.live => Ok(index),
            _ => Err(Errno::ESTALE),
        }
    }

    /// Forgets a descriptor slot, when a call has taken what was in it. -EBUSY while a WAIT uses it.
    pub fn remove_slot(&mut self, slot: Handle) -> Result<u32, Errno> {
        let index = self.slot_index(slot)?;
        if self.slots.get(index).is_some_and(|slot| slot.uses > 0) {
            return Err(Errno::EBUSY);
        }
        self.slots.remove(index);
        Ok(index)
    }

    /// Takes in what happened elsewhere.
    pub fn handle<H: Host>(&mut self, host: &mut H, event: Event) {
        match event {
            Event::Finished { op, result, word0, word1 } => self.work_finished(host, op, result, word0, word1),
            Event::LocalDone { op, result, checksum } => self.local_done(host, op, result, checksum),
            Event::TransferDone { transfer, result, bytes, checksum } => {
                self.inbound_done(host, transfer, result, bytes, checksum);
            }
            Event::Message { peer, frame, message } => self.message(host, peer, frame, &message),
            Event::Connected { op, pending, info } => self.connected(host, op, pending, info),
            Event::Incoming { listener, pending, info } => self.incoming(host, listener, pending, info),
            Event::PeerGone { peer, errno } => self.peer_gone(host, peer, errno),
        }
        self.settle(host);
    }

    /// Ends what is due; call it when [`Engine::next_deadline_ns`] has come.
    pub fn expire<H: Host>(&mut self, host: &mut H) {
        let now_ns = host.now_ns();
        while let Some((deadline_ns, timer)) = self.timers.earliest() {
            if deadline_ns > now_ns {
                break;
            }
            self.timers.clear(timer);
            if timer < self.operations.capacity() {
                self.operation_expired(host, timer);
            } else {
                self.lease_expired(host, timer - self.operations.capacity());
            }
            self.settle(host);
        }
    }

    /// When [`Engine::expire`] has something to do.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.timers.earliest().map(|(deadline_ns, _)| deadline_ns)
    }

    /// Whether [`Engine::step`] has more to do.
    pub fn has_work(&self) -> bool {
        self.list_work.length > 0 || matches!(self.phase, Phase::GivingBack(_))
    }

    /// Does one bounded slice of work that the engine spreads over turns: at most 4,096 runs of lists, or as much of
    /// a closed context's objects.
    pub fn step<H: Host>(&mut self, host: &mut H) {
        if matches!(self.phase, Phase::GivingBack(_)) {
            return self.give_back_slice(host);
        }
        self.list_slice(host);
        self.settle(host);
    }

    /// Gives an operation a place in the table, with its reservation.
    pub(crate) fn place<H: Host>(&mut self, host: &mut H, starting: &mut Starting, state: State) -> u32 {
        if self.operations.get(starting.index).is_some() {
            self.move_to(host, starting.index, state);
            return starting.index;
        }
        let operation = Operation {
            sqe: *starting.sqe,
            ring: starting.ring,
            class: starting.class,
            reserved: starting.reserve,
            state,
            chain_next: NONE,
            guard: NONE,
            object: NONE,
            links: crate::operation::Links::OUT,
            ring_links: crate::operation::Links::OUT,
            arrived: 0,
            cancelled: false,
            unverifiable: false,
        };
        // A place is free: each operation in it holds at least one of the rings' CQ entries, which are fewer.
        let Some((index, _)) = self.operations.insert(operation) else {
            return NONE;
        };
        starting.index = index;
        host.observe(self.op_id(index), &operation, Seen::Placed);
        if let Some(ring) = self.rings.get_mut(starting.ring as usize) {
            ring.reserve(starting.class, starting.reserve);
            ring.operations.push_back(&mut self.operations, Through::Ring, index);
            if starting.class != Class::Passive {
                ring.active += 1;
            }
            if starting.sqe.flags & SqeFlags::DRAIN.bits() != 0 {
                ring.set_draining(index);
            }
        }
        index
    }

    /// An operation waits for something else from here on.
    pub(crate) fn move_to<H: Host>(&mut self, host: &mut H, index: u32, state: State) {
        let op = self.op_id(index);
        if let Some(operation) = self.operations.get_mut(index) {
            operation.state = state;
            host.observe(op, operation, Seen::Moved);
        }
    }

    pub(crate) fn op_id(&self, index: u32) -> OpId {
        OpId::new(index, self.operations.generation(index))
    }

    /// The operation that an event names, unless it is over.
    pub(crate) fn find_op(&self, op: OpId) -> Option<u32> {
        self.operations.get(op.index())?;
        (self.operations.generation(op.index()) == op.generation()).then_some(op.index())
    }

    /// Posts a CQE of an operation that has more to come.
    pub(crate) fn post_more<H: Host>(
        &mut self,
        host: &mut H,
        index: u32,
        res: i32,
        flags: CqeFlags,
        words: (u64, u64),
    ) {
        let Some(operation) = self.operations.get_mut(index) else {
            return;
        };
        operation.reserved = operation.reserved.saturating_sub(1);
        let (ring, class, user_data) = (operation.ring, operation.class, operation.sqe.user_data);
        if let Some(state) = self.rings.get_mut(ring as usize) {
            state.unreserve(class, 1);
            if state.attached() {
                let flags = flags.with(CqeFlags::MORE).bits();
                host.complete(ring, Cqe { user_data, res, flags, word0: words.0, word1: words.1 });
            }
        }
    }

    /// Ends an operation: its terminal CQE, its place, its chain. The caller has let go of what it used and taken it
    /// out of the queue that its state says.
    pub(crate) fn finish<H: Host>(&mut self, host: &mut H, index: u32, result: i32, word0: u64, word1: u64) {
        self.finish_with(host, index, result, CqeFlags::NONE, word0, word1);
    }

    pub(crate) fn finish_with<H: Host>(
        &mut self,
        host: &mut H,
        index: u32,
        result: i32,
        flags: CqeFlags,
        word0: u64,
        word1: u64,
    ) {
        let Some(operation) = self.operations.get(index).copied() else {
            return;
        };
        self.timers.clear(index);
        if let Some(ring) = self.rings.get_mut(operation.ring as usize) {
            ring.operations.remove(&mut self.operations, Through::Ring, index);
            if !(cfg!(feature = "seeded-missing-release") && result == Errno::ECANCELED.as_result()) {
                ring.unreserve(operation.class, operation.reserved);
            }
            if operation.class != Class::Passive {
                ring.active = ring.active.saturating_sub(1);
            }
            if ring.draining() == index {
                ring.set_draining(NONE);
            }
            if ring.watch == index {
                ring.watch = NONE;
            }
            let silent = result >= 0 && operation.sqe.flags & SqeFlags::CQE_SKIP_SUCCESS.bits() != 0;
            if ring.attached() && !silent {
                let user_data = operation.sqe.user_data;
                let flags = if operation.unverifiable { flags.with(CqeFlags::UNVERIFIABLE) } else { flags };
                host.complete(operation.ring, Cqe { user_data, res: result, flags: flags.bits(), word0, word1 });
            } else if !ring.attached() && ring.operations.length == 0 {
                // The last operation of a ring that was closed before it: its share of the table is free again.
                self.cq_entries -= ring.cq_entries;
                *ring = RingState::VACANT;
            }
        }
        host.observe(self.op_id(index), &operation, Seen::Ended { result });
        self.operations.remove(index);
        if operation.guard != NONE && operation.sqe.opcode != dmaplane_ring::abi::Opcode::LinkTimeout as u8 {
            // Ended in time: its LINK_TIMEOUT has nothing to guard any more.
            self.finish(host, operation.guard, Errno::ECANCELED.as_result(), 0, 0);
        }
        self.chain_on(host, operation.chain_next, result, operation.sqe.flags);
    }

    /// Lets the next operation of a chain start, or cancels the rest of it.
    pub(crate) fn chain_on<H: Host>(&mut self, host: &mut H, next: u32, result: i32, flags: u8) {
        let Some(operation) = self.operations.get_mut(next) else {
            return;
        };
        if result < 0 && flags & SqeFlags::HARDLINK.bits() == 0 {
            operation.cancelled = true;
            // A broken chain is cancelled to its end, over hard links too (clause CHN-3).
            operation.sqe.flags &= !SqeFlags::HARDLINK.bits();
            operation.sqe.flags |= SqeFlags::LINK.bits();
        }
        if matches!(operation.class, Class::Detained | Class::Passive) {
            // Nothing before it detains it any more: from now on it counts as what it is itself.
            let (before, own) = (operation.class, crate::submit::class_when_started(&operation.sqe));
            operation.class = own;
            let (ring, reserved) = (operation.ring, operation.reserved);
            if let Some(ring) = self.rings.get_mut(ring as usize) {
                ring.unreserve(before, reserved);
                ring.reserve(own, reserved);
                ring.active += u32::from(before == Class::Passive && own != Class::Passive);
            }
        }
        self.move_to(host, next, State::Ready);
        self.ready.push_back(&mut self.operations, Through::State, next);
    }

    /// Starts what became ready, until nothing is.
    pub(crate) fn settle<H: Host>(&mut self, host: &mut H) {
        while let Some(index) = self.ready.pop_front(&mut self.operations, Through::State) {
            let Some(operation) = self.operations.get(index).copied() else {
                continue;
            };
            if operation.cancelled {
                self.finish(host, index, Errno::ECANCELED.as_result(), 0, 0);
                continue;
            }
            let mut starting = Starting {
                ring: operation.ring,
                class: operation.class,
                reserve: operation.reserved,
                sqe: &operation.sqe,
                index,
            };
            self.arm_guard(host, index);
            if let Flow::Done { result, word0, word1 } = self.dispatch(host, &mut starting) {
                self.finish(host, index, result, word0, word1);
            }
        }
        self.advance_teardown();
    }

    /// Notes something that nobody asked for, and ends armed WATCHes.
    pub(crate) fn raise<H: Host>(&mut self, host: &mut H, bits: EventBits) {
        self.events = self.events.with(bits);
        let mut from = 0;
        while let Some(ahead) = self.rings.get(from..).and_then(|rest| rest.iter().position(|ring| ring.watch != NONE))
        {
            let index = from + ahead;
            let watch = self.rings.get(index).map_or(NONE, |ring| ring.watch);
            self.finish(host, watch, self.events.bits() as i32, 0, 0);
            from = index + 1;
        }
    }
}

impl<S: Storage> Clone for Engine<S>
where
    S::Table<RingState>: Clone,
    S::Table<Slot<Operation>>: Clone,
    S::Table<Slot<Buffer>>: Clone,
    S::Table<Slot<List>>: Clone,
    S::Table<Slot<Lease>>: Clone,
    S::Table<Slot<Import>>: Clone,
    S::Table<Slot<Peer>>: Clone,
    S::Table<Slot<Listener>>: Clone,
    S::Table<Slot<DescriptorSlot>>: Clone,
    S::Table<Slot<Inbound>>: Clone,
    S::Table<crate::timer::TimerSlot>: Clone,
{
    fn clone(&self) -> Self {
        Engine {
            limits: self.limits,
            identity: self.identity,
            phase: self.phase,
            rings: self.rings.clone(),
            operations: self.operations.clone(),
            buffers: self.buffers.clone(),
            lists: self.lists.clone(),
            leases: self.leases.clone(),
            imports: self.imports.clone(),
            peers: self.peers.clone(),
            listeners: self.listeners.clone(),
            slots: self.slots.clone(),
            inbound: self.inbound.clone(),
            timers: self.timers.clone(),
            ready: self.ready,
            list_work: self.list_work,
            events: self.events,
            statistics: self.statistics,
            cq_entries: self.cq_entries,
        }
    }
}

impl<S: Storage> core::hash::Hash for Engine<S>
where
    S::Table<RingState>: core::hash::Hash,
    S::Table<Slot<Operation>>: core::hash::Hash,
    S::Table<Slot<Buffer>>: core::hash::Hash,
    S::Table<Slot<List>>: core::hash::Hash,
    S::Table<Slot<Lease>>: core::hash::Hash,
    S::Table<Slot<Import>>: core::hash::Hash,
    S::Table<Slot<Peer>>: core::hash::Hash,
    S::Table<Slot<Listener>>: core::hash::Hash,
    S::Table<Slot<DescriptorSlot>>: core::hash::Hash,
    S::Table<Slot<Inbound>>: core::hash::Hash,
    S::Table<crate::timer::TimerSlot>: core::hash::Hash,
{
    fn hash<T: core::hash::Hasher>(&self, state: &mut T) {
        self.limits.hash(state);
        self.identity.hash(state);
        self.phase.hash(state);
        self.rings.hash(state);
        self.operations.hash(state);
        self.buffers.hash(state);
        self.lists.hash(state);
        self.leases.hash(state);
        self.imports.hash(state);
        self.peers.hash(state);
        self.listeners.hash(state);
        self.slots.hash(state);
        self.inbound.hash(state);
        self.timers.hash(state);
        (self.ready, self.list_work, self.events, self.statistics, self.cq_entries).hash(state);
    }
}
