//! What CQEs say of placement under Docker's default profile (clauses BUF-2, BUF-6, CQE-3), and that a context runs
//! under it at all.

use dmaplane_embedded::{Config, Context, NoIoUring, Ring, RunMode, io_uring_support};
use dmaplane_ring::abi::{BufferHandle, Cqe, CqeFlags, Errno, Sqe};
use dmaplane_ring::build::{Alloc, Free, Nop, PagePlacement, Placement};
use dmaplane_sandbox::Sandbox;
use std::time::Duration;

fn call(ring: &mut Ring, sqe: Sqe) -> Cqe {
    ring.push(sqe).unwrap();
    ring.submit();
    assert!(ring.wait(Duration::from_secs(20)), "no CQE");
    ring.reap_one().unwrap()
}

fn is_unverifiable(cqe: &Cqe) -> bool {
    cqe.flags & CqeFlags::UNVERIFIABLE.bits() != 0
}

#[test]
fn buf_2_buf_6_a_cqe_says_when_nobody_can_look() {
    std::thread::spawn(|| {
        Sandbox::new().unwrap().filter_this_thread().unwrap();
        let refused = io_uring_support().unwrap_err();
        assert!(matches!(refused, NoIoUring::Forbidden | NoIoUring::Disabled { .. }), "{refused}");
        for mode in [RunMode::Poller { idle: Duration::from_millis(1) }, RunMode::Inline, RunMode::Enter] {
            let context = Context::open(Config { mode, ..Config::default() }).unwrap();
            let mut ring = context.ring(8, 16).unwrap();
            assert_eq!(call(&mut ring, Nop::new().sqe()).res, 0);

            let anywhere = Alloc::new(8192).unwrap();
            let cqe = call(&mut ring, anywhere.sqe());
            assert_eq!((cqe.res, cqe.word1, is_unverifiable(&cqe)), (0, 8192, false), "nobody asked for a node");

            let cqe = call(&mut ring, anywhere.placement(PagePlacement::Preferred(0)).sqe());
            assert_eq!((cqe.res, cqe.word1, is_unverifiable(&cqe)), (0, 8192, true));
            let buffer = BufferHandle::from_bits(cqe.word0).unwrap();

            let cqe = call(&mut ring, Placement::new(buffer, 0).sqe());
            assert_eq!((cqe.res, cqe.word0, cqe.word1, is_unverifiable(&cqe)), (0, 0, 0, true));

            let cqe = call(&mut ring, anywhere.placement(PagePlacement::Strict(0)).sqe());
            assert_eq!((cqe.res, is_unverifiable(&cqe)), (Errno::EOPNOTSUPP.as_result(), false));
            assert_eq!(call(&mut ring, Free::new(buffer).sqe()).res, 0);
        }
    })
    .join()
    .unwrap();
}
