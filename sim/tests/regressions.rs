//! One test for every bug that the simulator or its making has found, named after what broke.

use dmaplane_engine::{Event, Limits, Message};
use dmaplane_ring::abi::{
    BufferHandle, Errno, Handle, HandleKind, LeaseHandle, ListHandle, Opcode, Run, Sqe, SqeFlags, op_flags,
};
use dmaplane_ring::build::{
    Alloc, Cancel, CreditQuery, ExportDmabuf, Free, LeaseExport, LeaseGrant, LeaseImport, LeaseRevoke, LinkTimeout,
    ListFree, ListPrepare, Nop, Read, Recv, Send, Sync, Timeout, Wait, Watch, Write, WriteImm,
};
use dmaplane_sim::host::Temper;
use dmaplane_sim::script::Furniture;
use dmaplane_sim::world::{LIMITS, World};
use dmaplane_sim::world_move::Move;

const AT_ONCE: Temper = Temper { at_once: 100, fails: 0, post_fails: 0, shared_memory: 0 };
const SMALL: u32 = 0;
const LARGE: u32 = 1;
const FOREVER: u64 = u64::MAX;

fn bare() -> World {
    World::new(1, 2, AT_ONCE)
}

fn furnished() -> (World, [Furniture; 2]) {
    let mut world = bare();
    let furniture = world.furnish().expect("nothing fails here");
    world.settle().expect("nothing fails here");
    (world, furniture)
}

/// Submits and lets the engine take it.
fn submit(world: &mut World, ring: u32, sqes: &[Sqe]) -> Vec<u64> {
    let numbers = sqes.iter().map(|&sqe| world.submit(0, ring, sqe).expect("the SQ has room")).collect();
    world.turn(0, ring).expect("the model agrees");
    numbers
}

/// The result of an SQE of plane 0, once its terminal CQE is in the CQ.
fn result(world: &World, number: u64) -> Option<i32> {
    let rings = world.planes[0].host.rings.iter();
    let cqe = rings.flat_map(|ring| &ring.cq).find(|cqe| cqe.user_data == number && cqe.is_terminal());
    cqe.map(|cqe| cqe.res)
}

fn errno(errno: Errno) -> Option<i32> {
    Some(errno.as_result())
}

#[test]
fn cancel_goes_on_behind_what_is_stuck_and_what_is_guarded() {
    let (mut world, [ours, _]) = furnished();
    world.planes[0].host.temper.at_once = 0;
    let numbers = submit(
        &mut world,
        LARGE,
        &[
            Sync::begin(ours.own).sqe(),
            Timeout::after_ns(FOREVER).link().sqe(),
            LinkTimeout::after_ns(FOREVER).sqe(),
            Timeout::after_ns(FOREVER).sqe(),
            Cancel::any().sqe(),
        ],
    );
    assert_eq!(result(&world, numbers[0]), None, "SYNC cannot be stopped");
    assert_eq!(result(&world, numbers[3]), errno(Errno::ECANCELED));
}

#[test]
fn close_ends_timeouts_behind_what_is_stuck_and_what_is_guarded() {
    let (mut world, [ours, _]) = furnished();
    world.planes[0].host.temper.at_once = 0;
    let stuck = Sync::begin(ours.own).sqe();
    let guarded = [Timeout::after_ns(FOREVER).link().sqe(), LinkTimeout::after_ns(FOREVER).sqe()];
    submit(&mut world, LARGE, &[stuck, guarded[0], guarded[1], Timeout::after_ns(FOREVER).sqe()]);
    world.finish().expect("teardown needs no timer");
}

#[test]
fn a_link_timeout_that_was_cancelled_before_its_turn_is_not_armed() {
    let mut world = bare();
    let numbers = submit(
        &mut world,
        LARGE,
        &[
            Timeout::after_ns(50).hardlink().sqe(),
            Timeout::after_ns(1000).link().sqe(),
            LinkTimeout::after_ns(10).sqe(),
        ],
    );
    submit(&mut world, LARGE, &[Cancel::by_user_data(numbers[2]).sqe()]);
    world.advance(60).unwrap();
    world.advance(60).unwrap();
    assert_eq!(result(&world, numbers[2]), errno(Errno::ECANCELED));
    assert_eq!(result(&world, numbers[1]), None, "it runs on");
}

