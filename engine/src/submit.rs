//! From the SQ to the operation: validation, reservation, chains, drain (clauses SQE-1 to SQE-9, RES-1, CHN-1 to
//! CHN-6).

use crate::engine::{Engine, Flow, Starting};
use crate::host::Host;
use crate::operation::{Class, State};
use crate::ring::{Refusing, RingState, Room};
use crate::rules::Rule;
use crate::storage::Storage;
use crate::table::NONE;
use crate::teardown::Phase;
use dmaplane_ring::abi::{Cqe, Errno, MAX_CHAIN, Opcode, Sqe, SqeFlags};

/// How far [`Engine::take`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Take {
    /// SQEs taken from the front of the window.
    pub taken: u32,
    /// Why the rest, if any, was left.
    pub stop: Stop,
}

/// Why SQEs were left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// None were, or a chain runs beyond the window: look again from the new head.
    WindowEnd,
    /// No room in the CQ before the client reaps or work here ends.
    CqFull,
    /// A DRAIN waits, or is waited for.
    Drain,
    /// The ring or the context is closed.
    Closed,
}

const LINKS: u8 = SqeFlags::LINK.bits() | SqeFlags::HARDLINK.bits();
const SKIP: u8 = SqeFlags::CQE_SKIP_SUCCESS.bits();
const DRAIN: u8 = SqeFlags::DRAIN.bits();

/// What an operation of a chain counts against once its turn has come. The control share is only for what was taken on
/// its account.
pub(crate) fn class_when_started(sqe: &Sqe) -> Class {
    match Rule::of(sqe).map(|rule| rule.reservation(sqe).0) {
        Ok(Class::ControlBrief) | Err(_) => Class::Local,
        Ok(Class::Control) => Class::Detained,
        Ok(class) => class,
    }
}

/// What each SQE of a chain reserves. What stands behind a detained or passive one is detained like it: it must not
/// hold room that operations of this host's own count on (clause RES-5), and a DRAIN waits for it no more than for the
/// passive one.
struct ChainClasses {
    behind: Class,
}

impl ChainClasses {
    const NEW: ChainClasses = ChainClasses { behind: Class::Local };

    fn next(&mut self, sqe: &Sqe) -> (Class, u32) {
        // An invalid SQE of a chain fails when its turn comes; it takes a place like any other.
        let (own, count) = Rule::of(sqe).map_or((Class::Local, 1), |rule| rule.reservation(sqe));
        let class = match (self.behind, own) {
            (Class::Passive, _) | (Class::Detained, Class::Passive) => Class::Passive,
            (Class::Detained, _) => Class::Detained,
            _ => own,
        };
        let graceful_revoke = sqe.opcode == Opcode::LeaseRevoke as u8 && sqe.arg64 != 0;
        self.behind = match class {
            // It ends with what it guards.
            _ if sqe.opcode == Opcode::LinkTimeout as u8 => self.behind,
            _ if graceful_revoke && self.behind == Class::Local => Class::Detained,
            Class::Detained | Class::Passive => class,
            Class::Local | Class::Control | Class::ControlBrief => self.behind,
        };
        (class, count)
    }
}

fn is_linked(sqe: &Sqe) -> bool {
    sqe.flags & LINKS != 0
}

/// Whether a whole chain can be reserved.
fn fits(mut tally: RingState, chain: &[Sqe], free: u32) -> bool {
    let mut classes = ChainClasses::NEW;
    chain.iter().all(|sqe| {
        let (class, count) = classes.next(sqe);
        let (room, class) = tally.room(class, count, free);
        // What has no room may be more than can be counted.
        let fits = room == Room::Yes;
        if fits {
            tally.reserve(class, count);
        }
        fits
    })
}

impl<S: Storage> Engine<S> {
    /// Takes SQEs from the front of `window`, private copies of what stands at the head of ring `ring`'s SQ.
    ///
    /// The window must hold at least 32 SQEs where the SQ does, so that a whole chain is seen at once.
    pub fn take<H: Host>(&mut self, host: &mut H, ring: u32, window: &[Sqe]) -> Take {
        let mut taken = 0;
        let stop = loop {
            let Some(sqe) = window.get(taken as usize) else {
                break Stop::WindowEnd;
            };
            match self.take_one(host, ring, sqe, window, taken) {
                Ok(0) => break Stop::WindowEnd,
                Ok(count) => taken += count,
                Err(stop) => break stop,
            }
        };
        Take { taken, stop }
    }

