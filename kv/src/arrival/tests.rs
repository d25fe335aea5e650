use super::*;

const ID: TransferId = TransferId { slot: 3, generation: 1 };
const EXPECTED: Expected = Expected { parts: 3, bytes: 100 };

fn active() -> Active {
    Active::new(EXPECTED, None)
}

#[test]
fn parts_count_in_any_order() {
    let mut active = active();
    for (part, bytes) in [(2, 10), (0, 60)] {
        assert!(!active.count(1, ID, Some(part), bytes).unwrap().is_complete());
    }
    assert!(active.count(1, ID, Some(1), 30).unwrap().is_complete());
}

#[test]
fn a_numbered_part_that_arrives_twice_is_refused() {
    let mut active = Active::new(Expected { parts: 200, bytes: 200 }, None);
    for part in [0, 63, 64, 199] {
        active.count(1, ID, Some(part), 1).unwrap();
        let duplicate = Err(ArrivalError::Duplicate { id: ID, part });
        assert_eq!(active.count(1, ID, Some(part), 1), duplicate);
    }
    assert_eq!(active.progress().parts, 4);
    let error = ArrivalError::NoSuchPart { id: ID, part: 200, parts: 200 };
    assert_eq!(active.count(1, ID, Some(200), 1), Err(error));
}

#[test]
fn an_unnumbered_part_after_the_last_is_refused() {
    let mut active = active();
    for bytes in [40, 40, 20] {
        active.count(1, ID, None, bytes).unwrap();
    }
    let overrun = Err(ArrivalError::Overrun { id: ID, expected: EXPECTED });
    assert_eq!(active.count(1, ID, None, 1), overrun);
    assert!(active.progress().is_complete());
}

#[test]
fn bytes_must_add_up() {
    let mut active = active();
    let overrun = Err(ArrivalError::Overrun { id: ID, expected: EXPECTED });
    assert_eq!(active.count(1, ID, None, 101), overrun);
    assert_eq!(active.count(1, ID, None, u64::MAX), overrun);
    // 99 of 100 bytes would leave two parts one byte.
    assert_eq!(active.count(1, ID, None, 99), overrun);
    assert_eq!(active.count(1, ID, None, 0), Err(ArrivalError::Empty { id: ID }));
    active.count(1, ID, None, 50).unwrap();
    active.count(1, ID, None, 10).unwrap();
    let short = Err(ArrivalError::Short { id: ID, missing_bytes: 1 });
    assert_eq!(active.count(1, ID, None, 39), short);
    assert_eq!(active.progress().parts, 2);
    assert!(active.count(1, ID, None, 40).unwrap().is_complete());
}

#[test]
fn a_transfer_stays_with_its_first_peer() {
    let mut bound = Active::new(EXPECTED, Some(1));
    let foreign = Err(ArrivalError::Foreign { id: ID, expected: 1, found: 2 });
    assert_eq!(bound.count(2, ID, None, 10), foreign);
    let mut unbound = active();
    // A refused arrival does not bind.
    assert!(unbound.count(2, ID, None, 0).is_err());
    unbound.count(1, ID, None, 10).unwrap();
    assert_eq!(unbound.count(2, ID, None, 10), foreign);
}

#[test]
fn numbered_and_unnumbered_parts_do_not_mix() {
    let mixed = Err(ArrivalError::Mixed { id: ID });
    let mut numbered = active();
    numbered.count(1, ID, Some(0), 10).unwrap();
    assert_eq!(numbered.count(1, ID, None, 10), mixed);
    let mut unnumbered = active();
    unnumbered.count(1, ID, None, 10).unwrap();
    assert_eq!(unnumbered.count(1, ID, Some(0), 10), mixed);
}
