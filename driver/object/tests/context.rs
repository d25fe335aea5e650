//! A context from C's side, with a glue of the tests' own.

mod glue;

use dmaplane_engine_object::calls::{dmaplane_add_buffer, dmaplane_add_slot, dmaplane_hold_buffer, dmaplane_take_slot};
use dmaplane_engine_object::exports::{
    dmaplane_awake, dmaplane_close, dmaplane_context_bytes, dmaplane_detach_ring, dmaplane_engine_abi_version,
    dmaplane_is_closed, dmaplane_next_deadline_ns, dmaplane_prepare_sleep, dmaplane_usage, dmaplane_wait_begin,
    dmaplane_wait_end,
};
use dmaplane_engine_object::glue::BUG_NO_MESSAGE;
use dmaplane_engine_object::lists::{
    dmaplane_list_get, dmaplane_list_locate, dmaplane_list_put, dmaplane_list_record_bytes, dmaplane_list_seal,
};
use dmaplane_engine_object::observe::{
    dmaplane_column_name, dmaplane_kind_name, dmaplane_next_record, dmaplane_opcode_name,
};
use dmaplane_engine_object::posts::{dmaplane_look_soon, dmaplane_post_finished};
use dmaplane_engine_object::types::{GlueIncoming, GluePlace, GlueUsage, INCOMING_GONE, INCOMING_MESSAGE, Setup};
use dmaplane_ring::abi::{Cqe, Errno, Handle, HandleKind, Opcode, Run, Sqe, SqeFlags};
use dmaplane_ring::queue::{Client, MappedRing};
use glue::{Plane, SETUP};
use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;
use std::ptr::null_mut;

type Ring = Client<&'static MappedRing<()>>;

fn sqe(opcode: Opcode, user_data: u64) -> Sqe {
    Sqe { opcode: opcode as u8, user_data, ..Sqe::default() }
}

/// Publishes one SQE: whether the engine wants its doorbell rung.
fn submit(ring: &mut Ring, sqe: &Sqe) -> bool {
    ring.submitter.push(sqe).unwrap();
    ring.submitter.publish()
}

fn all(ring: &mut Ring) -> Vec<Cqe> {
    let mut cqes = Vec::new();
    ring.completer.reap(u32::MAX, |cqe| cqes.push(cqe));
    cqes
}

fn close(plane: &Plane) {
    // SAFETY: the context lives.
    unsafe { dmaplane_close(plane.context) };
    while plane.run() == 2 {}
}

fn usage(plane: &Plane) -> GlueUsage {
    let mut usage = GlueUsage::default();
    // SAFETY: the context lives, and the reference is valid.
    assert_eq!(unsafe { dmaplane_usage(plane.context, &mut usage) }, 0);
    usage
}

#[test]
fn the_block_is_exactly_as_long_as_the_context_needs() {
    assert_eq!(dmaplane_engine_abi_version(), 0);
    assert!(Plane::without_context(&SETUP, 0).init(&SETUP).is_some());
    assert!(Plane::without_context(&SETUP, 1).init(&SETUP).is_none());
}

#[test]
fn lim_1_limits_of_zero_and_beyond_all_bounds_are_refused() {
    let wrong = [
        Setup { rings: 0, ..SETUP },
        Setup { buffers: u32::MAX, ..SETUP },
        Setup { peers: 1 << 20, inbound_per_peer: 1 << 20, ..SETUP },
        Setup { buffer_bytes: 0, ..SETUP },
    ];
    for setup in wrong {
        // SAFETY: a valid reference.
        assert_eq!(unsafe { dmaplane_context_bytes(&setup) }, 0, "{setup:?}");
    }
}

#[test]
fn sqes_become_cqes_by_a_run() {
    let plane = Plane::new();
    let (_, mut ring) = plane.ring(64, 64).unwrap();
    for round in 0..100 {
        for n in 0..48 {
            ring.submitter.push(&sqe(Opcode::Nop, round * 48 + n)).unwrap();
        }
        assert!(ring.submitter.publish(), "without a poller the doorbell is always wanted");
        assert_eq!(plane.run(), 1);
        let cqes = all(&mut ring);
        assert_eq!(cqes.len(), 48);
        assert!(cqes.iter().zip(round * 48..).all(|(cqe, n)| *cqe == Cqe::new(n, 0)));
    }
    assert!(plane.noted().bugs.is_empty());
}