    /// Takes one SQE, or the chain that it begins; 0 when the chain runs beyond the window.
    // Into the loop: a call costs as much as a quarter of what an SQE does.
    #[inline(always)]
    fn take_one<H: Host>(&mut self, host: &mut H, ring: u32, sqe: &Sqe, window: &[Sqe], at: u32) -> Result<u32, Stop> {
        let Some(state) = self.rings.get(ring as usize) else {
            return Err(Stop::Closed);
        };
        if !state.is_clear() {
            return self.take_obstructed(host, ring, sqe);
        }
        // What a local operation finds taken at most: where that leaves room, `room_for` would say so, too.
        let most_held = state.reserved_total() + state.control_share();
        if is_linked(sqe) {
            return self.take_chain(host, ring, window, at);
        }
        let rule = match Rule::of(sqe) {
            Ok(rule) => rule,
            Err(errno) => return self.refuse(host, ring, sqe, errno).map(|()| 1),
        };
        // Over as it begins: nothing becomes ready by it.
        if rule.opcode == Opcode::Nop
            && rule.is_plain(sqe)
            && sqe.flags & SKIP == 0
            && host.complete_beyond(ring, most_held, Cqe::new(sqe.user_data, 0))
        {
            return Ok(1);
        }
        let (class, reserve) = if rule.is_plain(sqe) && most_held < host.cq_free_at_least(ring) {
            (Class::Local, 1)
        } else {
            match self.find_room(host, ring, rule, sqe)? {
                Some(found) => found,
                None => return Ok(1),
            }
        };
        self.start_alone(host, rule.opcode, Starting { ring, class, reserve, sqe, index: NONE });
        Ok(1)
    }

    /// What an SQE of no chain reserves, where there is room for it and no DRAIN waits. `None`: it was refused.
    #[inline(never)]
    fn find_room<H: Host>(
        &mut self,
        host: &mut H,
        ring: u32,
        rule: &Rule,
        sqe: &Sqe,
    ) -> Result<Option<(Class, u32)>, Stop> {
        if sqe.flags & DRAIN != 0 && self.rings.get(ring as usize).is_some_and(|state| state.active > 0) {
            return Err(Stop::Drain);
        }
        let (class, reserve) = rule.reservation(sqe);
        match self.room_for(host, ring, class, reserve) {
            (Room::Yes, class) => Ok(Some((class, reserve))),
            (Room::Later, _) => Err(Stop::CqFull),
            (Room::ShareUsed, _) => self.refuse(host, ring, sqe, Errno::ENOBUFS).map(|()| None),
            (Room::Never, _) => self.refuse(host, ring, sqe, Errno::EINVAL).map(|()| None),
        }
    }

    /// Starts an operation of no chain, whose SQE is valid, and ends it where it is over at once.
    // Not into the loop, whose registers it would take.
    #[inline(never)]
    fn start_alone<H: Host>(&mut self, host: &mut H, opcode: Opcode, mut op: Starting) {
        if let Flow::Done { result, word0, word1 } = self.start_as(host, opcode, &mut op) {
            if op.index != NONE {
                self.finish(host, op.index, result, word0, word1);
            } else if result < 0 || op.sqe.flags & SKIP == 0 {
                host.complete(op.ring, Cqe { user_data: op.sqe.user_data, res: result, flags: 0, word0, word1 });
            }
        }
        if self.ready.length > 0 {
            self.settle(host);
        }
    }

