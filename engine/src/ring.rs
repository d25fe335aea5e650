//! A ring as the engine sees it: its reservations (clauses RES-1 to RES-8), its operations, its drain.
//!
//! The invariant that everything here serves: *reserved CQEs plus unreaped CQEs never exceed the CQ*, and the SQ's head
//! waits only for the client to reap, for this host's own work, or for a DRAIN; never for a peer, a timer or credit.

use crate::operation::{Class, Queue};
use crate::table::NONE;

/// A ring's state.
#[derive(Clone, Copy, Debug, Hash)]
pub struct RingState {
    /// In use.
    attached: bool,
    /// Its context is open no more.
    closing: bool,
    /// Something is to be thought of before the next SQE is taken: what [`RingState::note`] makes of the other fields.
    /// One word to look at for each SQE.
    obstructed: bool,
    /// Entries of its CQ; at least 16.
    pub(crate) cq_entries: u32,
    /// CQEs reserved and not yet posted, by class.
    reserved: [u32; 4],
    /// Their sum.
    reserved_total: u32,
    /// Its operations in flight.
    pub(crate) operations: Queue,
    /// Operations in flight that are not passive: what DRAIN waits for.
    pub(crate) active: u32,
    /// The DRAIN operation in flight, which holds back what comes after it.
    draining: u32,
    /// SQEs at the head still to be refused with -EINVAL, of a chain that could never fit.
    refusing: Refusing,
    /// The armed WATCH.
    pub(crate) watch: u32,
}

/// Whether the SQEs at the head belong to a chain that is refused. They are refused one at a time, since no more room
/// than that is sure to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refusing {
    No,
    /// With -EINVAL, to the chain's end, however far that is.
    UntilChainEnds,
    /// So many more with -ECANCELED: the first of their chain has had its errno.
    Rest(u32),
}

/// Whether CQEs can be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Yes.
    Yes,
    /// Not before the client reaps, or this host's own work ends.
    Later,
    /// The class holds its share: -ENOBUFS.
    ShareUsed,
    /// Not even in an empty CQ: -EINVAL.
    Never,
}

const fn class_index(class: Class) -> usize {
    match class {
        Class::Local => 0,
        Class::Control | Class::ControlBrief => 1,
        Class::Detained => 2,
        Class::Passive => 3,
    }
}

impl RingState {
    /// Not attached.
    pub const VACANT: RingState = RingState {
        attached: false,
        closing: false,
        obstructed: true,
        cq_entries: 0,
        reserved: [0; 4],
        reserved_total: 0,
        operations: Queue::EMPTY,
        active: 0,
        draining: NONE,
        refusing: Refusing::No,
        watch: NONE,
    };

    pub(crate) fn attach(cq_entries: u32) -> RingState {
        RingState { attached: true, obstructed: false, cq_entries, ..RingState::VACANT }
    }

    #[inline]
    pub(crate) fn attached(&self) -> bool {
        self.attached
    }

    /// Its client is gone: nothing more is taken.
    pub(crate) fn detach(&mut self) {
        self.attached = false;
        self.note();
    }

    /// Its context closes: nothing more is taken.
    pub(crate) fn close(&mut self) {
        self.closing = true;
        self.note();
    }

    #[inline]
    pub(crate) fn draining(&self) -> u32 {
        self.draining
    }

    /// The DRAIN operation in flight from now on; [`NONE`]: it has ended.
    pub(crate) fn set_draining(&mut self, index: u32) {
        self.draining = index;
        self.note();
    }

    pub(crate) fn refusing(&self) -> Refusing {
        self.refusing
    }

    pub(crate) fn set_refusing(&mut self, refusing: Refusing) {
        self.refusing = refusing;
        self.note();
    }

    fn note(&mut self) {
        self.obstructed = !self.attached || self.closing || self.draining != NONE || self.refusing != Refusing::No;
    }

    /// CQEs kept for control operations (clause RES-3).
    #[inline]
    pub(crate) fn control_share(&self) -> u32 {
        self.cq_entries / 8
    }

    /// CQEs kept for operations that end by this host's own work (clause RES-5).
    pub(crate) fn local_share(&self) -> u32 {
        self.cq_entries / 8
    }

    /// Most CQEs that passive operations may hold (clause RES-4).
    pub(crate) fn passive_limit(&self) -> u32 {
        self.cq_entries / 2
    }

    fn held(&self, class: Class) -> u32 {
        self.reserved.get(class_index(class)).copied().unwrap_or(0)
    }

    /// As it will be when the client has reaped and this host's own work has ended: what peers detain stays.
    pub(crate) fn patient(mut self) -> RingState {
        self.unreserve(Class::Local, u32::MAX);
        self.unreserve(Class::Control, u32::MAX);
        self
    }

    /// All CQEs reserved.
    #[inline]
    pub(crate) fn reserved_total(&self) -> u32 {
        self.reserved_total
    }

    /// Nothing is to be thought of before the next SQE is taken.
    #[inline]
    pub(crate) fn is_clear(&self) -> bool {
        !self.obstructed
    }