#[test]
fn wake_3_a_full_cq_is_waited_for_and_goes_on_when_the_client_has_reaped() {
    let plane = Plane::new();
    let (_, mut ring) = plane.ring(16, 16).unwrap();
    let mut sent = 0;
    let mut reaped = 0;
    while sent < 40 {
        while ring.submitter.push(&sqe(Opcode::Nop, sent)).is_ok() {
            sent += 1;
        }
        let _ = ring.submitter.publish();
        assert_eq!(plane.run(), 1, "a full CQ is no reason to poll");
        if ring.submitter.free() < 16 {
            assert!(ring.completer.engine_awaits_room());
        }
        reaped += all(&mut ring).len() as u64;
    }
    while plane.run() == 1 && reaped < sent {
        reaped += all(&mut ring).len() as u64;
    }
    assert_eq!(reaped, sent);
    assert!(plane.noted().bugs.is_empty());
}

#[test]
fn wake_1_a_poller_takes_the_flags_down_and_raises_them_before_it_sleeps() {
    let plane = Plane::new();
    let (_, mut ring) = plane.ring(8, 16).unwrap();
    let (awake, sleep) = (
        // SAFETY: the context lives.
        || unsafe { dmaplane_awake(plane.context) },
        // SAFETY: as above.
        || unsafe { dmaplane_prepare_sleep(plane.context) },
    );
    assert_eq!(awake(), 1);
    assert!(!submit(&mut ring, &sqe(Opcode::Nop, 1)), "somebody polls");
    assert_eq!(sleep(), 0, "there is work");
    assert_eq!(all(&mut ring).len(), 1, "and it has been done on the way");
    assert_eq!(sleep(), 1);
    assert!(submit(&mut ring, &sqe(Opcode::Nop, 2)), "nobody polls");
    assert_eq!(plane.run(), 1);
    assert_eq!(all(&mut ring).len(), 1);
}

/// DEV-4: who waits in ENTER is woken whether its flag is up or not, and sees what it waits for without the baton.
#[test]
fn dev_4_a_client_that_waits_in_a_call_is_woken_without_its_flag() {
    let plane = Plane::new();
    let (index, mut ring) = plane.ring(8, 16).unwrap();
    submit(&mut ring, &sqe(Opcode::Nop, 1));
    assert_eq!(plane.run_turns(), 3, "something was done");
    assert_eq!(plane.run_turns(), 1, "nothing was");
    assert!(plane.noted().woken.is_empty(), "nobody waits");
    // SAFETY: the context lives.
    let (begin, end) =
        unsafe { (dmaplane_wait_begin(plane.context, index), dmaplane_wait_begin(plane.context, index + 1000)) };
    assert_eq!((begin, end), (0, Errno::ENOENT.as_result()));
    submit(&mut ring, &sqe(Opcode::Nop, 2));
    plane.run();
    assert_eq!(plane.noted().woken, [index]);
    // SAFETY: the context lives.
    unsafe { dmaplane_wait_end(plane.context, index) };
    submit(&mut ring, &sqe(Opcode::Nop, 3));
    plane.run();
    assert_eq!(plane.noted().woken, [index], "it waits no more");
    assert_eq!(all(&mut ring).len(), 3);
}

#[test]
fn wake_2_a_client_that_sleeps_is_woken() {
    let plane = Plane::new();
    let (index, mut ring) = plane.ring(8, 16).unwrap();
    submit(&mut ring, &sqe(Opcode::Nop, 1));
    plane.run();
    assert!(plane.noted().woken.is_empty());
    assert_eq!(all(&mut ring).len(), 1);
    submit(&mut ring, &sqe(Opcode::Nop, 2));
    assert!(ring.completer.prepare_sleep().is_some());
    plane.run();
    assert_eq!(plane.noted().woken, [index]);
}