#[test]
fn two_link_timeouts_behind_one_operation_both_end() {
    let mut world = bare();
    let late = LinkTimeout::after_ns(1000).link().sqe();
    let last = LinkTimeout::after_ns(1000).sqe();
    let numbers = submit(&mut world, LARGE, &[Timeout::after_ns(100).link().sqe(), late, last]);
    world.advance(200).unwrap();
    for number in numbers {
        assert!(result(&world, number).is_some(), "{number} has no CQE");
    }
}

#[test]
fn a_link_timeout_behind_a_link_timeout_cancels_nobody_else() {
    let mut world = bare();
    let first = submit(&mut world, LARGE, &[LinkTimeout::after_ns(5).link().sqe(), LinkTimeout::after_ns(50).sqe()]);
    let innocent = submit(&mut world, LARGE, &[Timeout::after_ns(1000).sqe(), Timeout::after_ns(1000).sqe()]);
    world.advance(60).unwrap();
    for number in first {
        assert!(result(&world, number).is_some(), "{number} has no CQE");
    }
    for number in innocent {
        assert_eq!(result(&world, number), None, "cancelled by a LINK_TIMEOUT that is not its own");
    }
}

#[test]
fn a_link_timeout_with_a_stray_field_guards_nothing() {
    let mut world = bare();
    let stray = Sqe { local: 1, ..LinkTimeout::after_ns(10).sqe() };
    let numbers = submit(&mut world, LARGE, &[Timeout::after_ns(100).hardlink().sqe(), stray]);
    world.advance(20).unwrap();
    assert_eq!(numbers.iter().filter_map(|&number| result(&world, number)).count(), 0);
    world.advance(200).unwrap();
    assert_eq!(result(&world, numbers[0]), errno(Errno::ETIME));
    assert_eq!(result(&world, numbers[1]), errno(Errno::EINVAL));
}

#[test]
fn what_is_linked_behind_a_credit_wait_leaves_room_for_a_revoke() {
    let mut world = bare();
    let [peer, _] = world.join().unwrap();
    let buffer = world.ok(0, LARGE, Alloc::new(256).unwrap()).unwrap().word0;
    let buffer = dmaplane_ring::abi::BufferHandle::from_bits(buffer).unwrap();
    let rights = dmaplane_ring::abi::Rights::READ;
    let lease = world.ok(0, LARGE, LeaseGrant::range(buffer, 0, 64, rights).unwrap()).unwrap().word0;
    let lease = dmaplane_ring::abi::LeaseHandle::from_bits(lease).unwrap();
    for behind in [13, 6, 3, 2, 1, 1, 1, 1] {
        let mut chain = vec![Send::new(peer, buffer, 0, 8).unwrap().link().sqe()];
        chain.extend((1..behind).map(|_| Nop::new().link().sqe()));
        chain.push(Nop::new().sqe());
        submit(&mut world, SMALL, &chain);
        // The client reaps what was refused; what waits for credit keeps its reservations.
        while world.reap(0, SMALL, 64) > 0 {
            world.turn(0, SMALL).unwrap();
        }
    }
    let numbers = submit(&mut world, SMALL, &[Nop::new().sqe(), LeaseRevoke::now(lease).sqe()]);
    for number in numbers {
        assert_eq!(result(&world, number), Some(0), "the SQ's head waits for a peer");
    }
}

#[test]
fn a_chain_that_never_fits_beside_a_watch_is_refused() {
    let mut world = bare();
    submit(&mut world, SMALL, &[Watch::new().sqe()]);
    let mut chain = vec![Nop::new().link().sqe(); 13];
    chain.push(Nop::new().sqe());
    let numbers = submit(&mut world, SMALL, &chain);
    assert_eq!(result(&world, numbers[0]), errno(Errno::ENOBUFS));
    world.reap(0, SMALL, 64);
    world.turn(0, SMALL).unwrap();
    world.reap(0, SMALL, 64);
    let numbers = submit(&mut world, SMALL, &[Nop::new().sqe()]);
    assert_eq!(result(&world, numbers[0]), Some(0));
}

