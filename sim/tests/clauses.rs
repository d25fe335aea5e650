//! Scenarios aimed at one clause each, over many seeds, where random programs seldom get by themselves.

use dmaplane_ring::abi::{BufferHandle, Cqe, CqeFlags, Errno, LeaseHandle, Rights, Sqe, op_flags};
use dmaplane_ring::build::{
    Alloc, CreditGrant, CreditQuery, CreditWatermarks, Free, LeaseExport, LeaseGrant, LeaseImport, LeaseRevoke, Nop,
    Read, Recv, Send, Watch, Write, WriteImm, WriteList,
};
use dmaplane_sim::host::checksum_of;
use dmaplane_sim::script::{EVEN, Furniture};
use dmaplane_sim::world::World;

const LARGE: u32 = 1;
const SMALL: u32 = 0;

fn furnished(seed: u64) -> (World, [Furniture; 2]) {
    let mut world = World::new(seed, 2, EVEN);
    let furniture = world.furnish().expect("nothing fails here");
    world.settle().expect("nothing fails here");
    (world, furniture)
}

/// LSE-12: plane 0 writes all the while; plane 1 revokes at a random moment, fills the memory anew at once, and from
/// then on not one byte of it changes, whatever is still on the wire.
#[test]
fn lse_12_revoked_memory_never_changes_after_the_revoke_s_cqe() {
    let mut landed = 0;
    for seed in 0..600 {
        let (mut world, [ours, theirs]) = furnished(seed);
        world.prepare(0, vec![(ours.own.handle().index(), 0, vec![0xee; 1024])]);
        for round in 0..6 {
            let write = match round % 3 {
                0 => Write::new(ours.own, 0, ours.import, 0, 512).unwrap().sqe(),
                1 => WriteImm::new(ours.own, 0, ours.import, 512, 512).unwrap().sqe(),
                _ => Write::new(ours.own, 64, ours.import, 256, 512).unwrap().sqe(),
            };
            world.submit(0, LARGE, write);
        }
        world.turn(0, LARGE).unwrap();
        for _ in 0..seed % 50 {
            world.step().unwrap();
        }
        let revoke = match seed % 3 {
            0 => LeaseRevoke::now(theirs.lease).sqe(),
            1 => LeaseRevoke::graceful(theirs.lease, 0).sqe(),
            _ => LeaseRevoke::graceful(theirs.lease, 1 << 40).sqe(),
        };
        if seed % 5 == 0 {
            world.connections[0].kill();
        }
        assert_eq!(world.run(1, LARGE, revoke).unwrap().res, 0);
        let leased = theirs.leased.handle().index();
        let range = |world: &World| world.planes[1].host.buffers[&leased].as_ref().unwrap()[1024..2048].to_vec();
        landed += usize::from(range(&world).contains(&0xee));
        world.prepare(1, vec![(leased, 1024, vec![0x11; 1024])]);
        while world.step().unwrap() {
            assert!(range(&world).iter().all(|&byte| byte == 0x11), "seed {seed}: a late write");
        }
        world.finish().unwrap();
    }
    assert!(landed > 100, "writes must have been under way: {landed}");
}

/// RES-3, RES-4, RES-5: receives and credit waits hold all that they may, the client never reaps, and a revoke and a
/// cancel still complete within few turns of the host.
#[test]
fn res_3_a_revoke_completes_while_receives_and_credit_waits_hold_all_room() {
    for seed in 0..200 {
        let (mut world, [ours, _]) = furnished(seed);
        world.submit(0, SMALL, Watch::new().sqe());
        for _ in 0..40 {
            world.submit(0, SMALL, Recv::new(ours.peer, ours.own, 0, 64).unwrap().sqe());
            world.turn(0, SMALL).unwrap();
            // -ENOBUFS beyond the share: those CQEs are reaped, nothing else ever is.
            world.reap(0, SMALL, 64);
        }
        for _ in 0..40 {
            world.submit(0, SMALL, Send::new(ours.peer, ours.own, 0, 8).unwrap().sqe());
            world.turn(0, SMALL).unwrap();
            world.reap(0, SMALL, 64);
        }
        world.planes[1].sqs.iter_mut().for_each(|sq| sq.iter_mut().for_each(|sq| sq.clear()));
        let number = world.submit(0, SMALL, LeaseRevoke::now(ours.lease).sqe()).unwrap();
        let mut moves = 0;
        loop {
            world.turn(0, SMALL).unwrap();
            let cq = &world.planes[0].host.rings[SMALL as usize].cq;
            if cq.iter().any(|cqe| cqe.user_data == number && cqe.res == 0) {
                break;
            }
            assert!(moves < 200 && world.step().unwrap(), "seed {seed}: the revoke hangs after {moves} moves");
            moves += 1;
        }
        world.finish().unwrap();
    }
}