/// RUN-2: where somebody polls, a client sees what came of a window while the next one is taken; one that sleeps is
/// woken once, when the turn ends. A client that runs the engine itself has nothing of that.
#[test]
fn run_2_a_poller_publishes_in_mid_turn_and_wakes_once() {
    for polls in [true, false] {
        let plane = Plane::new();
        let (index, mut ring) = plane.ring(128, 256).unwrap();
        // SAFETY: the context lives.
        assert!(!polls || unsafe { dmaplane_awake(plane.context) } == 1);
        (0..100).for_each(|n| ring.submitter.push(&sqe(Opcode::Nop, n)).unwrap());
        ring.submitter.publish_without_doorbell();
        assert!(ring.completer.prepare_sleep().is_some());
        plane.noted().watched = Some(ring.completer.memory());
        plane.run();
        let noted = plane.noted();
        for early in [32, 64] {
            assert_eq!(noted.tails.contains(&early), polls, "{:?}", noted.tails);
        }
        assert_eq!((&noted.woken[..], noted.counts), (&[index][..], [100, 100, 0]));
        drop(noted);
        assert_eq!(all(&mut ring).len(), 100);
    }
}

/// DEV-15: what had failed on one ring was forgotten where a window of another ring's was looked at first.
#[test]
fn a_failure_was_not_counted_where_another_ring_was_busy() {
    let plane = Plane::new();
    let (_, mut busy) = plane.ring(64, 128).unwrap();
    let (_, mut ring) = plane.ring(8, 16).unwrap();
    // SAFETY: the context lives.
    assert_eq!(unsafe { dmaplane_awake(plane.context) }, 1);
    submit(&mut ring, &Sqe { length: 4096, ..sqe(Opcode::Alloc, 1) });
    plane.run();
    let (op, _) = plane.noted().allocs.pop().unwrap();
    (0..40).for_each(|n| busy.submitter.push(&sqe(Opcode::Nop, n)).unwrap());
    busy.submitter.publish_without_doorbell();
    // SAFETY: the context lives, and the operation is in flight.
    unsafe { dmaplane_post_finished(plane.context, op, Errno::ENOMEM.as_result(), 0, 0) };
    plane.run();
    assert_eq!(all(&mut ring), [Cqe::new(1, Errno::ENOMEM.as_result())]);
    assert_eq!((all(&mut busy).len(), plane.noted().counts), (40, [41, 41, 1]));
}

#[test]
fn run_5_the_timer_follows_the_next_deadline() {
    let plane = Plane::new();
    let (_, mut ring) = plane.ring(8, 16).unwrap();
    // SAFETY: the context lives.
    let next = || unsafe { dmaplane_next_deadline_ns(plane.context) };
    plane.noted().now_ns = 1000;
    submit(&mut ring, &Sqe { arg64: 500, ..sqe(Opcode::Timeout, 1) });
    assert_eq!(plane.run(), 1);
    assert_eq!((plane.noted().armed_ns, next()), (Some(1500), 1500));
    assert!(all(&mut ring).is_empty());
    plane.noted().now_ns = 1500;
    assert_eq!(plane.run(), 1);
    assert_eq!(all(&mut ring), [Cqe::new(1, Errno::ETIME.as_result())]);
    assert_eq!((plane.noted().armed_ns, next()), (Some(u64::MAX), u64::MAX));
}

#[test]
fn host_2_started_work_ends_by_an_event() {
    let plane = Plane::new();
    let (_, mut ring) = plane.ring(8, 16).unwrap();
    submit(&mut ring, &Sqe { length: 5000, ..sqe(Opcode::Alloc, 1) });
    plane.run();
    assert!(all(&mut ring).is_empty());
    let (op, index) = plane.noted().allocs.pop().unwrap();
    assert!(!plane.noted().due);
    // SAFETY: the context lives.
    unsafe { dmaplane_post_finished(plane.context, op, 0, 8192, 0) };
    assert!(plane.noted().due, "nobody ran, so somebody has to");
    plane.run();
    let cqe = all(&mut ring)[0];
    assert_eq!((cqe.res, cqe.word1, Handle::from_bits(cqe.word0).index()), (0, 8192, index));
    // What the kernel says among its own is not for clients.
    submit(&mut ring, &Sqe { local: cqe.word0, ..sqe(Opcode::Placement, 2) });
    plane.run();
    assert_eq!(all(&mut ring)[0].res, Errno::EIO.as_result());
}