#[test]
fn a_closed_context_takes_no_new_objects() {
    let mut world = bare();
    world.close(0).unwrap();
    let engine = &mut world.planes[0].engine;
    assert!(engine.add_buffer(64).is_err() && engine.add_slot().is_err() && engine.add_listener().is_err());
}

#[test]
fn a_credit_that_a_cancelled_operation_gives_back_is_used() {
    let (mut world, [ours, _]) = furnished();
    // Two writes fill the peer's window; four messages have the four credits and wait for it; the fifth has none.
    let write = Write::new(ours.own, 0, ours.import, 0, 64).unwrap().sqe();
    let send = Send::new(ours.peer, ours.own, 0, 8).unwrap().sqe();
    let numbers = submit(&mut world, LARGE, &[write, write, send, send, send, send, send]);
    submit(&mut world, LARGE, &[Cancel::by_user_data(numbers[5]).sqe()]);
    assert_eq!(result(&world, numbers[5]), errno(Errno::ECANCELED));
    while world.step().unwrap() {}
    assert_eq!(result(&world, numbers[6]), Some(8), "the fifth has the fourth's credit");
}

#[test]
fn a_credit_that_an_unsent_operation_gives_back_is_used() {
    let (mut world, [ours, _]) = furnished();
    let send = Send::new(ours.peer, ours.own, 0, 8).unwrap().sqe();
    let write = Write::new(ours.own, 0, ours.import, 0, 64).unwrap().sqe();
    let numbers = submit(&mut world, LARGE, &[write, write, send, send, send, send, send]);
    // The next request cannot be sent, the others can.
    let mut failed = 0;
    while failed == 0 {
        world.planes[0].host.temper.post_fails = 100;
        world.step().unwrap();
        failed = numbers.iter().filter(|&&number| result(&world, number) == errno(Errno::EIO)).count();
    }
    world.planes[0].host.temper.post_fails = 0;
    while world.step().unwrap() {}
    for &number in &numbers {
        assert!(result(&world, number).is_some(), "{number} still waits, though credit is there");
    }
}

#[test]
fn forcing_two_operations_of_one_peer_ends_its_connection_once() {
    let (mut world, [ours, _]) = furnished();
    let write = Write::new(ours.own, 0, ours.import, 0, 64).unwrap().sqe();
    submit(&mut world, LARGE, &[write, write, Cancel::any().force().sqe()]);
    world.settle().unwrap();
}

#[test]
fn a_peer_s_strange_errno_is_eio() {
    let (mut world, [ours, _]) = furnished();
    let numbers = submit(&mut world, LARGE, &[Write::new(ours.own, 0, ours.import, 0, 64).unwrap().sqe()]);
    let op = *world.planes[0].host.posted.keys().last().unwrap();
    let message = Message::Done { op, result: i32::MIN, bytes: 0 };
    let plane = &mut world.planes[0];
    plane.engine.handle(&mut plane.host, Event::Message { peer: ours.peer.handle(), frame: 0, message });
    let local = dmaplane_engine::OpId::from_bits(op);
    plane.engine.handle(&mut plane.host, Event::LocalDone { op: local, result: 0, checksum: 0 });
    world.after(0).unwrap();
    assert_eq!(result(&world, numbers[0]), errno(Errno::EIO));
}

/// The peer has served a READ well, and its bytes could not be put where they belong; or it has taken a WRITE_IMM, and
/// our own part failed: the operation has failed, and its credit is used all the same.
#[test]
fn a_local_error_after_a_good_answer_is_the_result() {
    let (mut world, [ours, _]) = furnished();
    let credits = |world: &mut World| world.ok(0, LARGE, CreditQuery::new(ours.peer)).unwrap().word0;
    let before = credits(&mut world);
    for (sqe, used) in [
        (Read::new(ours.own, 0, ours.import, 0, 64).unwrap().sqe(), 0),
        (WriteImm::new(ours.own, 0, ours.import, 0, 64).unwrap().sqe(), 1),
    ] {
        let numbers = submit(&mut world, LARGE, &[sqe]);
        let op = *world.planes[0].host.posted.keys().last().unwrap();
        let plane = &mut world.planes[0];
        let local = &mut plane.host.posted.get_mut(&op).unwrap().local;
        assert!(!local.is_over(), "with another seed the host would have something to tell of");
        // This test tells it.
        *local = dmaplane_sim::host::Local::Abandoned;
        let local = dmaplane_engine::OpId::from_bits(op);
        let answer = Message::Done { op, result: 0, bytes: 64 };
        let failed = Event::LocalDone { op: local, result: Errno::EIO.as_result(), checksum: 0 };
        plane.engine.handle(&mut plane.host, Event::Message { peer: ours.peer.handle(), frame: 0, message: answer });
        plane.engine.handle(&mut plane.host, failed);
        world.after(0).unwrap();
        assert_eq!(result(&world, numbers[0]), errno(Errno::EIO));
        assert_eq!(credits(&mut world), before - used);
    }
}