/// F: a client that never reaps loses nothing; all arrives when it does.
#[test]
fn res_1_a_client_that_never_reaps_loses_nothing() {
    for seed in 0..100 {
        let (mut world, _) = furnished(seed);
        let mut submitted = 0;
        for round in 0..200u32 {
            let mut bytes = [0; 7];
            for byte in &mut bytes {
                *byte = world.random.bits() as u8;
            }
            // No links and no skips: exactly one CQE each.
            bytes[1] = 0;
            submitted += u64::from(world.submit_composed(0, round & 1, bytes).is_some());
            world.turn(0, round & 1).unwrap();
            world.step().unwrap();
        }
        assert!(submitted > 0);
        world.wind_down().unwrap();
        world.finish().unwrap();
    }
}

/// HND-3: each kind of handle is -ESTALE once its object is over, and stays so when the slot is used again.
#[test]
fn hnd_3_handles_are_stale_after_their_object_also_when_its_slot_is_used_again() {
    let (mut world, [ours, theirs]) = furnished(1);
    let stale =
        |world: &mut World, sqe: Sqe| assert_eq!(world.run(0, LARGE, sqe).unwrap().result(), Err(Errno::ESTALE));
    let buffer = |world: &mut World| {
        let cqe = world.ok(0, LARGE, Alloc::new(64).unwrap()).unwrap();
        BufferHandle::from_bits(cqe.word0).unwrap()
    };
    let old = buffer(&mut world);
    world.ok(0, LARGE, Free::new(old)).unwrap();
    stale(&mut world, Free::new(old).sqe());
    let new = buffer(&mut world);
    assert_eq!(new.handle().index(), old.handle().index(), "the slot is used again");
    stale(&mut world, Free::new(old).sqe());
    stale(&mut world, LeaseGrant::range(old, 0, 8, Rights::READ).unwrap().sqe());
    stale(&mut world, Write::new(old, 0, ours.import, 0, 8).unwrap().sqe());

    world.ok(1, LARGE, LeaseRevoke::now(theirs.lease)).unwrap();
    let cqe = world.ok(1, LARGE, LeaseGrant::range(theirs.leased, 0, 64, Rights::READ).unwrap()).unwrap();
    let again = LeaseHandle::from_bits(cqe.word0).unwrap();
    assert_eq!(again.handle().index(), theirs.lease.handle().index(), "the slot is used again");
    let cqe = world.run(1, LARGE, LeaseRevoke::now(theirs.lease).sqe()).unwrap();
    assert_eq!(cqe.result(), Err(Errno::ESTALE));
}

/// LSE-7: a token is claimed once, and never after its lease is over.
#[test]
fn lse_7_a_token_is_claimed_once() {
    let (mut world, [ours, theirs]) = furnished(3);
    let lease = world.ok(1, LARGE, LeaseGrant::range(theirs.leased, 0, 64, Rights::READ).unwrap()).unwrap();
    let lease = LeaseHandle::from_bits(lease.word0).unwrap();
    world.ok(1, LARGE, LeaseExport::new(lease, theirs.leased, 3072)).unwrap();
    let token = world.tokens.last().cloned().unwrap();
    world.prepare(0, vec![(ours.leased.handle().index(), 3072, token.clone())]);
    let import = LeaseImport::new(ours.leased, 3072, token.len() as u64).unwrap();
    world.ok(0, LARGE, import).unwrap();
    assert_eq!(world.run(0, LARGE, import.sqe()).unwrap().result(), Err(Errno::EKEYREJECTED));
    world.ok(1, LARGE, LeaseRevoke::now(lease)).unwrap();
    assert_eq!(world.run(0, LARGE, import.sqe()).unwrap().result(), Err(Errno::ESTALE));
}

