//! Recycled memory (clause BUF-3): its owner's alone, and nobody's who can still look into it.

use dmaplane::{Config, Context, Plane, Rights};
use dmaplane_ring::abi::{BufferHandle, Cqe, Sqe};
use dmaplane_ring::build::{Alloc, ExportDmabuf, Free};
use std::time::Duration;

const BYTES: u64 = 1 << 20;

/// Whether the next recycled buffer holds what the last one left.
fn is_given_again(plane: &mut Plane) -> bool {
    let buffer = plane.alloc_recycled(BYTES).unwrap();
    let given = buffer.as_slice()[BYTES as usize - 1] == 7;
    assert!(given || buffer.as_slice().iter().all(|&byte| byte == 0), "neither zeros nor what was left");
    plane.free(buffer).unwrap();
    given
}

#[test]
fn buf_3_a_context_is_given_what_it_has_freed_and_no_other_context_is() {
    let (mut ours, mut theirs) = (Plane::open(Config::default()).unwrap(), Plane::open(Config::default()).unwrap());
    let mut buffer = ours.alloc_recycled(BYTES).unwrap();
    assert!(buffer.as_slice().iter().all(|&byte| byte == 0), "the first is fresh");
    buffer.as_mut_slice().fill(7);
    // A lease on it that has ended changes nothing.
    let leased = ours.grant(buffer, Rights::WRITE).unwrap();
    let buffer = ours.revoke(leased).unwrap();
    ours.free(buffer).unwrap();
    assert!(!is_given_again(&mut theirs));
    assert_eq!(ours.alloc(BYTES).unwrap().as_slice()[BYTES as usize - 1], 0, "it was not asked for");
    assert!(is_given_again(&mut ours));
}

#[test]
fn buf_3_nothing_is_kept_where_nothing_may_be() {
    let mut plane = Plane::open(Config { recycled_bytes: 0, ..Config::default() }).unwrap();
    let mut buffer = plane.alloc_recycled(BYTES).unwrap();
    buffer.as_mut_slice().fill(7);
    plane.free(buffer).unwrap();
    assert!(!is_given_again(&mut plane));
}

/// A mapping that outlived its buffer, and a descriptor that was exported, would show the next user's bytes.
#[test]
fn buf_3_memory_that_is_still_mapped_or_exported_is_given_to_the_next_user() {
    let context = Context::open(Config::default()).unwrap();
    let mut ring = context.ring(16, 16).unwrap();
    let mut call = |sqe: Sqe| {
        ring.push(sqe).unwrap();
        ring.submit();
        let cqe = ring.wait_one(Duration::from_secs(10)).expect("a completion");
        assert!(cqe.res >= 0, "{cqe:?}");
        cqe
    };
    let alloc = |call: &mut dyn FnMut(Sqe) -> Cqe| {
        BufferHandle::from_bits(call(Alloc::new(BYTES).unwrap().recycled().sqe()).word0).unwrap()
    };
    let first = alloc(&mut call);
    let mapping = context.map(first).unwrap();
    assert!(mapping.write(0, &[7]));
    call(Free::new(first).sqe());
    let second = alloc(&mut call);
    let mut byte = [1];
    assert!(context.map(second).unwrap().read(0, &mut byte));
    assert_eq!(byte, [0], "two have the same memory");
    drop(mapping);

    assert!(context.map(second).unwrap().write(0, &[7]));
    call(ExportDmabuf::new(second).sqe());
    call(Free::new(second).sqe());
    let third = alloc(&mut call);
    assert!(context.map(third).unwrap().read(0, &mut byte));
    assert_eq!(byte, [0], "whoever has the descriptor sees the next user's bytes");

    assert!(context.map(third).unwrap().write(0, &[7]));
    call(Free::new(third).sqe());
    let fourth = alloc(&mut call);
    assert!(context.map(fourth).unwrap().read(0, &mut byte));
    assert_eq!(byte, [7], "nothing was in the way this time");
}