#[test]
fn cancelling_by_no_handle_cancels_nothing() {
    let mut world = bare();
    let timeout = submit(&mut world, LARGE, &[Timeout::after_ns(1000).sqe()]);
    let sqe = Sqe { opcode: Opcode::Cancel as u8, op_flags: op_flags::CANCEL_HANDLE, ..Sqe::default() };
    let cancel = submit(&mut world, LARGE, &[sqe]);
    assert_eq!(result(&world, cancel[0]), errno(Errno::EINVAL));
    assert_eq!(result(&world, timeout[0]), None);
}

#[test]
fn a_slot_that_is_being_made_is_not_to_be_guessed() {
    let (mut world, [ours, _]) = furnished();
    world.planes[0].host.temper.at_once = 0;
    let export = submit(&mut world, LARGE, &[ExportDmabuf::new(ours.own).sqe()]);
    let guess = Handle::new(HandleKind::Slot, 0, 1);
    assert!(world.planes[0].engine.slot_index(guess).is_err());
    assert!(world.planes[0].engine.remove_slot(guess).is_err());
    let typed = dmaplane_ring::abi::SlotHandle::from_bits(guess.bits()).unwrap();
    let wait = submit(&mut world, LARGE, &[Wait::on_slot(typed).sqe()]);
    assert!(result(&world, wait[0]).is_some_and(|result| result < 0));
    while world.step().unwrap() {}
    assert_eq!(result(&world, export[0]), Some(0));
    assert!(world.planes[0].engine.slot_index(guess).is_ok());
}

#[test]
fn requests_that_cannot_be_sent_do_not_nest() {
    const MANY: u32 = 8192;
    let limits = dmaplane_engine::Limits { operations: 4 * MANY, ..LIMITS };
    let mut world = World::with_limits(1, 2, AT_ONCE, limits);
    let [ours, _] = world.furnish().unwrap();
    world.settle().unwrap();
    world.attach(0, 2 * MANY).unwrap();
    let write = Write::new(ours.own, 0, ours.import, 0, 64).unwrap().sqe();
    let mut numbers = Vec::new();
    for _ in 0..MANY / 32 {
        numbers.extend(submit(&mut world, 2, &[write; 32]));
    }
    world.planes[0].host.temper.post_fails = 100;
    // A small stack stands for the kernel's.
    let small = std::thread::Builder::new().stack_size(256 << 10);
    let ended = small.spawn(move || {
        while world.step().unwrap() {}
        world.planes[0].host.rings[2].cq.len()
    });
    assert_eq!(ended.unwrap().join().unwrap(), numbers.len());
}

#[test]
fn a_drain_does_not_wait_for_what_is_linked_behind_a_receive() {
    let (mut world, [ours, _]) = furnished();
    let receive = dmaplane_ring::build::Recv::new(ours.peer, ours.own, 0, 64).unwrap().link().sqe();
    let numbers = submit(&mut world, LARGE, &[receive, Nop::new().sqe(), Nop::new().drain().sqe()]);
    assert_eq!(result(&world, numbers[2]), Some(0));
    assert_eq!(receive.flags, SqeFlags::LINK.bits());
}