/// CRD-5: a request that came to nothing gives its credit back, once: arrivals are exactly what was granted.
#[test]
fn crd_5_a_refused_write_gives_its_credit_back_once() {
    for seed in 0..50 {
        let (mut world, [ours, theirs]) = furnished(seed);
        // The holder has not heard of the end yet when it writes.
        world.submit(1, LARGE, LeaseRevoke::now(theirs.lease).sqe());
        world.turn(1, LARGE).unwrap();
        for _ in 0..3 {
            world.submit(0, LARGE, WriteImm::new(ours.own, 0, ours.import, 0, 64).unwrap().sqe());
        }
        world.turn(0, LARGE).unwrap();
        world.settle().unwrap();
        world.check_credits().unwrap();
        let cqe = world.ok(1, LARGE, CreditQuery::new(theirs.peer)).unwrap();
        assert_eq!(cqe.word1, 4, "seed {seed}: four receives are posted, and none was used");
        for _ in 0..4 {
            world.submit(0, LARGE, Send::new(ours.peer, ours.own, 0, 8).unwrap().sqe());
        }
        world.turn(0, LARGE).unwrap();
        world.settle().unwrap();
        world.ok(1, LARGE, CreditQuery::new(theirs.peer)).unwrap();
        assert!(world.planes[1].model.arrivals_left(theirs.peer.handle().bits()) == 0);
        world.wind_down().unwrap();
        world.finish().unwrap();
    }
}

/// CRD-2, LST-6: notifications use credits one by one, and every arrival has its CQE.
#[test]
fn crd_2_every_notification_uses_one_credit_and_has_one_cqe() {
    for seed in 0..50 {
        let (mut world, [ours, theirs]) = furnished(seed);
        let pairs: Vec<u8> = [0u32, 3, 1, 2].iter().flat_map(|index| index.to_le_bytes()).collect();
        world.prepare(0, vec![(ours.own.handle().index(), 0, pairs)]);
        let list = WriteList::new(ours.list, ours.list_import, ours.own, 0, 2).unwrap().notify(7, 16, 24).unwrap();
        for _ in 0..6 {
            world.submit(0, LARGE, list.sqe());
        }
        world.turn(0, LARGE).unwrap();
        world.settle().unwrap();
        assert_eq!(world.planes[1].model.arrivals_left(theirs.peer.handle().bits()), 0);
        assert_eq!(world.planes[0].engine.usage().operations, 3, "its own grant, and two that wait for credit");
        let grant = CreditGrant::new(theirs.peer, 2).slots(theirs.leased, 2048, 64).unwrap();
        world.submit(1, LARGE, grant.sqe());
        world.turn(1, LARGE).unwrap();
        world.settle().unwrap();
        assert_eq!(world.planes[0].engine.usage().operations, 1, "only its own grant");
        world.finish().unwrap();
    }
}

/// CHN-3, CHN-4: success lets the next SQE start, failure cancels it, HARDLINK starts it either way.
#[test]
fn chn_4_a_failure_cancels_what_is_linked_and_not_what_is_hardlinked() {
    let mut world = World::new(5, 2, EVEN);
    let bad = BufferHandle::from_bits(1 << 28 | 7 << 32).unwrap();
    let chains = [
        (Free::new(bad).link().sqe(), Errno::ECANCELED.as_result()),
        (Free::new(bad).hardlink().sqe(), 0),
        (Nop::new().link().sqe(), 0),
        (Nop::new().skip_success().link().sqe(), 0),
    ];
    for (first, second) in chains {
        world.submit(0, LARGE, first);
        let last = world.submit(0, LARGE, Nop::new().sqe());
        world.turn(0, LARGE).unwrap();
        let cq = &world.planes[0].host.rings[LARGE as usize].cq;
        let result = cq.iter().find(|cqe| Some(cqe.user_data) == last).map(|cqe| cqe.res);
        assert_eq!(result, Some(second), "{first:?}");
    }
}

