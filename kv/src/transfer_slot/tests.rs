use super::*;

const PEER: u64 = 7;

fn one_part(slots: &mut TransferSlots) -> TransferId {
    slots.begin(Expected { parts: 1, bytes: 10 }, Some(PEER)).unwrap()
}

#[test]
fn impossible_tables_and_transfers_are_refused() {
    for slots in [0, SLOTS_MAX + 1] {
        assert_eq!(TransferSlots::new(slots).err(), Some(SlotError::Slots { slots }));
    }
    let mut slots = TransferSlots::new(SLOTS_MAX).unwrap();
    assert_eq!(slots.free_slots(), SLOTS_MAX);
    for parts in [0, PARTS_MAX + 1] {
        let error = SlotError::Parts { parts };
        assert_eq!(slots.begin(Expected { parts, bytes: u64::MAX }, None), Err(error));
    }
    let error = SlotError::Bytes { parts: 3, bytes: 2 };
    assert_eq!(slots.begin(Expected { parts: 3, bytes: 2 }, None), Err(error));
    assert_eq!(slots.free_slots(), SLOTS_MAX);
}

#[test]
fn a_slot_is_not_reused_before_the_end_is_acknowledged() {
    let mut slots = TransferSlots::new(1).unwrap();
    let id = one_part(&mut slots);
    assert_eq!(id, TransferId { slot: 0, generation: 1 });
    let expected = Expected { parts: 1, bytes: 10 };
    let exhausted = Err(SlotError::Exhausted { slots: 1, retired: 0 });
    assert_eq!(slots.begin(expected, None), exhausted);
    assert_eq!(slots.release(id), Err(SlotError::StillActive { id }));
    slots.abort(id).unwrap();
    assert_eq!(slots.begin(expected, None), exhausted);
    assert_eq!(slots.abort(id), Err(SlotError::AlreadyEnded { id }));
    assert_eq!(slots.commit(id), Err(SlotError::AlreadyEnded { id }));
    assert_eq!(slots.release(id), Ok(Released::Reusable));
    assert_eq!(slots.release(id), Err(SlotError::NotCurrent { id }));
    assert_eq!(slots.begin(expected, None), Ok(TransferId { slot: 0, generation: 2 }));
    assert_eq!(slots.progress(id), Err(SlotError::NotCurrent { id }));
}

/// The worst bug of today's libraries: data of an aborted transfer counts for its successor.
#[test]
fn late_arrivals_never_count_for_the_next_transfer() {
    let mut slots = TransferSlots::new(1).unwrap();
    let old = one_part(&mut slots);
    slots.abort(old).unwrap();
    let ended = Err(ArrivalError::Ended { id: old });
    assert_eq!(slots.arrive(PEER, old.pack(), 10), ended);
    slots.release(old).unwrap();
    let stale = Err(ArrivalError::Stale { id: old, current: 2 });
    assert_eq!(slots.arrive(PEER, old.pack(), 10), stale);
    let new = one_part(&mut slots);
    assert_eq!(slots.arrive(PEER, old.pack(), 10), stale);
    assert_eq!(slots.progress(new).unwrap().parts, 0);
    assert_eq!(slots.refused(), Refused { stale: 2, ended: 1, ..Refused::default() });
}

#[test]
fn immediates_that_were_never_given_out_are_unknown() {
    let mut slots = TransferSlots::new(2).unwrap();
    let id = one_part(&mut slots);
    let never = [(0, 0), (0, 2), (1, 1), (2, 1)];
    for (slot, generation) in never {
        let id = TransferId { slot, generation };
        let unknown = Err(ArrivalError::Unknown { id });
        assert_eq!(slots.arrive(PEER, id.pack(), 10), unknown);
    }
    assert_eq!(slots.refused().unknown, 4);
    assert!(slots.arrive(PEER, id.pack(), 10).unwrap().is_complete());
}

#[test]
fn a_slot_whose_generation_would_wrap_is_retired() {
    // One that no other can take the place of.
    let mut slots = TransferSlots::with_most(1, 1).unwrap();
    for generation in 1..=u16::MAX {
        let id = one_part(&mut slots);
        assert_eq!(id.generation, generation);
        slots.arrive(PEER, id.pack(), 10).unwrap();
        slots.commit(id).unwrap();
        let last = generation == u16::MAX;
        let released = if last { Released::Retired } else { Released::Reusable };
        assert_eq!(slots.release(id), Ok(released));
    }
    let expected = Expected { parts: 1, bytes: 10 };
    let error = SlotError::Exhausted { slots: 1, retired: 1 };
    assert_eq!(slots.begin(expected, None), Err(error));
    let id = TransferId { slot: 0, generation: u16::MAX };
    let stale = Err(ArrivalError::Stale { id, current: u16::MAX });
    assert_eq!(slots.arrive(PEER, id.pack(), 10), stale);
    assert_eq!(slots.release(id), Err(SlotError::NotCurrent { id }));
    assert_eq!((slots.retired_slots(), slots.free_slots()), (1, 0));
}

#[test]
fn transfers_came_to_an_end_when_every_slot_was_retired() {
    let mut slots = TransferSlots::new(2).unwrap();
    let transfers = 3 * u32::from(u16::MAX) + 7;
    let mut last = None;
    for transfer in 0..transfers {
        let id = one_part(&mut slots);
        assert!(Some(id) != last && id.slot < 4, "transfer {transfer}: {id}");
        slots.abort(id).unwrap();
        slots.release(id).unwrap();
        last = Some(id);
    }
    assert_eq!((slots.retired_slots(), slots.free_slots()), (2, 2));
    for slot in [0, 1] {
        // What is late for a retired one is stale all the same.
        let id = TransferId { slot, generation: u16::MAX };
        let stale = Err(ArrivalError::Stale { id, current: u16::MAX });
        assert_eq!(slots.arrive(PEER, id.pack(), 10), stale);
    }
}

#[test]
fn a_table_whose_numbers_are_used_up_says_so() {
    let mut slots = TransferSlots::new(SLOTS_MAX).unwrap();
    slots.slots[0].generation = u16::MAX;
    let id = one_part(&mut slots);
    slots.abort(id).unwrap();
    assert_eq!(slots.release(id), Ok(Released::Retired));
    assert_eq!((slots.slots.len() as u32, slots.free_slots()), (SLOTS_MAX, SLOTS_MAX - 1));
    slots.free.clear();
    let error = slots.begin(Expected { parts: 1, bytes: 10 }, None).unwrap_err().to_string();
    assert!(error.contains("65536 slots are in use, 1 of them retired") && error.contains("new exchange"), "{error}");
}

#[test]
fn slots_rest_as_long_as_possible() {
    let mut slots = TransferSlots::new(3).unwrap();
    let id = one_part(&mut slots);
    slots.abort(id).unwrap();
    slots.release(id).unwrap();
    assert_eq!(one_part(&mut slots).slot, 1);
    assert_eq!(one_part(&mut slots).slot, 2);
    assert_eq!(one_part(&mut slots), TransferId { slot: 0, generation: 2 });
}