#[test]
fn a_broken_chain_is_cancelled_over_hard_links_too() {
    let mut world = bare();
    // ALLOC of nothing fails; what stands behind it is cancelled to the chain's end, as io_uring does.
    let failing = Sqe { opcode: Opcode::Alloc as u8, flags: SqeFlags::LINK.bits(), ..Sqe::default() };
    let numbers = submit(&mut world, LARGE, &[failing, Nop::new().hardlink().sqe(), Nop::new().sqe()]);
    let results: Vec<_> = numbers.iter().map(|&number| result(&world, number)).collect();
    assert_eq!(results, [errno(Errno::EINVAL), errno(Errno::ECANCELED), errno(Errno::ECANCELED)]);
    // A hard link alone goes on behind a failure.
    let failing = Sqe { flags: SqeFlags::HARDLINK.bits(), ..failing };
    let numbers = submit(&mut world, LARGE, &[failing, Nop::new().sqe()]);
    assert_eq!((result(&world, numbers[0]), result(&world, numbers[1])), (errno(Errno::EINVAL), Some(0)));
}

/// Three slices of runs, of the buffer that they lie in; the last run as long as it is told.
fn long_list(last_bytes: u32) -> (World, BufferHandle) {
    let mut world = World::with_limits(1, 2, AT_ONCE, Limits { buffer_bytes: 1 << 20, ..LIMITS });
    let buffer = world.ok(0, LARGE, Alloc::new(LONG * Run::BYTES).unwrap()).unwrap().word0;
    let handle = BufferHandle::from_bits(buffer).unwrap();
    let mut bytes = Vec::new();
    for number in 1..=LONG {
        let length_bytes = if number == LONG { last_bytes } else { 1 };
        let run = Run { buffer, length_bytes, count: 1, ..Run::default() };
        bytes.extend(run.to_words().iter().flat_map(|word| word.to_le_bytes()));
    }
    world.prepare(0, vec![(handle.handle().index(), 0, bytes)]);
    (world, handle)
}

const LONG: u64 = 3 * 4096;

/// The engine's own steps until the SQE has its CQE.
fn steps_until(world: &mut World, number: u64) -> u32 {
    for steps in 0..100 {
        if result(world, number).is_some() {
            return steps;
        }
        world.do_move(Move::Step(0)).unwrap();
    }
    panic!("{number} never ends");
}

#[test]
fn a_long_list_is_freed_slice_by_slice_and_its_handle_is_gone_at_once() {
    let (mut world, buffer) = long_list(1);
    let list = world.ok(0, LARGE, ListPrepare::new(buffer, 0, LONG).unwrap()).unwrap().word0;
    let list = ListHandle::from_bits(list).unwrap();
    let numbers = submit(&mut world, LARGE, &[ListFree::new(list).sqe(), ListFree::new(list).sqe()]);
    assert_eq!(result(&world, numbers[1]), errno(Errno::ESTALE));
    assert_eq!(steps_until(&mut world, numbers[0]), 3, "not one turn for all of it");
    assert_eq!(result(&world, numbers[0]), Some(0));
    assert_eq!(world.planes[0].engine.usage().lists, 0);
    world.ok(0, LARGE, dmaplane_ring::build::Free::new(buffer)).expect("no run holds it any more");
    world.finish().unwrap();
}

#[test]
fn a_long_list_that_is_not_right_is_dropped_slice_by_slice() {
    let (mut world, buffer) = long_list(u32::MAX);
    let numbers = submit(&mut world, LARGE, &[ListPrepare::new(buffer, 0, LONG).unwrap().sqe()]);
    let steps = steps_until(&mut world, numbers[0]);
    assert_eq!((steps, result(&world, numbers[0])), (6, errno(Errno::ERANGE)), "three to check, three to drop");
    assert_eq!(world.planes[0].engine.usage().lists, 0);
    world.finish().unwrap();
}

#[test]
fn many_short_lists_share_a_slice() {
    let (mut world, [ours, _]) = furnished();
    let run = Run { buffer: ours.own.handle().bits(), length_bytes: 1, count: 1, ..Run::default() };
    let run: Vec<u8> = run.to_words().iter().flat_map(|word| word.to_le_bytes()).collect();
    world.prepare(0, vec![(ours.leased.handle().index(), 0, run)]);
    let prepare = ListPrepare::new(ours.leased, 0, 1).unwrap().sqe();
    let numbers = submit(&mut world, LARGE, &[prepare, prepare]);
    assert_eq!((steps_until(&mut world, numbers[0]), steps_until(&mut world, numbers[1])), (1, 0));
}