/// XFR-10: a READ that asks for it, and the arrival of a write that does, tell the checksum of the bytes moved.
#[test]
fn xfr_10_who_copies_the_bytes_in_tells_their_checksum() {
    for seed in 0..50 {
        let (mut world, [ours, theirs]) = furnished(seed);
        let bytes: Vec<u8> = (0..512).map(|byte| (byte + seed) as u8).collect();
        world.prepare(1, vec![(theirs.leased.handle().index(), 1024, bytes.clone())]);
        let read = Read::new(ours.own, 0, ours.import, 0, 512).unwrap();
        let cqe = world.ok(0, LARGE, read.checksum()).unwrap();
        assert_eq!((cqe.flags, cqe.word1), (CqeFlags::CHECKSUM.bits(), checksum_of(&bytes).into()));
        let cqe = world.ok(0, LARGE, read).unwrap();
        assert_eq!((cqe.flags, cqe.word1), (0, 0), "nobody asked");
        let write = WriteImm::new(ours.own, 128, ours.import, 0, 256).unwrap().immediate(9).checksum();
        world.submit(0, LARGE, write.sqe());
        world.turn(0, LARGE).unwrap();
        let immediate = |cqe: &&Cqe| cqe.flags & CqeFlags::IMMEDIATE.bits() != 0;
        let arrival = loop {
            assert!(world.step().unwrap(), "seed {seed}: nothing arrives");
            if let Some(cqe) = world.planes[1].host.rings[LARGE as usize].cq.iter().find(immediate) {
                break *cqe;
            }
        };
        let checksum = u64::from(checksum_of(&bytes[128..384]));
        assert_eq!(arrival.word0, 9 | checksum << 32);
        assert!(arrival.flags & CqeFlags::CHECKSUM.bits() != 0);
        world.finish().unwrap();
    }
    let (mut world, [ours, _]) = furnished(1);
    let plain = WriteList::new(ours.list, ours.list_import, ours.own, 0, 2).unwrap();
    let nobody_hears = Sqe { op_flags: op_flags::CHECKSUM, ..plain.sqe() };
    assert_eq!(world.run(0, LARGE, nobody_hears).unwrap().result(), Err(Errno::EINVAL));
}

/// CRD-7: at the high watermark nothing more takes a credit until what is in flight is down at the low one.
#[test]
fn crd_7_watermarks_hold_writes_back_with_hysteresis() {
    for seed in 0..100 {
        let (mut world, [ours, _]) = furnished(seed);
        let used = |world: &mut World| 4 - world.ok(0, LARGE, CreditQuery::new(ours.peer)).unwrap().word0;
        world.ok(0, LARGE, CreditWatermarks::new(ours.peer, 3, 1).unwrap()).unwrap();
        let write = WriteImm::new(ours.own, 0, ours.import, 0, 64).unwrap();
        let numbers: Vec<u64> = (0..4).map(|_| world.submit(0, SMALL, write.sqe()).unwrap()).collect();
        world.turn(0, SMALL).unwrap();
        assert_eq!(used(&mut world), 3, "four credits and four writes, but the high watermark is three");
        let refused = WriteImm::new(ours.own, 0, ours.import, 0, 64).unwrap().no_credit_wait();
        assert_eq!(world.run(0, LARGE, refused.sqe()).unwrap().result(), Err(Errno::EAGAIN));
        let ended = |world: &World| {
            let cq = &world.planes[0].host.rings[SMALL as usize].cq;
            cq.iter().filter(|cqe| numbers.contains(&cqe.user_data)).count()
        };
        while ended(&world) < 2 {
            assert_eq!(used(&mut world), 3, "seed {seed}: more than the low watermark are in flight");
            assert!(world.step().unwrap(), "seed {seed}: the writes hang");
        }
        assert_eq!(used(&mut world), 4, "one is in flight: the fourth may go");
        world.settle().unwrap();
        world.finish().unwrap();
    }
    let (mut world, [ours, _]) = furnished(1);
    let upside_down = Sqe { arg64: 2 | 2 << 32, ..CreditWatermarks::none(ours.peer).sqe() };
    assert_eq!(world.run(0, LARGE, upside_down).unwrap().result(), Err(Errno::EINVAL));
    let write = WriteImm::new(ours.own, 0, ours.import, 0, 64).unwrap();
    world.ok(0, LARGE, CreditWatermarks::new(ours.peer, 1, 0).unwrap()).unwrap();
    for _ in 0..4 {
        world.submit(0, SMALL, write.sqe());
    }
    world.turn(0, SMALL).unwrap();
    world.ok(0, LARGE, CreditWatermarks::none(ours.peer)).unwrap();
    let left = world.ok(0, LARGE, CreditQuery::new(ours.peer)).unwrap().word0;
    assert_eq!(left, 0, "without watermarks all four go at once");
    world.settle().unwrap();
    world.finish().unwrap();
}

/// CTL-2: handle 0 names nothing that could be matched.
#[test]
fn ctl_2_a_cancel_by_handle_0_is_einval() {
    let mut world = World::new(1, 2, EVEN);
    for (local, arg64, expected) in [(0, 0, Errno::EINVAL), (5, 1, Errno::EINVAL), (5, 0, Errno::ENOENT)] {
        let cancel = Sqe {
            opcode: dmaplane_ring::abi::Opcode::Cancel as u8,
            op_flags: op_flags::CANCEL_HANDLE,
            local,
            arg64,
            ..Sqe::default()
        };
        assert_eq!(world.run(0, LARGE, cancel).unwrap().res, expected.as_result());
    }
}