#[test]
fn wire_2_what_is_no_message_is_noticed_and_what_peers_say_wakes() {
    let plane = Plane::new();
    plane.run();
    assert!(!plane.noted().due);
    let said = GlueIncoming { peer: 1, kind: INCOMING_MESSAGE, ..GlueIncoming::default() };
    let gone = GlueIncoming { kind: INCOMING_GONE, errno: Errno::ECONNRESET.as_result(), ..said };
    plane.noted().incoming.extend([said, gone]);
    // SAFETY: the context lives.
    unsafe { dmaplane_look_soon(plane.context) };
    assert!(plane.noted().due, "nobody ran, so somebody has to");
    assert_eq!(plane.run_turns(), 3, "something was done");
    assert!(plane.noted().incoming.is_empty());
    assert_eq!(plane.noted().bugs, [BUG_NO_MESSAGE], "no message; of a peer that is not there, nothing");
}

#[test]
fn objects_enter_and_leave_by_calls() {
    let plane = Plane::new();
    let thing = 0x1000 as *mut c_void;
    let (mut buffer, mut slot, mut held) = (0, 0, null_mut());
    // SAFETY: the context lives, and the references are valid.
    unsafe {
        assert_eq!(dmaplane_add_buffer(plane.context, 4096, thing, &mut buffer), 0);
        assert_eq!(dmaplane_hold_buffer(plane.context, buffer, &mut held), 0);
        assert_eq!(held, thing);
        assert_eq!(dmaplane_hold_buffer(plane.context, buffer + (1 << 32), &mut held), Errno::ESTALE.as_result());
        plane.noted().objects.clear();
        assert_eq!(dmaplane_add_slot(plane.context, thing, &mut slot), 0);
        held = null_mut();
        assert_eq!(dmaplane_take_slot(plane.context, slot, &mut held), 0);
        assert_eq!(held, thing);
        assert_eq!(dmaplane_take_slot(plane.context, slot, &mut held), Errno::ESTALE.as_result());
    }
    assert_eq!(usage(&plane).buffers, 1);
}

#[test]
fn td_7_a_detached_ring_is_free_for_the_next() {
    let plane = Plane::new();
    let detach = |ring| {
        // SAFETY: the context lives.
        unsafe { dmaplane_detach_ring(plane.context, ring) }
    };
    for _ in 0..20 {
        let rings: Vec<_> = (0..4).map(|_| plane.ring(8, 16).unwrap()).collect();
        assert_eq!(plane.ring(8, 16).err(), Some(Errno::ENFILE.as_result()));
        for (index, mut ring) in rings {
            submit(&mut ring, &Sqe { arg64: 1 << 40, ..sqe(Opcode::Timeout, 1) });
            plane.run();
            assert_eq!(detach(index), 0);
            assert!(ring.submitter.closed());
            assert_eq!(detach(index), Errno::ENOENT.as_result());
        }
    }
    assert_eq!(usage(&plane).operations, 0);
}

#[test]
fn td_1_a_context_ends_by_runs_and_leaves_nothing() {
    let plane = Plane::new();
    let (index, mut ring) = plane.ring(8, 16).unwrap();
    submit(&mut ring, &Sqe { arg64: 1 << 40, ..sqe(Opcode::Timeout, 1) });
    submit(&mut ring, &Sqe { length: 4096, ..sqe(Opcode::Alloc, 2) });
    plane.run();
    let (op, _) = plane.noted().allocs[0];
    assert_eq!(plane.destroy(), Errno::EBUSY.as_result());
    close(&plane);
    // SAFETY: the context lives.
    assert_eq!((unsafe { dmaplane_is_closed(plane.context) }, plane.noted().closed), (0, 0), "the ALLOC has not ended");
    // SAFETY: as above.
    unsafe { dmaplane_post_finished(plane.context, op, 0, 4096, 0) };
    plane.run();
    // SAFETY: as above.
    assert_eq!((unsafe { dmaplane_is_closed(plane.context) }, plane.noted().closed), (1, 1));
    assert_eq!(plane.ring(8, 16).err(), Some(Errno::ECANCELED.as_result()));
    let mut ended: Vec<_> = all(&mut ring).iter().map(|cqe| cqe.user_data).collect();
    ended.sort_unstable();
    assert_eq!(ended, [1, 2], "every operation has its CQE");
    assert!(ring.submitter.closed() && plane.noted().woken.contains(&index));
    assert!(plane.noted().buffers.is_empty());
    assert_eq!(plane.destroy(), 0);
}