#[test]
fn teardown_gives_a_long_list_back_slice_by_slice() {
    let (mut world, buffer) = long_list(1);
    world.ok(0, LARGE, ListPrepare::new(buffer, 0, LONG).unwrap()).unwrap();
    world.close(0).unwrap();
    let mut steps = 0;
    while !world.planes[0].engine.is_closed() {
        assert!(world.planes[0].engine.has_work() && steps < 100);
        world.do_move(Move::Step(0)).unwrap();
        steps += 1;
    }
    assert!(steps > 3, "all in {steps} turns");
    world.finish().unwrap();
}

#[test]
fn a_chain_with_more_credits_than_can_be_counted_is_refused() {
    let mut world = bare();
    submit(&mut world, SMALL, &[Watch::new().sqe()]);
    // No room is left, so that the chain is tried against an idle CQ, in which the WATCH still holds its place.
    submit(&mut world, SMALL, &[Nop::new().sqe(); 13]);
    let credits = Sqe { opcode: Opcode::CreditGrant as u8, arg32: u32::MAX, ..Sqe::default() };
    let numbers = submit(&mut world, SMALL, &[Nop::new().link().sqe(), credits]);
    world.reap(0, SMALL, 16);
    world.turn(0, SMALL).unwrap();
    assert_eq!(numbers.iter().filter_map(|&number| result(&world, number)).count(), 2);
    assert_eq!(result(&world, numbers[0]), errno(Errno::EINVAL));
}

/// The move that ends the only work begun on plane 0, and the one that has its engine hear of it.
const WORK: Move = Move::Work(0, 0);
const EVENT: Move = Move::Event(0, 0);

#[test]
fn a_buffer_made_for_a_ring_that_was_detached_is_freed() {
    let mut world = bare();
    world.planes[0].host.temper.at_once = 0;
    submit(&mut world, SMALL, &[Alloc::new(256).unwrap().sqe()]);
    // It is made before the CANCEL that detaching is.
    world.do_move(WORK).unwrap();
    world.detach(0, SMALL).unwrap();
    world.do_move(EVENT).unwrap();
    assert_eq!((world.planes[0].engine.usage().buffers, world.planes[0].host.buffers.len()), (0, 0));
    world.finish().unwrap();
}

#[test]
fn an_export_made_for_a_ring_that_was_detached_is_closed() {
    let (mut world, [ours, _]) = furnished();
    world.planes[0].host.temper.at_once = 0;
    submit(&mut world, SMALL, &[ExportDmabuf::new(ours.own).sqe()]);
    world.detach(0, SMALL).unwrap();
    world.do_move(WORK).unwrap();
    world.do_move(EVENT).unwrap();
    assert_eq!((world.planes[0].engine.usage().slots, world.planes[0].host.slots.len()), (0, 0));
    world.finish().unwrap();
}

#[test]
fn an_import_made_for_a_ring_that_was_detached_is_released() {
    let (mut world, [ours, theirs]) = furnished();
    let rights = dmaplane_ring::abi::Rights::READ;
    let grant = LeaseGrant::range(theirs.own, 0, 64, rights).unwrap();
    let lease = LeaseHandle::from_bits(world.ok(1, LARGE, grant).unwrap().word0).unwrap();
    world.ok(1, LARGE, LeaseExport::new(lease, theirs.leased, 3072)).unwrap();
    let token = world.tokens.last().cloned().unwrap();
    let length = token.len() as u64;
    world.prepare(0, vec![(ours.leased.handle().index(), 3072, token)]);
    let before = world.planes[0].engine.usage();
    submit(&mut world, SMALL, &[LeaseImport::new(ours.leased, 3072, length).unwrap().sqe()]);
    world.detach(0, SMALL).unwrap();
    world.settle().unwrap();
    assert_eq!(world.planes[0].engine.usage(), before);
    // A revoke with grace waits for nobody who does not know of it.
    assert_eq!(world.run(1, LARGE, LeaseRevoke::graceful(lease, FOREVER).sqe()).unwrap().res, 0);
    world.finish().unwrap();
}

