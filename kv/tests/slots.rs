//! Transfer slots against an oracle: a plain list of every transfer that ever was.

use dmaplane_kv::transfer_slot::{ArrivalError, Expected, TransferSlots};
use dmaplane_kv::{SlotError, TransferId};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Begin { parts: u32 },
    Arrive { transfer: usize, part: u32, peer: u64 },
    Commit { transfer: usize },
    Abort { transfer: usize },
    Release { transfer: usize },
}

/// A transfer as the oracle knows it.
#[derive(Debug, Clone)]
struct Transfer {
    id: TransferId,
    peer: Option<u64>,
    arrived: Vec<bool>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Active,
    Ended,
    Released,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let transfer = 0_usize..40;
    vec(
        prop_oneof![
            3 => (1_u32..4).prop_map(|parts| Step::Begin { parts }),
            9 => (transfer.clone(), 0_u32..4, 1_u64..3)
                .prop_map(|(transfer, part, peer)| Step::Arrive { transfer, part, peer }),
            3 => transfer.clone().prop_map(|transfer| Step::Commit { transfer }),
            1 => transfer.clone().prop_map(|transfer| Step::Abort { transfer }),
            4 => transfer.prop_map(|transfer| Step::Release { transfer }),
        ],
        1..200,
    )
}

const PART_BYTES: u64 = 100;

proptest! {
    #[test]
    fn slots_agree_with_a_list_of_all_transfers(steps in steps()) {
        let mut slots = TransferSlots::new(3).unwrap();
        let mut all: Vec<Transfer> = Vec::new();
        let mut refused = 0;
        for step in steps {
            match step {
                Step::Begin { parts } => {
                    let unreleased = |transfer: &&Transfer| transfer.phase != Phase::Released;
                    let live = all.iter().filter(unreleased).count();
                    let bytes = u64::from(parts) * PART_BYTES;
                    match slots.begin(Expected { parts, bytes }, None) {
                        Ok(id) => {
                            prop_assert!(live < 3);
                            prop_assert!(all.iter().all(|other| other.id != id), "{id} twice");
                            let arrived = vec![false; parts as usize];
                            all.push(Transfer { id, peer: None, arrived, phase: Phase::Active });
                        }
                        Err(error) => {
                            prop_assert_eq!(live, 3);
                            prop_assert_eq!(error, SlotError::Exhausted { slots: 3, retired: 0 });
                        }
                    }
                }
                Step::Arrive { transfer, part, peer } => {
                    let Some(transfer) = all.get_mut(transfer) else { continue };
                    let id = transfer.id;
                    let result = slots.arrive_part(peer, id.pack(), part, PART_BYTES);
                    refused += u64::from(result.is_err());
                    let bound = *transfer.peer.as_ref().unwrap_or(&peer);
                    match (transfer.phase, transfer.arrived.get(part as usize)) {
                        (Phase::Released, _) => prop_assert!(
                            matches!(result, Err(ArrivalError::Stale { .. })), "{result:?}"),
                        (Phase::Ended, _) => {
                            prop_assert_eq!(result, Err(ArrivalError::Ended { id }));
                        }
                        (Phase::Active, _) if bound != peer => prop_assert!(
                            matches!(result, Err(ArrivalError::Foreign { .. })), "{result:?}"),
                        (Phase::Active, None) => prop_assert!(
                            matches!(result, Err(ArrivalError::NoSuchPart { .. })), "{result:?}"),
                        (Phase::Active, Some(true)) => {
                            prop_assert_eq!(result, Err(ArrivalError::Duplicate { id, part }));
                        }
                        (Phase::Active, Some(false)) => {
                            transfer.peer = Some(peer);
                            transfer.arrived[part as usize] = true;
                            let complete = transfer.arrived.iter().all(|&arrived| arrived);
                            prop_assert_eq!(result.unwrap().is_complete(), complete);
                        }
                    }
                }
                Step::Commit { transfer } => {
                    let Some(transfer) = all.get_mut(transfer) else { continue };
                    let complete = transfer.arrived.iter().all(|&arrived| arrived);
                    let allowed = transfer.phase == Phase::Active && complete;
                    prop_assert_eq!(slots.commit(transfer.id).is_ok(), allowed);
                    if allowed {
                        transfer.phase = Phase::Ended;
                    }
                }
                Step::Abort { transfer } => {
                    let Some(transfer) = all.get_mut(transfer) else { continue };
                    let allowed = transfer.phase == Phase::Active;
                    prop_assert_eq!(slots.abort(transfer.id).is_ok(), allowed);
                    if allowed {
                        transfer.phase = Phase::Ended;
                    }
                }
                Step::Release { transfer } => {
                    let Some(transfer) = all.get_mut(transfer) else { continue };
                    let allowed = transfer.phase == Phase::Ended;
                    prop_assert_eq!(slots.release(transfer.id).is_ok(), allowed);
                    if allowed {
                        transfer.phase = Phase::Released;
                    }
                }
            }
        }
        let counters = slots.refused();
        let counted = counters.stale + counters.unknown + counters.foreign
            + counters.ended + counters.duplicate + counters.inconsistent;
        prop_assert_eq!(counted, refused);
    }

    #[test]
    fn any_immediate_from_any_peer_is_survived(
        arrivals in vec((0_u64..3, 0_u32..4, 0_u32..4, 0_u64..300, any::<bool>()), 0..50),
    ) {
        let mut slots = TransferSlots::new(2).unwrap();
        let id = slots.begin(Expected { parts: 2, bytes: 200 }, Some(1)).unwrap();
        for (peer, slot, generation, bytes, numbered) in arrivals {
            let immediate = slot << 16 | generation;
            let before = slots.progress(id).unwrap();
            let result = if numbered {
                slots.arrive_part(peer, immediate, generation, bytes)
            } else {
                slots.arrive(peer, immediate, bytes)
            };
            let after = slots.progress(id).unwrap();
            match result {
                Ok(progress) => {
                    prop_assert_eq!((peer, immediate), (1, id.pack()));
                    prop_assert_eq!(progress, after);
                    prop_assert_eq!(after.bytes, before.bytes + bytes);
                }
                Err(_) => prop_assert_eq!(after, before),
            }
            prop_assert!(after.parts <= 2 && after.bytes <= 200);
        }
        let complete = slots.progress(id).unwrap().is_complete();
        prop_assert_eq!(slots.commit(id).is_ok(), complete);
    }
}