    /// Takes one SQE of a ring that is closed, waits for a DRAIN, or is refusing a chain.
    #[cold]
    fn take_obstructed<H: Host>(&mut self, host: &mut H, ring: u32, sqe: &Sqe) -> Result<u32, Stop> {
        let Some(state) = self.rings.get(ring as usize) else {
            return Err(Stop::Closed);
        };
        if !state.attached() || self.phase != Phase::Open {
            return Err(Stop::Closed);
        }
        if state.draining() != NONE {
            return Err(Stop::Drain);
        }
        let (errno, next) = match state.refusing() {
            // Not obstructed: nobody asks.
            Refusing::No => return Err(Stop::Closed),
            Refusing::UntilChainEnds if is_linked(sqe) => (Errno::EINVAL, Refusing::UntilChainEnds),
            Refusing::UntilChainEnds => (Errno::EINVAL, Refusing::No),
            Refusing::Rest(left) if left > 1 => (Errno::ECANCELED, Refusing::Rest(left - 1)),
            Refusing::Rest(_) => (Errno::ECANCELED, Refusing::No),
        };
        self.refuse(host, ring, sqe, errno)?;
        self.set_refusing(ring, next);
        Ok(1)
    }

    /// Whether there is room now for what an operation reserves, and what it counts against then.
    fn room_for<H: Host>(&self, host: &mut H, ring: u32, class: Class, reserve: u32) -> (Room, Class) {
        match self.rings.get(ring as usize) {
            Some(state) => state.room(class, reserve, host.cq_free(ring)),
            None => (Room::Never, class),
        }
    }

    fn set_refusing(&mut self, ring: u32, refusing: Refusing) {
        if let Some(state) = self.rings.get_mut(ring as usize) {
            state.set_refusing(refusing);
        }
    }

    /// Completes an SQE with an error at once; it needs room for that CQE like any other.
    #[cold]
    fn refuse<H: Host>(&mut self, host: &mut H, ring: u32, sqe: &Sqe, errno: Errno) -> Result<(), Stop> {
        let Some(state) = self.rings.get(ring as usize) else {
            return Err(Stop::Closed);
        };
        if state.room(Class::Local, 1, host.cq_free(ring)).0 != Room::Yes {
            return Err(Stop::CqFull);
        }
        host.complete(ring, Cqe::new(sqe.user_data, errno.as_result()));
        Ok(())
    }

    /// Takes a whole chain, or nothing of it.
    #[inline(never)]
    fn take_chain<H: Host>(&mut self, host: &mut H, ring: u32, window: &[Sqe], at: u32) -> Result<u32, Stop> {
        let Some(chain) = window.get(at as usize..) else {
            return Ok(0);
        };
        let linked = chain.iter().take_while(|sqe| is_linked(sqe)).count();
        if linked >= chain.len() && at > 0 {
            // It may end beyond the window: look again with it at the front.
            return Ok(0);
        }
        if linked >= MAX_CHAIN {
            self.set_refusing(ring, Refusing::UntilChainEnds);
            return self.take_obstructed(host, ring, chain.first().unwrap_or(&Sqe::default()));
        }
        // The last SQE published ends the chain even where its flag says otherwise (clause CHN-2).
        let length = chain.len().min(linked + 1);
        let chain = chain.get(..length).unwrap_or(&[]);
        let Some(state) = self.rings.get(ring as usize).copied() else {
            return Err(Stop::Closed);
        };
        let free = host.cq_free(ring);
        let mut tally = state;
        let mut classes = ChainClasses::NEW;
        for (position, sqe) in chain.iter().enumerate() {
            if sqe.flags & DRAIN != 0 && (position > 0 || state.active > 0) {
                if position > 0 {
                    return self.refuse_chain(host, ring, chain, Errno::EINVAL);
                }
                return Err(Stop::Drain);
            }
            let (class, count) = classes.next(sqe);
            let (room, class) = tally.room(class, count, free);
            match room {
                Room::Yes => tally.reserve(class, count),
                Room::Later if fits(state.patient(), chain, state.cq_entries) => return Err(Stop::CqFull),
                Room::Never => return self.refuse_chain(host, ring, chain, Errno::EINVAL),
                // Not before what peers detain has ended; or not even then.
                Room::Later | Room::ShareUsed => {
                    let alone = state.patient().reserved_total() == 0;
                    let errno = if alone { Errno::EINVAL } else { Errno::ENOBUFS };
                    return self.refuse_chain(host, ring, chain, errno);
                }
            }
        }
        self.place_chain(host, ring, chain);
        Ok(length as u32)
    }