#[test]
fn bat_3_no_event_is_left_lying_whoever_runs() {
    const OPERATIONS: u64 = if cfg!(miri) { 50 } else { 20_000 };
    let plane = Plane::new();
    let (_, mut ring) = plane.ring(16, 16).unwrap();
    std::thread::scope(|scope| {
        // Two workers that run when they are asked to.
        scope.spawn(|| plane.work());
        scope.spawn(|| plane.work());
        // Two that end ALLOCs, as interrupts or other workers would.
        for _ in 0..2 {
            scope.spawn(|| {
                while plane.noted().closed == 0 {
                    let Some((op, _)) = plane.noted().allocs.pop() else {
                        std::thread::yield_now();
                        continue;
                    };
                    // SAFETY: the context lives until the scope has ended.
                    unsafe { dmaplane_post_finished(plane.context, op, -12, 0, 0) };
                }
            });
        }
        let (mut sent, mut reaped) = (0, 0);
        while reaped < OPERATIONS {
            while sent < OPERATIONS && ring.submitter.push(&Sqe { length: 1, ..sqe(Opcode::Alloc, sent) }).is_ok() {
                sent += 1;
            }
            if ring.submitter.publish() {
                plane.run();
            }
            // Nothing but the flags makes us run here: an event that is left lying hangs this test.
            reaped += all(&mut ring).len() as u64;
            if ring.completer.engine_awaits_room() {
                plane.run();
            }
            std::thread::yield_now();
        }
        close(&plane);
    });
    assert!(plane.noted().bugs.is_empty());
    assert_eq!(plane.destroy(), 0);
}

#[test]
fn lst_3_records_are_numbered_in_slices_and_found() {
    let run = |offset_bytes, count| Run {
        buffer: Handle::new(HandleKind::Buffer, 4, 1).bits(),
        offset_bytes,
        stride_bytes: 100,
        length_bytes: 10,
        count,
        reserved: 0,
    };
    let runs = [run(0, 3), run(1000, 1), run(2000, 2)];
    let words = dmaplane_list_record_bytes() as usize / 8;
    let mut records = vec![0u64; words * runs.len()];
    let record = |records: &mut Vec<u64>, index: usize| records[words * index..].as_mut_ptr().cast();
    let mut place = GluePlace::default();
    // SAFETY: the records have room for all runs.
    unsafe {
        for (index, run) in runs.iter().enumerate() {
            dmaplane_list_put(record(&mut records, index), run);
            let mut back = Run::default();
            dmaplane_list_get(record(&mut records, index), &mut back);
            assert_eq!(back, *run);
        }
        let next = dmaplane_list_seal(record(&mut records, 0), 2, 0);
        assert_eq!(dmaplane_list_seal(record(&mut records, 2), 1, next), 6);
        for (segment, offset) in [0, 100, 200, 1000, 2000, 2100].into_iter().enumerate() {
            let found = dmaplane_list_locate(record(&mut records, 0), 3, segment as u32, &mut place);
            assert_eq!((found, place.offset, place.buffer, place.length_bytes), (0, offset, 4, 10));
        }
        let beyond = dmaplane_list_locate(record(&mut records, 0), 3, 6, &mut place);
        assert_eq!(beyond, Errno::ERANGE.as_result());
    }
}