/// The simulated host took the event of a peer's transfer for that of an operation whose name has the same bits.
#[test]
fn a_transfer_s_event_is_not_taken_for_an_operation_s() {
    #[rustfmt::skip]
    let script = [
        [0, 0, 0, 0, 0, 0, 0, 0], [224, 140, 0, 0, 0, 105, 44, 0], [128, 69, 0, 0, 97, 57, 73, 0],
        [206, 0, 0, 0, 0, 0, 0, 0], [78, 0, 0, 0, 0, 0, 0, 0], [46, 0, 0, 0, 0, 0, 0, 0], [78, 0, 0, 0, 0, 0, 0, 0],
        [96, 167, 0, 0, 0, 4, 20, 0], [81, 0, 0, 0, 0, 0, 0, 0], [14, 0, 0, 0, 0, 0, 0, 0],
        [64, 85, 0, 109, 0, 0, 0, 0], [160, 241, 0, 0, 0, 0, 0, 0], [32, 181, 0, 0, 0, 0, 0, 0],
        [254, 0, 0, 0, 0, 0, 0, 0], [192, 100, 0, 28, 0, 0, 0, 0], [0, 0, 176, 5, 0, 0, 0, 0],
        [113, 1, 0, 0, 0, 0, 0, 0], [32, 70, 200, 0, 0, 0, 0, 0], [14, 0, 0, 0, 0, 0, 0, 0],
        [32, 208, 0, 0, 0, 0, 0, 0], [64, 32, 96, 0, 0, 0, 61, 0], [64, 0, 0, 0, 0, 0, 0, 0],
        [0, 46, 0, 0, 0, 0, 0, 0], [64, 194, 0, 55, 0, 55, 90, 0], [128, 65, 0, 1, 0, 254, 2, 0],
        [17, 0, 0, 0, 0, 0, 0, 0], [17, 0, 0, 0, 0, 0, 0, 0], [110, 0, 0, 0, 0, 0, 0, 0], [17, 0, 0, 0, 0, 0, 0, 0],
        [64, 178, 0, 4, 0, 0, 0, 0], [17, 0, 0, 0, 0, 0, 0, 0], [206, 0, 0, 0, 0, 0, 0, 0],
        [177, 18, 0, 0, 0, 0, 0, 0], [78, 0, 0, 0, 0, 0, 0, 0], [0, 86, 0, 0, 0, 0, 11, 0],
        [78, 0, 0, 0, 0, 0, 0, 0], [160, 248, 0, 0, 0, 44, 44, 0], [32, 59, 0, 0, 0, 191, 104, 0],
        [128, 61, 200, 1, 0, 32, 138, 0], [160, 248, 0, 0, 0, 90, 50, 0], [145, 67, 0, 0, 0, 0, 0, 0],
        [96, 151, 0, 0, 0, 0, 0, 0], [110, 0, 0, 0, 0, 0, 0, 0], [128, 0, 96, 0, 0, 0, 0, 0],
        [0, 5, 0, 0, 0, 0, 5, 0], [122, 0, 0, 0, 0, 0, 0, 0], [96, 19, 0, 0, 0, 0, 0, 0], [94, 0, 0, 0, 0, 0, 0, 0],
        [0, 34, 0, 22, 0, 91, 12, 0], [81, 62, 0, 0, 0, 0, 0, 0], [128, 192, 0, 1, 122, 0, 0, 0],
        [81, 205, 0, 0, 0, 0, 0, 0], [64, 119, 0, 25, 0, 143, 66, 0], [46, 0, 0, 0, 0, 0, 0, 0],
        [46, 0, 0, 0, 0, 0, 0, 0], [206, 0, 0, 0, 0, 0, 0, 0], [192, 16, 200, 22, 0, 0, 0, 0],
        [0, 16, 0, 42, 0, 1, 0, 0], [32, 46, 0, 0, 0, 0, 0, 0], [14, 0, 0, 0, 0, 0, 0, 0],
        [128, 59, 0, 97, 0, 150, 72, 0], [81, 131, 0, 0, 0, 0, 0, 0], [209, 16, 0, 0, 0, 0, 0, 0],
        [190, 0, 0, 0, 0, 0, 0, 0], [96, 52, 0, 0, 0, 0, 0, 0], [110, 0, 0, 0, 0, 0, 0, 0],
    ];
    dmaplane_sim::script::run(4405113619483283253, dmaplane_sim::script::Start::Furnished, &script).unwrap();
}

