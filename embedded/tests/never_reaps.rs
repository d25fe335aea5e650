//! The CQ cannot overflow, and cannot deadlock on that (clauses RES-1 to RES-8).

use dmaplane_embedded::{Config, Context, Ring, RunMode};
use dmaplane_ring::abi::{BufferHandle, Errno, LeaseHandle, Opcode, PeerHandle, Rights, Sqe, SqeFlags};
use dmaplane_ring::build::{Accept, Alloc, Connect, LeaseGrant, LeaseRevoke, Recv, WriteImm};
use std::collections::HashMap;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills in a struct of ours.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn call(ring: &mut Ring, sqe: impl Into<Sqe>) -> dmaplane_ring::abi::Cqe {
    ring.push(sqe).unwrap();
    ring.submit();
    ring.wait_one(5 * SECOND).expect("an answer within 5 s")
}

/// For so long the client does not reap; DMAPLANE_IDLE_SECONDS makes it longer.
fn idle_time() -> Duration {
    let seconds = std::env::var("DMAPLANE_IDLE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

#[test]
fn res_1_a_client_that_never_reaps_loses_nothing_and_burns_nothing() {
    let config = Config { mode: RunMode::Poller { idle: Duration::from_micros(100) }, ..Config::default() };
    let context = Context::open(config).unwrap();
    let mut ring = context.ring(64, 64).unwrap();
    let mut pushed = HashMap::new();
    let mut next = 0u64;
    let begin = Instant::now();
    let busy = cpu_time();
    // Every opcode, with fields that make it valid, invalid, stale or waiting; whatever the SQ takes.
    while begin.elapsed() < idle_time() {
        for &opcode in Opcode::ALL {
            for flags in [0, SqeFlags::CQE_SKIP_SUCCESS.bits(), SqeFlags::LINK.bits()] {
                let arg64 = if opcode == Opcode::Timeout { 1_000_000 } else { 0 };
                let length = if opcode == Opcode::Alloc { 4096 } else { 0 };
                let sqe =
                    Sqe { opcode: opcode as u8, flags, user_data: next, arg64, length, arg32: 0, ..Sqe::default() };
                if ring.push(sqe).is_ok() {
                    pushed.insert(next, (opcode, flags));
                    next += 1;
                }
            }
        }
        ring.submit();
        std::thread::sleep(Duration::from_millis(1));
    }
    let share = (cpu_time() - busy).as_secs_f64() / begin.elapsed().as_secs_f64();
    assert!(pushed.len() >= 64, "the queues were never full: {}", pushed.len());
    // Now it reaps: everything arrives, once. What was published last ends its chain.
    let deadline = Instant::now() + 20 * SECOND;
    let mut reaped = 0;
    let mut quiet = Instant::now();
    while Instant::now() < deadline && quiet.elapsed() < SECOND {
        while let Some(cqe) = ring.reap_one() {
            reaped += 1;
            quiet = Instant::now();
            if cqe.is_terminal() {
                assert!(pushed.remove(&cqe.user_data).is_some(), "a second terminal CQE: {cqe:?}");
            }
        }
        ring.wait(Duration::from_millis(50));
    }
    // What is left may only be silent successes, and a WATCH, which nothing has happened to end.
    let left: Vec<_> = pushed.values().filter(|(_, flags)| flags & SqeFlags::CQE_SKIP_SUCCESS.bits() == 0).collect();
    let watches = left.iter().filter(|(opcode, _)| *opcode == Opcode::Watch).count();
    assert!(watches <= 1 && left.len() == watches, "lost: {left:?}");
    println!("{reaped} CQEs after {:?} without reaping, {:.1} % of one core", idle_time(), share * 100.0);
    assert!(share < 0.5, "{:.0} % of a core while nothing could be done", share * 100.0);
}

fn handle(ring: &mut Ring, sqe: impl Into<Sqe>) -> u64 {
    let cqe = call(ring, sqe);
    assert!(cqe.res >= 0, "{cqe:?}");
    cqe.word0
}

/// A connected pair of contexts with a ring each, and each side's handle of the other.
struct Pair {
    contexts: [Context; 2],
    rings: [Ring; 2],
    peers: [PeerHandle; 2],
}

fn pair(directory: &std::path::Path) -> Pair {
    let contexts = [Context::open(Config::default()).unwrap(), Context::open(Config::default()).unwrap()];
    let address = format!("shm:{}", directory.join("peer").display());
    let (listener, _) = contexts[0].listen(&address).unwrap();
    let mut rings = [contexts[0].ring(64, 64).unwrap(), contexts[1].ring(64, 64).unwrap()];
    let buffer = BufferHandle::from_bits(handle(&mut rings[1], Alloc::new(4096).unwrap())).unwrap();
    assert!(contexts[1].map(buffer).unwrap().write(0, address.as_bytes()));
    let connect = Connect::new(buffer, 0, address.len() as u64).unwrap();
    let there = PeerHandle::from_bits(handle(&mut rings[1], connect)).unwrap();
    let here = PeerHandle::from_bits(handle(&mut rings[0], Accept::new(listener))).unwrap();
    Pair { contexts, rings, peers: [here, there] }
}

#[test]
fn res_3_a_revoke_completes_while_all_room_is_held_by_receives_and_credit_waits() {
    let directory = tempfile::tempdir().unwrap();
    let Pair { contexts, mut rings, peers } = pair(directory.path());
    let ring = &mut rings[1];
    let buffer = BufferHandle::from_bits(handle(ring, Alloc::new(1 << 16).unwrap())).unwrap();
    let grant = LeaseGrant::range(buffer, 0, 4096, Rights::WRITE).unwrap();
    let lease = LeaseHandle::from_bits(handle(ring, grant)).unwrap();

    // An import of the other side's, to write to without ever getting a credit.
    let theirs = BufferHandle::from_bits(handle(&mut rings[0], Alloc::new(4096).unwrap())).unwrap();
    let granted = handle(&mut rings[0], LeaseGrant::range(theirs, 0, 2048, Rights::WRITE).unwrap());
    let granted = LeaseHandle::from_bits(granted).unwrap();
    let export = dmaplane_ring::build::LeaseExport::new(granted, theirs, 2048);
    let length = call(&mut rings[0], export).res as usize;
    let mut token = vec![0; length];
    assert!(contexts[0].map(theirs).unwrap().read(2048, &mut token));
    assert!(contexts[1].map(buffer).unwrap().write(8192, &token));
    let ring = &mut rings[1];
    let import = dmaplane_ring::build::LeaseImport::new(buffer, 8192, length as u64).unwrap();
    let import = dmaplane_ring::abi::ImportHandle::from_bits(handle(ring, import)).unwrap();

    let mut refused = [0; 2];
    for round in 0..100 {
        let recv = Recv::new(peers[1], buffer, 4096, 1024).unwrap().user_data(1000 + round);
        let write = WriteImm::new(buffer, 0, import, 0, 16).unwrap().user_data(2000 + round);
        ring.push(recv).unwrap();
        ring.push(write).unwrap();
        ring.submit();
        std::thread::sleep(Duration::from_micros(300));
        while let Some(cqe) = ring.reap_one() {
            assert_eq!(cqe.result(), Err(Errno::ENOBUFS), "{cqe:?}");
            refused[(cqe.user_data >= 2000) as usize] += 1;
        }
    }
    assert!(refused[0] > 0 && refused[1] > 0, "the room was never used up: {refused:?}");
    let start = Instant::now();
    ring.push(LeaseRevoke::now(lease).user_data(1)).unwrap();
    ring.submit();
    let cqe = ring.wait_one(SECOND).expect("the revoke's CQE");
    let took = start.elapsed();
    assert_eq!((cqe.user_data, cqe.res), (1, 0));
    println!("revoked in {took:?} behind {refused:?} refusals");
    assert!(took < Duration::from_millis(10), "{took:?}");
}