    /// Completes a chain's first SQE with an error; the others are cancelled, each when there is room for that.
    fn refuse_chain<H: Host>(&mut self, host: &mut H, ring: u32, chain: &[Sqe], errno: Errno) -> Result<u32, Stop> {
        self.refuse(host, ring, chain.first().unwrap_or(&Sqe::default()), errno)?;
        let left = chain.len() as u32 - 1;
        self.set_refusing(ring, if left > 0 { Refusing::Rest(left) } else { Refusing::No });
        Ok(1)
    }

    fn place_chain<H: Host>(&mut self, host: &mut H, ring: u32, chain: &[Sqe]) {
        let mut before = NONE;
        let mut first = NONE;
        let mut guardable = false;
        let mut classes = ChainClasses::NEW;
        for sqe in chain {
            let (class, reserve) = classes.next(sqe);
            let class = match self.rings.get(ring as usize) {
                Some(state) => state.room(class, reserve, host.cq_free(ring)).1,
                None => class,
            };
            let mut starting = Starting { ring, class, reserve, sqe, index: NONE };
            let index = self.place(host, &mut starting, State::Linked);
            // Any other LINK_TIMEOUT has its place in the chain, where it fails.
            let is_timeout = sqe.opcode == Opcode::LinkTimeout as u8;
            let guards = is_timeout && guardable && Rule::of(sqe).is_ok();
            guardable = !is_timeout;
            match self.operations.get_mut(before) {
                // A LINK_TIMEOUT stands beside the chain: what follows it follows what it guards.
                Some(previous) if guards => previous.guard = index,
                Some(previous) => previous.chain_next = index,
                None => first = index,
            }
            if guards {
                if let Some(operation) = self.operations.get_mut(index) {
                    operation.guard = before;
                }
            } else {
                before = index;
            }
        }
        if self.operations.get(first).is_some() {
            self.move_to(host, first, State::Ready);
            self.ready.push_back(&mut self.operations, crate::operation::Through::State, first);
        }
        self.settle(host);
    }

    /// Starts an operation of a chain, whose SQE is checked only now.
    pub(crate) fn dispatch<H: Host>(&mut self, host: &mut H, op: &mut Starting) -> Flow {
        match Rule::of(op.sqe) {
            Ok(rule) => self.start_as(host, rule.opcode, op),
            Err(errno) => errno.into(),
        }
    }

    /// Starts an operation whose SQE is valid.
    fn start_as<H: Host>(&mut self, host: &mut H, opcode: Opcode, op: &mut Starting) -> Flow {
        let flow = match opcode {
            Opcode::Nop => Ok(Flow::ok(0)),
            Opcode::Cancel => self.cancel(host, op),
            Opcode::Timeout => self.timeout(host, op),
            // Only right behind what it guards, which is where chains put it (clause CTL-4).
            Opcode::LinkTimeout => Err(Errno::EINVAL),
            Opcode::Watch => self.watch(host, op),
            Opcode::Wait => self.wait(host, op),
            Opcode::Query => self.query(op),
            Opcode::Alloc => self.alloc(host, op),
            Opcode::Free => self.free(host, op),
            Opcode::Placement => self.placement(host, op),
            Opcode::ExportDmabuf => self.export_dmabuf(host, op),
            Opcode::Sync => self.sync(host, op),
            Opcode::ListPrepare => self.list_prepare(host, op),
            Opcode::ListFree => self.list_free(host, op),
            Opcode::LeaseGrant => self.lease_grant(host, op),
            Opcode::LeaseExport => self.lease_export(host, op),
            Opcode::LeaseImport => self.lease_import(host, op),
            Opcode::LeaseRenew => self.lease_renew(host, op),
            Opcode::LeaseRevoke => self.lease_revoke(host, op),
            Opcode::ImportRelease => self.import_release(host, op),
            Opcode::Connect => self.connect(host, op),
            Opcode::Accept => self.accept(host, op),
            Opcode::Disconnect => self.disconnect(host, op),
            Opcode::Write | Opcode::WriteImm | Opcode::Read | Opcode::WriteList | Opcode::ReadList | Opcode::Send => {
                self.transfer(host, opcode, op)
            }
            Opcode::Recv | Opcode::CreditGrant => self.credit_grant(host, opcode, op),
            Opcode::CreditQuery => self.credit_query(op),
            Opcode::CreditWatermarks => self.credit_watermarks(host, op),
        };
        flow.unwrap_or_else(Flow::from)
    }
}