/// The end of a run gave up on a timeout that was taken only when the DRAIN before it had ended.
#[test]
fn a_timeout_behind_a_drain_is_waited_for_at_the_end_of_a_run() {
    #[rustfmt::skip]
    let script = [
        [0u8, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0],
        [160, 56, 176, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0], [160, 240, 96, 12, 0, 0, 0, 0],
        [224, 181, 0, 43, 72, 0, 0, 0], [224, 0, 220, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0],
        [160, 160, 96, 0, 0, 0, 0, 0],
    ];
    dmaplane_sim::script::run(10718938088065661472, dmaplane_sim::script::Start::Furnished, &script).unwrap();
}

/// TD-7: receives of a ring that had gone held their buffers and the ring's share, took what others' receives were
/// there for, and let the sender believe that somebody had heard of it.
#[test]
fn receives_of_a_ring_that_was_detached_hold_nothing_and_tell_the_sender() {
    let (mut world, [ours, theirs]) = furnished();
    let buffer = world.ok(1, LARGE, Alloc::new(256).unwrap()).unwrap().word0;
    let buffer = BufferHandle::from_bits(buffer).unwrap();
    let before = world.planes[1].engine.usage().operations;
    let recv = |slot: u64| Recv::new(theirs.peer, buffer, slot * 64, 64).unwrap();
    world.submit(1, SMALL, recv(0).link().sqe());
    world.submit(1, SMALL, LinkTimeout::after_ns(FOREVER).sqe());
    world.submit(1, SMALL, recv(1).sqe());
    world.turn(1, SMALL).unwrap();
    world.settle().unwrap();
    assert_eq!(world.planes[1].engine.usage().operations, before + 3);
    world.detach(1, SMALL).unwrap();
    assert_eq!(world.planes[1].engine.usage().operations, before, "nothing of the ring is left");
    world.ok(1, LARGE, Free::new(buffer)).unwrap();
    // Four receives of the other ring come first, whoever's were posted first; then nobody listens.
    let send = Send::new(ours.peer, ours.own, 0, 8).unwrap().sqe();
    let results: Vec<i32> = (0..6).map(|_| world.run(0, LARGE, send).unwrap().res).collect();
    let silent = Errno::ECANCELED.as_result();
    assert_eq!(results, [8, 8, 8, 8, silent, silent]);
    world.finish().unwrap();
}

/// The same of what waits for a peer, over a connection that was made after the others had been ended.
#[test]
fn a_claim_behind_a_drain_is_waited_for_at_the_end_of_a_run() {
    #[rustfmt::skip]
    let script = [
        [224, 108, 220, 0, 0, 0, 0, 0], [160, 136, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0],
        [160, 181, 220, 0, 20, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0],
        [224, 136, 96, 0, 6, 0, 0, 0], [160, 77, 96, 0, 48, 0, 0, 0],
    ];
    dmaplane_sim::script::run(7795655826330256552, dmaplane_sim::script::Start::Furnished, &script).unwrap();
}

/// A chain whose end was never published took the CANCEL behind it in, and with it was refused: what a client left open
/// is the end of no run.
#[test]
fn the_cancel_at_the_end_of_a_run_is_taken_for_a_link_of_an_open_chain() {
    #[rustfmt::skip]
    let script = [
        [0, 15, 0, 0, 0, 0, 0, 0], [160, 157, 0, 0, 43, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0],
        [31, 52, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0], [224, 93, 0, 0, 0, 0, 0, 0],
        [190, 0, 0, 0, 0, 0, 0, 0], [160, 142, 0, 162, 0, 0, 0, 0], [160, 113, 0, 0, 0, 0, 0, 0],
        [160, 15, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0],
        [160, 205, 220, 0, 44, 0, 0, 0], [160, 8, 0, 0, 20, 0, 0, 0], [96, 63, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0], [160, 23, 232, 5, 21, 0, 0, 0],
    ];
    dmaplane_sim::script::run(466876528879048534, dmaplane_sim::script::Start::Furnished, &script).unwrap();
}