    /// Whether `count` more of `class` can be reserved while `free` entries of the CQ are free. A control operation
    /// beyond its share is counted as another class, which comes back.
    pub(crate) fn room(&self, class: Class, count: u32, free: u32) -> (Room, Class) {
        if cfg!(feature = "broken-no-reservation") {
            return (Room::Yes, class);
        }
        let total = self.reserved_total();
        let control = self.held(Class::Control);
        let is_control = matches!(class, Class::Control | Class::ControlBrief);
        if is_control && control + count <= self.control_share() {
            // Kept free for it by the other arm, so this waits at most for the client.
            return (if total + count <= free { Room::Yes } else { Room::Later }, Class::Control);
        }
        let class = match class {
            Class::Control => Class::Detained,
            Class::ControlBrief => Class::Local,
            class => class,
        };
        let kept = self.control_share();
        let share = match class {
            Class::Detained | Class::Passive => self.cq_entries - kept - self.local_share(),
            Class::Local | Class::Control | Class::ControlBrief => self.cq_entries - kept,
        };
        if count > share || (class == Class::Passive && count > self.passive_limit()) {
            return (Room::Never, class);
        }
        let detained = self.held(Class::Detained) + self.held(Class::Passive);
        if class == Class::Passive && self.held(Class::Passive) + count > self.passive_limit() {
            return (Room::ShareUsed, class);
        }
        if matches!(class, Class::Detained | Class::Passive) && detained + count > share {
            return (Room::ShareUsed, class);
        }
        let kept = kept.saturating_sub(control);
        (if total + kept + count <= free { Room::Yes } else { Room::Later }, class)
    }

    pub(crate) fn reserve(&mut self, class: Class, count: u32) {
        if let Some(held) = self.reserved.get_mut(class_index(class)) {
            *held += count;
            self.reserved_total += count;
        }
    }

    pub(crate) fn unreserve(&mut self, class: Class, count: u32) {
        if let Some(held) = self.reserved.get_mut(class_index(class)) {
            let count = count.min(*held);
            *held -= count;
            self.reserved_total -= count;
        }
    }
}

#[cfg(all(test, not(feature = "broken-no-reservation")))]
mod tests {
    use super::*;

    /// RES-3: graceful revokes may wait for peers for ever, so beyond their share they must not hold what local work
    /// needs.
    #[test]
    fn control_operations_beyond_their_share_never_block_local_ones() {
        let mut ring = RingState::attach(16);
        for _ in 0..64 {
            if let (Room::Yes, class) = ring.room(Class::Control, 1, 16) {
                ring.reserve(class, 1);
            }
        }
        assert_eq!(ring.room(Class::Control, 1, 16), (Room::ShareUsed, Class::Detained));
        assert_eq!(ring.room(Class::Local, 1, 16).0, Room::Yes);
        assert_eq!(ring.room(Class::ControlBrief, 1, 16).0, Room::Yes);
    }

    /// What is looked at for each SQE is what the other fields say, whatever they were before.
    #[test]
    fn a_ring_is_clear_when_nothing_obstructs_it() {
        type Step = fn(&mut RingState);
        let mut ring = RingState::attach(16);
        let steps: [(Step, bool); 10] = [
            (|_| (), true),
            (|ring| ring.set_draining(3), false),
            (|ring| ring.set_refusing(Refusing::Rest(2)), false),
            (|ring| ring.set_draining(NONE), false),
            (|ring| ring.set_refusing(Refusing::No), true),
            (|ring| ring.set_refusing(Refusing::UntilChainEnds), false),
            (|ring| ring.set_refusing(Refusing::No), true),
            (RingState::close, false),
            (RingState::detach, false),
            (|ring| *ring = RingState::VACANT, false),
        ];
        for (position, (step, clear)) in steps.into_iter().enumerate() {
            step(&mut ring);
            assert_eq!(ring.is_clear(), clear, "after step {position}");
        }
    }

    proptest::proptest! {
        /// RES-1, RES-3, RES-5: whatever is reserved and posted in whatever order, the CQ holds it all, and a control
        /// operation within its share waits only for the client.
        #[test]
        fn res_1_reservations_never_exceed_the_cq(
            log in 4u32..8,
            steps in proptest::collection::vec((0u8..4, 1u32..9, 0u8..3), 1..400),
        ) {
            let mut ring = RingState::attach(1 << log);
            let mut unreaped = 0;
            for (class, count, act) in steps {
                let class = [Class::Local, Class::Control, Class::Detained, Class::Passive][class as usize];
                let count = if class == Class::Passive { count } else { 1 };
                let free = ring.cq_entries - unreaped;
                match act {
                    0 | 1 => {
                        let (room, counted) = ring.room(class, count, free);
                        if room == Room::Yes { ring.reserve(counted, count); }
                        let within_share = ring.held(Class::Control) < ring.control_share();
                        if unreaped == 0 && class == Class::Control && within_share {
                            proptest::prop_assert_eq!(room, Room::Yes);
                        }
                        if unreaped == 0 && class == Class::Local && room == Room::Later {
                            proptest::prop_assert!(ring.held(Class::Local) > 0, "waits for local work only");
                        }
                    }
                    _ => {
                        if ring.held(class) > 0 { ring.unreserve(class, 1); unreaped += 1; }
                        else { unreaped = 0; }
                    }
                }
                proptest::prop_assert!(ring.reserved_total() + unreaped <= ring.cq_entries);
                proptest::prop_assert_eq!(ring.reserved_total(), ring.reserved.iter().sum::<u32>());
            }
        }
    }
}