/// OBS-1: each operation that does not end as it is taken is seen to be placed, to move and to end, once; and counted.
#[test]
fn obs_1_operations_are_seen_from_their_place_to_their_end() {
    let plane = Plane::new();
    let (_, mut ring) = plane.ring(64, 64).unwrap();
    let alloc = |user_data| Sqe { length: 4096, ..sqe(Opcode::Alloc, user_data) };
    submit(&mut ring, &alloc(1));
    plane.run();
    assert!(plane.noted().sightings.is_empty() && plane.noted().completions.is_empty(), "nobody traces");
    assert_eq!(plane.noted().timed.len(), 1);
    let (op, _) = plane.noted().allocs[0];
    // SAFETY: the context lives.
    unsafe { dmaplane_post_finished(plane.context, op, 0, 4096, 0) };
    plane.run();
    assert!(plane.noted().timed.is_empty());
    plane.noted().traced = true;
    submit(&mut ring, &Sqe { flags: SqeFlags::LINK.bits(), ..alloc(2) });
    submit(&mut ring, &sqe(Opcode::Nop, 3));
    submit(&mut ring, &sqe(Opcode::Free, 4));
    plane.run();
    let (op, _) = plane.noted().allocs[1];
    // SAFETY: as above.
    unsafe { dmaplane_post_finished(plane.context, op, -12, 0, 0) };
    plane.run();
    let noted = plane.noted();
    let seen = |opcode: Opcode| -> Vec<(&str, i32)> {
        let of = noted.sightings.iter().filter(|sighting| sighting.1 == opcode as u32);
        of.map(|(_, _, state, result)| (state.as_str(), *result)).collect()
    };
    assert_eq!(seen(Opcode::Alloc), [("linked", 0), ("ready", 0), ("started", 0), ("ended", -12)]);
    assert_eq!(seen(Opcode::Nop), [("linked", 0), ("ready", 0), ("ended", Errno::ECANCELED.as_result())]);
    assert_eq!(seen(Opcode::Free), [], "it ends as it is taken");
    assert_eq!(noted.completions, [(4, Errno::EBADF.as_result()), (2, -12), (3, Errno::ECANCELED.as_result())]);
    assert_eq!(noted.counts, [4, 4, 3]);
    assert!(noted.timed.is_empty(), "each that has begun has ended");
}

/// OBS-2: what a context has is told object by object, with words for what they are.
#[test]
fn obs_2_each_object_is_told_of_once() {
    let plane = Plane::new();
    let (_, mut ring) = plane.ring(64, 64).unwrap();
    for n in 0..3 {
        submit(&mut ring, &Sqe { length: 4096, ..sqe(Opcode::Alloc, n) });
    }
    plane.run();
    let allocs = plane.noted().allocs.clone();
    for (op, _) in &allocs[..2] {
        // SAFETY: the context lives.
        unsafe { dmaplane_post_finished(plane.context, *op, 0, 8192, 0) };
    }
    submit(&mut ring, &Sqe { arg64: u64::MAX, ..sqe(Opcode::Timeout, 77) });
    plane.run();
    // SAFETY: null, or one of the object's own words.
    let word = |start| (!std::ptr::eq(start, null_mut())).then(|| unsafe { CStr::from_ptr(start) }.to_str().unwrap());
    let mut found = Vec::new();
    for kind in 0.. {
        let Some(name) = word(dmaplane_kind_name(kind)) else { break };
        let mut from = 0;
        loop {
            let mut record = MaybeUninit::uninit();
            // SAFETY: the context lives, and there is room for a record.
            let more = unsafe { dmaplane_next_record(plane.context, kind, from, record.as_mut_ptr()) };
            if more != 1 {
                assert_eq!(more, 0);
                break;
            }
            // SAFETY: it was filled in.
            let record = unsafe { record.assume_init() };
            let first = word(dmaplane_column_name(kind, 0)).unwrap();
            found.push(format!("{name} {}: {} {first}={}", record.index, word(record.state).unwrap(), record.words[0]));
            from = record.index + 1;
        }
    }
    let expected = [
        "rings 0: attached cq-entries=64",
        "operations 2: started user-data=2",
        "operations 1: timer user-data=77",
        "buffers 0: live bytes=8192",
        "buffers 1: live bytes=8192",
        "buffers 2: allocating bytes=0",
    ];
    found.sort_unstable();
    let mut expected = expected.map(str::to_owned);
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert!(dmaplane_column_name(0, 3).is_null() && dmaplane_column_name(99, 0).is_null());
    assert_eq!(word(dmaplane_opcode_name(Opcode::WriteImm as u32)), Some("WriteImm"));
    assert!(dmaplane_opcode_name(255).is_null() && dmaplane_opcode_name(256).is_null());
}
